//! The embedded DAP server: a made-up school served over real HTTP, for a first try, tests, benches and examples.
//! It shares no wire types with `api`, so that client and server cannot be wrong together.

pub mod record;
pub mod school;
pub mod serve;
