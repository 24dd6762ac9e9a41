//! Lake tables for DataFusion sessions.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::sink::Sink;
use crate::sink::delta::DeltaSink;
use crate::store::explained;

/// A version of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// By its number in the log.
    Version(u64),
    /// The last that was committed no later than this, by the clock of the target.
    Time(Timestamp),
}

impl DeltaSink {
    /// The table as it was, for a query. Kind `NotFound` if it is not kept here, or no longer reaches back so far.
    pub async fn provider_at(&self, table: &TableRef, at: At) -> Result<Arc<dyn TableProvider>> {
        let log = self.log(table)?;
        let newest = self.present(&log).await?;
        let gone = |source: deltalake::DeltaTableError| {
            Error::new(Kind::NotFound, "The table cannot be read as of then")
                .with_field("table", table)
                .hint("see its versions with `daplake history`; old ones go with `daplake vacuum` and with the log's own retention")
                .caused_by(source)
        };
        let mut delta = DeltaTable::new(log.log_store());
        match at {
            At::Version(version) if version > newest.version => {
                return Err(Error::new(Kind::NotFound, "The table has no such version yet")
                    .with_field("table", table)
                    .with_field("newest", newest.version));
            }
            At::Version(version) => delta.load_version(version).await.map_err(gone)?,
            At::Time(time) => {
                let time = chrono::DateTime::from_timestamp_micros(time.micros());
                let time = time.ok_or_else(|| Error::new(Kind::Usage, "The time is out of range"))?;
                delta.load_with_datetime(time).await.map_err(gone)?;
                // For a time before its beginning the crate gives the oldest version that there is.
                let found = delta.version().unwrap_or_default();
                if log.committed_at(found).await.is_some_and(|made| made.micros() / 1000 > time.timestamp_millis()) {
                    return Err(Error::new(Kind::NotFound, "The table does not reach back so far")
                        .with_field("table", table)
                        .with_field("oldest", found)
                        .hint("see its versions with `daplake history`"));
                }
            }
        }
        delta.table_provider().await.context(Kind::Target, "The table cannot be read").with_field("table", table)
    }

    /// The table as of now, for a query. Kind `NotFound` if it is not kept here.
    pub async fn provider(&self, table: &TableRef) -> Result<Arc<dyn TableProvider>> {
        let log = self.log(table)?;
        let state = log.state().await.map_err(explained)?;
        let state = state.ok_or_else(|| {
            Error::new(Kind::NotFound, "The table is not kept at this target")
                .with_field("table", table)
                .with_field("target", self.location())
        })?;
        let mut delta = DeltaTable::new(log.log_store());
        delta.state = Some(state.delta);
        delta.table_provider().await.context(Kind::Target, "The table cannot be read").with_field("table", table)
    }

    /// Lets a session read data files from where they are.
    pub fn prepare(&self, session: &SessionContext) {
        if self.place.folder().is_none() {
            let (address, store) = self.place.by_url();
            session.register_object_store(address, store);
        }
    }

    /// Registers the tables of one namespace or of all as `namespace.table` and gives their names.
    pub async fn register(&self, session: &SessionContext, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        self.prepare(session);
        let tables = self.list(namespace).await?;
        let defaults = session.state().config_options().catalog.default_catalog.clone();
        let catalog = session.catalog(&defaults).ok_or_else(|| Error::new(Kind::Bug, "The session has no catalog"))?;
        let namespaces: BTreeSet<&str> = tables.iter().map(|table| table.namespace.as_str()).collect();
        for namespace in namespaces {
            if catalog.schema(namespace).is_none() {
                let schema = Arc::new(MemorySchemaProvider::new());
                catalog.register_schema(namespace, schema).context(Kind::Bug, "A namespace cannot be registered")?;
            }
        }
        for table in &tables {
            let provider = self.provider(table).await?;
            let name = TableReference::partial(table.namespace.as_str(), table.table.as_str());
            session
                .register_table(name, provider)
                .context(Kind::Bug, "A table cannot be registered")
                .with_field("table", table)?;
        }
        Ok(tables)
    }
}
