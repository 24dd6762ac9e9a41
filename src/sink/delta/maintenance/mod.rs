//! Work on tables outside of loads: optimize, vacuum, verify, commit history, time travel, views.

pub(in crate::sink::delta) mod commit_history;
pub(in crate::sink::delta) mod optimize;
pub(in crate::sink::delta) mod time_travel;
pub(in crate::sink::delta) mod vacuum;
pub(in crate::sink::delta) mod verify;
pub(in crate::sink::delta) mod views;
