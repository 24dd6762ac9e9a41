//! The embedded DAP server: a generated school served over real HTTP, for demos, tests, benchmarks and examples. It shares no wire types with
//! `api`, so that a misunderstanding of the protocol cannot hide in both.

pub mod record;
pub mod school;
pub mod serve;
