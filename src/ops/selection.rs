//! Which tables a run is about: namespaces, names, patterns, exclusions, against what the service lists.

use crate::api::Client;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{KNOWN_NAMESPACES, Namespace, TableRef, is_pattern, nearest};

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

/// What the service lists of the namespaces of a selection.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// In the service's order.
    pub tables: Vec<TableRef>,
    /// Namespaces that were listed.
    pub answered: Vec<String>,
    /// Namespaces that could not be listed.
    pub failed: Vec<String>,
}

impl Listing {
    /// What of it a selection is about.
    #[cfg(feature = "lake")]
    pub(super) fn of(&self, selection: &Selection) -> Self {
        if selection.namespaces.iter().any(|name| name.trim() == "all") {
            return self.clone();
        }
        let names = selection.trimmed_namespaces();
        let mut part = self.clone();
        part.tables.retain(|table| names.contains(&table.namespace.as_str()));
        part.answered.retain(|name| names.contains(&name.as_str()));
        part.failed.retain(|name| names.contains(&name.as_str()));
        part
    }
}

impl Selection {
    /// Everything of one namespace.
    pub fn all_of(namespace: impl Into<String>) -> Self {
        Self { namespaces: vec![namespace.into()], tables: vec!["all".into()], exclude: Vec::new() }
    }

    /// Asks the service what there is and picks from it, in the service's order. What cannot be had leaves the rest alone: a namespace
    /// that cannot be listed and a name (not a pattern) that no namespace lists are failures beside the tables. `held` are the tables of
    /// the target; those that the service no longer lists are named. An error means that there is nothing to do: the login failed, or
    /// nothing of what was asked for exists.
    pub async fn resolve(&self, client: &Client, held: &[TableRef]) -> Result<Resolved> {
        let everywhere = self.names_all_namespaces();
        let namespaces: Vec<&str> = if everywhere { KNOWN_NAMESPACES.to_vec() } else { self.trimmed_namespaces() };
        let (mut listed, mut answered, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for namespace in namespaces {
            match client.tables(&Namespace::new(namespace)).await {
                Ok(tables) => {
                    answered.push(namespace);
                    listed.extend(tables.into_iter().map(|table| TableRef::new(namespace, table)));
                }
                // The credentials, or the whole service: the other namespaces would fail alike.
                Err(error) if error.get("call") == Some("login") => return Err(error.with_field("namespace", namespace)),
                // `all` means all that the account has.
                Err(error) if everywhere && is_absent(&error, namespace, held) => {
                    tracing::info!(namespace, "The account has no such namespace");
                }
                Err(error) => {
                    failed.push((TableRef::new(namespace, WHOLE_NAMESPACE), error.with_field("namespace", namespace)))
                }
            }
        }
        if answered.is_empty()
            && let Some((_, error)) = failed.pop()
        {
            return Err(error);
        }
        let tables = self.matching(&listed);
        for word in self.unknown_names(&listed) {
            let table = self.named(word);
            // The failure of its namespace says it all.
            if !failed.iter().any(|(whole, _)| whole.namespace == table.namespace && whole.table == WHOLE_NAMESPACE) {
                failed.push((table, unknown_table(word, &listed, Holder::Service)));
            }
        }
        for pattern in self.tables.iter().map(|word| word.trim()).filter(|word| is_pattern(word) && *word != "all") {
            if !listed.iter().any(|table| table.matches(pattern)) {
                tracing::warn!(pattern, "The service has no table that matches");
            }
        }
        let has_whole = |failed: &[(TableRef, Error)]| failed.iter().any(|(table, _)| table.table == WHOLE_NAMESPACE);
        if tables.is_empty() && !listed.is_empty() && !has_whole(&failed) {
            return Err(failed.into_iter().next().map_or_else(|| self.no_match(Holder::Service), |(_, error)| error));
        }
        let vanished = held.iter().filter(|table| {
            answered.contains(&table.namespace.as_str())
                && !listed.contains(table)
                && self.tables.iter().any(|word| is_pattern(word.trim()) && table.matches(word.trim()))
                && !self.exclude.iter().any(|word| table.matches(word.trim()))
        });
        let vanished = vanished.cloned().collect();
        let answered = answered.into_iter().map(str::to_owned).collect();
        let not_listed = failed.iter().filter(|(table, _)| table.table == WHOLE_NAMESPACE);
        let not_listed = not_listed.map(|(table, _)| table.namespace.to_string()).collect();
        Ok(Resolved { vanished, tables, failed, listing: Listing { tables: listed, answered, failed: not_listed } })
    }

    /// Whether the tables of the target matter for [`Selection::resolve`].
    pub(super) fn looks_at_held(&self) -> bool {
        self.names_all_namespaces() || self.tables.iter().any(|word| is_pattern(word.trim()))
    }

    fn names_all_namespaces(&self) -> bool {
        self.namespaces.iter().any(|name| name.trim() == "all")
    }

    /// The table that a name means, in the first namespace if it names none.
    fn named(&self, word: &str) -> TableRef {
        let known = if self.names_all_namespaces() { KNOWN_NAMESPACES.to_vec() } else { self.trimmed_namespaces() };
        match word.split_once('.') {
            Some((namespace, table)) if known.contains(&namespace) => TableRef::new(namespace, table),
            _ => TableRef::new(known.first().copied().unwrap_or("canvas"), word),
        }
    }

    /// Picks from tables that are known without asking, in their order. A name that matches nothing is an error of kind `NotFound`.
    pub fn resolve_among(&self, listed: &[TableRef]) -> Result<Vec<TableRef>> {
        let mut listed = listed.to_vec();
        if !self.names_all_namespaces() {
            let namespaces = self.trimmed_namespaces();
            listed.retain(|table| namespaces.contains(&table.namespace.as_str()));
        }
        self.pick(&listed, Holder::Service)
    }

    /// Picks from the tables that a target holds, in its order. A name that matches nothing is an error of kind `NotFound`.
    #[cfg(feature = "lake")]
    pub async fn resolve_held(&self, sink: &dyn crate::sink::Sink) -> Result<Vec<TableRef>> {
        let mut listed = sink.list(None).await?;
        if !self.names_all_namespaces() {
            let namespaces = self.trimmed_namespaces();
            listed.retain(|table| namespaces.contains(&table.namespace.as_str()));
        }
        self.pick(&listed, Holder::Target)
    }

    /// As [`Selection::resolve`], in the order of the names given, with names that nobody lists as they are. Without patterns
    /// the service is not asked.
    pub async fn resolve_all(&self, client: &Client) -> Result<Resolved> {
        let words: Vec<&str> = self.tables.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).collect();
        let mut listed = Vec::new();
        if words.iter().any(|word| is_pattern(word)) {
            for namespace in self.trimmed_namespaces() {
                let tables = client.tables(&Namespace::new(namespace)).await.with_field("namespace", namespace)?;
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
        Ok(Resolved { tables: picked, ..Resolved::default() })
    }

    /// What the service lists, where an exclusion names a table and so has to be checked; else nothing.
    #[cfg(feature = "lake")]
    pub(super) async fn listing_for_exclusions(&self, client: &Client) -> Result<Option<Listing>> {
        if self.exclude.iter().all(|word| is_pattern(word.trim())) {
            return Ok(None);
        }
        let mut listing = Listing::default();
        for namespace in self.trimmed_namespaces() {
            let tables = client.tables(&Namespace::new(namespace)).await.with_field("namespace", namespace)?;
            listing.answered.push(namespace.to_owned());
            listing.tables.extend(tables.into_iter().map(|table| TableRef::new(namespace, table)));
        }
        Ok(Some(listing))
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
        if let Some(unknown) = self.unknown_names(listed).next() {
            return Err(unknown_table(unknown, listed, holder));
        }
        let picked = self.matching(listed);
        match picked.is_empty() && !listed.is_empty() {
            true => Err(self.no_match(holder)),
            false => Ok(picked),
        }
    }

    fn unknown_names(&self, listed: &[TableRef]) -> impl Iterator<Item = &str> {
        let names = self.tables.iter().map(|word| word.trim()).filter(|word| !word.is_empty() && !is_pattern(word));
        names.filter(|wanted| !listed.iter().any(|table| table.matches(wanted)))
    }

    fn matching(&self, listed: &[TableRef]) -> Vec<TableRef> {
        let chosen = listed.iter().filter(|table| self.tables.iter().any(|word| table.matches(word.trim())));
        chosen.filter(|table| !self.exclude.iter().any(|word| table.matches(word.trim()))).cloned().collect()
    }

    fn no_match(&self, holder: Holder) -> Error {
        Error::new(Kind::NotFound, "No table matches")
            .with_field("table", self.tables.join(","))
            .with_field("exclude", self.exclude.join(","))
            .hint(holder.hint())
    }
}

/// In the place of a table's name: all tables of a namespace that could not be listed.
pub const WHOLE_NAMESPACE: &str = "*";

/// What a selection means.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The tables, in the service's order.
    pub tables: Vec<TableRef>,
    /// Names that no namespace lists, and namespaces that cannot be listed (their table is [`WHOLE_NAMESPACE`]).
    pub failed: Vec<(TableRef, Error)>,
    /// Tables of the target that the service no longer lists.
    pub vanished: Vec<TableRef>,
    /// What the service lists, where it was asked.
    pub listing: Listing,
}

impl Resolved {
    /// The tables, if nothing is missing; else the first failure.
    pub fn all(self) -> Result<Vec<TableRef>> {
        match self.failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.tables),
        }
    }
}

/// Whether an account simply has no such namespace. Every account has `canvas`, and one that the target holds tables of was there.
fn is_absent(error: &Error, namespace: &str, held: &[TableRef]) -> bool {
    let is_unknown = error.kind() == Kind::NotFound
        || (error.kind() == Kind::Account && error.get("type").is_some_and(|class| class.contains("NotOnboarded")));
    is_unknown && namespace != "canvas" && !held.iter().any(|table| table.namespace.as_str() == namespace)
}

/// Whose tables are chosen from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder {
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

/// The error for a name that nothing matches. `listed`: the tables that there are.
pub(super) fn unknown_table(wanted: &str, listed: &[TableRef], holder: Holder) -> Error {
    let error = Error::new(Kind::NotFound, holder.message()).with_field("table", wanted);
    let (namespace, bare) = match wanted.split_once('.') {
        Some((namespace, bare)) => (Some(namespace), bare),
        None => (None, wanted),
    };
    if let Some(namespace) = namespace
        && !listed.iter().any(|table| table.namespace.as_str() == namespace)
    {
        let near = nearest(namespace, KNOWN_NAMESPACES.into_iter());
        return error.hint(match near {
            _ if KNOWN_NAMESPACES.contains(&namespace) => {
                format!("the namespace `{namespace}` is not part of this run: add --namespace {namespace}")
            }
            Some(near) => format!("did you mean the namespace `{near}`?"),
            None => format!("namespaces are {}", KNOWN_NAMESPACES.join(", ")),
        });
    }
    let of_namespace = listed.iter().filter(|table| namespace.is_none_or(|namespace| table.namespace.as_str() == namespace));
    error.hint(match nearest(bare, of_namespace.map(|table| table.table.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => holder.hint().to_owned(),
    })
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
    fn a_name_of_another_namespace_is_told_by_its_namespace() {
        let hint = |wanted: &str| pick(&[wanted], &[]).unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint("catalog.users").contains("add --namespace catalog"));
        assert_eq!(hint("canvs.users"), "did you mean the namespace `canvas`?");
        assert_eq!(hint("canvas.usrs"), "did you mean `users`?");
        assert!(hint("moodle.users").contains("namespaces are canvas,"));
        assert!(hint("zzzzzzzz").contains("daplake list"));
    }

    #[test]
    fn all_means_what_the_account_has_and_had() {
        let held = [TableRef::new("catalog", "products")];
        let unknown = || Error::new(Kind::NotFound, "Unknown");
        assert!(is_absent(&unknown(), "new_quizzes", &held));
        // Every account has it; and this one was there.
        assert!(!is_absent(&unknown(), "canvas", &held) && !is_absent(&unknown(), "catalog", &held));
        let refused = |class: &str| Error::new(Kind::Account, "Refused").with_field("type", class);
        assert!(is_absent(&refused("AccountNotOnboardedError"), "new_quizzes", &held));
        assert!(!is_absent(&refused("AccountDisabled"), "new_quizzes", &held));
        assert!(!is_absent(&Error::new(Kind::Unavailable, "Down"), "new_quizzes", &held));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_one() {
        let error = pick(&["usres"], &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.hint_text(), Some("did you mean `users`?"));
        assert_eq!(pick(&["x*"], &[]).unwrap_err().kind(), Kind::NotFound);
    }
}
