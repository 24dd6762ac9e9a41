//! `schema --erd`: from arguments to a diagram, from the diagram to text on standard output.

use std::process::ExitCode;

use crate::cli::args::{ErdColumns, ErdForm, ErdSource, GlobalArgs, SchemaArgs};
use crate::cli::commands::downloads;
use crate::cli::settings::resolve;
use crate::cli::terminal::output;
use crate::error::{Error, Kind, Result};
use crate::ops::{self, Selection};
use crate::page::{Columns, diagram_page, dot, mermaid};
use crate::schema::{Diagram, TableSchema};

pub(in crate::cli) async fn erd(global: &GlobalArgs, args: &SchemaArgs, form: ErdForm) -> Result<ExitCode> {
    let list = |text: &str| text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
    let selection =
        Selection { namespaces: list(&args.namespace.namespace), tables: list(&args.tables.table), exclude: Vec::new() };
    let diagram = match args.erd.erd_source {
        ErdSource::Documentation => ops::diagram_among(documented()?, &selection)?,
        ErdSource::Service => asked(global, &selection).await?,
    };
    let columns = match args.erd.erd_columns {
        ErdColumns::Keys => Columns::Keys,
        ErdColumns::All => Columns::All,
    };
    output::out(&match form {
        ErdForm::Mermaid => mermaid(&diagram, columns),
        ErdForm::Dot => dot(&diagram, columns),
        ErdForm::Html => diagram_page(&diagram),
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn asked(global: &GlobalArgs, selection: &Selection) -> Result<Diagram> {
    let client = resolve::client(global, resolve::pacing(global, 0))?;
    tokio::select! {
        biased;
        () = downloads::interrupted() => Err(Error::new(Kind::Cancelled, "Interrupted")),
        diagram = ops::diagram(&client, selection) => diagram,
    }
}

/// The tables that the documentation names.
#[cfg(feature = "demo")]
fn documented() -> Result<Vec<TableSchema>> {
    use crate::demo::school::catalogue;
    use crate::model::TableRef;

    let read = |(namespace, table)| {
        let table = TableRef::new(namespace, table);
        let schema = catalogue::schema(&table).unwrap_or_default();
        TableSchema::read(&table, 1, schema)
    };
    catalogue::tables().map(read).collect()
}

#[cfg(not(feature = "demo"))]
fn documented() -> Result<Vec<TableSchema>> {
    Err(Error::new(Kind::Unsupported, "This build comes without the schemas of the documentation")
        .hint("leave --erd-source out, to ask the service"))
}
