//! Where tables are kept, and the memory and folders that a command may use.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::headings::{LIMITS, TARGET};
use crate::cli::values::choices::choice;
use crate::cli::values::memory::parse_memory_limit;
use crate::schema::LakeFormat;

/// The place where tables are kept.
#[derive(Debug, Args)]
pub(in crate::cli) struct TargetArgs {
    /// Where the tables are: a folder, object store or database.
    ///
    /// A folder holds its tables as <target>/<namespace>/<table>. An object store is s3://bucket/prefix, az://container/prefix or
    /// gs://bucket/prefix. A database is postgresql://user:password@host:port/database?ssl=require, mysql://..., mariadb://... or
    /// mssql://...
    #[arg(long, env = "DAPLAKE_TARGET", value_name = "TARGET", help_heading = TARGET)]
    pub(in crate::cli) target: Option<String>,
    /// Names of targets of the settings file, as a comma list.
    ///
    /// Default: `sync` and `check` use all of them, other commands the only one.
    #[arg(long, value_delimiter = ',', value_name = "NAME", help_heading = TARGET)]
    pub(in crate::cli) to: Vec<String>,
    /// Delta Lake tables, or folders of plain Parquet files.
    ///
    /// Applies to folders and object stores. Default: the format that the target has; Delta for a new target.
    #[arg(long, value_parser = choice::<LakeFormat>(), value_name = "FORMAT", help_heading = TARGET)]
    pub(in crate::cli) format: Option<LakeFormat>,
    /// Option of the object store; may be repeated.
    ///
    /// Such as region=eu-central-1, endpoint=https://host:9000, addressing=path or profile=lake. Credentials come from the usual
    /// variables (AWS_*, AZURE_*, GOOGLE_*), profiles and roles.
    #[arg(long, value_name = "NAME=VALUE", hide_short_help = true, help_heading = TARGET)]
    pub(in crate::cli) store_option: Vec<String>,
}

/// Memory and temporary files.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct EngineArgs {
    /// Memory for sorting and deduplication, such as 512MiB or 2GB; beyond it, data is spilled to disk.
    ///
    /// Default: a quarter of the memory of the machine or container, at least 256MiB; 24MiB for databases.
    #[arg(
        long,
        env = "DAPLAKE_MEMORY_LIMIT",
        value_name = "BYTES",
        value_parser = parse_memory_limit,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    pub(in crate::cli) memory_limit: Option<u64>,
    /// Folder for spilled data and downloaded objects [default: the system's temporary folder].
    #[arg(long, env = "DAPLAKE_TEMP_DIR", value_name = "DIR", hide_short_help = true, help_heading = LIMITS)]
    pub(in crate::cli) temp_dir: Option<PathBuf>,
}

/// The folder with the state of runs.
#[derive(Debug, Args)]
pub(in crate::cli) struct StateArgs {
    /// Folder with the jobs and the history of runs.
    ///
    /// An interrupted run is resumed from it, and `status` reads it. Default: the system's folder for state, such as
    /// ~/.local/state/daplake.
    #[arg(long, value_name = "DIR", env = "DAPLAKE_STATE_DIR", hide_short_help = true)]
    pub(in crate::cli) state_dir: Option<PathBuf>,
}
