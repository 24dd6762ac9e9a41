//! `schema`: files, statements for other engines (`--ddl`), diagrams (`--erd`), the data dictionary (`--docs`).

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
use crate::schema::{Diagram, TableSchema};
#[cfg(feature = "lake")]
use crate::schema::{LakeEngine, LakePlace};

pub(in crate::cli) async fn schema(global: &GlobalArgs, console: Console, args: SchemaArgs) -> Result<ExitCode> {
    if let Some(form) = args.erd.erd {
        return erd(global, &args, form).await;
    }
    if let Some(form) = args.docs {
        return docs(global, &args, form).await;
    }
    #[cfg(feature = "lake")]
    if let Some(engine) = args.ddl.ddl {
        return ddl(global, &args, engine).await;
    }
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

/// Prints statements to standard output.
#[cfg(feature = "lake")]
async fn ddl(global: &GlobalArgs, args: &SchemaArgs, engine: DdlEngine) -> Result<ExitCode> {
    let lake = |engine| -> Result<ops::DdlFor> {
        let target = args.ddl.target.as_deref().ok_or_else(|| {
            Error::new(Kind::Usage, "--ddl needs the location of the tables").hint("name the folder or URL with --target")
        })?;
        let url = match context::database(target)? {
            ops::Target::Folder(folder) => folder.display().to_string(),
            ops::Target::Store(url, _) => url.reveal().to_string(),
            ops::Target::Parquet(_) | ops::Target::Database(_) => {
                return Err(Error::new(Kind::Usage, "Views need a folder or an object store")
                    .hint("give it with --target; the tables of a database need no views"));
            }
        };
        Ok(ops::DdlFor::Lake(engine, LakePlace { url, format: args.ddl.table_format, nested: args.ddl.nested }))
    };
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
    let text = tokio::select! {
        biased;
        () = interrupted() => Err(Error::new(Kind::Cancelled, "Interrupted")),
        text = ops::ddl(&client, &namespace, &tables, &of) => text,
    }?;
    output::out(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn erd(global: &GlobalArgs, args: &SchemaArgs, form: ErdForm) -> Result<ExitCode> {
    let diagram = selected(global, args).await?;
    let columns = args.erd.erd_columns;
    output::out(&match form {
        ErdForm::Mermaid => mermaid(&diagram, columns),
        ErdForm::Dot => dot(&diagram, columns),
        ErdForm::Html => diagram_page(&diagram),
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn docs(global: &GlobalArgs, args: &SchemaArgs, form: DocsForm) -> Result<ExitCode> {
    let diagram = selected(global, args).await?;
    output::out(&match form {
        DocsForm::Html => dictionary_page(&diagram),
        DocsForm::Markdown => dictionary_markdown(&diagram),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The selected tables with their relations.
async fn selected(global: &GlobalArgs, args: &SchemaArgs) -> Result<Diagram> {
    let list = |text: &str| text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
    let selection =
        Selection { namespaces: list(&args.namespace.namespace), tables: list(&args.tables.table), exclude: Vec::new() };
    match args.erd.erd_source {
        ErdSource::Documentation => ops::diagram_among(from_documentation()?, &selection),
        ErdSource::Service => from_service(global, &selection).await,
    }
}

/// The diagram of the schemas of the service.
async fn from_service(global: &GlobalArgs, selection: &Selection) -> Result<Diagram> {
    let client = context::client(global, context::pacing(global, 0))?;
    tokio::select! {
        biased;
        () = interrupted() => Err(Error::new(Kind::Cancelled, "Interrupted")),
        diagram = ops::diagram(&client, selection) => diagram,
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
