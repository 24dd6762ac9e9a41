//! Behaviour tests through the front door: the built binary and `ops`, against the embedded server over real HTTP, read back
//! by readers that are not ours. One binary, one module per theme.

#![allow(unreachable_pub, reason = "the modules of a test binary reach nobody")]
#![allow(clippy::print_stderr, reason = "a test says what it did not run, and its seed")]

mod cli;
mod crash;
mod faults;
mod formats;
mod layering;
mod schemas;
mod support;
mod sync;
