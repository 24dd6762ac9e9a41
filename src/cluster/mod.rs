//! The work of `sync` on an Apache DataFusion Ballista cluster: the same scan, reduction, writing and probing as in one process, as
//! nodes of a plan that executors run. Jobs, bookmarks and commits stay with the driver, which alone knows the service's credentials.
//!
//! What travels to the scheduler and the executors is a plan of [`plan::StepExec`] nodes: descriptions of work, in JSON, with the
//! version of this program. Executors have their own way to the target, and get addresses of the service's objects from the driver
//! ([`broker`]), which speaks the two calls of the service that they need. `docs/guides/cluster.md` says how it is run and what it trusts.

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
