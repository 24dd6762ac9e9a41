//! `schema`: files, statements for other engines, diagrams, the data dictionary.

use clap::{Args, ValueEnum};

use crate::cli::args::downloads::OutputArgs;
use crate::cli::args::headings::EXTRAS;
use crate::cli::args::selection::{NamespaceArgs, TablesArgs};
use crate::cli::values::choices::choice;
use crate::page::Columns;
#[cfg(feature = "lake")]
use crate::schema::{LakeFormat, Nested};

#[derive(Debug, Args)]
#[command(
    after_help = "A schema is saved as <output-directory>/<table>_schema_version_<n>.json. With --ddl, --erd or --docs, statements, a diagram or a data dictionary are printed instead.\n\nExamples:\n  daplake schema --namespace canvas --table all --output-directory schemas\n  daplake schema --namespace canvas --table all --ddl duckdb --target ./lake > views.sql\n  daplake schema --namespace canvas --table all --erd html --erd-source documentation > diagram.html\n  daplake schema --namespace canvas --table all --docs html > dictionary.html\n  daplake schema --namespace canvas --table all --dbt duckdb --target ./lake > models/sources.yml"
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
    /// Print a data dictionary: tables, columns, types, descriptions, values, keys and relations, as a web page or as Markdown.
    ///
    /// --namespace then accepts a comma-separated list or `all`, and --table accepts patterns. The page has a search and a diagram of
    /// the tables; the Markdown has a diagram unless the tables are too many for Mermaid.
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "erd", help_heading = EXTRAS)]
    pub(in crate::cli) docs: Option<DocsForm>,
}

impl SchemaArgs {
    /// Whether a document is printed in place of files. The official client has no such command.
    pub(in crate::cli) fn prints(&self) -> bool {
        let is_document = self.erd.erd.is_some() || self.docs.is_some();
        #[cfg(feature = "lake")]
        let is_document = is_document || self.ddl.ddl.is_some() || self.ddl.dbt.is_some();
        is_document
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ErdArgs {
    /// Print a diagram of the tables and their relations: for Mermaid, for Graphviz, or as a web page.
    ///
    /// --namespace then accepts a comma-separated list or `all`, and --table accepts patterns.
    #[arg(long, value_enum, value_name = "FORM", help_heading = EXTRAS)]
    pub(in crate::cli) erd: Option<ErdForm>,
    /// With --erd mermaid or dot: show keys and references only, or all columns.
    #[arg(
        long,
        value_parser = choice::<Columns>(),
        default_value = "keys",
        value_name = "WHICH",
        hide_short_help = true,
        help_heading = EXTRAS
    )]
    pub(in crate::cli) erd_columns: Columns,
    /// With --erd, --docs or --dbt: current schemas of the service, or bundled ones of its documentation.
    #[arg(
        long,
        value_enum,
        default_value_t = ErdSource::Service,
        value_name = "SOURCE",
        hide_short_help = true,
        help_heading = EXTRAS
    )]
    pub(in crate::cli) erd_source: ErdSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ErdForm {
    Mermaid,
    Dot,
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DocsForm {
    Html,
    Markdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ErdSource {
    Service,
    Documentation,
}

#[cfg(feature = "lake")]
#[derive(Debug, Args)]
pub(in crate::cli) struct DdlArgs {
    /// Print SQL statements instead: views or external tables over --target, or the tables of a database.
    #[arg(long, value_enum, value_name = "ENGINE", conflicts_with_all = ["erd", "docs"], help_heading = EXTRAS)]
    pub(in crate::cli) ddl: Option<DdlEngine>,
    /// Print a sources.yml for dbt: descriptions, types, keys, relations and freshness, for tables in this engine or database.
    ///
    /// --namespace then accepts a comma-separated list or `all`, and --table accepts patterns.
    #[arg(long, value_enum, value_name = "ENGINE", conflicts_with_all = ["ddl", "erd", "docs"], help_heading = EXTRAS)]
    pub(in crate::cli) dbt: Option<DdlEngine>,
    /// With --ddl for a query engine or --dbt duckdb: folder or URL of the tables.
    #[arg(long, env = "DAPLAKE_TARGET", value_name = "TARGET", help_heading = EXTRAS)]
    pub(in crate::cli) target: Option<String>,
    /// With --ddl for a query engine or --dbt duckdb: format of the tables.
    #[arg(
        long,
        value_parser = choice::<LakeFormat>(),
        default_value = "delta",
        value_name = "FORMAT",
        hide_short_help = true,
        help_heading = EXTRAS
    )]
    pub(in crate::cli) table_format: LakeFormat,
    /// With --ddl for a query engine: form of nested columns.
    #[arg(
        long,
        value_parser = choice::<Nested>(),
        default_value = "typed",
        value_name = "FORM",
        hide_short_help = true,
        help_heading = EXTRAS
    )]
    pub(in crate::cli) nested: Nested,
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
