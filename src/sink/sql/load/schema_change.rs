//! What a load defines: a new table, the change of an existing one to the schema, and its change for rows that hold more than the schema
//! says, so that no row is lost. All of it can be repeated.

use std::collections::HashSet;
use std::sync::Arc;

use super::state::{KEPT_ROWS_HINT, SqlLoad, State};
use crate::error::{Error, Kind, Result};
use crate::model::{Bookmark, counted};
use crate::sink::sql::connection::Answer;
use crate::sink::sql::dialect::{Change, ChangeRules, Dialect, LiveColumn, Row, SqlTable, Statement};
use crate::sink::sql::{occupants, sync_state};
use crate::sink::{LoadKind, WriteError};

/// What the database has of a table.
pub(super) struct Existing {
    /// Its row of the sync state.
    pub(super) entry: Option<sync_state::Entry>,
    /// The columns of the existing table; none if there is no table.
    pub(super) live: Vec<LiveColumn>,
    /// Names and values of the enumeration types of the namespace, if the table needs any.
    pub(super) enumerations: Vec<(String, String)>,
}

impl Existing {
    pub(super) fn bookmark(&self) -> Option<Bookmark> {
        self.entry.as_ref().map(|entry| entry.bookmark)
    }
}

fn enumerations(rows: Vec<Row>) -> Vec<(String, String)> {
    rows.into_iter()
        .filter_map(|row| {
            let mut cells = row.into_iter().flatten();
            Some((cells.next()?, cells.next()?))
        })
        .collect()
}

fn live_columns(dialect: &dyn Dialect, rows: &[Row]) -> Result<Vec<LiveColumn>> {
    let live: Option<Vec<LiveColumn>> = rows.iter().map(|row| dialect.read_live(row)).collect();
    live.ok_or_else(|| Error::new(Kind::Bug, "The database's catalogue cannot be read"))
}

fn is_same_name(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

impl SqlLoad {
    /// Reads what the database has of the table, after `statements`, whose answers are returned, too. Kind `Target` if the sync state lists the
    /// table and it does not exist.
    pub(super) async fn look(&mut self, statements: Vec<Statement>) -> Result<(Existing, Vec<Answer>)> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let (before, mut all) = (statements.len(), statements);
        all.extend(sync_state::entry_queries(dialect, &self.plan.table));
        let columns = all.len();
        all.push(dialect.live_columns(&self.plan.table));
        all.extend(self.ask_enumerations());
        let mut answers = self.session.run_all(&all).await?;
        let rest = answers.split_off(columns.min(answers.len()));
        let entry = sync_state::read_entry(&self.plan.table, answers.split_off(before.min(answers.len())))?;
        if entry.as_ref().is_some_and(|entry| !entry.exists) {
            return Err(occupants::missing_table(self.session.as_mut(), dialect, &self.plan.table).await);
        }
        let mut rest = rest.into_iter().map(|answer| answer.rows);
        let live = live_columns(dialect, &rest.next().unwrap_or_default())?;
        let enumerations = enumerations(rest.next().unwrap_or_default());
        Ok((Existing { entry, live, enumerations }, answers))
    }

    /// The columns of the existing table; none if there is no table.
    pub(super) async fn live(&mut self) -> Result<Vec<LiveColumn>> {
        let dialect = self.database.dialect();
        live_columns(dialect, &self.session.rows(&dialect.live_columns(&self.plan.table)).await?)
    }

    /// The table of the stored schema.
    fn table_before(&self, entry: Option<&sync_state::Entry>) -> Option<SqlTable> {
        let entry = entry?;
        self.database.dialect().table_keeping(&entry.schema(&self.plan.table)?, entry.kept).ok()
    }

    /// The change from the existing columns to the wanted ones.
    pub(super) fn change(&self, live: &[LiveColumn], entry: Option<&sync_state::Entry>) -> Result<Change> {
        let before = self.table_before(entry);
        let drop_removed = self.database.options.drop_removed_columns;
        let rules = ChangeRules { before: before.as_ref(), kind: self.row_kind(), drop_removed };
        let change = self.database.dialect().change_table(&self.table, live, rules);
        change.map_err(|error| {
            let is_of_rows = self.keeps_rows && error.kind() == Kind::Schema;
            if is_of_rows { error.hint_instead(KEPT_ROWS_HINT) } else { error }
        })
    }

    /// The changes to the columns of the existing table, one sentence each. Empty if there is no table.
    pub(super) async fn pending_changes(&mut self) -> Result<Vec<String>> {
        let database = Arc::clone(&self.database);
        if !database.has_sync_state(self.session.as_mut()).await? {
            return Ok(Vec::new());
        }
        let (Existing { entry, mut live, enumerations }, _) = self.look(Vec::new()).await?;
        let Some(entry) = entry else { return Ok(Vec::new()) };
        self.keep_rows_of(Some(&entry))?;
        let renamed = self.match_case(&mut live, Some(&entry))?;
        let change = self.change(&live, Some(&entry))?;
        let mut changes = self.described_changes(&change, &live, &renamed);
        let added = database.dialect().widen_enumerations(&self.table, &enumerations);
        changes.extend(added.into_iter().map(|(_, note)| note));
        Ok(changes)
    }

    /// What a change does to the columns, one sentence each.
    fn described_changes(&self, change: &Change, live: &[LiveColumn], renamed: &[(String, String)]) -> Vec<String> {
        let dialect = self.database.dialect();
        let mut changes: Vec<String> = renamed.iter().map(|(from, to)| format!("`{from}` becomes `{to}`")).collect();
        changes.extend(change.notes.iter().cloned());
        for name in &change.columns {
            let wanted = self.table.columns.iter().find(|column| column.name == *name);
            let existing = live.iter().find(|column| column.name == *name);
            if let (Some(wanted), Some(existing)) = (wanted, existing) {
                let [from, to] = [&existing.sql_type, &wanted.sql_type].map(|sql_type| dialect.plain_type(sql_type));
                changes.push(format!("`{name}` becomes {to} instead of {from}"));
            }
        }
        changes
    }

    /// Refuses changes if the table must stay as it is.
    fn check_frozen(&self, changes: &[String]) -> Result<()> {
        if self.is_frozen { self.plan.layout.on_schema_change.check(&self.plan.table, changes) } else { Ok(()) }
    }

    /// Gives existing columns whose names differ from the wanted ones only in case the wanted names; returns old and new names. A column
    /// that the user added keeps its name; where the database cannot hold both, that is an error.
    pub(super) fn match_case(
        &self,
        live: &mut [LiveColumn],
        entry: Option<&sync_state::Entry>,
    ) -> Result<Vec<(String, String)>> {
        let dialect = self.database.dialect();
        let before = self.table_before(entry);
        let known: HashSet<String> = live.iter().map(|column| column.name.clone()).collect();
        let mut renamed = Vec::new();
        for column in live {
            let is_wanted = self.table.columns.iter().any(|wanted| wanted.name == column.name);
            let mut alike = self.table.columns.iter().filter(|wanted| is_same_name(&wanted.name, &column.name));
            let Some(wanted) = alike.find(|wanted| !is_wanted && !known.contains(&wanted.name)) else { continue };
            let was_known = before.as_ref().map(|before| before.columns.iter().any(|old| old.name == column.name));
            if was_known == Some(true) || was_known.is_none() && !dialect.is_case_sensitive() {
                renamed.push((column.name.clone(), wanted.name.clone()));
                column.name.clone_from(&wanted.name);
            } else if !dialect.is_case_sensitive() {
                return Err(Error::new(Kind::Target, "A column that you added has the name of a new column")
                    .with_field("column", &column.name)
                    .with_field("new column", &wanted.name)
                    .hint("rename your column, or leave the new one out with --drop-column"));
            }
        }
        Ok(renamed)
    }

    /// Asks for the existing enumeration types, if the table needs any.
    fn ask_enumerations(&self) -> Option<Statement> {
        let needs_any = self.table.columns.iter().any(|column| column.enumeration.is_some());
        needs_any.then(|| self.database.dialect().live_enumerations(&self.plan.table.namespace)).flatten()
    }

    /// Adds values of the schema to enumeration types. A new value cannot be used in the same transaction, so this comes before it. It can be
    /// repeated, and a value too many does no harm.
    /// `live`: the existing types.
    pub(super) async fn widen_enumerations(&mut self, live: &[(String, String)]) -> Result<()> {
        for (statement, note) in Arc::clone(&self.database).dialect().widen_enumerations(&self.table, live) {
            self.session.execute(&statement).await?;
            self.loaded.schema_changes.push(note);
        }
        for (column, findings) in self.table.columns.iter().zip(&mut self.findings) {
            let Some(enumeration) = &column.enumeration else { continue };
            let values = live.iter().filter(|(name, _)| *name == enumeration.name).map(|(_, value)| value.clone());
            findings.known.extend(values);
        }
        Ok(())
    }

    /// The statements that create missing enumeration types. `live`: the existing ones.
    fn create_enumerations(&mut self, live: &[(String, String)]) -> Vec<Statement> {
        let dialect = self.database.dialect();
        if dialect.live_enumerations(&self.plan.table.namespace).is_none() {
            return Vec::new();
        }
        let wanted = self.table.columns.iter().filter_map(|column| column.enumeration.as_ref());
        let created = wanted.filter(|wanted| !live.iter().any(|(name, _)| *name == wanted.name));
        self.created_enumerations = created.map(|enumeration| enumeration.name.clone()).collect();
        dialect.create_enumerations(&self.table, live)
    }

    /// The statements that create the table and the objects that it needs. `enumerations`: the existing types.
    pub(super) fn create_table(&mut self, enumerations: &[(String, String)]) -> Vec<Statement> {
        let mut statements = self.create_enumerations(enumerations);
        let dialect = self.database.dialect();
        statements.extend(dialect.create_lookups(&self.table));
        statements.extend(dialect.create_table(&self.table));
        statements
    }

    /// Changes the table of a direct load for the rows so far. Where that would end the transaction, the load starts again.
    pub(super) async fn fit_new_table(&mut self) -> Result<(), WriteError> {
        if !self.database.dialect().ddl_is_transactional() {
            return Err(self.restart_staged());
        }
        Ok(self.fit_rows(None).await?)
    }

    /// Creates the table, or changes it for the schema and the rows. Returns whether it is new.
    pub(super) async fn change_schema(&mut self, existing: &Existing) -> Result<bool> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let (entry, mut live) = (existing.entry.as_ref(), existing.live.clone());
        if live.is_empty() {
            self.created_table = !dialect.ddl_is_transactional();
            let mut statements = self.create_table(&existing.enumerations);
            statements.extend(dialect.add_key(&self.table));
            self.run(&statements).await?;
            self.fit_rows(None).await?;
            return Ok(true);
        }
        let renamed = self.match_case(&mut live, entry)?;
        let change = self.change(&live, entry)?;
        // Tables that are adopted get the columns of the service.
        self.is_frozen = entry.is_some();
        self.check_frozen(&self.described_changes(&change, &live, &renamed))?;
        let changed = self.changed_columns(&change, &renamed);
        // Views are locked before the table, so nothing may lock it before.
        let mut statements: Vec<Statement> =
            renamed.iter().map(|(from, to)| dialect.rename_column(&self.plan.table, from, to)).collect();
        self.loaded.schema_changes.extend(renamed.iter().map(|(from, to)| format!("`{from}` is renamed to `{to}`")));
        if self.row_kind() == LoadKind::Replace && dialect.ddl_is_transactional() && !change.statements.is_empty() {
            // Without rows, every change of type is possible.
            self.session.execute(&dialect.clear(&self.table)).await?;
            self.state = State::Staged { is_cleared: true };
        }
        let mut parts = self.create_enumerations(&existing.enumerations);
        parts.extend(dialect.create_lookups(&self.settled(&live)));
        if !parts.is_empty() {
            self.run(&parts).await?;
        }
        statements.extend(change.statements.iter().cloned());
        self.change_live(&statements, &changed).await?;
        self.loaded.schema_changes.extend(change.notes);
        self.loaded.warnings.extend(change.warnings);
        let live = if change.statements.is_empty() { live } else { self.live_after_change(&live).await? };
        self.table = self.settled(&live);
        self.fit_rows(Some(&live)).await?;
        Ok(false)
    }

    /// The table as rows must be written into the existing columns.
    pub(super) fn settled(&self, live: &[LiveColumn]) -> SqlTable {
        let columns = self.table.columns.iter().map(|column| match live.iter().find(|live| live.name == column.name) {
            Some(live) => self.database.dialect().settle(column, live, self.row_kind()),
            None => column.clone(),
        });
        SqlTable { columns: columns.collect(), ..self.table.clone() }
    }

    /// The columns after a change; adds to the report which have another type than before.
    async fn live_after_change(&mut self, old: &[LiveColumn]) -> Result<Vec<LiveColumn>> {
        let live = self.live().await?;
        let dialect = self.database.dialect();
        for column in &live {
            let Some(old) = old.iter().find(|old| old.name == column.name) else { continue };
            let (now, before) = (dialect.plain_type(&column.sql_type), dialect.plain_type(&old.sql_type));
            if now == before {
                continue;
            }
            let mut note = format!("`{}` is {now} instead of {before}", column.name);
            let wanted = self.table.columns.iter().find(|wanted| wanted.name == column.name);
            let wanted = wanted.map(|wanted| dialect.plain_type(&wanted.sql_type));
            if let Some(wanted) = wanted.filter(|wanted| *wanted != now) {
                note.push_str(&format!(", because not all of its values are {wanted}; --resnapshot changes the type"));
            }
            self.loaded.schema_changes.push(note);
        }
        Ok(live)
    }

    /// Changes the table for rows that hold more than the schema says. `live`: the existing columns, if the table is not new.
    async fn fit_rows(&mut self, live: Option<&[LiveColumn]>) -> Result<()> {
        for index in 0..self.table.columns.len() {
            let name = self.table.columns[index].name.clone();
            let existing = live.and_then(|live| live.iter().find(|live| live.name == name));
            self.fit_nulls(index, existing).await?;
            let values = std::mem::take(&mut self.findings[index].new_values);
            if !self.fit_long_strings(index, existing).await? && !values.is_empty() {
                self.fit_enum_values(index, values, existing).await?;
            }
        }
        Ok(())
    }

    /// Lets a required column be null if rows have nulls in it.
    async fn fit_nulls(&mut self, index: usize, existing: Option<&LiveColumn>) -> Result<()> {
        if !self.findings[index].has_null || !self.table.columns[index].required {
            return Ok(());
        }
        self.table.columns[index].required = false;
        if existing.is_none_or(|existing| existing.not_null) {
            self.check_frozen(&[format!("`{}` is required and has nulls", self.table.columns[index].name)])?;
            let database = Arc::clone(&self.database);
            let column = &self.table.columns[index];
            let name = column.name.clone();
            self.define(&[database.dialect().relax(&self.table, column, existing)]).await?;
            self.loaded.schema_changes.push(format!("`{name}` has nulls although it is required, and may be null now"));
        }
        Ok(())
    }

    /// Gives a column a type without limits if rows have strings that do not fit. Returns whether they do.
    async fn fit_long_strings(&mut self, index: usize, existing: Option<&LiveColumn>) -> Result<bool> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let (column, findings) = (&self.table.columns[index], &self.findings[index]);
        let is_bounded = column.longest.is_some() || dialect.most_bytes(column).is_some();
        let has_impossible_value = findings.has_impossible_value && column.enumeration.is_some();
        if !(findings.has_long && is_bounded || has_impossible_value) {
            return Ok(false);
        }
        let what =
            if findings.has_long { "strings longer than the schema says" } else { "values that no enumeration can hold" };
        let wide = dialect.unbounded(column);
        let is_wide = |live: &LiveColumn| dialect.plain_type(&live.sql_type) == dialect.plain_type(&wide.sql_type);
        if wide.lookup.is_some() || !existing.is_some_and(is_wide) {
            let note = format!("`{}` has {what}, and holds any string now", column.name);
            self.check_frozen(&[format!("`{}` has {what}", column.name)])?;
            let retype = [dialect.retype(&self.table, &wide, existing)];
            let changed = self.widened_column(&wide, existing);
            self.change_live(&retype, &changed).await?;
            self.loaded.schema_changes.push(note);
        }
        self.table.columns[index] = wide;
        Ok(true)
    }

    /// Adds values that the schema does not list to an enumeration.
    async fn fit_enum_values(&mut self, index: usize, values: Vec<String>, existing: Option<&LiveColumn>) -> Result<()> {
        if let Some((lookup, _)) = self.table.columns[index].lookup.clone() {
            return self.report_lookup_values(index, &values, &lookup).await;
        }
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let column = &mut self.table.columns[index];
        let Some(enumeration) = &mut column.enumeration else { return Ok(()) };
        let is_new = self.created_enumerations.contains(&enumeration.name);
        enumeration.members.extend(values.iter().cloned());
        let column = column.clone();
        let statements = if is_new {
            dialect.recreate_enumeration(&self.table, &column)
        } else {
            dialect.add_enum_values(&self.table, &column, &values, existing)
        };
        if statements.is_empty() {
            return Ok(());
        }
        self.check_frozen(&[format!("`{}` has {} values that its enumeration lacks", column.name, values.len())])?;
        // A type that this transaction created is invisible to others. Any other type must get its values before they can be used.
        if is_new || dialect.live_enumerations(&self.plan.table.namespace).is_none() {
            self.define(&statements).await?;
        } else {
            let mut other = database.session().await?;
            for statement in &statements {
                other.execute(statement).await?;
            }
            database.give_back(other);
        }
        let (name, count) = (&column.name, counted(values.len() as u64, "value"));
        self.loaded.schema_changes.push(format!("`{name}`: extended the enumeration by {count} that the schema does not list"));
        self.loaded.warnings.push(format!(
            "`{name}`: the official client would stop at this table, because the enumeration has values that the schema does not list"
        ));
        Ok(())
    }

    /// Warns about enum values that the schema does not list and that are new to the lookup table; the merge adds them.
    async fn report_lookup_values(&mut self, index: usize, values: &[String], lookup: &str) -> Result<()> {
        let rows = self.session.rows(&self.database.dialect().lookup_values(lookup)).await?;
        let known: HashSet<&str> = rows.iter().filter_map(|row| row.get(1)?.as_deref()).collect();
        let count = values.iter().filter(|value| !known.contains(value.as_str())).count();
        if count > 0 {
            let name = &self.table.columns[index].name;
            self.loaded.warnings.push(format!(
                "`{name}`: extended the lookup table by {} that the schema does not list",
                counted(count as u64, "value")
            ));
        }
        Ok(())
    }
}
