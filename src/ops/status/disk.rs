//! Disk space of a target.

use super::types::{DiskUse, Growth, StatusLine};
use crate::ops::disk_space::{free_bytes, local_folder};
use crate::sink::Sink;

impl DiskUse {
    /// The sum over the tables of a target.
    pub(super) fn of(lines: &[StatusLine], sink: &dyn Sink) -> Self {
        Self {
            bytes: StatusLine::total(lines, |line| line.bytes),
            stored_bytes: StatusLine::total(lines, |line| line.stored_bytes),
            free_bytes: local_folder(sink).and_then(|folder| free_bytes(&folder)),
            growth: Growth::sum(lines.iter().filter_map(|line| line.growth.as_ref())),
        }
    }
}
