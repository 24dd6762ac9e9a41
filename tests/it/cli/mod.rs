//! The command line: arguments, settings, output, exit codes, reports, signals.

mod assistant;
mod browser_pages;
mod certificates;
mod diagnostics;
mod exit_codes;
mod init_and_check;
mod mail;
mod names;
mod notifications;
#[cfg(all(unix, feature = "otel"))]
mod otel;
mod pages;
mod prompt;
mod python_module;
mod quiet;
mod schedule;
mod status;
mod targets;
mod unattended;
