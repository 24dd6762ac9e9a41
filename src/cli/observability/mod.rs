//! Output for other programs: logs, metrics, traces, notifications, the service manager.

pub(in crate::cli) mod logging;
#[cfg(feature = "lake")]
pub(in crate::cli) mod metrics;
#[cfg(feature = "otel")]
pub(in crate::cli) mod otel;
#[cfg(feature = "lake")]
pub(in crate::cli) mod run_reporting;
#[cfg(feature = "lake")]
pub(in crate::cli) mod systemd;
