//! Behaviour tests through the front door: the built binary and `ops`, against the embedded server over real HTTP, read back
//! by readers that are not ours. One binary, one module per theme.

mod cli;
mod crash;
mod faults;
mod formats;
mod layering;
mod support;
mod sync;
