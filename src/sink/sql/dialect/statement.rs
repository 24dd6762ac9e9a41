//! A statement: SQL text and parameters. Dialects write it, connections send it.

/// SQL text of one statement, or of several without parameters. Parameters are given as text; the server infers their types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct Statement {
    /// The SQL.
    pub(in crate::sink::sql) text: String,
    /// Values of the placeholders, in order.
    pub(in crate::sink::sql) parameters: Vec<Option<String>>,
    /// A single statement of the user. Its text, which may hold secrets, is never shown, and its rows are ignored.
    pub(in crate::sink::sql) is_of_user: bool,
}

impl Statement {
    /// A statement without parameters.
    pub(in crate::sink::sql) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), parameters: Vec::new(), is_of_user: false }
    }

    /// A single statement of the user.
    pub(in crate::sink::sql) fn of_user(text: impl Into<String>) -> Self {
        Self { is_of_user: true, ..Self::new(text) }
    }

    /// The text for logs.
    pub(in crate::sink::sql) fn shown(&self) -> &str {
        if self.is_of_user { "a statement of after_sql" } else { &self.text }
    }

    /// Adds the next parameter.
    pub(in crate::sink::sql) fn bind(mut self, value: impl Into<String>) -> Self {
        self.parameters.push(Some(value.into()));
        self
    }
}

/// A row of a result, as text.
pub(in crate::sink::sql) type Row = Vec<Option<String>>;
