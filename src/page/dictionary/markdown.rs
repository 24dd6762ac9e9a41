//! The dictionary as Markdown, in the dialect of GitHub and GitLab.

use std::fmt::Write as _;

use super::{Entry, OVERSIZED, counted, counts, default_of, entries, enum_values};
use crate::model::TableRef;
use crate::page::diagram::{Columns, anchor, mermaid};
use crate::schema::{Diagram, Evidence, TableSchema};

/// Mermaid draws no text that is longer, by its default settings.
const MERMAID_CHARACTERS: usize = 50_000;
/// Mermaid draws no diagram with more lines, by its default settings.
const MERMAID_LINES: usize = 500;

/// The dictionary as a Markdown document. It has the diagram of the tables if Mermaid can draw it.
pub fn dictionary_markdown(diagram: &Diagram) -> String {
    let (tables, columns) = counts(diagram);
    let mut text = format!("# Data dictionary\n\n{}, {}.\n", counted(tables, "table"), counted(columns, "column"));
    let drawn = mermaid(diagram, Columns::Keys);
    let lines: usize = diagram.relations.iter().map(|relation| relation.targets.len()).sum();
    if drawn.len() <= MERMAID_CHARACTERS && lines <= MERMAID_LINES {
        let _ = write!(text, "\n```mermaid\n{drawn}```\n");
    }
    text.push_str("\n| table | columns | description |\n| --- | ---: | --- |\n");
    for (place, schema) in diagram.tables.iter().enumerate() {
        let first = schema.description.as_deref().and_then(|text| text.split("\n\n").next()).unwrap_or_default();
        let _ = writeln!(text, "| {} | {} | {} |", link_to(diagram, place), schema.columns().count(), escape(first));
    }
    for (place, schema) in diagram.tables.iter().enumerate() {
        section(&mut text, diagram, place, schema);
    }
    text
}

fn section(text: &mut String, diagram: &Diagram, place: usize, schema: &TableSchema) {
    let _ = write!(text, "\n<a id=\"{}\"></a>\n\n## {}\n\n", anchor(diagram, place), escape(&schema.table.to_string()));
    for paragraph in schema.description.iter().flat_map(|text| text.split("\n\n")) {
        let _ = write!(text, "{}\n\n", paragraph_of(paragraph));
    }
    let _ = writeln!(text, "Schema version {}.\n", schema.version);
    for warning in &schema.warnings {
        let _ = writeln!(text, "Note: {}.\n", escape(warning));
    }
    text.push_str("| column | type | description |\n| --- | --- | --- |\n");
    for entry in entries(diagram, place) {
        row(text, diagram, &entry);
    }
    let referring = diagram.referring(&schema.table);
    if !referring.is_empty() {
        let names: Vec<String> = referring
            .iter()
            .map(|relation| format!("{}.{}", link(diagram, &relation.from), escape(&relation.column)))
            .collect();
        let _ = write!(text, "\nReferred to by {}.\n", names.join(", "));
    }
}

fn row(text: &mut String, diagram: &Diagram, entry: &Entry<'_>) {
    let Entry { path, column, is_key, relation } = entry;
    let mut parts = Vec::new();
    if let Some(description) = &column.description {
        parts.push(escape(description));
    }
    if let Some((values, is_open)) = enum_values(&column.column_type) {
        let values: Vec<String> = values.iter().map(|value| code(value)).collect();
        parts.push(format!("Values: {}{}.", values.join(", "), if is_open { " or others" } else { "" }));
    }
    if let Some(default) = default_of(column) {
        parts.push(format!("Default: {}.", code(&default)));
    }
    if column.oversizeable {
        parts.push(OVERSIZED.to_owned());
    }
    if let Some(relation) = relation {
        let targets: Vec<String> = relation.targets.iter().map(|target| link(diagram, target)).collect();
        let choice = if targets.len() > 1 { "one of " } else { "" };
        let origin = if relation.evidence == Evidence::Named { " (inferred from the column name)" } else { "" };
        parts.push(format!("Refers to {choice}{}{origin}.", targets.join(", ")));
    }
    let key = if *is_key { " **key**" } else { "" };
    let null = if column.required { "" } else { " or null" };
    let kind = escape(&column.column_type.describe());
    let _ = writeln!(text, "| {}{key} | {kind}{null} | {} |", code(path), parts.join("<br>"));
}

/// A link to a table, or its name if the dictionary does not have it.
fn link(diagram: &Diagram, table: &TableRef) -> String {
    diagram.place_of(table).map_or_else(|| escape(&table.to_string()), |place| link_to(diagram, place))
}

fn link_to(diagram: &Diagram, place: usize) -> String {
    format!("[{}](#{})", escape(&diagram.tables[place].table.to_string()), anchor(diagram, place))
}

/// Text on one line, with the special characters of Markdown and HTML escaped.
fn escape(text: &str) -> String {
    let text = one_line(text);
    let characters: Vec<char> = text.chars().collect();
    let mut escaped = String::with_capacity(text.len());
    for (place, &c) in characters.iter().enumerate() {
        let is_letter =
            |place: Option<usize>| place.and_then(|place| characters.get(place)).is_some_and(|c| c.is_alphanumeric());
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            // An underscore between letters has no meaning.
            '_' if is_letter(place.checked_sub(1)) && is_letter(Some(place + 1)) => escaped.push(c),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => escaped.extend(['\\', c]),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A paragraph: [`escape`], and a beginning that would make it a heading, a list or a rule is escaped as well.
fn paragraph_of(text: &str) -> String {
    let escaped = escape(text);
    let digits = escaped.bytes().take_while(u8::is_ascii_digit).count();
    match escaped[digits..].chars().next() {
        Some('.' | ')') if digits > 0 => format!("{}\\{}", &escaped[..digits], &escaped[digits..]),
        Some('#' | '-' | '+' | '=') if digits == 0 => format!("\\{escaped}"),
        _ => escaped,
    }
}

/// A code span for a cell of a table. A pipe is escaped even in code there.
fn code(text: &str) -> String {
    let text = one_line(text).replace('|', "\\|");
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    // The fence is longer than every run of backticks within.
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

/// Text without line ends and other control characters.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::awkward;
    use super::*;

    #[test]
    fn every_row_of_a_table_has_its_cells() {
        let text = dictionary_markdown(&awkward());
        let tables: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        // A table of tables, and one for each table; each has two lines above its rows.
        assert_eq!(tables.len(), (2 + 3) + (2 + 9) + 2 * (2 + 1));
        for line in tables {
            let bars = line.replace("\\|", "").matches('|').count();
            assert_eq!(bars, 4, "{line}");
        }
    }

    #[test]
    fn text_keeps_no_meaning_in_markdown_or_html() {
        let text = dictionary_markdown(&awkward());
        for line in [
            "## new.odd &lt;name&gt;\\|",
            "| `id` **key** | bigint |  |",
            "| `a\\|b` | text, at most 5 characters or null | one \\| two &lt;script&gt;alert(1)&lt;/script&gt;<br>Default: `d`. |",
            "| ``tick`s`` | enum or null | Values: `x\\|y`, `` ` ``, `<i>`. |",
            "| `user_id` | bigint | Refers to [new.users](#new.users) (inferred from the column name). |",
            "\\# First line.",
            "\\- \\*Second\\* \\[x\\](y) snake_case \\_z\\_ &amp; \\`w\\`",
            "<a id=\"table-2\"></a>",
            "| [new.odd &lt;name&gt;\\|](#table-2) | 1 |  |",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert!(text.contains("```mermaid\nerDiagram\n"), "{text}");
    }

    #[test]
    fn beginnings_of_lists_are_escaped() {
        assert_eq!(paragraph_of("1. one"), "1\\. one");
        assert_eq!(paragraph_of("12 rows"), "12 rows");
        assert_eq!(paragraph_of("---"), "\\---");
        assert_eq!(paragraph_of("> quote"), "&gt; quote");
        assert_eq!(code(""), "(empty)");
    }
}
