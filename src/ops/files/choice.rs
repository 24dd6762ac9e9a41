//! The table argument of the official client: `all`, or names in their order, without patterns.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;

use crate::api::Client;
use crate::error::{Error, Kind, Result};
use crate::model::{Namespace, TableRef};

/// Tables of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChoice {
    /// All tables that the service lists, in its order.
    All,
    /// These tables, each once. They are not checked against the list.
    Names(Vec<String>),
}

impl TableChoice {
    /// As [`TableChoice::resolve`]; fails with kind `Cancelled` if `interrupted` resolves first.
    pub(super) async fn resolve_unless(
        &self,
        client: &Client,
        namespace: &Namespace,
        interrupted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Vec<TableRef>> {
        tokio::select! {
            biased;
            () = interrupted => Err(Error::new(Kind::Cancelled, "Interrupted before a table was started")),
            tables = self.resolve(client, namespace) => tables,
        }
    }

    /// The tables.
    pub async fn resolve(&self, client: &Client, namespace: &Namespace) -> Result<Vec<TableRef>> {
        let names = match self {
            TableChoice::All => client.tables(namespace).await?,
            TableChoice::Names(names) => names.clone(),
        };
        Ok(names.into_iter().map(|name| TableRef { namespace: namespace.clone(), table: name }).collect())
    }
}

impl FromStr for TableChoice {
    type Err = Error;

    /// Parses `all` or a comma-separated list; blanks around names, empty elements and duplicates are ignored.
    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(TableChoice::All);
        }
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        match names.is_empty() {
            true => {
                Err(Error::new(Kind::Usage, "No table is selected").hint("list table names separated by commas, or use `all`"))
            }
            false => Ok(TableChoice::Names(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_trimmed_and_keep_their_order() {
        let names = |text: &str| match text.parse().unwrap() {
            TableChoice::All => vec!["(all)".to_owned()],
            TableChoice::Names(names) => names,
        };
        assert_eq!(names("all"), ["(all)"]);
        assert_eq!(names("users, accounts,,users ,"), ["users", "accounts"]);
        // `all` is case-sensitive, and special only on its own.
        assert_eq!(names("All"), ["All"]);
        assert_eq!(names("all,users"), ["all", "users"]);
        assert_eq!(" , ".parse::<TableChoice>().unwrap_err().kind(), Kind::Usage);
    }
}
