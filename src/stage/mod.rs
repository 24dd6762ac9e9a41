//! DataFusion at work: the session with its memory limit and spill, and the latest change per key. It does not know the target.

mod changes;
mod latest;
mod session;

pub use changes::ChangeSet;
pub use latest::latest_per_key;
pub use session::{Engine, EngineOptions};
