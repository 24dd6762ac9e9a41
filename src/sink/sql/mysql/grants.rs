//! Reads the answer to `SHOW GRANTS`.

/// A line of `SHOW GRANTS` about databases or tables.
#[derive(Debug, PartialEq)]
pub(super) struct Grant {
    /// The line takes privileges from a wider grant.
    is_revoke: bool,
    privileges: Vec<String>,
    /// A pattern as of `LIKE`; `None`: all databases.
    database: Option<String>,
    /// `None`: all tables.
    table: Option<String>,
}

impl Grant {
    /// `None` for grants of roles, of proxies and on routines.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let is_revoke = line.starts_with("REVOKE ");
        let rest = line.strip_prefix("GRANT ").or_else(|| line.strip_prefix("REVOKE "))?;
        let (privileges, object) = rest.split_once(" ON ")?;
        let (database, object) = quoted(object.strip_prefix("TABLE ").unwrap_or(object))?;
        let (table, _) = quoted(object.strip_prefix('.')?)?;
        Some(Self { is_revoke, privileges: privileges.split(", ").map(str::to_owned).collect(), database, table })
    }

    fn is_about(&self, privilege: &str, database: &str, table: &str) -> bool {
        let has = |listed: &String| ["ALL PRIVILEGES", "ALL", privilege].contains(&listed.as_str());
        self.privileges.iter().any(has)
            && self.database.as_ref().is_none_or(|pattern| is_like(&database.to_lowercase(), &pattern.to_lowercase()))
            && self.table.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(table))
    }
}

/// Whether the grants include a privilege on a table.
pub(super) fn allows(grants: &[Grant], privilege: &str, database: &str, table: &str) -> bool {
    let mut found = grants.iter().filter(|grant| grant.is_about(privilege, database, table));
    // A partial revocation is of a global grant.
    let is_revoked = grants.iter().any(|grant| grant.is_revoke && grant.is_about(privilege, database, table));
    found.any(|grant| !grant.is_revoke && (!is_revoked || grant.database.is_some()))
}

/// Splits a name in backquotes, or `*`, from the start of a text.
fn quoted(text: &str) -> Option<(Option<String>, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((None, rest));
    }
    let inner = text.strip_prefix('`')?;
    let mut name = String::new();
    let mut places = inner.char_indices().peekable();
    while let Some((place, character)) = places.next() {
        match character {
            '`' if places.next_if(|(_, next)| *next == '`').is_none() => return Some((Some(name), inner.get(place + 1..)?)),
            other => name.push(other),
        }
    }
    None
}

/// Whether a name matches a pattern with `_` for a character, `%` for any number of them, and `\` before a character that stands for itself.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut pattern_chars = pattern.chars();
    let mut name_chars = name.chars();
    match pattern_chars.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = pattern_chars.as_str();
            is_like(name, rest) || (name_chars.next().is_some() && is_like(name_chars.as_str(), pattern))
        }
        Some('_') => name_chars.next().is_some() && is_like(name_chars.as_str(), pattern_chars.as_str()),
        Some('\\') if !pattern_chars.as_str().is_empty() => {
            pattern_chars.next() == name_chars.next() && is_like(name_chars.as_str(), pattern_chars.as_str())
        }
        Some(character) => name_chars.next() == Some(character) && is_like(name_chars.as_str(), pattern_chars.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_for_a_table_a_database_or_everything() {
        for (lines, delete, alter) in [
            (&["GRANT USAGE ON *.* TO `u`@`%`"][..], false, false),
            (&["GRANT ALL PRIVILEGES ON *.* TO `u`@`%` WITH GRANT OPTION"], true, true),
            (&["GRANT SELECT, DELETE ON `my db`.* TO `u`@`%`"], true, false),
            (&["GRANT SELECT, DELETE HISTORY ON `my db`.* TO `u`@`%`"], false, false),
            (&["GRANT DELETE, ALTER ON `my_%`.* TO `u`@`%`"], true, true),
            (&[r"GRANT DELETE, ALTER ON `my\_%`.* TO `u`@`%`"], false, false),
            (&["GRANT INSERT (`a`, `b`), DELETE ON `my db`.`canvas__users` TO `u`@`%`"], true, false),
            (&["GRANT DELETE ON `my db`.`canvas__use``rs` TO `u`@`%`", "GRANT ALTER ON `other`.* TO `u`@`%`"], false, false),
            (&["GRANT DELETE, ALTER ON *.* TO `u`@`%`", "REVOKE DELETE ON `my db`.* FROM `u`@`%`"], false, true),
            (&["GRANT `role`@`%` TO `u`@`%`", "GRANT EXECUTE ON PROCEDURE `my db`.`p` TO `u`@`%`"], false, false),
            (&["GRANT PROXY ON ''@'' TO 'root'@'localhost' WITH GRANT OPTION"], false, false),
        ] {
            let grants: Vec<Grant> = lines.iter().filter_map(|line| Grant::parse(line)).collect();
            let allowed = ["DELETE", "ALTER"].map(|privilege| allows(&grants, privilege, "my db", "canvas__users"));
            assert_eq!(allowed, [delete, alter], "{lines:?}");
        }
    }
}
