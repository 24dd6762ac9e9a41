//! Checks the names of tables and columns in options. A misspelt name has no effect, and a column that should be hidden would be loaded. So
//! unknown names fail the run before any job starts; patterns without a match are logged as warnings.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;

use super::layout::schema_command;
use crate::api::Client;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{KNOWN_NAMESPACES, Namespace, TableRef, is_pattern, nearest};
use crate::ops::selection::Listing;
use crate::schema::{TableRules, TableSchema};
use crate::sink::Sink;

/// Schemas that are requested at the same time.
const SCHEMAS_AT_ONCE: usize = 8;

/// Options of the check, shared by all targets and runs of a process.
#[derive(Debug, Clone, Default)]
pub struct NameOptions {
    /// Other namespaces that options may refer to, besides the known ones.
    pub other_namespaces: Vec<String>,
    /// Patterns that a warning was logged for.
    warned: Arc<Mutex<HashSet<String>>>,
}

impl NameOptions {
    /// Allows references to these namespaces.
    pub fn new(other_namespaces: Vec<String>) -> Self {
        Self { other_namespaces, warned: Arc::default() }
    }

    /// Logs a warning about a pattern, once per process.
    fn warn(&self, pattern: &str, of: &'static str) {
        if self.warned.lock().insert(format!("{of} {pattern}")) {
            tracing::warn!(pattern, "A pattern in {of} matches no table in the namespaces of the run");
        }
    }
}

/// Checks the names in the options of a run.
pub(in crate::ops) struct Names<'a> {
    client: &'a Client,
    sink: &'a dyn Sink,
    listing: &'a Listing,
    options: &'a NameOptions,
    /// Tables of known namespaces outside of the run, listed when a name was not found in the run.
    others: Option<Vec<TableRef>>,
    kept: Option<Vec<TableRef>>,
    schemas: HashMap<TableRef, Option<HashSet<String>>>,
}

impl<'a> Names<'a> {
    pub(in crate::ops) fn new(client: &'a Client, sink: &'a dyn Sink, listing: &'a Listing, options: &'a NameOptions) -> Self {
        Self { client, sink, listing, options, others: None, kept: None, schemas: HashMap::new() }
    }

    /// Checks all names.
    ///
    /// # Errors
    /// Kind `NotFound` for a name that no table has, `Schema` for a hidden column that no table has.
    pub(in crate::ops) async fn check(&mut self, rules: &TableRules, exclude: &[String]) -> Result<()> {
        let mut seen = HashSet::new();
        let words = rules
            .words()
            .map(|word| (word, "--column, --drop-column, --hash-column, --deletes, --mode, --partition-by or [tables]"));
        for (word, of) in words.chain(exclude.iter().map(|word| (word.trim(), "--exclude"))) {
            if word.is_empty() || !seen.insert((word, of)) || self.lists(word) {
                continue;
            }
            match is_pattern(word) {
                true => self.options.warn(word, of),
                false => self.check_name(word, of).await?,
            }
        }
        for (word, column) in rules.hidden_columns() {
            // Columns of a table that is given by name are checked with its schema.
            if is_pattern(word) && !is_pattern(column) && seen.insert((word, column)) {
                self.check_column(word, column).await?;
            }
        }
        Ok(())
    }

    fn lists(&self, word: &str) -> bool {
        self.listing.tables.iter().any(|table| table.matches(word))
    }

    async fn check_name(&mut self, word: &str, of: &'static str) -> Result<()> {
        if self.kept().await?.iter().any(|table| table.matches(word)) {
            return Ok(());
        }
        if let Some((namespace, _)) = word.split_once('.') {
            let is_answered = self.listing.answered.iter().any(|known| known == namespace);
            let is_elsewhere = KNOWN_NAMESPACES.contains(&namespace)
                || self.listing.failed.iter().chain(&self.options.other_namespaces).any(|known| known == namespace);
            return match is_elsewhere && !is_answered {
                true => Ok(()),
                false => Err(self.unknown(word, of)),
            };
        }
        if self.others().await.iter().any(|table| table.matches(word)) {
            return Ok(());
        }
        // It may be a table of a namespace that cannot be listed, which is not loaded.
        match self.listing.failed.is_empty() || self.nearest(word).is_some() {
            true => Err(self.unknown(word, of)),
            false => Ok(()),
        }
    }

    fn nearest(&self, word: &str) -> Option<&TableRef> {
        let bare = word.rsplit('.').next().unwrap_or(word);
        let near = nearest(bare, self.listing.tables.iter().map(|table| table.table.as_str()))?;
        self.listing.tables.iter().find(|table| table.table == near)
    }

    fn unknown(&self, word: &str, of: &'static str) -> Error {
        let error = Error::new(Kind::NotFound, "An option refers to a table that the service does not have")
            .with_field("table", word)
            .with_field("option", of);
        match self.nearest(word) {
            Some(table) => {
                let name = if word.contains('.') { table.to_string() } else { table.table.clone() };
                error.hint(format!(
                    "did you mean `{name}`? Nothing was loaded, because a misspelt name could expose data that should be hidden"
                ))
            }
            None => {
                let namespace = match word.split_once('.') {
                    Some((namespace, _)) if KNOWN_NAMESPACES.contains(&namespace) => namespace,
                    _ => self.listing.answered.first().map_or("canvas", String::as_str),
                };
                error.hint(format!(
                    "list the tables with `daplake list --namespace {namespace}`; remove the name if the service has dropped the table"
                ))
            }
        }
    }

    /// The tables of the target: a table that the service has dropped is not misspelt.
    async fn kept(&mut self) -> Result<&[TableRef]> {
        if self.kept.is_none() {
            self.kept = Some(self.sink.list(None).await.with_field("target", self.sink.location())?);
        }
        Ok(self.kept.as_deref().unwrap_or_default())
    }

    async fn others(&mut self) -> &[TableRef] {
        if self.others.is_none() {
            let asked = |name: &&str| !self.listing.answered.iter().chain(&self.listing.failed).any(|known| known == name);
            let other_namespaces = self.options.other_namespaces.iter().map(String::as_str);
            let names: HashSet<&str> = KNOWN_NAMESPACES.into_iter().chain(other_namespaces).filter(asked).collect();
            let mut found = Vec::new();
            for name in names {
                // The account may not have it, and the run does not need it.
                if let Ok(tables) = self.client.tables(&Namespace::new(name)).await {
                    found.extend(tables.into_iter().map(|table| TableRef::new(name, table)));
                }
            }
            self.others = Some(found);
        }
        self.others.as_deref().unwrap_or_default()
    }

    async fn check_column(&mut self, word: &str, column: &str) -> Result<()> {
        let here: Vec<TableRef> = self.listing.tables.iter().filter(|table| table.matches(word)).cloned().collect();
        let Some(first) = here.first().cloned() else { return Ok(()) };
        if self.any_has(here, column).await? {
            return Ok(());
        }
        let others: Vec<TableRef> = self.others().await.iter().filter(|table| table.matches(word)).cloned().collect();
        if self.any_has(others, column).await? {
            return Ok(());
        }
        // A column that the service removed was hidden before.
        let kept: Vec<TableRef> = self.kept().await?.iter().filter(|table| table.matches(word)).cloned().collect();
        for table in kept {
            let record = self.sink.inspect(&table).await?.map(|state| state.columns).unwrap_or_default();
            if record.hashed.iter().chain(&record.dropped).any(|known| known == column) {
                return Ok(());
            }
        }
        if !self.listing.failed.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Schema, "A rule refers to a column that no table has")
            .with_field("tables", word)
            .with_field("column", column)
            .hint(format!(
                "list the columns with `{}`; nothing was loaded, because a misspelt name could expose data that should be hidden",
                schema_command(&first)
            )))
    }

    /// Whether one of the tables has the column in the current schema of the service.
    async fn any_has(&mut self, tables: Vec<TableRef>, column: &str) -> Result<bool> {
        let known = |table: &TableRef| self.schemas.get(table).and_then(Option::as_ref);
        if tables.iter().filter_map(known).any(|columns| columns.contains(column)) {
            return Ok(true);
        }
        let missing: Vec<TableRef> = tables.into_iter().filter(|table| !self.schemas.contains_key(table)).collect();
        let client = self.client;
        let read = |table: TableRef| async move {
            // A table without a schema fails later.
            let columns = match client.table_schema(&table).await {
                Ok(answer) => TableSchema::read(&table, answer.version, answer.schema)
                    .ok()
                    .map(|schema| schema.columns().map(|column| column.name.clone()).collect::<HashSet<_>>()),
                Err(error) if error.kind().is_fatal_for_run() => return Err(error),
                Err(_) => None,
            };
            Ok((table, columns))
        };
        let mut reading = futures::stream::iter(missing).map(read).buffered(SCHEMAS_AT_ONCE);
        while let Some(read) = reading.next().await {
            let (table, columns) = read?;
            let has = columns.as_ref().is_some_and(|columns| columns.contains(column));
            self.schemas.insert(table, columns);
            if has {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
