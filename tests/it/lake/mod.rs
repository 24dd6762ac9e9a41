//! Delta tables and Parquet folders as targets, on disk and in object stores.

mod catalog;
mod columns;
mod crash;
#[cfg(target_os = "linux")]
mod disk_full;
mod faults;
mod formats;
mod isolation;
mod maintenance;
mod parquet_folders;
mod readers;
mod s3;
mod schemas;
mod stores;
mod sync;
mod table_modes;
