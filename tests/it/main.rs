//! Integration tests: the built program and the public functions of the library against the embedded server over real HTTP. Results
//! are read back by independent readers. All tests are one program, so that large dependencies are linked once.

#![allow(unreachable_pub, reason = "the modules of a test program have no users outside")]
#![allow(clippy::print_stderr, reason = "tests print what they skip, and the seeds of random tests")]

mod cli;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "sql")]
mod databases;
mod docs;
mod downloads;
mod lake;
mod layering;
mod support;
