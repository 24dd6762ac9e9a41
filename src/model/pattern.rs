//! Names as users write them: exact, or with the wildcards `*` and `?`.

use glob::Pattern;

use super::TableRef;

/// Whether `text` can match more than one name: `all`, or a text with `*` or `?`.
pub fn is_pattern(text: &str) -> bool {
    text == "all" || text.contains(['*', '?'])
}

/// Whether `pattern` matches the whole of `name`. `*` matches any number of characters, `?` exactly one; letter case counts.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    let mut glob = String::with_capacity(pattern.len());
    for letter in pattern.chars() {
        match letter {
            // `**` has a meaning in paths, which names are not.
            '*' if glob.ends_with('*') => {}
            // Character classes are not supported.
            '[' => glob.push_str("[[]"),
            letter => glob.push(letter),
        }
    }
    Pattern::new(&glob).is_ok_and(|glob| glob.matches(name))
}

impl TableRef {
    /// Whether `pattern` matches this table: `all`, a name or a pattern, with or without `namespace.` in front.
    pub fn matches(&self, pattern: &str) -> bool {
        pattern == "all" || name_matches(pattern, &self.table) || name_matches(pattern, &self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, is_match) in [
            ("users", "users", true),
            ("user", "users", false),
            ("Users", "users", false),
            ("user?", "users", true),
            ("*_id", "user_id", true),
            ("*_id", "user_ids", false),
            ("a*b*c", "axxbyybc", true),
            ("a**c", "abc", true),
            ("***", "abc", true),
            ("a[b]*", "a[b]c", true),
            ("a[b]*", "abc", false),
            ("a]", "a]", true),
            ("*", "", true),
            ("*", "a/b.c", true),
            ("?", "ä", true),
            ("?", "", false),
        ] {
            assert_eq!(name_matches(pattern, name), is_match, "{pattern} {name}");
        }
        let table = TableRef::new("canvas", "users");
        assert!(table.matches("canvas.*") && table.matches("all") && table.matches("users") && !table.matches("catalog.users"));
    }
}
