//! Statements as text: where they end, and completions of a partial word. Runs no statement.

#[cfg(any(test, feature = "prompt"))]
use std::collections::{BTreeMap, BTreeSet};

#[cfg(any(test, feature = "prompt"))]
const KEYWORDS: [&str; 36] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "USING",
    "AS",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS NULL",
    "IS NOT NULL",
    "IN",
    "BETWEEN",
    "LIKE",
    "DISTINCT",
    "COUNT(*)",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    "WITH",
    "UNION ALL",
    "EXPLAIN",
    "SHOW TABLES",
    "DESCRIBE",
];

/// The context of a character, in which a semicolon may not end a statement.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Nothing,
    Quotes(char),
    Line,
    Block,
}

/// The positions after the semicolons that end statements, and whether there is an incomplete statement after the last one.
fn ends(text: &str) -> (Vec<usize>, bool) {
    let (mut ends, mut inside, mut has_rest) = (Vec::new(), Inside::Nothing, false);
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let next = letters.peek().map(|(_, letter)| *letter);
        match (inside, letter, next) {
            (Inside::Nothing, ';', _) => {
                ends.push(at + 1);
                has_rest = false;
            }
            (Inside::Nothing, '\'' | '"', _) => (inside, has_rest) = (Inside::Quotes(letter), true),
            (Inside::Nothing, '-', Some('-')) => inside = Inside::Line,
            (Inside::Nothing, '/', Some('*')) => inside = Inside::Block,
            (Inside::Nothing, ..) => has_rest |= !letter.is_whitespace(),
            (Inside::Quotes(quote), ..) if quote == letter => inside = Inside::Nothing,
            (Inside::Line, '\n', _) => inside = Inside::Nothing,
            (Inside::Block, '*', Some('/')) => {
                letters.next();
                inside = Inside::Nothing;
            }
            _ => {}
        }
    }
    (ends, has_rest || matches!(inside, Inside::Quotes(_) | Inside::Block))
}

/// Whether the text is a command of the prompt, or statements that all end with a semicolon.
#[cfg(any(test, feature = "prompt"))]
pub(in crate::cli) fn is_complete(text: &str) -> bool {
    text.trim_start().starts_with('\\') || !ends(text).1
}

/// The statements of a text, without semicolons.
pub(in crate::cli) fn statements(text: &str) -> Vec<String> {
    let (mut ends, has_rest) = ends(text);
    if has_rest {
        ends.push(text.len());
    }
    let mut from = 0;
    let parts = ends.into_iter().map(|end| {
        let part = text[from..end].trim().trim_end_matches(';').trim().to_owned();
        from = end;
        part
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// Completions of a word.
#[cfg(any(test, feature = "prompt"))]
pub(in crate::cli) struct Place {
    /// Start of the word, in bytes.
    pub(in crate::cli) start: usize,
    /// The completed words.
    pub(in crate::cli) words: Vec<String>,
}

/// The completions of the partial word before `at`. `tables` are full names; `columns` are the columns by table.
#[cfg(any(test, feature = "prompt"))]
pub(in crate::cli) fn complete(text: &str, at: usize, tables: &[String], columns: &BTreeMap<String, Vec<String>>) -> Place {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let before = &text[..at];
    let start = before
        .rfind(|c: char| !is_word(c) && c != '.' && c != '\\')
        .map_or(0, |place| place + before[place..].chars().next().map_or(1, char::len_utf8));
    let word = &before[start..];
    let named: Vec<&str> = text.split(|c: char| !is_word(c) && c != '.').filter(|word| !word.is_empty()).collect();
    let full = |name: &str| tables.iter().find(|table| *table == name || table.strip_prefix("canvas.") == Some(name));
    let starts = |name: &str| {
        name.len() >= word.len() && name.is_char_boundary(word.len()) && name[..word.len()].eq_ignore_ascii_case(word)
    };
    let mut found: BTreeSet<String> = BTreeSet::new();
    if let Some((owner, _)) = word.rsplit_once('.') {
        // The owner is a table, or an alias of the statement.
        let by_alias = named.iter().enumerate().filter(|(_, name)| **name == owner).find_map(|(place, _)| {
            let before = |back: usize| place.checked_sub(back).and_then(|place| named.get(place)).copied();
            match before(1) {
                Some(word) if word.eq_ignore_ascii_case("as") => full(before(2)?),
                Some(word) => full(word),
                None => None,
            }
        });
        let owned = full(owner).or(by_alias).and_then(|table| columns.get(table));
        found.extend(owned.into_iter().flatten().map(|column| format!("{owner}.{column}")).filter(|name| starts(name)));
    }
    found.extend(tables.iter().filter(|table| starts(table)).cloned());
    found
        .extend(tables.iter().filter_map(|table| table.strip_prefix("canvas.")).filter(|name| starts(name)).map(str::to_owned));
    if !word.is_empty() && !word.contains('.') {
        let mentioned = named.iter().filter_map(|name| columns.get(full(name)?)).flatten();
        found.extend(mentioned.filter(|column| starts(column)).cloned());
        let is_lower = word.chars().all(|c| !c.is_ascii_uppercase());
        let keywords = KEYWORDS.iter().filter(|keyword| starts(keyword));
        found.extend(keywords.map(|keyword| if is_lower { keyword.to_ascii_lowercase() } else { (*keyword).to_owned() }));
    }
    Place { start, words: found.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_of_quotes() {
        for text in ["SELECT 1;", "\\d users", "  ", "SELECT ';' AS x; -- ; done", "/* ; */ SELECT 1;"] {
            assert!(is_complete(text), "{text}");
        }
        for text in ["SELECT 1", "SELECT 'a;", "SELECT 1; SELECT 2", "SELECT 1 -- ;", "SELECT \"a;\"\n"] {
            assert!(!is_complete(text), "{text}");
        }
        assert_eq!(statements("SELECT ';';\n SELECT 2 ;; SELECT 3"), ["SELECT ';'", "SELECT 2", "SELECT 3"]);
    }

    #[test]
    fn words_are_completed_to_tables_columns_and_keywords() {
        let tables = ["canvas.users", "canvas.courses", "catalog.orders"].map(str::to_owned);
        let columns = BTreeMap::from([
            ("canvas.users".to_owned(), vec!["id".to_owned(), "name".to_owned()]),
            ("canvas.courses".to_owned(), vec!["id".to_owned(), "name".to_owned()]),
        ]);
        let words = |text: &str| {
            let place = complete(text, text.len(), &tables, &columns);
            assert!(place.start <= text.len());
            place.words
        };
        assert_eq!(words("SELECT * FROM us"), ["users", "using"]);
        assert_eq!(words("SELECT * FROM cat"), ["catalog.orders"]);
        assert_eq!(words("SELECT * FROM canvas.c"), ["canvas.courses"]);
        assert_eq!(words("SELECT * FROM users WHERE n"), ["name", "not", "null"]);
        assert_eq!(words("SELECT * FROM users u JOIN courses AS c ON c.n"), ["c.name"]);
        assert_eq!(words("SELECT * FROM users u WHERE u.i"), ["u.id"]);
        assert_eq!(words("SEL"), ["SELECT"]);
        assert_eq!(words("é us"), ["users", "using"]);
    }
}
