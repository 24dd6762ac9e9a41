//! Where tables are kept, and how much memory and disk a command may use for them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[cfg(feature = "lake")]
use crate::cli::values::memory::parse_limit;

/// The place where tables are kept.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct TargetArgs {
    /// Folder that holds the Delta tables, as `<target>/<namespace>/<table>`; an object store, as s3://bucket/prefix,
    /// az://container/prefix or gs://bucket/prefix; or a database, as postgresql://user:password@host:port/database?ssl=require.
    #[arg(long, env = "DAPLAKE_TARGET", hide_env_values = true, value_name = "TARGET")]
    pub(in crate::cli) target: Option<String>,
    /// Targets of the settings file, by name [default: `sync` takes all of them, other commands the only one].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(in crate::cli) to: Vec<String>,
    /// Form of tables in folders and object stores: Delta tables, or plain Parquet files that any reader can read with `*.parquet`
    /// [default: the form that is there; Delta tables for a new target].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<LakeFormatArg>,
    /// Option of an object store, such as region=eu-central-1, endpoint=https://host:9000, addressing=path or profile=lake; may be
    /// repeated. Credentials come from the usual variables (AWS_*, AZURE_*, GOOGLE_*), profiles and roles.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) store_option: Vec<String>,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LakeFormatArg {
    Delta,
    Parquet,
}

/// Limits of the engine.
#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct EngineArgs {
    /// Memory that sorting and reducing may hold before they spill to disk, such as 256MiB or 2GB [default: a quarter of the machine or container, at least 256MiB; 24MiB where the target is a database].
    #[arg(long, env = "DAPLAKE_MEMORY_LIMIT", value_name = "BYTES", value_parser = parse_limit)]
    pub(in crate::cli) memory_limit: Option<u64>,
    /// Folder for spill files and staged objects [default: the system's folder for temporary files].
    #[arg(long, env = "DAPLAKE_TEMP_DIR", value_name = "DIR")]
    pub(in crate::cli) temp_dir: Option<PathBuf>,
}

/// The folder that outlives runs.
#[derive(Debug, Args)]
pub(in crate::cli) struct StateArgs {
    /// Folder in which runs note what they have reached, so that an interrupted one can be continued, and what `status` tells
    /// [default: by the conventions of the system, such as ~/.local/state/daplake].
    #[arg(long, value_name = "DIR", env = "DAPLAKE_STATE_DIR")]
    pub(in crate::cli) state_dir: Option<PathBuf>,
}
