//! Maintenance of lake tables: `optimize`, `vacuum`, `verify`.

mod cleanup;
mod verify;

pub use cleanup::{Removal, TableResult, optimize, vacuum};
pub use verify::{VerifyRequest, verify};
