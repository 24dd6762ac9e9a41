//! `query`: DataFusion SQL over the tables of a target.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};

use crate::engine::Engine;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::sink::Sink;
use crate::sink::delta::{At, DeltaSink};

/// The answer of a query, as a stream.
pub struct Answer {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows.
    pub batches: SendableRecordBatchStream,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Runs one read-only statement. Tables are registered as `namespace.table`; those of `canvas` also go by their bare names.
/// Kind `Usage` when the statement is wrong, `Resources` when it does not fit the memory limit.
pub async fn query(sink: &Arc<DeltaSink>, engine: &Engine, sql: &str) -> Result<Answer> {
    query_at(sink, engine, sql, None).await
}

/// As [`query`], over the tables as they were.
pub async fn query_at(sink: &Arc<DeltaSink>, engine: &Engine, sql: &str, at: Option<At>) -> Result<Answer> {
    Querier::open(sink, engine, at).await?.run(sql).await
}

/// A session for many statements. Each reads the tables as they are by then, or as they were at the one moment given.
#[derive(Clone)]
pub struct Querier {
    context: SessionContext,
    sink: Arc<DeltaSink>,
    engine: Engine,
    tables: Vec<TableRef>,
}

impl std::fmt::Debug for Querier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Querier").field("sink", &self.sink).field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl Querier {
    /// Over the tables that the target has now. None of them is read yet.
    pub async fn open(sink: &Arc<DeltaSink>, engine: &Engine, at: Option<At>) -> Result<Self> {
        let tables = sink.list(None).await?;
        let context = session(sink, engine, &tables, at)?;
        Ok(Self { context, sink: Arc::clone(sink), engine: engine.clone(), tables })
    }

    /// The same target at another moment.
    pub async fn reopened(&self, at: Option<At>) -> Result<Self> {
        Self::open(&self.sink, &self.engine, at).await
    }

    /// The tables, sorted.
    pub fn tables(&self) -> &[TableRef] {
        &self.tables
    }

    /// The columns of a table, by `namespace.table` or, for `canvas`, its bare name. Kind `NotFound` if there is none.
    pub async fn columns(&self, table: &str) -> Result<SchemaRef> {
        let named =
            |known: &&TableRef| known.to_string() == table || (known.namespace.as_str() == "canvas" && known.table == table);
        let found = self
            .tables
            .iter()
            .find(named)
            .ok_or_else(|| Error::new(Kind::NotFound, "The target has no such table").with_field("table", table))?;
        let name = TableReference::partial(found.namespace.as_str(), found.table.as_str());
        Ok(self.context.table_provider(name).await.context(Kind::Target, "The table cannot be read")?.schema())
    }

    /// Runs one read-only statement. Kinds as of [`query`].
    pub async fn run(&self, sql: &str) -> Result<Answer> {
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(sql, read_only).await.map_err(|error| {
            Error::recover(error, |cause| {
                Error::new(Kind::Usage, "The statement cannot be run")
                    .caused_by(cause)
                    .hint("tables are named namespace.table; see them with `daplake status` or `SHOW TABLES`")
            })
        })?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.execute_stream().await.context(Kind::Target, "The query failed")?;
        Ok(Answer { schema, batches })
    }
}

fn session(sink: &Arc<DeltaSink>, engine: &Engine, held: &[TableRef], at: Option<At>) -> Result<SessionContext> {
    let base = engine.session();
    let config: SessionConfig =
        base.copied_config().with_information_schema(true).with_default_catalog_and_schema("daplake", "canvas");
    let context = SessionContext::new_with_config_rt(config, base.runtime_env());
    let mut namespaces: BTreeMap<String, Vec<TableRef>> = BTreeMap::new();
    // There is always a default schema, also in a lake without Canvas.
    namespaces.insert("canvas".to_owned(), Vec::new());
    for table in held {
        namespaces.entry(table.namespace.to_string()).or_default().push(table.clone());
    }
    let catalog = Arc::new(MemoryCatalogProvider::new());
    for (name, tables) in namespaces {
        let schema = Arc::new(LazyTables { sink: sink.clone(), tables, at });
        catalog.register_schema(&name, schema).context(Kind::Bug, "A namespace cannot be registered")?;
    }
    context.register_catalog("daplake", catalog);
    sink.prepare(&context);
    Ok(context)
}

/// The tables of a namespace, opened when a statement names them.
#[derive(Debug)]
struct LazyTables {
    sink: Arc<DeltaSink>,
    tables: Vec<TableRef>,
    at: Option<At>,
}

#[async_trait]
impl SchemaProvider for LazyTables {
    fn table_names(&self) -> Vec<String> {
        self.tables.iter().map(|table| table.table.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match self.tables.iter().find(|table| table.table == name) {
            Some(table) => {
                let provider = match self.at {
                    None => self.sink.provider(table).await,
                    Some(at) => self.sink.provider_at(table, at).await,
                };
                Ok(Some(provider?))
            }
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.table == name)
    }
}
