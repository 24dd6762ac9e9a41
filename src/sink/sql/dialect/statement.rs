//! A statement: SQL text and parameters. Dialects write it, connections send it.

/// SQL text of one statement, or of several without parameters. Parameters are given as text; the server infers their types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct Statement {
    /// The SQL.
    pub(in crate::sink::sql) text: String,
    /// Values of the placeholders, in order.
    pub(in crate::sink::sql) parameters: Vec<Option<String>>,
}

impl Statement {
    /// A statement without parameters.
    pub(in crate::sink::sql) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), parameters: Vec::new() }
    }

    /// Adds the next parameter.
    pub(in crate::sink::sql) fn bind(mut self, value: impl Into<String>) -> Self {
        self.parameters.push(Some(value.into()));
        self
    }
}

/// A row of a result, as text.
pub(in crate::sink::sql) type Row = Vec<Option<String>>;
