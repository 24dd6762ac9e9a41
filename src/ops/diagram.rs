//! `schema --erd` and `schema --docs`: tables and their references, from the current schemas of the service or those included in
//! the program.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};

use super::Selection;
use crate::api::Client;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::TableRef;
use crate::schema::{Diagram, TableSchema};

/// Schemas that are requested at the same time.
const CONCURRENCY: usize = 8;

/// The diagram of the selected tables.
///
/// # Errors
/// Kind `NotFound` for a table that the service does not have.
pub async fn diagram(client: &Client, selection: &Selection) -> Result<Diagram> {
    let tables = selection.resolve(client, &[], None).await?.all()?;
    let read = |table: TableRef| async move {
        let answer = client.table_schema(&table).await.with_field("table", &table)?;
        TableSchema::read(&table, answer.version, answer.schema).with_field("table", &table)
    };
    Ok(Diagram::of(futures::stream::iter(tables).map(read).buffered(CONCURRENCY).try_collect().await?))
}

/// The diagram of the selected tables among `known`.
///
/// # Errors
/// Kind `NotFound` for a table or namespace that is not among them.
pub fn diagram_among(known: Vec<TableSchema>, selection: &Selection) -> Result<Diagram> {
    let listed: Vec<TableRef> = known.iter().map(|schema| schema.table.clone()).collect();
    let chosen = selection.resolve_among(&listed)?;
    if chosen.is_empty() {
        let namespaces: BTreeSet<&str> = listed.iter().map(|table| table.namespace.as_str()).collect();
        return Err(Error::new(Kind::NotFound, "The documentation has no tables in these namespaces")
            .with_field("namespace", selection.namespaces.join(","))
            .hint(format!("it has {}", namespaces.into_iter().collect::<Vec<_>>().join(", "))));
    }
    Ok(Diagram::of(known.into_iter().filter(|schema| chosen.contains(&schema.table)).collect()))
}
