//! Current and earlier versions of a table, as tables of DataFusion sessions.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use deltalake::DeltaTable;

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::Timestamp;
use crate::sink::delta::log::table_log::TableLog;
use crate::store::explained;

const UNREADABLE: &str = "The table cannot be read";

/// An earlier version of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The version with this number.
    Version(u64),
    /// The newest version that was committed no later than this, by the clock of the target.
    Time(Timestamp),
}

/// See [`DeltaSink::provider_at`](crate::sink::delta::DeltaSink::provider_at).
pub(crate) async fn provider_at(log: &TableLog, at: At) -> Result<Arc<dyn TableProvider>> {
    let table = &log.table;
    let newest = log.existing_state().await?;
    let not_found = |source: deltalake::DeltaTableError| {
        Error::new(Kind::NotFound, "The table cannot be read at this version or time")
            .with_field("table", table)
            .hint("list its versions with `daplake history`; `daplake vacuum` and the retention of the log remove old ones")
            .caused_by(source)
    };
    let mut delta = DeltaTable::new(log.log_store());
    match at {
        At::Version(version) if version > newest.version => {
            return Err(Error::new(Kind::NotFound, "The table has no such version yet")
                .with_field("table", table)
                .with_field("newest", newest.version));
        }
        At::Version(version) => delta.load_version(version).await.map_err(not_found)?,
        At::Time(time) => {
            let time = chrono::DateTime::from_timestamp_micros(time.micros());
            let time = time.ok_or_else(|| Error::new(Kind::Usage, "The time is out of range"))?;
            delta.load_with_datetime(time).await.map_err(not_found)?;
            // For a time before the first version, the crate returns the oldest version that exists.
            let found = delta.version().unwrap_or_default();
            if log.committed_at(found).await.is_some_and(|committed| committed.micros() / 1000 > time.timestamp_millis()) {
                return Err(Error::new(Kind::NotFound, "The table has no version that old")
                    .with_field("table", table)
                    .with_field("oldest", found)
                    .hint("list its versions with `daplake history`"));
            }
        }
    }
    delta.table_provider().await.context(Kind::Target, UNREADABLE).with_field("table", table)
}

/// See [`DeltaSink::provider`](crate::sink::delta::DeltaSink::provider).
pub(crate) async fn provider(log: &TableLog) -> Result<Arc<dyn TableProvider>> {
    let state = log.existing_state().await.map_err(explained)?;
    let mut delta = DeltaTable::new(log.log_store());
    delta.state = Some(state.delta);
    delta.table_provider().await.context(Kind::Target, UNREADABLE).with_field("table", &log.table)
}
