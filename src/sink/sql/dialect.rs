//! The seam to the languages: pure text, no I/O. What a table is called, how it is made, changed, staged and merged.

use std::fmt::Debug;

use super::statement::{Row, Statement};
use crate::error::{Error, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;
use crate::sink::LoadKind;

/// A column of a table as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlColumn {
    /// Name in the database, unquoted.
    pub(super) name: String,
    /// Name in the record batches.
    pub(super) source: String,
    /// Type as the server spells it, with enumeration types quoted and qualified.
    pub(super) sql_type: String,
    /// The type by which it is staged: that of the column, or a text that is converted when it is merged.
    pub(super) stage_type: String,
    /// From the staging table's column to the table's, if they differ; `{}` stands for the former.
    pub(super) convert: Option<String>,
    /// The bulk path takes the column's own type, so that rows can be copied straight into the table; words of a lookup table as
    /// their ids.
    pub(super) direct: bool,
    /// The most characters (of an array: of each item) that the column takes.
    pub(super) longest: Option<usize>,
    /// Part of the primary key.
    pub(super) key: bool,
    /// May not be null.
    pub(super) required: bool,
    /// Default as an SQL expression.
    pub(super) default: Option<String>,
    /// Text for people.
    pub(super) comment: Option<String>,
    /// The enumeration it needs.
    pub(super) enumeration: Option<Enumeration>,
    /// The quoted lookup table it refers to, and the name of the foreign key.
    pub(super) lookup: Option<(String, String)>,
}

/// An enumeration: a type of its own, or written into the column's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enumeration {
    /// Name of the type in the database, unquoted, without its schema. Where there are no such types, of the column.
    pub(super) name: String,
    /// Words it has to have.
    pub(super) members: Vec<String>,
}

/// A column as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveColumn {
    /// Name.
    pub(super) name: String,
    /// Type, spelled like [`SqlColumn::sql_type`].
    pub(super) sql_type: String,
    /// May not be null.
    pub(super) not_null: bool,
    /// Part of the primary key.
    pub(super) key: bool,
    /// Has a default.
    pub(super) has_default: bool,
    /// The quoted lookup table of ours whose ids its values are.
    pub(super) lookup: Option<String>,
    /// Text for people.
    pub(super) comment: Option<String>,
}

/// A table as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlTable {
    /// Which.
    pub(super) table: TableRef,
    /// Its columns, key first.
    pub(super) columns: Vec<SqlColumn>,
    /// Text for people.
    pub(super) comment: Option<String>,
}

impl SqlTable {
    /// Whether rows have to be converted on their way, so that they cannot be copied straight into the table.
    pub(super) fn needs_stage(&self) -> bool {
        !self.columns.iter().all(|column| column.direct)
    }
}

/// How a table that exists becomes the one that is wanted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// To be run in order.
    pub(super) statements: Vec<Statement>,
    /// What changes, one sentence each.
    pub(super) notes: Vec<String>,
    /// What does not and should, one sentence each.
    pub(super) warnings: Vec<String>,
}

/// What is known and wanted when a table is changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangeRules<'a> {
    /// The table as the stored schema wanted it. `None`: nothing is stored, or it cannot be read.
    pub(super) before: Option<&'a SqlTable>,
    /// With [`LoadKind::Replace`] the rows are gone when the changes run.
    pub(super) kind: LoadKind,
    /// Columns that were ours and are gone upstream go, too.
    pub(super) drop_removed: bool,
}

/// Text only. Names that go in are unquoted, names in the texts that come out are quoted.
pub(super) trait Dialect: Debug + Send + Sync {
    /// A name in quotes.
    fn quote(&self, name: &str) -> String;

    /// The quoted name of a table.
    fn table_name(&self, table: &TableRef) -> String;

    /// The quoted name of a table of our own book-keeping: `table_sync` or `database_version`.
    fn meta_table(&self, name: &str) -> String;

    /// The operator that compares texts for equality.
    fn equal(&self) -> &'static str {
        "="
    }

    /// The placeholder of the n-th parameter, from 1.
    fn placeholder(&self, number: usize) -> String;

    /// An expression for the parameter `placeholder` as a moment, written `YYYY-MM-DD hh:mm:ss.ffffff`.
    fn moment(&self, placeholder: &str) -> String;

    /// An expression for the parameter `placeholder` as a whole number.
    fn integer(&self, placeholder: &str) -> String {
        placeholder.to_owned()
    }

    /// An expression for the text in the column `name`, such that the connection can read all of its characters.
    fn text(&self, name: &str) -> String {
        self.quote(name)
    }

    /// An expression for the microseconds since the epoch of the moment in the column `name`.
    fn micros_of(&self, name: &str) -> String;

    /// Makes the table of [`Dialect::exact_moments`] where there is none and one is needed.
    fn create_exact_moments(&self) -> Option<Statement> {
        None
    }

    /// Asks for the moments that are kept apart because the book-keeping cuts them: rows of its `id` and of microseconds.
    fn exact_moments(&self) -> Option<Statement> {
        None
    }

    /// Keeps the moment of a table's book-keeping apart, if that cuts it.
    fn keep_exact_moment(&self, table: &TableRef, micros: i64) -> Option<Statement> {
        let _ = (table, micros);
        None
    }

    /// A condition on the columns `source_namespace` and `source_table` of the book-keeping: the table exists.
    fn entry_exists(&self) -> String;

    /// Asks what stands at the names of the bookkeeping: rows of table, column (null: it has none), and 1 if it is a table.
    fn meta_columns(&self) -> Statement;

    /// Asks what stands at the name of a table: no row, or one row with the kind of object: `table`, `view`, `sequence`.
    fn occupant(&self, table: &TableRef) -> Statement;

    /// Asks for the types at the names of the table's enumerations: rows of name, `enum` or another kind, and a table of somebody
    /// else that uses the type, or null. `None`: there are no such types.
    fn occupied_types(&self, table: &SqlTable) -> Option<Statement> {
        let _ = table;
        None
    }

    /// Makes the book-keeping; does nothing where it is.
    fn create_meta(&self) -> Vec<Statement>;

    /// Asks for what versions of the official client before 1.0 left: rows of one word each, which [`Dialect::migrate`] reads.
    fn ancient_tables(&self) -> Statement;

    /// From what [`Dialect::ancient_tables`] found to the layout of version 1. Where statements that define do not roll back,
    /// these can be repeated.
    fn migrate(&self, ancient: &[String]) -> Vec<Statement>;

    /// Makes `version` the only row of `database_version`.
    fn set_version(&self, version: i64) -> Vec<Statement> {
        let (table, column) = (self.meta_table("database_version"), self.quote("version"));
        vec![
            Statement::new(format!("DELETE FROM {table}")),
            Statement::new(format!("INSERT INTO {table} ({column}) VALUES ({version})")),
        ]
    }

    /// Makes room for the tables of a namespace; does nothing where it is.
    fn create_namespace(&self, namespace: &Namespace) -> Vec<Statement>;

    /// Asks for the database's character set and collation; see [`Dialect::judge_charset`].
    fn charset(&self) -> Statement;

    /// What is wrong with the answer to [`Dialect::charset`], as a sentence.
    fn judge_charset(&self, row: &Row) -> Option<String>;

    /// Whether a rollback undoes statements that define tables. If not, each of them commits what was before it, so they come
    /// before the transaction and can be repeated.
    fn ddl_is_transactional(&self) -> bool;

    /// Waits for the lock of `name`, which ends with the transaction or by [`Dialect::unlock`].
    fn lock(&self, name: &str) -> Statement;

    /// Whether the answer to [`Dialect::lock`] says that the lock is held. Where an error says that it is not: always.
    fn is_lock_held(&self, answer: &[Row]) -> bool {
        let _ = answer;
        true
    }

    /// Takes the lock if it is free: one row, `t`, `f`, `1` or `0`.
    fn try_lock(&self, name: &str) -> Statement;

    /// Lets go of a lock that belongs to the session. `None`: it ends with the transaction.
    fn unlock(&self, name: &str) -> Option<Statement> {
        let _ = name;
        None
    }

    /// Whether a set that holds a key twice is refused in each way that rows go, so that it need not be reduced before.
    fn refuses_duplicates(&self) -> bool {
        false
    }

    /// Whether the server refused a repeated key.
    fn is_duplicate(&self, error: &Error) -> bool;

    /// Begins statements that define tables and wait for others briefly: a definition that waits holds up everybody who comes
    /// after it.
    fn begin_definition(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Ends them; what they did stays.
    fn end_definition(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Takes them back after an error, such that the session can go on. `None`: that cannot be done.
    fn undo_definition(&self) -> Option<Vec<Statement>> {
        None
    }

    /// Whether a statement was given up because somebody else holds a lock.
    fn is_lock_timeout(&self, error: &Error) -> bool {
        let _ = error;
        false
    }

    /// Whether the server undid the transaction in favour of another one, so that it may pass when it is done again.
    fn is_passing(&self, error: &Error) -> bool {
        let _ = error;
        false
    }

    /// Asks who holds locks on a table or its lookup tables: rows of one sentence each. `None`: the server does not tell.
    fn lock_holders(&self, table: &SqlTable) -> Option<Statement> {
        let _ = table;
        None
    }

    /// Asks for the views that use columns of a table: rows of kind, quoted name, column. `None`: the error does not say that
    /// something depends on a column.
    fn dependent_views(&self, table: &TableRef, error: &Error) -> Option<Statement> {
        let _ = (table, error);
        None
    }

    /// Begins a transaction.
    fn begin(&self) -> Statement {
        Statement::new("BEGIN")
    }

    /// Makes it last.
    fn commit(&self) -> Statement {
        Statement::new("COMMIT")
    }

    /// Undoes it; no error where none is open.
    fn rollback(&self) -> Statement {
        Statement::new("ROLLBACK")
    }

    /// Whether columns of floating point hold NaN and the infinities.
    fn takes_non_finite(&self) -> bool;

    /// Whether texts hold the character NUL. If not, the connection puts U+2400 in its place.
    fn takes_nul(&self) -> bool {
        false
    }

    /// Whether columns of floating point hold numbers closer to zero than the smallest normal one. If not, they become zero.
    fn takes_subnormal(&self) -> bool {
        true
    }

    /// Whether the server reads values of such a column as JSON, and so refuses half of a surrogate pair.
    fn is_json(&self, sql_type: &str) -> bool {
        let _ = sql_type;
        false
    }

    /// The table for a schema.
    fn table_of(&self, schema: &TableSchema) -> Result<SqlTable>;

    /// Asks for the columns of a table in order; see [`Dialect::read_live`].
    fn live_columns(&self, table: &TableRef) -> Statement;

    /// Reads a row of [`Dialect::live_columns`].
    fn read_live(&self, row: &Row) -> Option<LiveColumn>;

    /// Asks for the words of the named enumerations of a namespace: rows of name and word. `None`: there are no such types.
    fn live_enumerations(&self, namespace: &Namespace) -> Option<Statement> {
        let _ = namespace;
        None
    }

    /// Makes missing enumerations (to be run in the transaction).
    fn create_enumerations(&self, table: &SqlTable, live: &[(String, String)]) -> Vec<Statement> {
        let _ = (table, live);
        Vec::new()
    }

    /// Adds missing words to named enumerations that exist (each to be run outside a transaction), with what to say about it.
    fn widen_enumerations(&self, table: &SqlTable, live: &[(String, String)]) -> Vec<(Statement, String)> {
        let _ = (table, live);
        Vec::new()
    }

    /// Lets the enumeration of a column have these words as well; `column` knows them already. `live`: the column as it is.
    fn admit_words(&self, table: &SqlTable, column: &SqlColumn, words: &[String], live: Option<&LiveColumn>) -> Vec<Statement>;

    /// As [`Dialect::admit_words`], for an enumeration that this very transaction made: its new words may be used in it.
    fn remake_enumeration(&self, table: &SqlTable, column: &SqlColumn) -> Vec<Statement> {
        let _ = (table, column);
        Vec::new()
    }

    /// Whether an enumeration can have such a word.
    fn can_be_word(&self, word: &str) -> bool;

    /// Makes the lookup tables of a table; does nothing where they are.
    fn create_lookups(&self, table: &SqlTable) -> Vec<Statement>;

    /// Makes the table. The primary key may be left to [`Dialect::add_key`], when the rows are in.
    fn create_table(&self, table: &SqlTable) -> Vec<Statement>;

    /// The primary key, and what else is made when the rows are in; empty if [`Dialect::create_table`] made it.
    fn add_key(&self, table: &SqlTable) -> Vec<Statement>;

    /// Whether a table can have two columns whose names differ in case alone.
    fn tells_case_apart(&self) -> bool {
        false
    }

    /// Gives a column another name.
    fn rename_column(&self, table: &TableRef, from: &str, to: &str) -> Statement {
        let (table, from, to) = (self.table_name(table), self.quote(from), self.quote(to));
        Statement::new(format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}"))
    }

    /// From the live columns to the wanted ones. Kind `Schema` for what a merge cannot follow.
    fn change_table(&self, table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change>;

    /// The column as rows have to be put into the live one, where a change of type is not made because it would alter values. A
    /// load of `kind` Replace has no values to alter.
    fn settle(&self, column: &SqlColumn, live: &LiveColumn, kind: LoadKind) -> SqlColumn;

    /// A type for people, and to compare what is live with what is wanted.
    fn plain_type(&self, sql_type: &str) -> String {
        sql_type.replace('"', "")
    }

    /// Lets a column be null. `live`: the column as it is, if the table is not new.
    fn relax(&self, table: &SqlTable, column: &SqlColumn, live: Option<&LiveColumn>) -> Statement;

    /// The most bytes of UTF-8 that the column's type takes, where that may be less than the service sends.
    fn most_bytes(&self, column: &SqlColumn) -> Option<usize> {
        let _ = column;
        None
    }

    /// The column with a type that takes texts of any length.
    fn unbounded(&self, column: &SqlColumn) -> SqlColumn;

    /// Gives a column that exists the type of `column`, from a narrower text or enumeration.
    /// `live`: the column as it is, if the table is not new.
    fn retype(&self, table: &SqlTable, column: &SqlColumn, live: Option<&LiveColumn>) -> Statement;

    /// Makes the staging table of the session, in place of one that was left. Its texts have any length.
    fn create_stage(&self, table: &SqlTable) -> Vec<Statement>;

    /// The staging table goes, where it does not go with the transaction.
    fn drop_stage(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// The quoted name of the staging table.
    fn stage(&self) -> String;

    /// Type of the action in a staging table.
    fn text_type(&self) -> String;

    /// Refuses repeated keys in the staging table, by a unique index.
    fn unique_stage(&self, table: &SqlTable) -> Statement;

    /// Tells the planner about the staging table.
    fn analyze_stage(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Asks for the ids and words of a lookup table.
    fn words(&self, lookup: &str) -> Statement {
        Statement::new(format!("SELECT {}, {} FROM {lookup}", self.quote("id"), self.text("value")))
    }

    /// Adds words to a lookup table, which must not have them.
    fn add_words(&self, lookup: &str, words: &[&str]) -> Statement {
        let rows: Vec<String> = (1..=words.len()).map(|number| format!("({})", self.placeholder(number))).collect();
        let text = format!("INSERT INTO {lookup} ({}) VALUES {}", self.quote("value"), rows.join(", "));
        words.iter().fold(Statement::new(text), |statement, word| statement.bind(*word))
    }

    /// Adds words that are staged but not in the lookup tables.
    fn fill_lookups(&self, table: &SqlTable) -> Vec<Statement>;

    /// All rows of the table go.
    fn clear(&self, table: &SqlTable) -> Statement;

    /// Staged upserts into the table, in place of rows with the same key.
    fn upsert(&self, table: &SqlTable) -> Vec<Statement>;

    /// Staged upserts into a table that is empty.
    fn insert(&self, table: &SqlTable) -> Statement;

    /// Rows whose keys are staged as deletes go.
    fn delete(&self, table: &SqlTable) -> Statement;

    /// The table goes, if it is there.
    fn drop_table(&self, table: &TableRef) -> Statement;
}
