//! `sync` on an Apache DataFusion Ballista cluster: executors scan, deduplicate, write and probe with the same code as a single process, as
//! nodes of a plan. Jobs, bookmarks and commits stay with the driver, which alone has credentials for the service.
//!
//! Plans consist of [`plan::TaskExec`] nodes: descriptions of tasks in JSON, with the version of this program. Executors access the target
//! with their own credentials, and get URLs of objects from the driver ([`broker`]). See `docs/guides/cluster.md` for its operation and trust
//! model.

mod broker;
mod codec;
mod driver;
mod failure;
mod node;
mod plan;
mod scan;
#[cfg(test)]
mod tests;

pub use driver::{Cluster, ClusterOptions};
pub use node::{ExecutorOptions, SchedulerOptions, execute, schedule};
