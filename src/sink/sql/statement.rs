//! A statement: text and parameters. It is made by a dialect and sent by a connection.

/// Text of one or, without parameters, several statements, with parameters in text form; the server infers their types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// The SQL.
    pub(super) text: String,
    /// Values for the placeholders, in order.
    pub(super) parameters: Vec<Option<String>>,
}

impl Statement {
    /// Without parameters.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), parameters: Vec::new() }
    }

    /// Adds the next parameter.
    pub(super) fn bind(mut self, value: impl Into<String>) -> Self {
        self.parameters.push(Some(value.into()));
        self
    }
}

/// A row of a result, in text form.
pub(super) type Row = Vec<Option<String>>;
