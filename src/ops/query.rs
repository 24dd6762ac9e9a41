//! `query`: DataFusion SQL over the tables of a target.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::engine::Engine;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{TableRef, nearest};
use crate::sink::delta::{At, DeltaSink};
use crate::sink::{Lake, Sink};

const FAILED: &str = "The query failed";

/// The result of a query.
pub struct Answer {
    /// Schema of the rows.
    pub schema: SchemaRef,
    /// The rows, as the query produces them: batches of at most 8192 rows with the columns of `schema`. The stream ends after an error, which is
    /// of kind `Target` if the statement fails or exceeds the memory limit.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Runs one read-only statement over the newest version of the lake tables.
///
/// Tables are registered as `namespace.table`; tables of `canvas` also by their bare names. Only the tables that the statement names are
/// opened.
///
/// # Errors
/// Kind `Usage` if the statement is invalid or would change something, `Target` if a table cannot be read.
///
/// ```no_run
/// # async fn example(lake: daplake::ops::Lake, engine: daplake::Engine) -> daplake::Result<()> {
/// use daplake::ops::query;
/// use futures::TryStreamExt;
///
/// let mut answer = query(&lake, &engine, "SELECT workflow_state, count(*) FROM users GROUP BY 1").await?;
/// while let Some(batch) = answer.batches.try_next().await? {
///     println!("{} rows", batch.num_rows());
/// }
/// # Ok(())
/// # }
/// ```
pub async fn query(lake: &Lake, engine: &Engine, sql: &str) -> Result<Answer> {
    Querier::open(lake, engine, None).await?.run(sql).await
}

/// A session for several statements. Each reads the newest version of the tables, or the version of one given time.
#[derive(Clone)]
pub struct Querier {
    context: SessionContext,
    lake: Lake,
    engine: Engine,
    tables: Vec<TableRef>,
}

impl std::fmt::Debug for Querier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Querier").field("lake", &self.lake).field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl Querier {
    /// Registers the tables of the target. None of them is read yet.
    pub async fn open(lake: &Lake, engine: &Engine, at: Option<At>) -> Result<Self> {
        let tables = lake.tables().list(None).await?;
        let context = session(lake.tables(), engine, &tables, at)?;
        Ok(Self { context, lake: lake.clone(), engine: engine.clone(), tables })
    }

    /// A session over the same target as of another time.
    pub async fn reopened(&self, at: Option<At>) -> Result<Self> {
        Self::open(&self.lake, &self.engine, at).await
    }

    /// The tables, sorted.
    pub fn tables(&self) -> &[TableRef] {
        &self.tables
    }

    /// The columns of a table, given as `namespace.table` or, for `canvas`, by its bare name. Kind `NotFound` if the target does not have it.
    pub async fn columns(&self, table: &str) -> Result<SchemaRef> {
        let named =
            |known: &&TableRef| known.to_string() == table || (known.namespace.as_str() == "canvas" && known.table == table);
        let found = self
            .tables
            .iter()
            .find(named)
            .ok_or_else(|| Error::new(Kind::NotFound, "The target has no such table").with_field("table", table))?;
        let name = TableReference::partial(found.namespace.as_str(), found.table.as_str());
        Ok(self.context.table_provider(name).await.context(Kind::Target, "Cannot read the table")?.schema())
    }

    /// Runs one read-only statement. Errors as for [`query`].
    pub async fn run(&self, sql: &str) -> Result<Answer> {
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = self.context.sql_with_options(sql, read_only).await.map_err(|error| {
            Error::recover(error, |cause| {
                let hint = self.hint(&cause.to_string());
                let error = Error::new(Kind::Usage, "Cannot run the statement").caused_by(cause);
                match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            })
        })?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.execute_stream().await.context(Kind::Target, FAILED)?;
        Ok(Answer { schema, batches: batches.map(|batch| batch.context(Kind::Target, FAILED)).boxed() })
    }

    /// The hint for an error of the planner, whose errors differ only in their text.
    fn hint(&self, message: &str) -> Option<String> {
        if ["DDL", "DML", "Statement"].iter().any(|kind| message.contains(&format!("{kind} not supported"))) {
            return Some("`query` only reads; tables are changed by `daplake sync`".to_owned());
        }
        let unknown = message.split_once("table 'daplake.")?.1.split_once("' not found")?.0;
        let known: Vec<String> = self.tables.iter().map(ToString::to_string).collect();
        Some(match nearest(unknown, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "table names have the form namespace.table; list them with `daplake status` or `SHOW TABLES`".to_owned(),
        })
    }
}

fn session(sink: &Arc<DeltaSink>, engine: &Engine, kept: &[TableRef], at: Option<At>) -> Result<SessionContext> {
    let base = engine.session();
    let config: SessionConfig =
        base.copied_config().with_information_schema(true).with_default_catalog_and_schema("daplake", "canvas");
    let context = SessionContext::new_with_config_rt(config, base.runtime_env());
    let mut namespaces: BTreeMap<String, Vec<TableRef>> = BTreeMap::new();
    // The default schema exists even in a lake without tables of Canvas.
    namespaces.insert("canvas".to_owned(), Vec::new());
    for table in kept {
        namespaces.entry(table.namespace.to_string()).or_default().push(table.clone());
    }
    let catalog = Arc::new(MemoryCatalogProvider::new());
    for (name, tables) in namespaces {
        let schema = Arc::new(LazyTables { sink: sink.clone(), tables, at });
        catalog.register_schema(&name, schema).context(Kind::Bug, "Cannot register a namespace")?;
    }
    context.register_catalog("daplake", catalog);
    sink.prepare(&context);
    Ok(context)
}

/// The tables of a namespace, opened when a statement refers to them.
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
