//! `listdb` and `dropdb`: what a database holds of a namespace, and how it lets go of it. `initdb` and `syncdb` are
//! [`crate::ops::sync()`] with a [`crate::ops::Demand`].

use crate::api::Client;
use crate::error::{Error, ErrorContext, Result};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::sink::Sink;
use crate::sink::sql::SqlSink;

/// One table of a namespace, as `listdb` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbLine {
    /// Its name.
    pub name: String,
    /// Data as of; `None`: not replicated.
    pub timestamp: Option<Timestamp>,
    /// Version of the table schema.
    pub schema: Option<i64>,
    /// Rows, where they were asked for. `None` also for a table that was removed by hand.
    pub records: Option<u64>,
    /// The book-keeping has it, the database has not: it was removed by hand.
    pub is_missing: bool,
}

/// Replicated tables by name, then, with a client, those that the service has and the database has not.
pub async fn list(sink: &SqlSink, client: Option<&Client>, namespace: &Namespace, count: bool) -> Result<Vec<DbLine>> {
    let mut lines = Vec::new();
    for (table, figures) in sink.figures(namespace).await? {
        let records = match figures.exists && count {
            true => Some(sink.count(&table).await.with_field("table", &table)?),
            false => None,
        };
        let (timestamp, schema) = (Some(figures.bookmark.at), Some(figures.bookmark.schema_version));
        lines.push(DbLine { name: table.table, timestamp, schema, records, is_missing: !figures.exists });
    }
    if let Some(client) = client {
        let mut others = client.tables(namespace).await?;
        others.retain(|name| !lines.iter().any(|line| line.name == *name));
        others.sort();
        let unknown = |name| DbLine { name, timestamp: None, schema: None, records: None, is_missing: false };
        lines.extend(others.into_iter().map(unknown));
    }
    Ok(lines)
}

/// Tables that go, each with its error if it could not. `all` means all that are replicated. It does not stop early.
pub async fn drop(sink: &SqlSink, namespace: &Namespace, tables: &str) -> Result<Vec<(TableRef, Option<Error>)>> {
    sink.prepare().await?;
    let tables = match tables {
        "all" => sink.list(Some(namespace)).await?,
        names => {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| TableRef::new(namespace.as_str(), name)).collect()
        }
    };
    let mut done = Vec::with_capacity(tables.len());
    for table in tables {
        let error = sink.remove(&table).await.err();
        done.push((table, error));
    }
    Ok(done)
}
