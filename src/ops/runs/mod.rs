//! Outcomes of runs: the report of one run, the history of earlier runs, notifications.

#[cfg(feature = "lake")]
mod history;
#[cfg(feature = "lake")]
mod notify;
mod report;

#[cfg(feature = "lake")]
pub(super) use history::rows_over_time;
#[cfg(feature = "lake")]
pub use history::{Counted, RunHistory, RunLog, RunRecord, TableRun, Totals};
#[cfg(feature = "lake")]
pub use notify::{Mail, MailOptions, Notifier, NotifyForm, NotifyOn};
pub use report::{Failure, Outcome, Phases, Report, TableReport};
