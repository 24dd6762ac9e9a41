//! `listdb` and `dropdb`: list and drop the tables of a namespace in a database. `initdb` and `syncdb` are
//! [`crate::ops::sync()`] with a [`crate::ops::Precondition`].

use crate::api::Client;
use crate::error::{Error, ErrorContext, Result};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::sink::Sink;
use crate::sink::sql::SqlSink;

/// One table of a namespace, for `listdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbLine {
    /// The name.
    pub name: String,
    /// Data as of; `None`: not replicated.
    pub timestamp: Option<Timestamp>,
    /// Version of the table schema.
    pub schema: Option<i64>,
    /// Rows, if requested and if the table exists.
    pub records: Option<u64>,
    /// The sync state has the table, but the database does not: it was dropped by hand.
    pub is_missing: bool,
}

/// The replicated tables by name; with a client, followed by those that only the service has.
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

/// Drops tables; `all` means all replicated tables. Returns each table with its error, if any, and does not stop at an error.
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
