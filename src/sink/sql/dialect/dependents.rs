//! Views and other objects of users that depend on columns, and that the server keeps from changing.

use super::statement::{Row, Statement};

/// A column whose type changes or which is dropped, or the primary key, which is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct ChangedColumn {
    /// Qualified and quoted name of its table.
    pub(in crate::sink::sql) relation: String,
    /// Its name before the change. `None`: the primary key.
    pub(in crate::sink::sql) column: Option<String>,
    /// Its name for people, such as `users.name`.
    pub(in crate::sink::sql) shown: String,
    /// What happens to it: `become bigint`, `be dropped`.
    pub(in crate::sink::sql) fate: String,
}

/// An object that depends on a changed column, or on a view that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct Dependent {
    /// `view`, `materialized view`, `rule`, `policy` or `trigger`.
    pub(in crate::sink::sql) kind: String,
    /// Its id in the catalogue.
    pub(in crate::sink::sql) id: String,
    /// Qualified and quoted name of the view, or of the table that the object belongs to.
    pub(in crate::sink::sql) relation: String,
    /// Quoted name of a rule, policy or trigger.
    pub(in crate::sink::sql) part: String,
    /// The changed column that it depends on. `None`: the primary key.
    pub(in crate::sink::sql) column: Option<String>,
    /// Whether it uses the column itself, not a view of it.
    pub(in crate::sink::sql) is_direct: bool,
    /// Unquoted name of the owner.
    pub(in crate::sink::sql) owner: String,
    /// Whether the session may act as the owner.
    pub(in crate::sink::sql) can_be_owner: bool,
    /// The statement that permits it.
    pub(in crate::sink::sql) grant: String,
    /// Whether it is a temporary view of another session.
    pub(in crate::sink::sql) is_temporary: bool,
    /// Whether it is a materialized view that has rows.
    pub(in crate::sink::sql) is_populated: bool,
}

impl Dependent {
    /// Whether it is a view or materialized view.
    pub(in crate::sink::sql) fn is_view(&self) -> bool {
        self.kind.ends_with("view")
    }

    /// Kind and name for people.
    pub(in crate::sink::sql) fn described(&self) -> String {
        if self.is_view() {
            format!("{} {}", self.kind, self.relation)
        } else {
            format!("{} {} of {}", self.kind, self.part, self.relation)
        }
    }
}

/// Statements that drop dependent objects before a schema change and recreate them after it. Only for servers whose rollback undoes
/// schema statements; all of them have empty defaults.
pub(in crate::sink::sql) trait DependentObjects {
    /// Asks for the objects that depend on columns, each before those that depend on it; see [`DependentObjects::read_dependent`].
    /// `None`: the server's views do not block changes, or cannot be recreated.
    fn find_dependents(&self, _columns: &[ChangedColumn]) -> Option<Statement> {
        None
    }

    /// Reads a row of [`DependentObjects::find_dependents`].
    fn read_dependent(&self, _row: &Row) -> Option<Dependent> {
        None
    }

    /// Locks relations in this order against all readers. It fails with a lock timeout before a reader that waits for one of them could be
    /// ended because of a deadlock.
    fn lock_dependents(&self, _dependents: &[Dependent], _columns: &[ChangedColumn]) -> Vec<Statement> {
        Vec::new()
    }

    /// Prepares the transaction for the statements about dependents.
    fn begin_dependents(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Ends what [`DependentObjects::begin_dependents`] began.
    fn end_dependents(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Asks for the statements that create an object again: rows of a role and a statement.
    fn definition_of(&self, _dependent: &Dependent) -> Option<Statement> {
        None
    }

    /// Drops an object.
    fn drop_dependent(&self, _dependent: &Dependent) -> Vec<Statement> {
        Vec::new()
    }

    /// Runs the answer to [`DependentObjects::definition_of`].
    fn recreate_dependent(&self, _definition: &[(String, String)]) -> Vec<Statement> {
        Vec::new()
    }

    /// Fills a materialized view.
    fn populate(&self, _dependent: &Dependent) -> Vec<Statement> {
        Vec::new()
    }
}
