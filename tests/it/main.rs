//! Behaviour tests through the front door: the built binary and `ops`, against the embedded server over real HTTP, read back
//! by readers that are not ours. One binary, one module per theme.

#![allow(unreachable_pub, reason = "the modules of a test binary reach nobody")]
#![allow(clippy::print_stderr, reason = "a test says what it did not run, and its seed")]

#[cfg(feature = "lake")]
mod cli;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "lake")]
mod columns;
#[cfg(feature = "lake")]
mod crash;
mod ddl;
#[cfg(all(feature = "lake", target_os = "linux"))]
mod disk_full;
mod dropin;
#[cfg(feature = "lake")]
mod faults;
mod files;
#[cfg(feature = "lake")]
mod formats;
#[cfg(feature = "lake")]
mod init_and_check;
#[cfg(feature = "postgres")]
mod interchange;
#[cfg(feature = "lake")]
mod isolation;
mod layering;
#[cfg(feature = "lake")]
mod maintenance;
#[cfg(feature = "mssql")]
mod mssql;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "lake")]
mod names;
#[cfg(feature = "lake")]
mod notifications;
#[cfg(all(unix, feature = "otel"))]
mod otel;
#[cfg(feature = "lake")]
mod pages;
#[cfg(feature = "lake")]
mod parquet_folders;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_sessions;
#[cfg(feature = "lake")]
mod prompt;
#[cfg(feature = "lake")]
mod readers;
#[cfg(all(unix, feature = "lake"))]
mod readme;
#[cfg(feature = "lake")]
mod s3;
mod schemas;
#[cfg(feature = "sql")]
mod sql;
#[cfg(feature = "lake")]
mod stores;
mod style;
#[cfg_attr(not(feature = "lake"), allow(dead_code, unused_imports))]
mod support;
#[cfg(feature = "lake")]
mod sync;
#[cfg(feature = "lake")]
mod table_modes;
#[cfg(feature = "lake")]
mod targets;
mod trouble;
#[cfg(feature = "lake")]
mod unattended;
