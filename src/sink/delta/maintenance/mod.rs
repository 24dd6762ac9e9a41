//! Operations on tables outside of loads: optimize, vacuum, verify, commit history, time travel, views, entries of catalogs.

pub(crate) mod catalog_entry;
pub(crate) mod commit_history;
pub(crate) mod optimize;
pub(crate) mod time_travel;
pub(crate) mod vacuum;
pub(crate) mod verify;
pub(crate) mod views;
