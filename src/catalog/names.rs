//! Names of databases and tables in a catalog.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind, Result};
use crate::model::TableRef;

/// A name with the placeholders `{namespace}` and `{table}`, such as `school_{namespace}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate(String);

/// The names of a table in a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CatalogName {
    pub(super) database: String,
    pub(super) table: String,
}

/// The hint for a target whose tables a catalog cannot list.
pub(crate) const LEAVE_OUT_HINT: &str =
    "leave --catalog out for this target, or set `catalog = \"none\"` in its section of the settings file";

/// The longest name that Hive catalogs accept, in characters.
const LONGEST: usize = 128;

impl NameTemplate {
    /// The name for a table. Catalogs ignore case and accept few characters: the name has lower-case letters, digits and underscores.
    pub(super) fn of(&self, table: &TableRef) -> String {
        let name = self.0.replace("{namespace}", table.namespace.as_str()).replace("{table}", &table.table).to_lowercase();
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        name.chars().map(plain).take(LONGEST).collect()
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NameTemplate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text.replace("{namespace}", "").replace("{table}", "");
        let is_plain = rest.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        if text.is_empty() || !is_plain {
            return Err(Error::new(Kind::Usage, "The template of a name in the catalog is invalid")
                .with_field("template", text)
                .hint("use lower-case letters, digits, _ and the placeholders {namespace} and {table}"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced() {
        let table = TableRef::new("canvas_logs", "Web-Logs");
        let of = |text: &str| text.parse::<NameTemplate>().unwrap().of(&table);
        assert_eq!(of("{namespace}"), "canvas_logs");
        assert_eq!(of("school_{namespace}_{table}"), "school_canvas_logs_web_logs");
        assert_eq!(of("lake"), "lake");
        for wrong in ["", "{name}", "{table", "My_{table}", "a-b", "a.b", "{}"] {
            assert_eq!(wrong.parse::<NameTemplate>().unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }
}
