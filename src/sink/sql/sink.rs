//! SQL databases as targets.

use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use super::connection::Server;
use super::database::Database;
use super::dialect::{SqlTable, Statement, system_column};
use super::load::{SqlLoad, define, kept_rows};
#[cfg(feature = "mssql")]
use super::mssql::MssqlServer;
#[cfg(feature = "mysql")]
use super::mysql::MysqlServer;
use super::options::SqlOptions;
#[cfg(feature = "postgres")]
use super::postgres::{self, PostgresServer};
use super::{privileges, sync_state};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Bookmark, Namespace, TableRef};
use crate::redact::SafeUrl;
use crate::schema::{Column, TableSchema};
use crate::sink::{
    Capabilities, ColumnStatus, CommittedState, KeptRows, Layout, Load, LoadPlan, Sink, TableProblems, TableStatus,
};

/// A kind of database.
struct DatabaseKind {
    schemes: &'static [&'static str],
    open: fn(&Url) -> Result<Box<dyn Server>>,
    /// A connection string for hints.
    example: &'static str,
}

/// All kinds. A new one is a folder and an entry here.
const DATABASE_KINDS: &[DatabaseKind] = &[
    #[cfg(feature = "postgres")]
    DatabaseKind {
        schemes: &["postgresql", "postgres"],
        open: |url| Ok(Box::new(PostgresServer::from_url(url)?)),
        example: "postgresql://user:password@host:5432/database?ssl=require",
    },
    #[cfg(feature = "mssql")]
    DatabaseKind {
        schemes: &["mssql", "sqlserver"],
        open: |url| Ok(Box::new(MssqlServer::from_url(url)?)),
        example: "mssql://user:password@host:1433/database?ssl=verify-full",
    },
    #[cfg(feature = "mysql")]
    DatabaseKind {
        schemes: &["mysql", "mariadb"],
        open: |url| Ok(Box::new(MysqlServer::from_url(url)?)),
        example: "mysql://user:password@host:3306/database?ssl=require",
    },
];

/// Whether URLs of this scheme name a database that this build supports.
pub fn knows_scheme(scheme: &str) -> bool {
    DATABASE_KINDS.iter().any(|kind| kind.schemes.contains(&scheme))
}

/// The SQL that creates the schema for the tables of a namespace. `scheme`: that of a connection string.
pub fn definition_of_namespace(scheme: &str, namespace: &Namespace) -> Result<String> {
    Ok(text_of(for_scheme(scheme)?.database.dialect().create_namespace(namespace)))
}

/// The SQL that creates a table as the official client does. `scheme`: that of a connection string.
pub fn definition(scheme: &str, schema: &TableSchema) -> Result<String> {
    let sink = for_scheme(scheme)?;
    let dialect = sink.database.dialect();
    let table = dialect.table_of(schema)?;
    let mut statements = dialect.create_enumerations(&table, &[]);
    statements.extend(dialect.create_lookups(&table));
    statements.extend(dialect.create_table(&table));
    statements.extend(dialect.add_key(&table));
    Ok(text_of(statements))
}

/// A database of that kind, only for its SQL.
fn for_scheme(scheme: &str) -> Result<SqlSink> {
    let url = Url::parse(&format!("{scheme}://user@localhost/database")).context(Kind::Usage, "Unknown kind of database")?;
    SqlSink::open(&url, SqlOptions::default())
}

fn text_of(statements: Vec<Statement>) -> String {
    statements.into_iter().map(|statement| format!("{};\n", statement.text)).collect()
}

/// The sync state of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The table's bookmark.
    pub bookmark: Bookmark,
    /// Whether the data table exists.
    pub exists: bool,
}

/// A database as a target.
///
/// Loads of one table wait for each other's commit; the first wins, the other fails with kind `Conflict`.
#[derive(Debug, Clone)]
pub struct SqlSink {
    database: Arc<Database>,
}

impl SqlSink {
    /// The database of a URL such as `postgresql://user:password@host:5432/database?ssl=require`. Connects to nothing yet. Kind
    /// `Unsupported` for an unknown kind of database, `Usage` for a malformed connection string.
    pub fn open(location: &Url, options: SqlOptions) -> Result<Self> {
        let Some(kind) = DATABASE_KINDS.iter().find(|kind| kind.schemes.contains(&location.scheme())) else {
            let examples: Vec<&str> = DATABASE_KINDS.iter().map(|kind| kind.example).collect();
            return Err(Error::new(Kind::Unsupported, "This build does not support that kind of database")
                .with_field("scheme", location.scheme())
                .hint(format!("use {}", examples.join(" or "))));
        };
        Ok(Self { database: Arc::new(Database::new(location, (kind.open)(location)?, options)) })
    }

    /// The database behind a server of the tests.
    #[cfg(all(test, feature = "postgres"))]
    pub(super) fn with_server(location: &Url, server: Box<dyn Server>, options: SqlOptions) -> Self {
        Self { database: Arc::new(Database::new(location, server, options)) }
    }

    /// Completes a connection string from the variables and files that the database's own programs read. `variable` returns the value of
    /// a variable that is set. Kind `Usage` for a malformed connection string.
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "only PostgreSQL's programs have such variables"))]
    pub fn complete(location: &Url, variable: &dyn Fn(&str) -> Option<String>) -> Result<Url> {
        match location.scheme() {
            #[cfg(feature = "postgres")]
            "postgresql" | "postgres" => postgres::complete(location, variable),
            _ => Ok(location.clone()),
        }
    }

    /// Creates the sync state where it is missing, as every command of the official client does, and converts that of clients before
    /// 1.0. Kind `Unsupported` for an unknown layout.
    pub async fn prepare(&self) -> Result<()> {
        let _slot = self.database.query_slot().await?;
        let mut session = self.database.session().await?;
        self.database.prepare(session.as_mut()).await?;
        self.database.give_back(session);
        Ok(())
    }

    /// A sentence about the database's character set, if text may be lost or refused.
    pub async fn charset_warning(&self) -> Result<Option<String>> {
        let _slot = self.database.query_slot().await?;
        let dialect = self.database.dialect();
        let mut session = self.database.session().await?;
        let rows = session.rows(&dialect.charset()).await?;
        self.database.give_back(session);
        Ok(rows.first().and_then(|row| dialect.judge_charset(row)))
    }

    /// The sync state of the tables of a namespace, sorted.
    pub async fn figures(&self, namespace: &Namespace) -> Result<Vec<(TableRef, Figures)>> {
        let _slot = self.database.query_slot().await?;
        let mut session = self.database.session().await?;
        let entries = self.database.entries(session.as_mut()).await?;
        self.database.give_back(session);
        let entries = entries.into_iter().filter(|(table, _)| table.namespace == *namespace);
        let mut figures = entries
            .map(|(table, entry)| entry.map(|entry| (table, Figures { bookmark: entry.bookmark, exists: entry.exists })))
            .collect::<Result<Vec<_>>>()?;
        figures.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(figures)
    }

    /// Counts the rows of a table.
    pub async fn count(&self, table: &TableRef) -> Result<u64> {
        let _slot = self.database.query_slot().await?;
        let mut session = self.database.session().await?;
        let count = Statement::new(format!("SELECT COUNT(*) FROM {}", self.database.dialect().table_name(table)));
        let rows = session.rows(&count).await?;
        self.database.give_back(session);
        let count = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        count.ok_or_else(|| Error::new(Kind::Bug, "The database returned no row count"))
    }

    /// Bytes of a table with its indexes; `None` if the server does not say.
    async fn bytes(&self, table: &TableRef) -> Result<Option<u64>> {
        let _slot = self.database.query_slot().await?;
        let mut session = self.database.session().await?;
        let rows = session.rows(&self.database.dialect().table_bytes(table)).await?;
        self.database.give_back(session);
        Ok(rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()))
    }

    /// Drops a table and its row of the sync state; types and lookup tables stay. Kind `NotFound` if there is no such row.
    pub async fn remove(&self, table: &TableRef) -> Result<()> {
        let _slot = self.database.query_slot().await?;
        let dialect = self.database.dialect();
        let mut session = self.database.session().await?;
        let has_sync_state = self.database.has_sync_state(session.as_mut()).await?;
        let lock = table.to_string();
        session.execute(&dialect.begin()).await?;
        sync_state::wait_for_lock(session.as_mut(), dialect, &lock).await?;
        if sync_state::entry(session.as_mut(), dialect, table, has_sync_state).await?.is_none() {
            return Err(Error::new(Kind::NotFound, "The table is not initialised").with_field("table", table));
        }
        // Where dropping commits, the row of the sync state is removed last, so that an interrupted removal can be repeated.
        let empty = SqlTable::without_columns(table.clone());
        let drop = [dialect.drop_table(table)];
        define(session.as_mut(), dialect, &empty, &drop).await.with_field("table", table)?;
        session.execute(&sync_state::remove_entry(dialect, table)).await?;
        session.execute(&dialect.commit()).await?;
        if let Some(unlock) = dialect.unlock(&lock) {
            session.execute(&unlock).await?;
        }
        self.database.give_back(session);
        Ok(())
    }

    /// The sync state of a table, as it is stored.
    async fn stored_entry(&self, table: &TableRef) -> Result<Option<sync_state::Entry>> {
        let _slot = self.database.query_slot().await?;
        let mut session = self.database.session().await?;
        let has_sync_state = self.database.has_sync_state(session.as_mut()).await?;
        let entry = sync_state::entry(session.as_mut(), self.database.dialect(), table, has_sync_state).await?;
        self.database.give_back(session);
        Ok(entry)
    }
}

/// The columns of a stored schema, without those that are left out, and the system columns of the table.
fn columns_of(schema: &TableSchema, entry: &sync_state::Entry) -> Vec<ColumnStatus> {
    let record = entry.columns();
    let status = |column: &Column| ColumnStatus {
        name: column.name.clone(),
        column_type: if record.hashed.contains(&column.name) {
            "text (hashed)".to_owned()
        } else {
            column.column_type.describe()
        },
        is_key: schema.key.iter().any(|key| key.name == column.name),
        nullable: !column.required,
        description: column.description.clone(),
    };
    let system = entry.kept.columns().iter().copied().map(system_column);
    let keys: Vec<Column> = schema.key.clone();
    let columns = keys.into_iter().chain(system).chain(schema.value.iter().cloned());
    columns.filter(|column| !record.dropped.contains(&column.name)).map(|column| status(&column)).collect()
}

/// The state of a table from its entry in the sync state.
fn state_of(table: &TableRef, entry: &sync_state::Entry) -> CommittedState {
    let (mode, keeps_rows) = (entry.kept.mode, entry.kept.keeps_rows());
    let state = CommittedState { mode, keeps_rows, ..CommittedState::new(entry.bookmark, entry.columns()) };
    let Some(schema) = entry.schema(table) else { return state };
    let own = schema.columns().filter(|column| !state.columns.dropped.contains(&column.name));
    let known_columns = Some(own.map(|column| column.name.clone()).collect());
    CommittedState { known_columns, ..state }
}

#[async_trait]
impl Sink for SqlSink {
    fn location(&self) -> &SafeUrl {
        &self.database.location
    }

    /// Creates and drops a staging table, and reads the sync state of all tables for the run that begins now.
    async fn check(&self) -> Result<()> {
        let _slot = self.database.query_slot().await?;
        let dialect = self.database.dialect();
        let mut session = self.database.session().await?;
        let empty = SqlTable::without_columns(TableRef::new("daplake", "check"));
        session.execute(&dialect.begin()).await?;
        for statement in dialect.create_stage(&empty).iter().chain(&dialect.drop_stage()) {
            session.execute(statement).await.hint("allow the user to create temporary tables in this database")?;
        }
        session.execute(&dialect.rollback()).await?;
        self.database.read_snapshot(session.as_mut()).await?;
        self.database.give_back(session);
        Ok(())
    }

    async fn check_rights(&self, namespaces: &[Namespace]) -> Result<()> {
        privileges::check(&self.database, namespaces).await
    }

    async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        let known = self.database.take_from_snapshot(table).transpose()?;
        let entry = match known {
            Some(Some(entry)) if entry.exists => Some(entry),
            known => {
                let _slot = self.database.query_slot().await?;
                let mut session = self.database.session().await?;
                let entry = self.database.entry(session.as_mut(), table, known).await?;
                self.database.give_back(session);
                entry
            }
        };
        Ok(entry.map(|entry| state_of(table, &entry)))
    }

    async fn inspect(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        let _slot = self.database.query_slot().await?;
        let mut session = self.database.session().await?;
        let entry = self.database.inspect(session.as_mut(), table).await?;
        self.database.give_back(session);
        Ok(entry.map(|entry| state_of(table, &entry)))
    }

    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        let _slot = self.database.query_slot().await?;
        let mut session = self.database.session().await?;
        let tables = if self.database.has_sync_state(session.as_mut()).await? {
            sync_state::tables(session.as_mut(), self.database.dialect(), namespace).await?
        } else {
            Vec::new()
        };
        self.database.give_back(session);
        Ok(tables)
    }

    /// Counts the rows.
    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        let Some(entry) = self.stored_entry(table).await? else { return Ok(None) };
        let rows = if entry.exists { Some(self.count(table).await?) } else { None };
        let bytes = if entry.exists { self.bytes(table).await? } else { None };
        let schema = entry.schema(table);
        let columns = schema.as_ref().map_or_else(Vec::new, |schema| columns_of(schema, &entry));
        let (table, bookmark) = (table.clone(), entry.bookmark);
        Ok(Some(TableStatus {
            table,
            bookmark,
            rows,
            files: None,
            bytes,
            last_commit: None,
            version: None,
            protocol: None,
            kept_as: (entry.kept != KeptRows::default()).then(|| entry.kept.describe()),
            reader: None,
            description: schema.and_then(|schema| schema.description),
            columns,
        }))
    }

    fn capabilities(&self) -> Capabilities<'_> {
        let dialect = self.database.dialect();
        Capabilities {
            checks_unique_keys: dialect.refuses_duplicates(),
            stores_in_key_order: dialect.stores_in_key_order(),
            ..Capabilities::default()
        }
    }

    fn is_retryable(&self, error: &Error) -> bool {
        self.database.dialect().is_transient(error)
    }

    /// Asks the server only if the user chose which rows the table keeps.
    async fn validate_layout(&self, table: &TableRef, wanted: &Layout) -> Result<()> {
        if !wanted.is_chosen() {
            return Ok(());
        }
        kept_rows(wanted, None)?;
        let entry = self.stored_entry(table).await?;
        kept_rows(wanted, entry.map(|entry| entry.kept)).map(drop)
    }

    /// Compares the schema with what the database can hold, and the names of the table's parts with those of existing objects.
    async fn check_plan(&self, plan: LoadPlan) -> Result<()> {
        let _slot = self.database.query_slot().await?;
        let table = plan.table.clone();
        SqlLoad::check(Arc::clone(&self.database), plan).await.with_field("table", table)
    }

    async fn check_tables(&self, tables: &[TableRef]) -> Result<TableProblems> {
        privileges::check_tables(&self.database, tables).await
    }

    async fn schema_changes(&self, plan: &LoadPlan) -> Result<Vec<String>> {
        let _slot = self.database.query_slot().await?;
        let changes = SqlLoad::schema_changes(Arc::clone(&self.database), plan.clone()).await;
        changes.with_field("table", &plan.table)
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        let table = plan.table.clone();
        Ok(Box::new(SqlLoad::begin(Arc::clone(&self.database), plan).await.with_field("table", table)?))
    }
}
