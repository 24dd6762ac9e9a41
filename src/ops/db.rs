//! `listdb` and `dropdb`: what a database holds of a namespace, and how it lets go of it. `initdb` and `syncdb` are
//! [`crate::ops::sync`] with a [`crate::ops::Demand`].

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
}

/// Replicated tables by name, then, with a client, those that the service has and the database has not.
pub async fn list(sink: &SqlSink, client: Option<&Client>, namespace: &Namespace, count: bool) -> Result<Vec<DbLine>> {
    let mut lines = Vec::new();
    let replicated = sink.list(Some(namespace)).await?;
    for table in &replicated {
        let Some((bookmark, records)) = sink.figures(table, count).await.with("table", table)? else { continue };
        let (timestamp, schema) = (Some(bookmark.at), Some(bookmark.schema_version));
        lines.push(DbLine { name: table.table.clone(), timestamp, schema, records });
    }
    if let Some(client) = client {
        let mut others = client.tables(namespace).await?;
        others.retain(|name| !replicated.iter().any(|table| table.table == *name));
        others.sort();
        lines.extend(others.into_iter().map(|name| DbLine { name, timestamp: None, schema: None, records: None }));
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

/// The two largest units of an age, the second omitted when it is zero: `1057d 9h`, `5h 12m`, `3m`, `42s`.
pub fn staleness(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |large: i64, unit: &str, small: i64, next: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{next}"),
    };
    match (days, hours, minutes) {
        (1.., _, _) => two(days, "d", hours, "h"),
        (_, 1.., _) => two(hours, "h", minutes, "m"),
        (_, _, 1..) => two(minutes, "m", seconds % 60, "s"),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::staleness;

    #[test]
    fn an_age_has_two_units_at_most() {
        let shown = [42, 180, 65, 18_720, 3_600, 91_357_200, 86_400, -5].map(staleness);
        assert_eq!(shown, ["42s", "3m", "1m 5s", "5h 12m", "1h", "1057d 9h", "1d", "0s"]);
    }
}
