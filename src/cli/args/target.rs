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
    /// Location of the tables: a folder, an object store or a database.
    ///
    /// A folder holds its tables as <target>/<namespace>/<table>. An object store is s3://bucket/prefix, az://container/prefix or
    /// gs://bucket/prefix. A database is postgresql://user:password@host:port/database?ssl=require, mysql://..., mariadb://... or
    /// mssql://...
    #[arg(long, env = "DAPLAKE_TARGET", value_name = "TARGET", help_heading = TARGET)]
    pub(in crate::cli) target: Option<String>,
    /// Comma-separated names of targets in the settings file.
    ///
    /// By default, `sync` and `check` use all targets. Other commands need a name if there are several.
    #[arg(long, value_delimiter = ',', value_name = "NAME", help_heading = TARGET)]
    pub(in crate::cli) to: Vec<String>,
    /// Table format: Delta Lake, or folders of plain Parquet files.
    ///
    /// For folders and object stores. By default, the format of the existing tables, or Delta for a new target.
    #[arg(long, value_parser = choice::<LakeFormat>(), value_name = "FORMAT", help_heading = TARGET)]
    pub(in crate::cli) format: Option<LakeFormat>,
    /// Option of the object store; may be repeated.
    ///
    /// For example region=eu-central-1, endpoint=https://host:9000, addressing=path or profile=lake. Credentials come from the usual
    /// variables (AWS_*, AZURE_*, GOOGLE_*), profiles and roles.
    #[arg(long, value_name = "NAME=VALUE", hide_short_help = true, help_heading = TARGET)]
    pub(in crate::cli) store_option: Vec<String>,
}

/// Memory and temporary files.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct EngineArgs {
    /// Memory for sorting and deduplication, such as 512MiB or 2GB; beyond it, data is spilled to disk.
    ///
    /// By default, a quarter of the memory of the machine or container, but at least 256MiB; 24MiB for databases.
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
    /// Folder for unfinished jobs and the run history.
    ///
    /// `sync` resumes an interrupted run from it, and `status` reads it. By default, the system's folder for state, such as
    /// ~/.local/state/daplake.
    #[arg(long, value_name = "DIR", env = "DAPLAKE_STATE_DIR", hide_short_help = true)]
    pub(in crate::cli) state_dir: Option<PathBuf>,
}
