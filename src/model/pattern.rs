//! Names as users give them: exact, or with `*` and `?`.

use super::TableRef;

/// Whether a word stands for many names.
pub fn is_pattern(word: &str) -> bool {
    word == "all" || word.contains(['*', '?'])
}

/// Whether `pattern` describes `name` as a whole: `*` is any run of characters, `?` any one.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&b) if b == b'?' || b == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((star_p, star_n)) => {
                    star = Some((star_p, star_n + 1));
                    p = star_p + 1;
                    n = star_n + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

impl TableRef {
    /// Whether a word describes this table: `all`, a name or a pattern, with or without `namespace.` in front.
    pub fn matches(&self, word: &str) -> bool {
        word == "all" || name_matches(word, &self.table) || name_matches(word, &self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_describes_the_whole_name() {
        for (pattern, name, is_match) in [
            ("users", "users", true),
            ("user", "users", false),
            ("user?", "users", true),
            ("*_id", "user_id", true),
            ("*_id", "user_ids", false),
            ("a*b*c", "axxbyybc", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(name_matches(pattern, name), is_match, "{pattern} {name}");
        }
        let table = TableRef::new("canvas", "users");
        assert!(table.matches("canvas.*") && table.matches("all") && table.matches("users") && !table.matches("catalog.users"));
    }
}
