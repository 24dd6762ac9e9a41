//! Maintenance of lake tables: `optimize`, `vacuum`, `verify`.

mod cleanup;
mod verify;

pub use cleanup::{Cared, Removal, optimize, vacuum};
pub use verify::{VerifyRequest, verify};
