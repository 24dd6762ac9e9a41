//! Takes an institution's data out of the Instructure Data Access Platform (DAP) and keeps it up to date where people use it.
#![doc = ""]

mod channel;
#[cfg(feature = "lake")]
mod child;
pub mod error;
pub mod model;
mod panics;
pub mod progress;
pub mod redact;
mod tls_roots;
mod worker_thread;

pub mod schema;

pub mod api;
pub mod decode;
#[cfg(feature = "lake")]
pub mod engine;
pub mod fetch;
#[cfg(feature = "lake")]
pub mod reduce;
#[cfg(feature = "lake")]
pub mod scan;
pub mod sink;
#[cfg(feature = "lake")]
pub mod store;

pub mod ops;
pub mod page;

pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "demo")]
pub mod demo;

pub use error::{Error, Kind, Result};
