//! Which tables a run is about: namespaces, names, patterns, exclusions, against what the service lists.

use crate::api::Client;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{Namespace, TableRef, is_pattern};

/// Namespaces that the service is known to have; an account may have fewer.
pub const KNOWN_NAMESPACES: [&str; 4] = ["canvas", "canvas_logs", "catalog", "new_quizzes"];

/// A choice of tables, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Namespaces, or `all`.
    pub namespaces: Vec<String>,
    /// `all`, names, patterns with `*` and `?`, each with or without `namespace.` in front.
    pub tables: Vec<String>,
    /// The same forms.
    pub exclude: Vec<String>,
}

impl Selection {
    /// Everything of one namespace.
    pub fn all_of(namespace: impl Into<String>) -> Self {
        Self { namespaces: vec![namespace.into()], tables: vec!["all".into()], exclude: Vec::new() }
    }

    /// Asks the service what there is and picks from it, in the service's order. A name (not a pattern) that matches nothing
    /// is an error of kind `NotFound` before anything is started.
    pub async fn resolve(&self, client: &Client) -> Result<Vec<TableRef>> {
        let mut listed = Vec::new();
        let mut missing = None;
        let everywhere = self.namespaces.iter().any(|name| name == "all");
        let namespaces: Vec<&str> = if everywhere { KNOWN_NAMESPACES.to_vec() } else { self.trimmed_namespaces() };
        for namespace in namespaces {
            match client.tables(&Namespace::new(namespace)).await {
                Ok(tables) => listed.extend(tables.into_iter().map(|table| TableRef::new(namespace, table))),
                // `all` means all that the account has.
                Err(error) if everywhere && matches!(error.kind(), Kind::NotFound | Kind::Account) => {
                    tracing::info!(namespace, "The account has no such namespace");
                    missing = Some(error.with("namespace", namespace));
                }
                Err(error) => return Err(error).with("namespace", namespace),
            }
        }
        match missing {
            // Not one namespace: the account itself is the matter.
            Some(error) if listed.is_empty() => Err(error),
            _ => self.pick(&listed, Holder::Service),
        }
    }

    /// Picks from tables that are known without asking, in their order. A name that matches nothing is an error of kind `NotFound`.
    pub fn resolve_among(&self, listed: &[TableRef]) -> Result<Vec<TableRef>> {
        let mut listed = listed.to_vec();
        if !self.namespaces.iter().any(|name| name == "all") {
            let namespaces = self.trimmed_namespaces();
            listed.retain(|table| namespaces.contains(&table.namespace.as_str()));
        }
        self.pick(&listed, Holder::Service)
    }

    /// Picks from the tables that a target holds, in its order. A name that matches nothing is an error of kind `NotFound`.
    #[cfg(feature = "lake")]
    pub async fn resolve_held(&self, sink: &dyn crate::sink::Sink) -> Result<Vec<TableRef>> {
        let mut listed = sink.list(None).await?;
        if !self.namespaces.iter().any(|name| name == "all") {
            let namespaces = self.trimmed_namespaces();
            listed.retain(|table| namespaces.contains(&table.namespace.as_str()));
        }
        self.pick(&listed, Holder::Target)
    }

    /// As [`Selection::resolve`], in the order of the names given, with names that nobody lists as they are. Without patterns
    /// the service is not asked.
    pub async fn resolve_all(&self, client: &Client) -> Result<Vec<TableRef>> {
        let words: Vec<&str> = self.tables.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).collect();
        let mut listed = Vec::new();
        if words.iter().any(|word| is_pattern(word)) {
            for namespace in self.trimmed_namespaces() {
                let tables = client.tables(&Namespace::new(namespace)).await.with("namespace", namespace)?;
                listed.extend(tables.into_iter().map(|table| TableRef::new(namespace, table)));
            }
        }
        let mut picked: Vec<TableRef> = Vec::new();
        for word in words {
            let found = match is_pattern(word) {
                true => listed.iter().filter(|table| table.matches(word)).cloned().collect(),
                false => {
                    self.trimmed_namespaces().into_iter().map(|namespace| TableRef::new(namespace, word)).collect::<Vec<_>>()
                }
            };
            for table in found {
                if !picked.contains(&table) && !self.exclude.iter().any(|word| table.matches(word.trim())) {
                    picked.push(table);
                }
            }
        }
        Ok(picked)
    }

    fn trimmed_namespaces(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.namespaces.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn pick(&self, listed: &[TableRef], holder: Holder) -> Result<Vec<TableRef>> {
        for wanted in self.tables.iter().map(|word| word.trim()).filter(|word| !is_pattern(word)) {
            if !listed.iter().any(|table| table.matches(wanted)) {
                return Err(unknown_table(wanted, listed, holder));
            }
        }
        let picked: Vec<TableRef> = listed
            .iter()
            .filter(|table| self.tables.iter().any(|word| table.matches(word.trim())))
            .filter(|table| !self.exclude.iter().any(|word| table.matches(word.trim())))
            .cloned()
            .collect();
        if picked.is_empty() && !listed.is_empty() {
            return Err(Error::new(Kind::NotFound, "No table matches")
                .with("table", self.tables.join(","))
                .with("exclude", self.exclude.join(","))
                .hint(holder.hint()));
        }
        Ok(picked)
    }
}

/// Whose tables are chosen from.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Service,
    #[cfg(feature = "lake")]
    Target,
}

impl Holder {
    fn message(self) -> &'static str {
        match self {
            Holder::Service => "The service has no such table",
            #[cfg(feature = "lake")]
            Holder::Target => "The target has no such table",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Holder::Service => "see the names with `daplake list --namespace ...`",
            #[cfg(feature = "lake")]
            Holder::Target => "see the names with `daplake status --target ...`",
        }
    }
}

fn unknown_table(wanted: &str, listed: &[TableRef], holder: Holder) -> Error {
    let bare = wanted.rsplit('.').next().unwrap_or(wanted);
    let nearest = listed.iter().map(|table| (distance(bare, &table.table), table)).min_by_key(|(distance, _)| *distance);
    let hint = match nearest {
        Some((distance, table)) if distance <= 3 => format!("did you mean `{}`?", table.table),
        _ => holder.hint().to_owned(),
    };
    Error::new(Kind::NotFound, holder.message()).with("table", wanted).hint(hint)
}

/// Levenshtein distance of two short names.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<TableRef> {
        ["accounts", "users", "user_account_associations", "web_conferences"].map(|name| TableRef::new("canvas", name)).to_vec()
    }

    fn pick(tables: &[&str], exclude: &[&str]) -> Result<Vec<String>> {
        let selection = Selection {
            namespaces: vec!["canvas".into()],
            tables: tables.iter().map(|word| (*word).to_owned()).collect(),
            exclude: exclude.iter().map(|word| (*word).to_owned()).collect(),
        };
        Ok(selection.pick(&listed(), Holder::Service)?.into_iter().map(|table| table.table).collect())
    }

    #[test]
    fn names_patterns_and_exclusions_pick_in_the_services_order() {
        assert_eq!(pick(&["all"], &[]).unwrap().len(), 4);
        assert_eq!(pick(&["users", " accounts"], &[]).unwrap(), ["accounts", "users"]);
        assert_eq!(pick(&["user*"], &["user_*"]).unwrap(), ["users"]);
        assert_eq!(pick(&["canvas.user?"], &[]).unwrap(), ["users"]);
        assert_eq!(pick(&["*con*"], &[]).unwrap(), ["web_conferences"]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_one() {
        let error = pick(&["usres"], &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.hint_text(), Some("did you mean `users`?"));
        assert_eq!(pick(&["x*"], &[]).unwrap_err().kind(), Kind::NotFound);
    }
}
