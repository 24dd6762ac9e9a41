//! Targets: what an address names, and the sink behind it.

mod address;
#[cfg(feature = "lake")]
mod open;

pub use address::Address;
#[cfg(feature = "sql")]
pub use open::open_sink_with;
#[cfg(feature = "lake")]
pub use open::{Target, open_lake, open_lake_with, open_sink};
