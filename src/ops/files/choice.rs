//! Which tables: `all`, or names in the order they were given. No patterns here: the official client has none.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;

use crate::api::Client;
use crate::error::{Error, Kind, Result};
use crate::model::{Namespace, TableRef};

/// A choice of tables of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChoice {
    /// Whatever the service lists, in its order.
    All,
    /// These, each once. The service decides which exist.
    Names(Vec<String>),
}

impl TableChoice {
    /// As [`TableChoice::resolve`], unless something else comes first: kind `Cancelled`.
    pub(super) async fn resolve_unless(
        &self,
        client: &Client,
        namespace: &Namespace,
        interrupted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Vec<TableRef>> {
        tokio::select! {
            biased;
            () = interrupted => Err(Error::new(Kind::Cancelled, "Interrupted; nothing was begun")),
            tables = self.resolve(client, namespace) => tables,
        }
    }

    /// The tables in question.
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

    /// `all`, or a comma list; blanks around names, empty elements and repetitions do not count.
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
            true => Err(Error::new(Kind::Usage, "No table is named").hint("give table names with commas between, or `all`")),
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
        // Case counts, and only alone is it a word of ours.
        assert_eq!(names("All"), ["All"]);
        assert_eq!(names("all,users"), ["all", "users"]);
        assert_eq!(" , ".parse::<TableChoice>().unwrap_err().kind(), Kind::Usage);
    }
}
