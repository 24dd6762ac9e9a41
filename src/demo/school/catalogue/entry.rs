//! An entry of the catalogue.

use serde_json::Value;

/// One table of the generated catalogue.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) namespace: &'static str,
    pub(crate) table: &'static str,
    /// `{"schema": ..., "version": 1}`.
    pub(crate) text: &'static str,
    /// Columns with the full names of the tables they may refer to (by their `id`).
    pub(crate) references: &'static [(&'static str, &'static [&'static str])],
    /// Text columns that hold JSON.
    pub(crate) json: &'static [&'static str],
}

impl Entry {
    pub(crate) fn schema(&self) -> Value {
        let mut envelope: Value = serde_json::from_str(self.text).unwrap_or_default();
        envelope.get_mut("schema").map(Value::take).unwrap_or_default()
    }

    pub(crate) fn full_name(&self) -> String {
        [self.namespace, ".", self.table].concat()
    }
}
