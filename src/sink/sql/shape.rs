//! What a load defines: the table when it is new, its change when the schema moved, and its change when the rows hold what the
//! schema does not announce, so that no row is lost. All of it can be repeated. It moves no rows.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, RecordBatch};

use super::dialect::{Change, ChangeRules, Dialect, LiveColumn, SqlColumn, SqlTable};
use super::load::SqlLoad;
use super::{Statement, meta, texts, values};
use crate::error::{Error, Kind, Result};
use crate::sink::{LoadKind, WriteError};

/// What the rows hold of one column beyond what was declared.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// A null where a value is required.
    null: bool,
    /// A text that is longer than the column.
    long: bool,
    /// Words of the enumeration, announced or met.
    known: HashSet<String>,
    /// Words that were met and are not in the database yet, as far as is known.
    new_words: Vec<String>,
    /// Any word goes: one came that no enumeration can have.
    any_word: bool,
    /// Texts with the character NUL.
    nul: u64,
    /// Values of JSON with half of a surrogate pair.
    halves: u64,
    /// Subnormal numbers that became zero.
    pub(super) subnormal: u64,
}

impl Findings {
    /// Nothing met yet.
    pub(super) fn of(column: &SqlColumn) -> Self {
        let known = column.enumeration.iter().flat_map(|enumeration| enumeration.members.iter().cloned()).collect();
        Self { known, ..Self::default() }
    }
}

fn is_same_name(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// Whether a text of the batch is longer than its column takes.
fn is_too_long(dialect: &dyn Dialect, column: &SqlColumn, array: &ArrayRef) -> bool {
    column.longest.is_some_and(|longest| values::has_longer(array, longest))
        || dialect.most_bytes(column).is_some_and(|most| values::has_more_bytes(array, most))
}

impl SqlLoad {
    /// The table's columns as they are; none if there is no table.
    pub(super) async fn live(&mut self) -> Result<Vec<LiveColumn>> {
        let dialect = self.shared.dialect();
        let rows = self.session.rows(&dialect.live_columns(&self.plan.table)).await?;
        let live: Option<Vec<LiveColumn>> = rows.iter().map(|row| dialect.read_live(row)).collect();
        live.ok_or_else(|| Error::new(Kind::Bug, "The database's catalogue cannot be read"))
    }

    /// From the live columns to those of the plan.
    pub(super) fn change(&self, live: &[LiveColumn], entry: Option<&meta::Entry>) -> Result<Change> {
        let before = entry.and_then(|entry| entry.schema(&self.plan.table));
        let before = before.and_then(|schema| self.shared.dialect().table_of(&schema).ok());
        let drop_removed = self.shared.options.drop_removed_columns;
        let rules = ChangeRules { before: before.as_ref(), kind: self.plan.kind, drop_removed };
        self.shared.dialect().change_table(&self.table, live, rules)
    }

    /// Gives live columns whose names differ from the wanted ones in case alone the wanted names, and says which. A column that
    /// was not ours keeps its name; where the database holds only one of the two, that is an error.
    pub(super) fn respell(&self, live: &mut [LiveColumn], entry: Option<&meta::Entry>) -> Result<Vec<(String, String)>> {
        let dialect = self.shared.dialect();
        let before = entry.and_then(|entry| entry.schema(&self.plan.table));
        let before = before.and_then(|schema| dialect.table_of(&schema).ok());
        let known: HashSet<String> = live.iter().map(|column| column.name.clone()).collect();
        let mut renamed = Vec::new();
        for column in live {
            let is_wanted = self.table.columns.iter().any(|wanted| wanted.name == column.name);
            let mut alike = self.table.columns.iter().filter(|wanted| is_same_name(&wanted.name, &column.name));
            let Some(wanted) = alike.find(|wanted| !is_wanted && !known.contains(&wanted.name)) else { continue };
            let was_ours = before.as_ref().map(|before| before.columns.iter().any(|old| old.name == column.name));
            if was_ours == Some(true) || was_ours.is_none() && !dialect.tells_case_apart() {
                renamed.push((column.name.clone(), wanted.name.clone()));
                column.name.clone_from(&wanted.name);
            } else if !dialect.tells_case_apart() {
                return Err(Error::new(Kind::Target, "A column that is not of the service has the name of a new one")
                    .with_field("column", &column.name)
                    .with_field("new column", &wanted.name)
                    .hint("rename your column, or leave the new one out with --drop-column"));
            }
        }
        Ok(renamed)
    }

    async fn live_enumerations(&mut self) -> Result<Vec<(String, String)>> {
        if self.table.columns.iter().all(|column| column.enumeration.is_none()) {
            return Ok(Vec::new());
        }
        let Some(ask) = self.shared.dialect().live_enumerations(&self.plan.table.namespace) else { return Ok(Vec::new()) };
        let rows = self.session.rows(&ask).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let mut cells = row.into_iter().flatten();
                Some((cells.next()?, cells.next()?))
            })
            .collect())
    }

    /// A word that was just added may not be used in the same transaction, so this comes before it. It can be repeated, and a
    /// word too many does no harm.
    pub(super) async fn widen_enumerations(&mut self) -> Result<()> {
        let live = self.live_enumerations().await?;
        for (statement, note) in self.shared.clone().dialect().widen_enumerations(&self.table, &live) {
            self.session.execute(&statement).await?;
            self.loaded.schema_changes.push(note);
        }
        for (column, findings) in self.table.columns.iter().zip(&mut self.findings) {
            let Some(enumeration) = &column.enumeration else { continue };
            findings.known.extend(live.iter().filter(|(name, _)| *name == enumeration.name).map(|(_, word)| word.clone()));
        }
        Ok(())
    }

    async fn create_enumerations(&mut self) -> Result<()> {
        if self.shared.dialect().live_enumerations(&self.plan.table.namespace).is_none() {
            return Ok(());
        }
        let live = self.live_enumerations().await?;
        let statements = self.shared.dialect().create_enumerations(&self.table, &live);
        self.run(&statements).await?;
        let wanted = self.table.columns.iter().filter_map(|column| column.enumeration.as_ref());
        let made = wanted.filter(|wanted| !live.iter().any(|(name, _)| *name == wanted.name));
        self.made_enumerations = made.map(|enumeration| enumeration.name.clone()).collect();
        Ok(())
    }

    /// The table, with all that it needs.
    pub(super) async fn create_table(&mut self) -> Result<()> {
        self.create_enumerations().await?;
        let shared = self.shared.clone();
        self.run(&shared.dialect().create_lookups(&self.table)).await?;
        self.run(&shared.dialect().create_table(&self.table)).await
    }

    /// Notes what the rows hold beyond the declared. Whether there is anything new.
    pub(super) fn look_at(&mut self, upserts: &RecordBatch) -> Result<bool> {
        let keys = self.keys();
        let mut is_new = false;
        for (column, findings) in self.table.columns.iter().zip(&mut self.findings) {
            let Some(array) = upserts.column_by_name(&column.source) else { continue };
            if column.required && !column.key && !findings.null && array.null_count() > 0 {
                findings.null = true;
                is_new = true;
            }
            if !findings.long && is_too_long(self.shared.dialect(), column, array) {
                findings.long = true;
                is_new = true;
            }
            if column.enumeration.is_some() && !findings.any_word {
                for (word, row) in values::unknown_words(array, &findings.known) {
                    is_new = true;
                    if column.lookup.is_some() || self.shared.dialect().can_be_word(&word) {
                        findings.known.insert(word.clone());
                        findings.new_words.push(word);
                    } else {
                        findings.any_word = true;
                        let key = values::key_words(upserts, &keys, row);
                        tracing::warn!(table = %self.plan.table, column = column.name, key, "A word that no enumeration can have");
                        break;
                    }
                }
            }
            let is_json = self.shared.dialect().is_json(&column.sql_type);
            if !self.shared.dialect().takes_nul() {
                findings.nul += values::count_nul(array) + if is_json { values::count_json(array, texts::has_nul) } else { 0 };
            }
            if is_json {
                findings.halves += values::count_json(array, texts::has_half_pair);
            }
        }
        Ok(is_new)
    }

    /// Changes the table of a direct load for what was just met. Where that would end the transaction, the load begins again.
    pub(super) async fn follow_rows(&mut self) -> Result<(), WriteError> {
        if !self.shared.dialect().ddl_is_transactional() {
            return Err(self.begin_again());
        }
        Ok(self.fit_rows(None).await?)
    }

    /// The table as the plan and the rows want it. Whether it is new.
    pub(super) async fn shape(&mut self, entry: Option<&meta::Entry>) -> Result<bool> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        let mut live = self.live().await?;
        if live.is_empty() {
            self.made = !dialect.ddl_is_transactional();
            self.create_table().await?;
            self.run(&dialect.add_key(&self.table)).await?;
            self.fit_rows(None).await?;
            return Ok(true);
        }
        let renamed = self.respell(&mut live, entry)?;
        for (from, to) in &renamed {
            self.session.execute(&dialect.rename_column(&self.plan.table, from, to)).await?;
            self.loaded.schema_changes.push(format!("`{from}` is named `{to}`"));
        }
        let change = self.change(&live, entry)?;
        if self.plan.kind == LoadKind::Replace && dialect.ddl_is_transactional() && !change.statements.is_empty() {
            // Types may change as they like when there are no values.
            self.session.execute(&dialect.clear(&self.table)).await?;
            self.cleared = true;
        }
        self.create_enumerations().await?;
        self.run(&dialect.create_lookups(&self.settled(&live))).await?;
        let wanted = self.table.columns.clone();
        self.change_live(&change.statements, &wanted, &live).await?;
        self.loaded.schema_changes.extend(change.notes);
        self.loaded.warnings.extend(change.warnings);
        let live = if change.statements.is_empty() { live } else { self.retyped(&live).await? };
        self.table = self.settled(&live);
        self.fit_rows(Some(&live)).await?;
        Ok(false)
    }

    /// Changes a table that others may use, to these columns. An error names the views that are in the way.
    async fn change_live(&mut self, statements: &[Statement], wanted: &[SqlColumn], live: &[LiveColumn]) -> Result<()> {
        let Err(error) = self.define(statements).await else { return Ok(()) };
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        let Some(ask) = dialect.dependent_views(&self.plan.table, &error) else { return Err(error) };
        let Ok(rows) = self.session.rows(&ask).await else { return Err(error) };
        let cause = error.causes().join(": ");
        let mut views = Vec::new();
        for row in &rows {
            let [Some(kind), Some(view), Some(column)] = &row[..] else { continue };
            let Some(is) = live.iter().find(|live| live.name == *column) else { continue };
            let fate = match wanted.iter().find(|wanted| wanted.name == *column) {
                None => "be dropped".to_owned(),
                Some(wanted) if wanted.sql_type != is.sql_type => {
                    format!("become {}", dialect.plain_type(&wanted.sql_type))
                }
                Some(_) => continue,
            };
            let is_named = cause.contains(&format!("\"{column}\""));
            views.push((kind, view, format!("{}.{column}", self.plan.table.table), fate, is_named));
        }
        // Only one column stopped the statement, unless the server says it in another way.
        if views.iter().any(|view| view.4) {
            views.retain(|view| view.4);
        }
        let Some((kind, view, column, fate, _)) = views.first() else { return Err(error) };
        let capital = if *kind == "view" { "View" } else { "Materialized view" };
        let mut named = Error::new(error.kind(), format!("{capital} {view} uses {column}, which is to {fate}"));
        if let Some(state) = error.get("sqlstate") {
            named = named.with_field("sqlstate", state);
        }
        let others: Vec<String> =
            views[1..].iter().map(|(kind, view, column, ..)| format!("{kind} {view} ({column})")).collect();
        if !others.is_empty() {
            named = named.with_field("also", others.join(", "));
        }
        let name = view.replace('\'', "''");
        Err(named
            .hint(format!(
                "keep its definition (SELECT pg_get_viewdef('{name}'::regclass, true)), drop the {kind}, run again and create it \
                 again; until then this table gets no new data"
            ))
            .caused_by(cause))
    }

    pub(super) fn settled(&self, live: &[LiveColumn]) -> SqlTable {
        let columns = self.table.columns.iter().map(|column| match live.iter().find(|live| live.name == column.name) {
            Some(live) => self.shared.dialect().settle(column, live, self.plan.kind),
            None => column.clone(),
        });
        SqlTable { columns: columns.collect(), ..self.table.clone() }
    }

    /// The columns as they are now; says which have another type than before.
    async fn retyped(&mut self, old: &[LiveColumn]) -> Result<Vec<LiveColumn>> {
        let live = self.live().await?;
        let dialect = self.shared.dialect();
        for now in &live {
            let Some(old) = old.iter().find(|old| old.name == now.name) else { continue };
            let (is, was) = (dialect.plain_type(&now.sql_type), dialect.plain_type(&old.sql_type));
            if is == was {
                continue;
            }
            let mut note = format!("`{}` is {is} instead of {was}", now.name);
            let wanted = self.table.columns.iter().find(|column| column.name == now.name);
            let wanted = wanted.map(|wanted| dialect.plain_type(&wanted.sql_type));
            if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
                note.push_str(&format!(", as not all its values are {wanted}; load the table anew to have that"));
            }
            self.loaded.schema_changes.push(note);
        }
        Ok(live)
    }

    /// Lets the table hold what the rows were found to hold. `live`: its columns, where they may differ from the wanted ones.
    async fn fit_rows(&mut self, live: Option<&[LiveColumn]>) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        for index in 0..self.table.columns.len() {
            let column = self.table.columns[index].clone();
            let is = live.and_then(|live| live.iter().find(|live| live.name == column.name));
            let findings = &mut self.findings[index];
            let words = std::mem::take(&mut findings.new_words);
            if findings.null && column.required {
                self.table.columns[index].required = false;
                if is.is_none_or(|live| live.not_null) {
                    self.define(&[dialect.relax(&self.table, &self.table.columns[index], is)]).await?;
                    let name = &column.name;
                    self.loaded
                        .schema_changes
                        .push(format!("`{name}` has nulls although it is required, and may be null from now on"));
                }
            }
            let findings = &self.findings[index];
            let is_bounded = column.longest.is_some() || dialect.most_bytes(&self.table.columns[index]).is_some();
            if (findings.long && is_bounded) || (findings.any_word && column.enumeration.is_some()) {
                let wide = dialect.unbounded(&self.table.columns[index]);
                let is_wide = |live: &LiveColumn| dialect.plain_type(&live.sql_type) == dialect.plain_type(&wide.sql_type);
                let why = if findings.long { "longer than was announced" } else { "that no enumeration can have" };
                if wide.lookup.is_some() || !is.is_some_and(is_wide) {
                    let retype = [dialect.retype(&self.table, &wide, is)];
                    let mut wanted = self.table.columns.clone();
                    wanted[index] = wide.clone();
                    self.change_live(&retype, &wanted, live.unwrap_or_default()).await?;
                    self.loaded
                        .schema_changes
                        .push(format!("`{}` has texts {why}, and takes any text from now on", column.name));
                }
                self.table.columns[index] = wide;
            } else if !words.is_empty() {
                self.admit(index, words, is).await?;
            }
        }
        Ok(())
    }

    /// Adds words that the schema does not announce to an enumeration.
    async fn admit(&mut self, index: usize, words: Vec<String>, live: Option<&LiveColumn>) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        if let Some((lookup, _)) = self.table.columns[index].lookup.clone() {
            return self.report_unannounced(index, words, &lookup).await;
        }
        let column = &mut self.table.columns[index];
        let Some(enumeration) = &mut column.enumeration else { return Ok(()) };
        let is_ours = self.made_enumerations.contains(&enumeration.name);
        enumeration.members.extend(words.iter().cloned());
        let column = column.clone();
        let statements = match is_ours {
            true => dialect.remake_enumeration(&self.table, &column),
            false => dialect.admit_words(&self.table, &column, &words, live),
        };
        if statements.is_empty() {
            return Ok(());
        }
        // A type that this transaction made is known to it alone; any other has to get its words before they can be used.
        if is_ours || dialect.live_enumerations(&self.plan.table.namespace).is_none() {
            self.define(&statements).await?;
        } else {
            let mut other = shared.session().await?;
            for statement in &statements {
                other.execute(statement).await?;
            }
            shared.give_back(other);
        }
        let count = words.len();
        self.loaded.schema_changes.push(format!(
            "`{}` has {count} words that were not announced; its enumeration takes them from now on",
            column.name
        ));
        self.loaded.warnings.push(format!(
            "`{}`: the official client would stop at this table, as its enumeration has words that the schema does not announce",
            column.name
        ));
        Ok(())
    }

    /// Enum values that the schema does not list and the lookup table does not have yet, and is about to get.
    async fn report_unannounced(&mut self, index: usize, words: Vec<String>, lookup: &str) -> Result<()> {
        let rows = self.session.rows(&self.shared.dialect().words(lookup)).await?;
        let known: HashSet<&str> = rows.iter().filter_map(|row| row.get(1)?.as_deref()).collect();
        let count = words.iter().filter(|word| !known.contains(word.as_str())).count();
        if count > 0 {
            let name = &self.table.columns[index].name;
            self.loaded
                .warnings
                .push(format!("`{name}`: {count} enum values that the schema does not list are in its lookup table now"));
        }
        Ok(())
    }

    /// Values that were changed on their way, told once per column.
    pub(super) fn tell_changed(&mut self) {
        for (column, findings) in self.table.columns.iter().zip(&self.findings) {
            let mut tell = |count: u64, what: &str| {
                if count > 0 {
                    self.loaded.warnings.push(format!("`{}`: {count} {what}", column.name));
                }
            };
            tell(findings.nul, "texts held the character NUL; U+2400 stands in its place");
            tell(findings.halves, "values held half of a surrogate pair; U+FFFD stands in its place");
            tell(findings.subnormal, "numbers were closer to zero than the database can hold, and are 0 there");
        }
    }
}
