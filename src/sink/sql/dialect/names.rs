//! Names, placeholders and small expressions.

use crate::model::TableRef;

/// How a server writes names, parameters and conversions. Names that go in are unquoted, names that come out are quoted.
pub(in crate::sink::sql) trait Names {
    /// A quoted name.
    fn quote(&self, name: &str) -> String;

    /// The quoted name of a table.
    fn table_name(&self, table: &TableRef) -> String;

    /// The quoted name of a table of the sync state: `table_sync` or `database_version`.
    fn meta_table(&self, name: &str) -> String;

    /// The operator that compares two strings for equality.
    fn equal(&self) -> &'static str {
        "="
    }

    /// The placeholder of the n-th parameter, counted from 1.
    fn placeholder(&self, number: usize) -> String;

    /// The parameter `placeholder`, written `YYYY-MM-DD hh:mm:ss.ffffff`, as a timestamp.
    fn timestamp(&self, placeholder: &str) -> String;

    /// The parameter `placeholder` as an integer.
    fn integer(&self, placeholder: &str) -> String {
        placeholder.to_owned()
    }

    /// The string in the column `name`, in a form from which the connection reads every character.
    fn text(&self, name: &str) -> String {
        self.quote(name)
    }

    /// A truth value.
    fn boolean(&self, value: bool) -> &'static str {
        if value { "1" } else { "0" }
    }

    /// Microseconds since the epoch of the timestamp in the column `name`.
    fn micros_of(&self, name: &str) -> String;

    /// A type for messages, and for comparing an existing type with the wanted one.
    fn plain_type(&self, sql_type: &str) -> String {
        sql_type.replace('"', "")
    }

    /// Whether a table can have two columns whose names differ only in case.
    fn is_case_sensitive(&self) -> bool {
        false
    }
}
