//! SQL databases, laid out as the official client lays them out, so that either can go on where the other stopped. It never
//! calls the service.
//!
//! `load.rs` is written once over two seams: `dialect` makes text, `connection` talks to a server. A database is one folder
//! with one of each. All of a table's load is one transaction: staging, schema change, upsert, delete, bookmark.

mod connection;
mod connection_string;
mod definition;
mod dialect;
mod load;
mod lookups;
mod meta;
#[cfg(feature = "mssql")]
mod mssql;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(all(test, any(feature = "mysql", feature = "postgres")))]
mod odd_values;
mod place;
#[cfg(feature = "postgres")]
mod postgres;
mod rights;
mod shape;
mod statement;
#[cfg(all(test, feature = "postgres"))]
mod tests;
mod texts;
#[cfg(any(feature = "mssql", feature = "postgres"))]
mod tls;
mod values;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use self::connection::{Connection, Server};
use self::dialect::{Dialect, SqlTable};
use self::load::SqlLoad;
use self::statement::Statement;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Bookmark, Namespace, TableRef};
use crate::redact::SafeUrl;
use crate::schema::TableSchema;
use crate::sink::{Capabilities, CommittedState, Load, LoadPlan, Sink, TableStatus};

/// Sessions that are kept for the next table.
const IDLE_SESSIONS: usize = 8;
/// Questions to the book-keeping at once: a run asks for all its tables together, and servers have few sessions to give.
const QUESTIONS: usize = 4;

/// A kind of database.
struct Database {
    schemes: &'static [&'static str],
    open: fn(&Url) -> Result<Box<dyn Server>>,
    /// A connection string, for people.
    example: &'static str,
}

/// All kinds. A new one is a folder and a line here.
const DATABASES: &[Database] = &[
    #[cfg(feature = "postgres")]
    Database {
        schemes: &["postgresql", "postgres"],
        open: |url| Ok(Box::new(postgres::PostgresServer::from_url(url)?)),
        example: "postgresql://user:password@host:5432/database?ssl=require",
    },
    #[cfg(feature = "mssql")]
    Database {
        schemes: &["mssql", "sqlserver"],
        open: |url| Ok(Box::new(mssql::MssqlServer::from_url(url)?)),
        example: "mssql://user:password@host:1433/database?ssl=verify-full",
    },
    #[cfg(feature = "mysql")]
    Database {
        schemes: &["mysql", "mariadb"],
        open: |url| Ok(Box::new(mysql::MysqlServer::from_url(url)?)),
        example: "mysql://user:password@host:3306/database?ssl=require",
    },
];

/// Whether URLs of this scheme name a database that this build knows.
pub fn knows_scheme(scheme: &str) -> bool {
    DATABASES.iter().any(|database| database.schemes.contains(&scheme))
}

/// The statements that make the tables of a namespace possible, as text; `scheme` is that of a connection string.
pub fn definition_of_namespace(scheme: &str, namespace: &Namespace) -> Result<String> {
    Ok(as_text(of_scheme(scheme)?.shared.dialect().create_namespace(namespace)))
}

/// The statements that make a table as the official client makes it, as text; `scheme` is that of a connection string.
pub fn definition(scheme: &str, schema: &TableSchema) -> Result<String> {
    let sink = of_scheme(scheme)?;
    let dialect = sink.shared.dialect();
    let table = dialect.table_of(schema)?;
    let mut statements = dialect.create_enumerations(&table, &[]);
    statements.extend(dialect.create_lookups(&table));
    statements.extend(dialect.create_table(&table));
    statements.extend(dialect.add_key(&table));
    Ok(as_text(statements))
}

/// A database of that kind, for its text alone.
fn of_scheme(scheme: &str) -> Result<SqlSink> {
    let url = Url::parse(&format!("{scheme}://user@localhost/database")).context(Kind::Usage, "Unknown kind of database")?;
    SqlSink::open(&url, SqlOptions::default())
}

fn as_text(statements: Vec<Statement>) -> String {
    statements.into_iter().map(|statement| format!("{};\n", statement.text)).collect()
}

/// What the book-keeping says of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// How far it has come.
    pub bookmark: Bookmark,
    /// Whether the data table is there.
    pub exists: bool,
}

/// What to do with NaN and the infinities where the database has no place for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonFinite {
    /// The table fails, and the error names column and key.
    #[default]
    Fail,
    /// They become null, and are counted.
    Null,
}

/// Choices for all tables of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SqlOptions {
    /// See [`NonFinite`].
    pub non_finite: NonFinite,
    /// Columns that an earlier schema had and the present one has not are dropped. Otherwise they are kept, without new values.
    /// Columns that no stored schema names are never dropped.
    pub drop_removed_columns: bool,
    /// Names or patterns of tables that may be taken over although they hold rows that the bookkeeping does not know. All their
    /// rows are replaced.
    pub adopt: Vec<String>,
}

/// A database.
///
/// Loads of one table wait for each other's commit; the first wins, the other gets kind `Conflict`.
#[derive(Debug, Clone)]
pub struct SqlSink {
    shared: Arc<Shared>,
}

struct Shared {
    location: SafeUrl,
    server: Box<dyn Server>,
    idle: Mutex<Vec<Box<dyn Connection>>>,
    has_meta: AtomicBool,
    /// The rights to make the bookkeeping are there.
    may_prepare: AtomicBool,
    namespaces: Mutex<HashSet<Namespace>>,
    questions: Semaphore,
    options: SqlOptions,
    /// What was known of all tables when the run began.
    known: Mutex<Known>,
    /// Tables that are not to be loaded directly, because their rows do not fit what was announced.
    to_be_staged: Mutex<HashSet<TableRef>>,
}

/// The book-keeping as read in one question; each table's share is given out once, so that nothing is believed for long.
#[derive(Default)]
struct Known {
    entries: HashMap<TableRef, Result<meta::Entry>>,
    given: HashSet<TableRef>,
    is_read: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("location", &self.location).finish_non_exhaustive()
    }
}

impl SqlSink {
    /// The database of a URL such as `postgresql://user:password@host:5432/database?ssl=require`. Connects to nothing yet.
    pub fn open(location: &Url, options: SqlOptions) -> Result<Self> {
        let known = DATABASES.iter().find(|database| database.schemes.contains(&location.scheme()));
        let Some(database) = known else {
            let examples: Vec<&str> = DATABASES.iter().map(|database| database.example).collect();
            return Err(Error::new(Kind::Unsupported, "This version does not know that kind of database")
                .with_field("scheme", location.scheme())
                .hint(format!("use {}", examples.join(" or "))));
        };
        Ok(Self::over(location, (database.open)(location)?, options))
    }

    /// The database behind a server.
    fn over(location: &Url, server: Box<dyn Server>, options: SqlOptions) -> Self {
        let shared = Shared {
            location: SafeUrl::new(location.clone()),
            server,
            idle: Mutex::new(Vec::new()),
            has_meta: AtomicBool::new(false),
            may_prepare: AtomicBool::new(false),
            namespaces: Mutex::new(HashSet::new()),
            questions: Semaphore::new(QUESTIONS),
            options,
            known: Mutex::default(),
            to_be_staged: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Puts into a connection string what it leaves out and the user has told the database's own programs, by variables and
    /// files. `variable` gives the value of a variable that is set. Kind `Usage` for a string that cannot be read.
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "only PostgreSQL's programs have such variables"))]
    pub fn complete(location: &Url, variable: &dyn Fn(&str) -> Option<String>) -> Result<Url> {
        match location.scheme() {
            #[cfg(feature = "postgres")]
            "postgresql" | "postgres" => postgres::complete(location, variable),
            _ => Ok(location.clone()),
        }
    }

    /// Makes the book-keeping where it is not there yet, as every command of the official client does, and brings that of clients
    /// before 1.0 to its form. Kind `Unsupported` for layouts that are not known.
    pub async fn prepare(&self) -> Result<()> {
        let _one_of_few = self.shared.question().await?;
        let mut session = self.shared.session().await?;
        meta::prepare(session.as_mut(), self.shared.dialect()).await?;
        self.shared.has_meta.store(true, Ordering::Relaxed);
        self.shared.give_back(session);
        Ok(())
    }

    /// What is wrong with the database's character set, as a sentence.
    pub async fn charset_warning(&self) -> Result<Option<String>> {
        let _one_of_few = self.shared.question().await?;
        let dialect = self.shared.dialect();
        let mut session = self.shared.session().await?;
        let rows = session.rows(&dialect.charset()).await?;
        self.shared.give_back(session);
        Ok(rows.first().and_then(|row| dialect.judge_charset(row)))
    }

    /// What the book-keeping says of the tables of a namespace, sorted.
    pub async fn figures(&self, namespace: &Namespace) -> Result<Vec<(TableRef, Figures)>> {
        let _one_of_few = self.shared.question().await?;
        let mut session = self.shared.session().await?;
        let entries = match self.shared.has_meta(session.as_mut()).await? {
            true => meta::entries(session.as_mut(), self.shared.dialect()).await?,
            false => HashMap::new(),
        };
        self.shared.give_back(session);
        let ours = entries.into_iter().filter(|(table, _)| table.namespace == *namespace);
        let mut figures = ours
            .map(|(table, entry)| entry.map(|entry| (table, Figures { bookmark: entry.bookmark, exists: entry.exists })))
            .collect::<Result<Vec<_>>>()?;
        figures.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(figures)
    }

    /// Counts the rows of a table.
    pub async fn count(&self, table: &TableRef) -> Result<u64> {
        let _one_of_few = self.shared.question().await?;
        let mut session = self.shared.session().await?;
        let count = Statement::new(format!("SELECT COUNT(*) FROM {}", self.shared.dialect().table_name(table)));
        let rows = session.rows(&count).await?;
        self.shared.give_back(session);
        let rows = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        rows.ok_or_else(|| Error::new(Kind::Bug, "The database counts in another way than expected"))
    }

    /// Table and book-keeping row go together; types and lookup tables stay. Kind `NotFound` when there is no such row.
    pub async fn remove(&self, table: &TableRef) -> Result<()> {
        let _one_of_few = self.shared.question().await?;
        let dialect = self.shared.dialect();
        let mut session = self.shared.session().await?;
        let has_meta = self.shared.has_meta(session.as_mut()).await?;
        let lock = table.to_string();
        session.execute(&dialect.begin()).await?;
        meta::wait_for_lock(session.as_mut(), dialect, &lock).await?;
        if meta::entry(session.as_mut(), dialect, table, has_meta).await?.is_none() {
            return Err(Error::new(Kind::NotFound, "The table is not initialised").with_field("table", table));
        }
        // Where this commits by itself, the row that goes last is the one that is missed least.
        let empty = SqlTable { table: table.clone(), columns: Vec::new(), comment: None };
        let drop = [dialect.drop_table(table)];
        definition::define(session.as_mut(), dialect, &empty, &drop).await.with_field("table", table)?;
        session.execute(&meta::forget(dialect, table)).await?;
        session.execute(&dialect.commit()).await?;
        if let Some(unlock) = dialect.unlock(&lock) {
            session.execute(&unlock).await?;
        }
        self.shared.give_back(session);
        Ok(())
    }
}

impl Shared {
    fn dialect(&self) -> &dyn Dialect {
        self.server.dialect()
    }

    /// One of the few questions at once. Loads are limited by who begins them.
    async fn question(&self) -> Result<SemaphorePermit<'_>> {
        self.questions.acquire().await.context(Kind::Bug, "The target is closed")
    }

    async fn session(&self) -> Result<Box<dyn Connection>> {
        loop {
            let kept = self.idle.lock().pop();
            match kept {
                Some(mut session) => {
                    if session.is_alive().await {
                        return Ok(session);
                    }
                }
                None => return self.server.connect().await.with_field("target", &self.location),
            }
        }
    }

    fn give_back(&self, session: Box<dyn Connection>) {
        let mut idle = self.idle.lock();
        if session.is_idle() && idle.len() < IDLE_SESSIONS {
            idle.push(session);
        }
    }

    fn is_to_be_staged(&self, table: &TableRef) -> bool {
        self.to_be_staged.lock().contains(table)
    }

    fn stage_from_now(&self, table: &TableRef) {
        self.to_be_staged.lock().insert(table.clone());
    }

    /// Reads the book-keeping of all tables, for the questions of a run.
    async fn read_all(&self, session: &mut dyn Connection) -> Result<()> {
        let entries = match self.has_meta(session).await? {
            true => meta::entries(session, self.dialect()).await?,
            false => HashMap::new(),
        };
        *self.known.lock() = Known { entries, given: HashSet::new(), is_read: true };
        Ok(())
    }

    /// What was read of a table, once. `None`: ask the database.
    fn take_known(&self, table: &TableRef) -> Option<Result<Option<meta::Entry>>> {
        let mut known = self.known.lock();
        if !known.is_read || !known.given.insert(table.clone()) {
            return None;
        }
        Some(known.entries.remove(table).transpose())
    }

    /// What the bookkeeping says of a table, if that and what stands at the table's name agree. `known`: what was read before.
    async fn look(
        &self,
        session: &mut dyn Connection,
        table: &TableRef,
        known: Option<Option<meta::Entry>>,
    ) -> Result<Option<meta::Entry>> {
        let dialect = self.dialect();
        let mut has_meta = self.has_meta(session).await?;
        if !has_meta && !session.rows(&dialect.ancient_tables()).await?.is_empty() {
            // Of a client before 1.0.
            meta::prepare(session, dialect).await?;
            self.has_meta.store(true, Ordering::Relaxed);
            has_meta = true;
        }
        if !has_meta {
            self.try_prepare(session).await?;
        }
        let entry = match known {
            Some(known) if has_meta => known,
            _ => meta::entry(session, dialect, table, has_meta).await?,
        };
        match entry {
            Some(entry) if entry.exists => Ok(Some(entry)),
            Some(_) => Err(place::missing(session, dialect, table).await),
            None => place::check_table(session, dialect, table, self.adopts(table)).await.map(|()| None),
        }
    }

    /// Makes the bookkeeping and undoes that, so that a right that a first run lacks is named before a job is started.
    async fn try_prepare(&self, session: &mut dyn Connection) -> Result<()> {
        let dialect = self.dialect();
        if !dialect.ddl_is_transactional() || self.may_prepare.load(Ordering::Relaxed) {
            return Ok(());
        }
        session.execute(&dialect.begin()).await?;
        session.execute(&dialect.lock(meta::LOCK)).await?;
        for statement in dialect.create_meta() {
            session.execute(&statement).await?;
        }
        session.execute(&dialect.rollback()).await?;
        self.may_prepare.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the user lets a table be taken over.
    fn adopts(&self, table: &TableRef) -> bool {
        self.options.adopt.iter().any(|word| table.matches(word))
    }

    /// Whether there is book-keeping. Once seen it is there, so that it is asked for once in a run.
    async fn has_meta(&self, session: &mut dyn Connection) -> Result<bool> {
        if self.has_meta.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let found = meta::exists(session, self.dialect()).await?;
        self.has_meta.store(found, Ordering::Relaxed);
        Ok(found)
    }

    /// Book-keeping and schema for the tables of a namespace.
    async fn make_room(&self, session: &mut dyn Connection, namespace: &Namespace) -> Result<()> {
        let dialect = self.dialect();
        if self.namespaces.lock().contains(namespace) {
            return Ok(());
        }
        meta::prepare(session, dialect).await?;
        self.has_meta.store(true, Ordering::Relaxed);
        let mut statements = dialect.create_namespace(namespace);
        statements.extend(dialect.create_exact_moments());
        if !statements.is_empty() {
            session.execute(&dialect.begin()).await?;
            // Two that make it at once would fail, `IF NOT EXISTS` or not.
            meta::wait_for_lock(session, dialect, meta::LOCK).await?;
            for statement in &statements {
                session.execute(statement).await?;
            }
            session.execute(&dialect.commit()).await?;
            if let Some(unlock) = dialect.unlock(meta::LOCK) {
                session.execute(&unlock).await?;
            }
        }
        self.namespaces.lock().insert(namespace.clone());
        Ok(())
    }
}

#[async_trait]
impl Sink for SqlSink {
    fn location(&self) -> &SafeUrl {
        &self.shared.location
    }

    /// Makes and drops a staging table, and reads the book-keeping, so that the questions for all tables of the run that begins
    /// now are answered without asking again.
    async fn check(&self) -> Result<()> {
        let _one_of_few = self.shared.question().await?;
        let dialect = self.shared.dialect();
        let mut session = self.shared.session().await?;
        let nothing = SqlTable { table: TableRef::new("daplake", "check"), columns: Vec::new(), comment: None };
        session.execute(&dialect.begin()).await?;
        for statement in dialect.create_stage(&nothing).iter().chain(&dialect.drop_stage()) {
            session.execute(statement).await.hint("let the user make temporary tables in this database")?;
        }
        session.execute(&dialect.rollback()).await?;
        self.shared.read_all(session.as_mut()).await?;
        self.shared.give_back(session);
        Ok(())
    }

    async fn check_rights(&self, namespaces: &[Namespace]) -> Result<()> {
        {
            let _one_of_few = self.shared.question().await?;
            let mut session = self.shared.session().await?;
            if !self.shared.has_meta(session.as_mut()).await? {
                self.shared.try_prepare(session.as_mut()).await?;
            }
            self.shared.give_back(session);
        }
        rights::check(&self.shared, namespaces).await
    }

    async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        let known = self.shared.take_known(table).transpose()?;
        let entry = match known {
            Some(Some(entry)) if entry.exists => Some(entry),
            known => {
                let _one_of_few = self.shared.question().await?;
                let mut session = self.shared.session().await?;
                let entry = self.shared.look(session.as_mut(), table, known).await?;
                self.shared.give_back(session);
                entry
            }
        };
        Ok(entry.map(|entry| CommittedState::new(entry.bookmark, entry.columns())))
    }

    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        let _one_of_few = self.shared.question().await?;
        let mut session = self.shared.session().await?;
        let tables = match self.shared.has_meta(session.as_mut()).await? {
            true => meta::tables(session.as_mut(), self.shared.dialect(), namespace).await?,
            false => Vec::new(),
        };
        self.shared.give_back(session);
        Ok(tables)
    }

    /// Counts the rows.
    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        let entry = {
            let _one_of_few = self.shared.question().await?;
            let mut session = self.shared.session().await?;
            let has_meta = self.shared.has_meta(session.as_mut()).await?;
            let entry = meta::entry(session.as_mut(), self.shared.dialect(), table, has_meta).await?;
            self.shared.give_back(session);
            entry
        };
        let Some(entry) = entry else { return Ok(None) };
        let rows = if entry.exists { Some(self.count(table).await?) } else { None };
        let (table, bookmark) = (table.clone(), entry.bookmark);
        Ok(Some(TableStatus {
            table,
            bookmark,
            rows,
            files: None,
            bytes: None,
            last_commit: None,
            version: None,
            protocol: None,
            kept_as: None,
        }))
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities { checks_unique_keys: self.shared.dialect().refuses_duplicates(), ..Capabilities::default() }
    }

    fn is_retryable(&self, error: &Error) -> bool {
        self.shared.dialect().is_passing(error)
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        let table = plan.table.clone();
        Ok(Box::new(SqlLoad::begin(Arc::clone(&self.shared), plan).await.with_field("table", table)?))
    }
}
