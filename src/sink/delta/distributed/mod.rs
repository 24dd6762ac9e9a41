//! The tasks of a load for executors in other processes, and the coordinator in the driver that combines their reports into one commit.
//! The list of the tasks is that of local loads ([`upsert`](crate::sink::delta::modes::upsert)), and so is their work; only the ways from
//! task to task differ.
//!
//! A snapshot is written as it arrives. The locations of its rows, not the rows, are shuffled by key; they show which rows a newer
//! change of the same key replaces (as in [`post_write_dedup`](crate::sink::delta::merge::post_write_dedup)). An increment is
//! shuffled by key and deduplicated first. Its rows go to new files, and its keys to key files, which other tasks read in order to
//! probe existing files. Nothing is visible before the commit, which the driver makes.
//!
//! Task specifications hold no secrets: an executor has its own credentials for the store.

pub(crate) mod coordinator;
mod location_batch;
mod task_report;
mod task_spec;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;

#[cfg(any(test, feature = "cluster"))]
pub(crate) use self::tasks::run_task;
