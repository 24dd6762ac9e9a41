//! `schema`: files, statements for other engines, diagrams.

use clap::{Args, ValueEnum};

use crate::cli::args::downloads::OutputArgs;
use crate::cli::args::headings::EXTRAS;
#[cfg(feature = "lake")]
use crate::cli::args::selection::NestedArg;
use crate::cli::args::selection::{NamespaceArgs, TablesArgs};

#[derive(Debug, Args)]
#[command(
    after_help = "A schema is saved as <output-directory>/<table>_schema_version_<n>.json. With --ddl or --erd nothing is saved: statements or a diagram are printed.\n\nExamples:\n  daplake schema --namespace canvas --table all --output-directory schemas\n  daplake schema --namespace canvas --table all --ddl duckdb --target ./lake > views.sql\n  daplake schema --namespace canvas --table all --erd html --erd-source documentation > diagram.html"
)]
pub(in crate::cli) struct SchemaArgs {
    #[command(flatten)]
    pub(in crate::cli) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TablesArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
    #[cfg(feature = "lake")]
    #[command(flatten)]
    pub(in crate::cli) ddl: DdlArgs,
    #[command(flatten)]
    pub(in crate::cli) erd: ErdArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ErdArgs {
    /// Prints a diagram of the tables and their relations instead of saving schemas: for Mermaid, for Graphviz, or a page of its own
    /// with search and zoom. --namespace then takes a comma list or `all`, --table patterns as well.
    #[arg(long, value_enum, value_name = "FORM", help_heading = EXTRAS)]
    pub(in crate::cli) erd: Option<ErdForm>,
    /// With --erd mermaid or dot: only keys and columns that refer, or all.
    #[arg(long, value_enum, default_value_t = ErdColumns::Keys, value_name = "WHICH", help_heading = EXTRAS)]
    pub(in crate::cli) erd_columns: ErdColumns,
    /// With --erd: schemas as the service has them now, or those of the documentation that come with daplake, without any call.
    #[arg(long, value_enum, default_value_t = ErdSource::Service, value_name = "SOURCE", help_heading = EXTRAS)]
    pub(in crate::cli) erd_source: ErdSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ErdForm {
    Mermaid,
    Dot,
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ErdColumns {
    Keys,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ErdSource {
    Service,
    Documentation,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct DdlArgs {
    /// Prints statements instead of saving schemas: views or external tables over the tables of --target for an engine, or the
    /// tables of a database.
    #[arg(long, value_enum, value_name = "ENGINE", help_heading = EXTRAS)]
    pub(in crate::cli) ddl: Option<DdlEngine>,
    /// With --ddl for an engine: the folder or URL that holds the tables.
    #[arg(long, env = "DAPLAKE_TARGET", hide_env_values = true, value_name = "TARGET", help_heading = EXTRAS)]
    pub(in crate::cli) target: Option<String>,
    /// With --ddl for an engine: how the tables are kept.
    #[arg(long, value_enum, default_value_t = DdlFormat::Delta, value_name = "FORMAT", help_heading = EXTRAS)]
    pub(in crate::cli) table_format: DdlFormat,
    /// With --ddl for an engine: how nested columns are kept.
    #[arg(long, value_enum, default_value_t = NestedArg::Typed, value_name = "FORM", help_heading = EXTRAS)]
    pub(in crate::cli) nested: NestedArg,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DdlEngine {
    Duckdb,
    Athena,
    Spark,
    Snowflake,
    #[cfg(feature = "sql")]
    Postgresql,
    #[cfg(feature = "sql")]
    Mysql,
    #[cfg(feature = "sql")]
    Mssql,
}

#[cfg(feature = "lake")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DdlFormat {
    Delta,
    Parquet,
}
