//! `schema`: files, statements for other engines (`--ddl`), sources of dbt (`--dbt`), diagrams (`--erd`), the data
//! dictionary (`--docs`).

use std::process::ExitCode;

use crate::cli::args::global::GlobalArgs;
#[cfg(feature = "lake")]
use crate::cli::args::schema::DdlEngine;
use crate::cli::args::schema::{DocsForm, ErdForm, ErdSource, SchemaArgs};
use crate::cli::commands::{context, downloads};
use crate::cli::signals::interrupted;
use crate::cli::terminal::console::Console;
use crate::cli::terminal::output;
#[cfg(feature = "demo")]
use crate::demo::school::catalogue;
use crate::error::{Error, Kind, Result};
use crate::model::Namespace;
#[cfg(feature = "demo")]
use crate::model::TableRef;
use crate::ops::files::{self, SchemaRequest, TableChoice, TableEvent};
use crate::ops::{self, Selection};
use crate::page::{diagram_page, dictionary_markdown, dictionary_page, dot, mermaid};
#[cfg(feature = "lake")]
use crate::schema::{DbtPlace, LakeEngine, LakePlace, dbt_sources};
use crate::schema::{Diagram, TableSchema};

/// Saves the selected schemas as files.
pub(in crate::cli) async fn schema(global: &GlobalArgs, console: Console, args: SchemaArgs) -> Result<ExitCode> {
    let request = SchemaRequest {
        client: context::client(global, context::pacing(global, 0))?,
        namespace: Namespace::new(args.namespace.namespace),
        tables: args.tables.table.parse::<TableChoice>()?,
        folder: args.output.output_directory,
    };
    context::check_tracking(global)?;
    let observe = |event: &TableEvent| downloads::print_step(console, "Schema of", event);
    downloads::finish(console, files::save_schemas(request, &observe, interrupted())).await
}

/// Prints the document that the arguments ask for to standard output.
pub(in crate::cli) async fn print(global: &GlobalArgs, args: &SchemaArgs) -> Result<()> {
    #[cfg(feature = "lake")]
    if let Some(engine) = args.ddl.ddl {
        return ddl(global, args, engine).await;
    }
    #[cfg(feature = "lake")]
    if let Some(engine) = args.ddl.dbt {
        return dbt(global, args, engine).await;
    }
    let diagram = selected(global, args).await?;
    let columns = args.erd.erd_columns;
    output::out(&match (args.erd.erd, args.docs) {
        (Some(ErdForm::Mermaid), _) => mermaid(&diagram, columns),
        (Some(ErdForm::Dot), _) => dot(&diagram, columns),
        (Some(ErdForm::Html), _) => diagram_page(&diagram),
        (None, Some(DocsForm::Html)) => dictionary_page(&diagram),
        (None, Some(DocsForm::Markdown)) => dictionary_markdown(&diagram),
        (None, None) => return Err(Error::new(Kind::Bug, "The command prints no document")),
    })
}

#[cfg(feature = "lake")]
async fn ddl(global: &GlobalArgs, args: &SchemaArgs, engine: DdlEngine) -> Result<()> {
    let lake = |engine| Ok::<_, Error>(ops::DdlFor::Lake(engine, lake_place(args, "--ddl")?));
    let of = match engine {
        DdlEngine::Duckdb => lake(LakeEngine::DuckDb)?,
        DdlEngine::Athena => lake(LakeEngine::Athena)?,
        DdlEngine::Spark => lake(LakeEngine::Spark)?,
        DdlEngine::Snowflake => lake(LakeEngine::Snowflake)?,
        #[cfg(feature = "sql")]
        DdlEngine::Postgresql => ops::DdlFor::Database("postgresql"),
        #[cfg(feature = "sql")]
        DdlEngine::Mysql => ops::DdlFor::Database("mysql"),
        #[cfg(feature = "sql")]
        DdlEngine::Mssql => ops::DdlFor::Database("mssql"),
    };
    let client = context::client(global, context::pacing(global, 0))?;
    let namespace = Namespace::new(args.namespace.namespace.clone());
    let tables = args.tables.table.parse::<TableChoice>()?;
    let text = ops::ddl(&client, &namespace, &tables, &of).await?;
    output::out(&text)
}

/// The folder or URL of --target, for the option that needs it.
#[cfg(feature = "lake")]
fn lake_place(args: &SchemaArgs, option: &str) -> Result<LakePlace> {
    let target = args.ddl.target.as_deref().ok_or_else(|| {
        Error::new(Kind::Usage, format!("{option} needs the location of the tables"))
            .hint("name the folder or URL with --target")
    })?;
    let url = match context::database(target)? {
        ops::Target::Folder(folder) => folder.display().to_string(),
        ops::Target::Store(url, _) => url.reveal().to_string(),
        ops::Target::Parquet(_) | ops::Target::Database(_) => {
            return Err(Error::new(Kind::Usage, format!("{option} for a query engine needs a folder or an object store"))
                .hint("name it with --target; for the tables of a database, name the database as engine"));
        }
    };
    Ok(LakePlace { url, format: args.ddl.table_format, nested: args.ddl.nested })
}

#[cfg(feature = "lake")]
async fn dbt(global: &GlobalArgs, args: &SchemaArgs, engine: DdlEngine) -> Result<()> {
    let place = match engine {
        DdlEngine::Duckdb => {
            let mut place = lake_place(args, "--dbt duckdb")?;
            // dbt may run in another folder.
            if !place.url.contains("://")
                && let Ok(absolute) = std::path::absolute(&place.url)
            {
                place.url = absolute.display().to_string();
            }
            DbtPlace::Files(place)
        }
        DdlEngine::Athena | DdlEngine::Spark => DbtPlace::Engine { case_sensitive: true },
        DdlEngine::Snowflake => DbtPlace::Engine { case_sensitive: false },
        #[cfg(feature = "sql")]
        DdlEngine::Postgresql => {
            DbtPlace::Database { bookmarks: r#""timestamp" from "instructure_dap"."table_sync""#, prefixed: false }
        }
        #[cfg(feature = "sql")]
        DdlEngine::Mysql => DbtPlace::Database { bookmarks: "`timestamp` from `instructure_dap__table_sync`", prefixed: true },
        #[cfg(feature = "sql")]
        DdlEngine::Mssql => {
            DbtPlace::Database { bookmarks: "[timestamp] from [instructure_dap].[table_sync]", prefixed: false }
        }
    };
    output::out(&dbt_sources(&selected(global, args).await?, &place))
}

/// The selected tables with their relations.
async fn selected(global: &GlobalArgs, args: &SchemaArgs) -> Result<Diagram> {
    let list = |text: &str| text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
    let selection =
        Selection { namespaces: list(&args.namespace.namespace), tables: list(&args.tables.table), exclude: Vec::new() };
    match args.erd.erd_source {
        ErdSource::Documentation => ops::diagram_among(from_documentation()?, &selection),
        ErdSource::Service => ops::diagram(&context::client(global, context::pacing(global, 0))?, &selection).await,
    }
}

/// The schemas of the documentation.
#[cfg(feature = "demo")]
fn from_documentation() -> Result<Vec<TableSchema>> {
    let read = |(namespace, table)| {
        let table = TableRef::new(namespace, table);
        let schema = catalogue::schema(&table).unwrap_or_default();
        TableSchema::read(&table, 1, schema)
    };
    catalogue::tables().map(read).collect()
}

#[cfg(not(feature = "demo"))]
fn from_documentation() -> Result<Vec<TableSchema>> {
    Err(Error::new(Kind::Unsupported, "This build does not contain the schemas of the documentation")
        .hint("omit --erd-source to use the schemas of the service"))
}
