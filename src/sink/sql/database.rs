//! One database: its sessions, the user's options, and what a run has learnt about it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::connection::{Connection, Server};
use super::dialect::Dialect;
use super::options::SqlOptions;
use super::{occupants, sync_state};
use crate::error::{ErrorContext, Kind, Result, ResultExt};
use crate::model::{Namespace, TableRef};
use crate::redact::SafeUrl;

/// Sessions that are kept for the next table.
const IDLE_SESSIONS: usize = 8;
/// Queries outside of loads that run at once: a run asks about all of its tables together, and servers have few sessions.
const QUERIES_AT_ONCE: usize = 4;

/// A database, shared by its sink and its loads.
pub(super) struct Database {
    pub(super) location: SafeUrl,
    pub(super) options: SqlOptions,
    server: Box<dyn Server>,
    idle: Mutex<Vec<Box<dyn Connection>>>,
    has_sync_state: AtomicBool,
    /// The user has the privileges to create the sync state.
    can_create_sync_state: AtomicBool,
    /// Namespaces whose schema exists.
    namespaces: Mutex<HashSet<Namespace>>,
    queries: Semaphore,
    snapshot: Mutex<SyncStateSnapshot>,
    /// Tables that must be staged, because their rows do not fit a table made by the schema.
    staged: Mutex<HashSet<TableRef>>,
}

/// The sync state when the run began, read with one query. Each table's entry is given out once, so that nothing is used for long.
#[derive(Default)]
struct SyncStateSnapshot {
    entries: HashMap<TableRef, Result<sync_state::Entry>>,
    given: HashSet<TableRef>,
    is_read: bool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Database {
    pub(super) fn new(location: &Url, server: Box<dyn Server>, options: SqlOptions) -> Self {
        Self {
            location: SafeUrl::new(location.clone()),
            options,
            server,
            idle: Mutex::default(),
            has_sync_state: AtomicBool::new(false),
            can_create_sync_state: AtomicBool::new(false),
            namespaces: Mutex::default(),
            queries: Semaphore::new(QUERIES_AT_ONCE),
            snapshot: Mutex::default(),
            staged: Mutex::default(),
        }
    }

    /// The SQL of the server.
    pub(super) fn dialect(&self) -> &dyn Dialect {
        self.server.dialect()
    }

    /// Waits for a free slot for a query outside of loads. The number of loads is limited by who begins them.
    pub(super) async fn query_slot(&self) -> Result<SemaphorePermit<'_>> {
        self.queries.acquire().await.context(Kind::Bug, "The target is closed")
    }

    /// An idle session, or a new one. Kind `Target` if it cannot be opened.
    pub(super) async fn session(&self) -> Result<Box<dyn Connection>> {
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

    /// Keeps a session for later, if it is usable.
    pub(super) fn give_back(&self, session: Box<dyn Connection>) {
        let mut idle = self.idle.lock();
        if session.is_idle() && idle.len() < IDLE_SESSIONS {
            idle.push(session);
        }
    }

    /// Whether the rows of a table must be staged; see [`Database::stage_from_now_on`].
    pub(super) fn must_be_staged(&self, table: &TableRef) -> bool {
        self.staged.lock().contains(table)
    }

    /// Stages the rows of a table in all further loads.
    pub(super) fn stage_from_now_on(&self, table: &TableRef) {
        self.staged.lock().insert(table.clone());
    }

    /// Whether the user allows to take over a table that the sync state does not list.
    pub(super) fn is_adopted(&self, table: &TableRef) -> bool {
        self.options.adopt.iter().any(|pattern| table.matches(pattern))
    }

    /// Reads the sync state of all tables, for the first questions of a run.
    pub(super) async fn read_snapshot(&self, session: &mut dyn Connection) -> Result<()> {
        let entries = self.entries(session).await?;
        *self.snapshot.lock() = SyncStateSnapshot { entries, given: HashSet::new(), is_read: true };
        Ok(())
    }

    /// The snapshot's entry of a table, once. `None`: it must be read from the database.
    pub(super) fn take_from_snapshot(&self, table: &TableRef) -> Option<Result<Option<sync_state::Entry>>> {
        let mut snapshot = self.snapshot.lock();
        if !snapshot.is_read || !snapshot.given.insert(table.clone()) {
            return None;
        }
        Some(snapshot.entries.remove(table).transpose())
    }

    /// The sync state of all tables. A table with several rows has its error instead.
    pub(super) async fn entries(&self, session: &mut dyn Connection) -> Result<HashMap<TableRef, Result<sync_state::Entry>>> {
        if !self.has_sync_state(session).await? {
            return Ok(HashMap::new());
        }
        sync_state::entries(session, self.dialect()).await
    }

    /// The sync state of a table. Kind `Target` if the database has something else at the table's name. `known`: the entry of the
    /// snapshot.
    pub(super) async fn entry(
        &self,
        session: &mut dyn Connection,
        table: &TableRef,
        known: Option<Option<sync_state::Entry>>,
    ) -> Result<Option<sync_state::Entry>> {
        let dialect = self.dialect();
        let mut has_sync_state = self.has_sync_state(session).await?;
        if !has_sync_state && self.has_old_sync_state(session).await? {
            self.prepare(session).await?;
            has_sync_state = true;
        }
        if !has_sync_state {
            self.check_sync_state_privileges(session).await?;
        }
        let entry = match known {
            Some(known) if has_sync_state => known,
            _ => sync_state::entry(session, dialect, table, has_sync_state).await?,
        };
        self.existing(session, table, entry).await
    }

    /// As [`Self::entry`], but changes nothing. The sync state of an older client has no entries before a run converts it.
    pub(super) async fn inspect(&self, session: &mut dyn Connection, table: &TableRef) -> Result<Option<sync_state::Entry>> {
        let has_sync_state = self.has_sync_state(session).await?;
        if !has_sync_state && self.has_old_sync_state(session).await? {
            return Ok(None);
        }
        let entry = sync_state::entry(session, self.dialect(), table, has_sync_state).await?;
        self.existing(session, table, entry).await
    }

    /// Whether there is the sync state of an older client, which the first run converts.
    pub(super) async fn has_old_sync_state(&self, session: &mut dyn Connection) -> Result<bool> {
        Ok(!session.rows(&self.dialect().legacy_tables()).await?.is_empty())
    }

    /// The entry, if it agrees with what the database has at the table's name.
    async fn existing(
        &self,
        session: &mut dyn Connection,
        table: &TableRef,
        entry: Option<sync_state::Entry>,
    ) -> Result<Option<sync_state::Entry>> {
        let dialect = self.dialect();
        match entry {
            Some(entry) if entry.exists => Ok(Some(entry)),
            Some(_) => Err(occupants::missing_table(session, dialect, table).await),
            None => match occupants::check_table(session, dialect, table, self.is_adopted(table)).await {
                Ok(()) => Ok(None),
                // Another run has created it since `known` was read.
                Err(error) if error.kind() == Kind::Conflict => sync_state::entry(session, dialect, table, true).await,
                Err(error) => Err(error),
            },
        }
    }

    /// Creates the sync state and rolls that back, so that a missing privilege is reported before a job is started.
    pub(super) async fn check_sync_state_privileges(&self, session: &mut dyn Connection) -> Result<()> {
        let dialect = self.dialect();
        if !dialect.ddl_is_transactional() || self.can_create_sync_state.load(Ordering::Relaxed) {
            return Ok(());
        }
        session.execute(&dialect.begin()).await?;
        session.execute(&dialect.lock(sync_state::LOCK)).await?;
        for statement in dialect.create_meta() {
            session.execute(&statement).await?;
        }
        session.execute(&dialect.rollback()).await?;
        self.can_create_sync_state.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the sync state exists. Once seen, it is not asked for again.
    pub(super) async fn has_sync_state(&self, session: &mut dyn Connection) -> Result<bool> {
        if self.has_sync_state.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let found = sync_state::exists(session, self.dialect()).await?;
        self.has_sync_state.store(found, Ordering::Relaxed);
        Ok(found)
    }

    /// Creates the sync state, or converts that of an older client.
    pub(super) async fn prepare(&self, session: &mut dyn Connection) -> Result<()> {
        sync_state::prepare(session, self.dialect()).await?;
        self.has_sync_state.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Creates the sync state and the schema for the tables of a namespace.
    pub(super) async fn prepare_namespace(&self, session: &mut dyn Connection, namespace: &Namespace) -> Result<()> {
        let dialect = self.dialect();
        if self.namespaces.lock().contains(namespace) {
            return Ok(());
        }
        self.prepare(session).await?;
        let mut statements = dialect.create_namespace(namespace);
        statements.extend(dialect.create_exact_bookmarks());
        if !statements.is_empty() {
            session.execute(&dialect.begin()).await?;
            // Two sessions that create it at once would fail, also with `IF NOT EXISTS`.
            sync_state::wait_for_lock(session, dialect, sync_state::LOCK).await?;
            for statement in &statements {
                session.execute(statement).await?;
            }
            session.execute(&dialect.commit()).await?;
            if let Some(unlock) = dialect.unlock(sync_state::LOCK) {
                session.execute(&unlock).await?;
            }
        }
        self.namespaces.lock().insert(namespace.clone());
        Ok(())
    }
}
