//! The user's options for all tables of a database.

/// What to do with NaN and infinity where the database cannot hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonFinite {
    /// The table fails, with an error that names column and key.
    #[default]
    Fail,
    /// They become null, and are counted.
    Null,
}

/// What to do with views and other objects of users that keep a column from changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DependentViews {
    /// They are dropped and recreated in the transaction of the load, where the database has such views and transactions: PostgreSQL.
    #[default]
    Recreate,
    /// The table fails, with an error that names them.
    Fail,
}

/// Choices for all tables of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SqlOptions {
    /// See [`NonFinite`].
    pub non_finite: NonFinite,
    /// Drop columns that the stored schema has and the service no longer has. Otherwise they are kept and get no new values. Columns that
    /// no stored schema has are never dropped.
    pub drop_removed_columns: bool,
    /// Names or patterns of tables that may be taken over although they have rows and the sync state does not list them. All their rows
    /// are replaced.
    pub adopt: Vec<String>,
    /// Statements that run after each load of the tables of a pattern, in the transaction of the load: pairs of pattern and statement, in order.
    pub after_sql: Vec<(String, String)>,
    /// See [`DependentViews`].
    pub dependent_views: DependentViews,
}
