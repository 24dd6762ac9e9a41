//! `schema --erd`: tables and how they refer to each other, from the service's present schemas or from those that come with the
//! program. It draws nothing.

use futures::{StreamExt, TryStreamExt};

use super::Selection;
use crate::api::Client;
use crate::error::{ErrorContext, Result};
use crate::model::TableRef;
use crate::schema::{Diagram, TableSchema};

/// Schemas asked for at once.
const AT_ONCE: usize = 8;

/// The chosen tables as the service has them now. Kind `NotFound` for a table that it does not have.
pub async fn diagram(client: &Client, selection: &Selection) -> Result<Diagram> {
    let tables = selection.resolve(client, &[]).await?.all()?;
    let read = |table: TableRef| async move {
        let answer = client.table_schema(&table).await.with_field("table", &table)?;
        TableSchema::read(&table, answer.version, answer.schema).with_field("table", &table)
    };
    Ok(Diagram::of(futures::stream::iter(tables).map(read).buffered(AT_ONCE).try_collect().await?))
}

/// The chosen ones of tables that are known without asking.
pub fn diagram_among(known: Vec<TableSchema>, selection: &Selection) -> Result<Diagram> {
    let listed: Vec<TableRef> = known.iter().map(|schema| schema.table.clone()).collect();
    let chosen = selection.resolve_among(&listed)?;
    Ok(Diagram::of(known.into_iter().filter(|schema| chosen.contains(&schema.table)).collect()))
}
