//! Schema changes of columns that views use. Where the server refuses to change such a column, the views are dropped before the change and
//! recreated after it, in the same transaction, so that no reader finds them missing. Elsewhere, and on request, the error names them.

use std::sync::Arc;

use super::definition::{Attempts, define, run, undo};
use super::state::SqlLoad;
use crate::error::{Error, Kind, Result};
use crate::sink::sql::connection::Connection;
use crate::sink::sql::dialect::{Change, ChangedColumn, Dependent, Dialect, LiveColumn, SqlColumn, SqlTable, Statement};
use crate::sink::sql::options::DependentViews;

/// How often views may have changed between reading and locking them.
const ROUNDS: u32 = 20;

/// A view that uses a column which is to change.
struct BlockingView<'r> {
    kind: &'r str,
    name: &'r str,
    column: &'r ChangedColumn,
    /// The server's error names the column.
    is_named: bool,
}

/// Views and other objects that were recreated; or why that has to be tried again.
enum Attempt {
    Done(Vec<Dependent>),
    /// Other sessions changed the views before they were locked.
    Outdated,
}

impl SqlLoad {
    /// The existing columns that a change retypes or drops, by their names before it. `renamed`: old and new names.
    pub(super) fn changed_columns(&self, change: &Change, renamed: &[(String, String)]) -> Vec<ChangedColumn> {
        let mut changed: Vec<ChangedColumn> = change.columns.iter().map(|name| self.changed_column(name, renamed)).collect();
        if change.drops_key {
            changed.push(ChangedColumn {
                relation: self.database.dialect().table_name(&self.plan.table),
                column: None,
                shown: format!("the primary key of {}", self.plan.table.table),
                fate: "get other columns".to_owned(),
            });
        }
        changed
    }

    fn changed_column(&self, name: &str, renamed: &[(String, String)]) -> ChangedColumn {
        let dialect = self.database.dialect();
        let fate = match self.table.columns.iter().find(|column| column.name == name) {
            Some(wanted) => format!("become {}", dialect.plain_type(&wanted.sql_type)),
            None => "be dropped".to_owned(),
        };
        let old = renamed.iter().find(|(_, new)| new == name).map_or(name, |(old, _)| old);
        ChangedColumn {
            relation: dialect.table_name(&self.plan.table),
            column: Some(old.to_owned()),
            shown: format!("{}.{old}", self.plan.table.table),
            fate,
        }
    }

    /// The column that gets a type without limits: that of the table or of its lookup table. Empty if the table is new.
    pub(super) fn widened_column(&self, wide: &SqlColumn, existing: Option<&LiveColumn>) -> Vec<ChangedColumn> {
        let dialect = self.database.dialect();
        match (&wide.lookup, existing) {
            (Some((lookup, _)), _) => vec![ChangedColumn {
                relation: lookup.clone(),
                column: Some("value".to_owned()),
                shown: format!("{}__{}.value", self.plan.table.table, wide.name),
                fate: "hold longer strings".to_owned(),
            }],
            (None, Some(existing)) => vec![ChangedColumn {
                relation: dialect.table_name(&self.plan.table),
                column: Some(existing.name.clone()),
                shown: format!("{}.{}", self.plan.table.table, existing.name),
                fate: format!("become {}", dialect.plain_type(&wide.sql_type)),
            }],
            (None, None) => Vec::new(),
        }
    }

    /// Changes a table that others may use. `changed`: the columns whose dependent views block the change.
    pub(super) async fn change_live(&mut self, statements: &[Statement], changed: &[ChangedColumn]) -> Result<()> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        if database.options.dependent_views == DependentViews::Recreate
            && !changed.is_empty()
            && !self.dependents(changed).await?.is_empty()
        {
            return self.recreate_dependents(statements, changed).await;
        }
        match define(self.session.as_mut(), dialect, &self.table, statements).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.name_blocking_view(error, changed).await),
        }
    }

    async fn dependents(&mut self, changed: &[ChangedColumn]) -> Result<Vec<Dependent>> {
        let database = Arc::clone(&self.database);
        find(self.session.as_mut(), database.dialect(), changed).await
    }

    async fn recreate_dependents(&mut self, statements: &[Statement], changed: &[ChangedColumn]) -> Result<()> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let table = &self.table;
        let session = self.session.as_mut();
        let mut attempts = Attempts::default();
        let mut round = 1;
        let recreated = loop {
            match change_once(session, dialect, statements, changed).await {
                Ok(Attempt::Done(recreated)) => break recreated,
                Ok(Attempt::Outdated) if round == ROUNDS => return Err(unsettled(table)),
                Ok(Attempt::Outdated) => round += 1,
                Err(error) => attempts.wait_after(error, session, dialect, table).await?,
            }
        };
        let names: Vec<String> = recreated.iter().map(Dependent::described).collect();
        self.loaded.schema_changes.push(format!("recreated for it: {}", names.join(", ")));
        for mut dependent in recreated {
            let position = self.to_populate.iter().position(|known| known.relation == dependent.relation);
            if let Some(position) = position {
                // Recreated for an earlier change, and not filled yet.
                self.to_populate.remove(position);
                dependent.is_populated = true;
            }
            if dependent.is_populated {
                self.to_populate.push(dependent);
            }
        }
        Ok(())
    }

    /// Fills recreated materialized views with the rows of this load.
    pub(super) async fn populate_views(&mut self) -> Result<()> {
        let database = Arc::clone(&self.database);
        for dependent in std::mem::take(&mut self.to_populate) {
            for statement in database.dialect().populate(&dependent) {
                if let Err(error) = self.session.execute(&statement).await {
                    let sentence = format!(
                        "Materialized view {} was recreated for a changed column and cannot be filled",
                        dependent.relation
                    );
                    return Err(refusal(&error, sentence, VIEW_HINT.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The error that names the views which block a change, if the server refused it because of them.
    async fn name_blocking_view(&mut self, error: Error, changed: &[ChangedColumn]) -> Error {
        let database = Arc::clone(&self.database);
        let Some(query) = database.dialect().dependent_views(&self.plan.table, &error) else { return error };
        let Ok(rows) = self.session.rows(&query).await else { return error };
        let cause = error.causes().join(": ");
        let mut views: Vec<BlockingView<'_>> = rows
            .iter()
            .filter_map(|row| {
                let [Some(kind), Some(name), Some(column)] = &row[..] else { return None };
                let is_named = cause.contains(&format!("\"{column}\""));
                let column = changed.iter().find(|changed| changed.column.as_ref() == Some(column))?;
                Some(BlockingView { kind, name, column, is_named })
            })
            .collect();
        // One column blocked the statement; usually the message names it.
        if views.iter().any(|view| view.is_named) {
            views.retain(|view| view.is_named);
        }
        let Some((first, others)) = views.split_first() else { return error };
        let capital = if first.kind == "view" { "View" } else { "Materialized view" };
        let sentence = format!("{capital} {} uses {}, which is to {}", first.name, first.column.shown, first.column.fate);
        let mut blocked = Error::new(error.kind(), sentence);
        if let Some(state) = error.get("sqlstate") {
            blocked = blocked.with_field("sqlstate", state);
        }
        let others: Vec<String> =
            others.iter().map(|view| format!("{} {} ({})", view.kind, view.name, view.column.shown)).collect();
        if !others.is_empty() {
            blocked = blocked.with_field("also", others.join(", "));
        }
        let (kind, name) = (first.kind, first.name.replace('\'', "''"));
        blocked
            .hint(format!(
                "save its definition (SELECT pg_get_viewdef('{name}'::regclass, true)), drop the {kind}, run again and recreate \
                 it; until then this table gets no new data"
            ))
            .caused_by(cause)
    }
}

/// The objects that depend on changed columns; none where the server cannot say.
async fn find(connection: &mut dyn Connection, dialect: &dyn Dialect, changed: &[ChangedColumn]) -> Result<Vec<Dependent>> {
    let Some(query) = dialect.find_dependents(changed) else { return Ok(Vec::new()) };
    let rows = connection.rows(&query).await?;
    let dependents: Option<Vec<Dependent>> = rows.iter().map(|row| dialect.read_dependent(row)).collect();
    dependents.ok_or_else(|| Error::new(Kind::Bug, "The database's catalogue cannot be read"))
}

/// Makes a change and recreates the dependents, or undoes all of it.
async fn change_once(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    statements: &[Statement],
    changed: &[ChangedColumn],
) -> Result<Attempt> {
    run(connection, &dialect.begin_definition()).await?;
    let tried = change_around(connection, dialect, statements, changed).await;
    match &tried {
        Ok(Attempt::Done(_)) => run(connection, &dialect.end_definition()).await?,
        Ok(Attempt::Outdated) | Err(_) => undo(connection, dialect).await,
    }
    tried
}

/// Drops the dependents, runs the statements and recreates the dependents. The definitions are read after all are locked.
async fn change_around(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    statements: &[Statement],
    changed: &[ChangedColumn],
) -> Result<Attempt> {
    let seen = find(connection, dialect, changed).await?;
    for dependent in &seen {
        check(dependent, changed)?;
    }
    run(connection, &dialect.lock_dependents(&seen, changed)).await?;
    run(connection, &dialect.begin_dependents()).await?;
    let dependents = find(connection, dialect, changed).await?;
    if dependents != seen {
        return Ok(Attempt::Outdated);
    }
    let mut definitions = Vec::new();
    for dependent in &dependents {
        definitions.push(definition(connection, dialect, dependent).await?);
    }
    for dependent in dependents.iter().rev() {
        let dropped = run(connection, &dialect.drop_dependent(dependent)).await;
        dropped.map_err(|error| {
            if dialect.is_lock_timeout(&error) { error } else { cannot(error, dependent, changed, "be dropped") }
        })?;
    }
    run(connection, statements).await?;
    for (dependent, definition) in dependents.iter().zip(&definitions) {
        let created = run(connection, &dialect.recreate_dependent(definition)).await;
        created.map_err(|error| {
            if dialect.is_lock_timeout(&error) { error } else { cannot(error, dependent, changed, "be recreated") }
        })?;
    }
    run(connection, &dialect.end_dependents()).await?;
    Ok(Attempt::Done(dependents))
}

/// The statements that create an object again, each with its role.
async fn definition(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    dependent: &Dependent,
) -> Result<Vec<(String, String)>> {
    let Some(query) = dialect.definition_of(dependent) else { return Ok(Vec::new()) };
    let rows = connection.rows(&query).await?;
    let statements = rows.into_iter().filter_map(|row| {
        let mut cells = row.into_iter().flatten();
        Some((cells.next()?, cells.next()?))
    });
    Ok(statements.collect())
}

const VIEW_HINT: &str =
    "change the view so that it suits the new column, or drop it, then run again; until then this table gets no new data";

/// How a sentence about a dependent begins: what it is, and which changed column it uses.
fn described(dependent: &Dependent, changed: &[ChangedColumn]) -> String {
    let text = dependent.described();
    let mut letters = text.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let column = changed.iter().find(|changed| changed.column == dependent.column).or_else(|| changed.first());
    let verb = if dependent.is_direct { "uses" } else { "depends on" };
    match column {
        Some(column) => format!("{capital} {verb} {}, which is to {}", column.shown, column.fate),
        None => capital,
    }
}

/// Refuses objects that this session cannot recreate.
fn check(dependent: &Dependent, changed: &[ChangedColumn]) -> Result<()> {
    let described = described(dependent, changed);
    if dependent.is_temporary {
        return Err(Error::new(Kind::Target, format!("{described}, and is temporary in another session"))
            .hint("end that session, then run again; until then this table gets no new data"));
    }
    if !dependent.can_be_owner {
        let sentence = format!("{described}, and belongs to role {}", dependent.owner);
        return Err(Error::new(Kind::Target, sentence).hint(format!(
            "let it be recreated with {}, or drop it, run again and recreate it; until then this table gets no new data",
            dependent.grant
        )));
    }
    Ok(())
}

/// The error for an object that cannot be dropped or recreated.
fn cannot(error: Error, dependent: &Dependent, changed: &[ChangedColumn], what: &str) -> Error {
    let kind = if dependent.is_view() { "view" } else { dependent.kind.as_str() };
    let hint = VIEW_HINT.replacen("view", kind, 1);
    refusal(&error, format!("{}, and cannot {what}", described(dependent, changed)), hint)
}

fn refusal(error: &Error, sentence: String, hint: String) -> Error {
    let mut refusal = Error::new(Kind::Target, sentence).hint(hint);
    if let Some(state) = error.get("sqlstate") {
        refusal = refusal.with_field("sqlstate", state);
    }
    let cause = error.causes().join(": ");
    if cause.is_empty() { refusal.caused_by(error.message().to_owned()) } else { refusal.caused_by(cause) }
}

fn unsettled(table: &SqlTable) -> Error {
    Error::new(Kind::Conflict, "Other sessions keep changing the views of a table whose columns are to change")
        .with_field("table", &table.table)
        .hint("run again when they have ended")
}
