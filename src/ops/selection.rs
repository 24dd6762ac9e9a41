//! Selection of tables: namespaces, names, patterns and exclusions, resolved against the tables of the service or the target.

use std::time::Duration;

use super::table_lists::table_lists;
use crate::api::Client;
#[cfg(feature = "lake")]
use crate::error::ErrorContext;
use crate::error::{Error, Kind, Result};
#[cfg(feature = "lake")]
use crate::model::Namespace;
use crate::model::{KNOWN_NAMESPACES, TableRef, is_pattern, nearest};

/// A selection of tables, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Names of namespaces, or `all`.
    pub namespaces: Vec<String>,
    /// `all`, names, and patterns with `*` and `?`; names and patterns may have the prefix `namespace.`.
    pub tables: Vec<String>,
    /// Excluded tables, in the same forms.
    pub exclude: Vec<String>,
}

/// The tables that the service lists in some namespaces.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The tables, in the order of the service.
    pub tables: Vec<TableRef>,
    /// Namespaces that were listed.
    pub answered: Vec<String>,
    /// Namespaces that could not be listed.
    pub failed: Vec<String>,
}

impl Listing {
    /// The part of the listing that is in the namespaces of a selection.
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
    /// All tables of one namespace.
    pub fn all_of(namespace: impl Into<String>) -> Self {
        Self { namespaces: vec![namespace.into()], tables: vec!["all".into()], exclude: Vec::new() }
    }

    /// Lists the tables of the service and selects from them, in the order of the service. `kept` are the tables of the target.
    ///
    /// A namespace that cannot be listed and a name (not a pattern) that no namespace lists are failures beside the selected tables. Kept tables
    /// that the service no longer lists are reported as vanished. After `patience`, namespaces that have not been listed fail if another one
    /// was listed.
    ///
    /// # Errors
    /// The login failed, or nothing that was selected exists.
    pub(crate) async fn resolve(&self, client: &Client, kept: &[TableRef], patience: Option<Duration>) -> Result<Resolved> {
        let everywhere = self.names_all_namespaces();
        let namespaces: Vec<&str> = if everywhere { KNOWN_NAMESPACES.to_vec() } else { self.trimmed_namespaces() };
        let (mut listed, mut answered, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (namespace, answer) in table_lists(client, &namespaces, patience).await? {
            match answer {
                Ok(tables) => {
                    answered.push(namespace);
                    listed.extend(tables.into_iter().map(|table| TableRef::new(namespace, table)));
                }
                // `all` means all namespaces of the account.
                Err(error) if everywhere && is_absent(&error, namespace, kept) => {
                    tracing::info!(namespace, "The account does not have this namespace");
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
            // Its namespace has failed already.
            if !failed.iter().any(|(whole, _)| whole.namespace == table.namespace && whole.table == WHOLE_NAMESPACE) {
                failed.push((table, unknown_table(word, &listed, Holder::Service)));
            }
        }
        for pattern in self.tables.iter().map(|word| word.trim()).filter(|word| is_pattern(word) && *word != "all") {
            if !listed.iter().any(|table| table.matches(pattern)) {
                tracing::warn!(pattern, "The pattern matches no table of the service");
            }
        }
        let has_whole = |failed: &[(TableRef, Error)]| failed.iter().any(|(table, _)| table.table == WHOLE_NAMESPACE);
        if tables.is_empty() && !listed.is_empty() && !has_whole(&failed) {
            return Err(failed.into_iter().next().map_or_else(|| self.no_match(Holder::Service), |(_, error)| error));
        }
        let vanished = kept.iter().filter(|table| {
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

    /// Whether [`Selection::resolve`] needs the tables of the target.
    #[cfg(feature = "lake")]
    pub(super) fn needs_kept_tables(&self) -> bool {
        self.names_all_namespaces() || self.tables.iter().any(|word| is_pattern(word.trim()))
    }

    fn names_all_namespaces(&self) -> bool {
        self.namespaces.iter().any(|name| name.trim() == "all")
    }

    /// The table of a name; without a namespace, in the first namespace of the selection.
    fn named(&self, word: &str) -> TableRef {
        let known = if self.names_all_namespaces() { KNOWN_NAMESPACES.to_vec() } else { self.trimmed_namespaces() };
        match word.split_once('.') {
            Some((namespace, table)) if known.contains(&namespace) => TableRef::new(namespace, table),
            _ => TableRef::new(known.first().copied().unwrap_or("canvas"), word),
        }
    }

    /// Selects from `listed`, in its order.
    ///
    /// # Errors
    /// Kind `NotFound` for a name that matches no table.
    pub(crate) fn resolve_among(&self, listed: &[TableRef]) -> Result<Vec<TableRef>> {
        let mut listed = listed.to_vec();
        if !self.names_all_namespaces() {
            let namespaces = self.trimmed_namespaces();
            listed.retain(|table| namespaces.contains(&table.namespace.as_str()));
        }
        self.pick(&listed, Holder::Service)
    }

    /// Selects from the tables of a target, in its order.
    ///
    /// # Errors
    /// Kind `NotFound` for a name that matches no table.
    #[cfg(feature = "lake")]
    pub(crate) async fn resolve_kept(&self, sink: &dyn crate::sink::Sink) -> Result<Vec<TableRef>> {
        self.resolve_among_kept(sink.list(None).await?)
    }

    /// Selects from `listed` tables of a target, in its order.
    ///
    /// # Errors
    /// Kind `NotFound` for a name that matches no table.
    #[cfg(feature = "lake")]
    pub(super) fn resolve_among_kept(&self, mut listed: Vec<TableRef>) -> Result<Vec<TableRef>> {
        if !self.names_all_namespaces() {
            let namespaces = self.trimmed_namespaces();
            listed.retain(|table| namespaces.contains(&table.namespace.as_str()));
        }
        self.pick(&listed, Holder::Target)
    }

    /// As [`Selection::resolve`], but in the order of the selection, and with names that the service does not list. Without patterns, no
    /// request is made.
    #[cfg(feature = "lake")]
    pub(crate) async fn resolve_all(&self, client: &Client) -> Result<Resolved> {
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

    /// The listing of the service, if an exclusion is a name that must be checked.
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
        let error = Error::new(Kind::NotFound, "No table matches").with_field("table", self.tables.join(","));
        let error = if self.exclude.is_empty() { error } else { error.with_field("exclude", self.exclude.join(",")) };
        error.hint(holder.hint(self.trimmed_namespaces().into_iter().find(|name| *name != "all")))
    }
}

/// In place of the table names of a namespace that could not be listed.
pub const WHOLE_NAMESPACE: &str = "*";

/// A resolved selection.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The tables, in the order of the service.
    pub tables: Vec<TableRef>,
    /// Names that no namespace lists, and namespaces that cannot be listed (their table is [`WHOLE_NAMESPACE`]).
    pub failed: Vec<(TableRef, Error)>,
    /// Tables of the target that the service no longer lists.
    pub vanished: Vec<TableRef>,
    /// The listing of the service, if it was requested.
    pub listing: Listing,
}

impl Resolved {
    /// The tables, or the first failure.
    pub fn all(self) -> Result<Vec<TableRef>> {
        match self.failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.tables),
        }
    }
}

/// Whether the account does not have a namespace. Every account has `canvas`; a namespace with kept tables existed before.
fn is_absent(error: &Error, namespace: &str, kept: &[TableRef]) -> bool {
    let is_unknown = error.kind() == Kind::NotFound
        || (error.kind() == Kind::Account && error.get("type").is_some_and(|class| class.contains("NotOnboarded")));
    is_unknown && namespace != "canvas" && !kept.iter().any(|table| table.namespace.as_str() == namespace)
}

/// Where tables are selected from.
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

    /// How to list the tables of a namespace.
    fn hint(self, namespace: Option<&str>) -> String {
        match self {
            Holder::Service => {
                format!("list the tables with `daplake list --namespace {}`", namespace.unwrap_or(KNOWN_NAMESPACES[0]))
            }
            #[cfg(feature = "lake")]
            Holder::Target => "`daplake status` with the same --target lists the tables".to_owned(),
        }
    }
}

/// The error for a name that matches none of the tables in `listed`.
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
        None => holder.hint(namespace.or_else(|| listed.first().map(|table| table.namespace.as_str()))),
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
    fn names_patterns_and_exclusions_keep_the_order_of_the_service() {
        assert_eq!(pick(&["all"], &[]).unwrap().len(), 4);
        assert_eq!(pick(&["users", " accounts"], &[]).unwrap(), ["accounts", "users"]);
        assert_eq!(pick(&["user*"], &["user_*"]).unwrap(), ["users"]);
        assert_eq!(pick(&["canvas.user?"], &[]).unwrap(), ["users"]);
        assert_eq!(pick(&["*con*"], &[]).unwrap(), ["web_conferences"]);
    }

    #[test]
    fn a_name_of_another_namespace_is_reported_with_its_namespace() {
        let hint = |wanted: &str| pick(&[wanted], &[]).unwrap_err().hint_text().unwrap().to_owned();
        assert!(hint("catalog.users").contains("add --namespace catalog"));
        assert_eq!(hint("canvs.users"), "did you mean the namespace `canvas`?");
        assert_eq!(hint("canvas.usrs"), "did you mean `users`?");
        assert!(hint("moodle.users").contains("namespaces are canvas,"));
        assert!(hint("zzzzzzzz").contains("daplake list"));
    }

    #[test]
    fn all_selects_every_table_of_the_account_now_and_before() {
        let kept = [TableRef::new("catalog", "products")];
        let unknown = || Error::new(Kind::NotFound, "Unknown");
        assert!(is_absent(&unknown(), "new_quizzes", &kept));
        // Every account has it; and this one was there.
        assert!(!is_absent(&unknown(), "canvas", &kept) && !is_absent(&unknown(), "catalog", &kept));
        let refused = |class: &str| Error::new(Kind::Account, "Refused").with_field("type", class);
        assert!(is_absent(&refused("AccountNotOnboardedError"), "new_quizzes", &kept));
        assert!(!is_absent(&refused("AccountDisabled"), "new_quizzes", &kept));
        assert!(!is_absent(&Error::new(Kind::Unavailable, "Down"), "new_quizzes", &kept));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_one() {
        let error = pick(&["usres"], &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.hint_text(), Some("did you mean `users`?"));
        assert_eq!(pick(&["x*"], &[]).unwrap_err().kind(), Kind::NotFound);
    }
}
