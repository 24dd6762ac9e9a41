//! The SQL of one kind of database: text only, no I/O. Each part of the language is a trait of its own.

mod changes;
mod choice;
mod ddl;
mod dependents;
mod introspection;
mod merge;
mod meta_tables;
mod names;
mod privileges;
mod statement;
mod table;
mod transactions;
mod values;

use std::fmt::Debug;

pub(super) use self::changes::{
    NO_SOFT_DELETES, foreign_required_column, has_other_key, incompatible_type, new_column_note, removed_column_note,
};
pub(super) use self::choice::{ColumnChoice, constant_length, numeric_default, schema_node};
pub(super) use self::ddl::{Ddl, Enumerations, system_column};
pub(super) use self::dependents::{ChangedColumn, Dependent, DependentObjects};
pub(super) use self::introspection::Introspection;
pub(super) use self::merge::MergeStatements;
pub(super) use self::meta_tables::{MetaTables, OWN_NAMESPACE};
pub(super) use self::names::Names;
pub(super) use self::privileges::{Privileges, indexed};
pub(super) use self::statement::{Row, Statement};
pub(super) use self::table::{Change, ChangeRules, Enumeration, Fit, LiveColumn, SqlColumn, SqlTable};
pub(super) use self::transactions::Transactions;
pub(super) use self::values::ValueLimits;

/// All of a database's SQL.
pub(super) trait Dialect:
    Names
    + Ddl
    + Enumerations
    + Introspection
    + DependentObjects
    + Privileges
    + MetaTables
    + MergeStatements
    + Transactions
    + ValueLimits
    + Debug
    + Send
    + Sync
{
}

impl<D> Dialect for D where
    D: Names
        + Ddl
        + Enumerations
        + Introspection
        + DependentObjects
        + Privileges
        + MetaTables
        + MergeStatements
        + Transactions
        + ValueLimits
        + Debug
        + Send
        + Sync
{
}
