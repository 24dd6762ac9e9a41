//! The diagram as input for Mermaid and Graphviz.

use std::fmt::Write as _;

use super::{Columns, Shown, has_one_namespace, shown, type_word};
use crate::redact::visible;
use crate::schema::{Diagram, Evidence};

/// An entity relationship diagram in Mermaid's language.
pub fn mermaid(diagram: &Diagram, columns: Columns) -> String {
    let mut text = String::from("erDiagram\n");
    for place in 0..diagram.tables.len() {
        let _ = writeln!(text, "    {}[\"{}\"] {{", id(diagram, place), quoted(&name(diagram, place)));
        for Shown { column, is_key, relation } in shown(diagram, place, columns) {
            let marks: Vec<&str> =
                [(is_key, "PK"), (relation.is_some(), "FK")].iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect();
            let _ = write!(text, "        {} {} {}", type_word(&column.column_type), plain(&column.name), marks.join(", "));
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        let _ = writeln!(text, "    }}");
    }
    for relation in &diagram.relations {
        let Some(from) = diagram.place_of(&relation.from) else { continue };
        let is_choice = relation.targets.len() > 1;
        for to in relation.targets.iter().filter_map(|target| diagram.place_of(target)) {
            let one = if relation.required && !is_choice { "||" } else { "o|" };
            let line = if is_choice { ".." } else { "--" };
            let _ = writeln!(
                text,
                "    {} }}o{line}{one} {} : \"{}\"",
                id(diagram, from),
                id(diagram, to),
                quoted(&relation.column)
            );
        }
    }
    text
}

/// A graph in Graphviz's language.
pub fn dot(diagram: &Diagram, columns: Columns) -> String {
    let mut text = String::from(
        "digraph daplake {\n  rankdir=RL;\n  graph [fontname=\"sans-serif\", nodesep=0.3, ranksep=1.4];\n  node [shape=plain, fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=9, color=\"#5a6675\", arrowsize=0.7];\n",
    );
    for place in 0..diagram.tables.len() {
        let mut rows = String::new();
        for (number, Shown { column, is_key, relation }) in shown(diagram, place, columns).into_iter().enumerate() {
            let name = escape(&column.name);
            let name = if is_key { format!("<B>{name}</B>") } else { name };
            let mark = if relation.is_some() { " \u{2192}" } else { "" };
            let _ = write!(
                rows,
                "<TR><TD ALIGN=\"LEFT\" PORT=\"c{number}\">{name}{mark}</TD><TD ALIGN=\"LEFT\"><FONT COLOR=\"#5a6675\">{}</FONT></TD></TR>",
                type_word(&column.column_type)
            );
        }
        let _ = writeln!(
            text,
            "  {} [label=<<TABLE BORDER=\"0\" CELLBORDER=\"1\" CELLSPACING=\"0\" CELLPADDING=\"4\"><TR><TD COLSPAN=\"2\" BGCOLOR=\"#dce8fb\" PORT=\"t\"><B>{}</B></TD></TR>{rows}</TABLE>>];",
            id(diagram, place),
            escape(&name(diagram, place))
        );
    }
    for (number, relation) in diagram.relations.iter().enumerate() {
        let Some(from) = diagram.place_of(&relation.from) else { continue };
        let columns = shown(diagram, from, columns);
        let Some(port) = columns.iter().position(|shown| shown.relation == Some(number)) else { continue };
        let style = match (relation.targets.len(), relation.evidence) {
            (1, Evidence::Documented) => "solid",
            (1, Evidence::Named) => "dotted",
            _ => "dashed",
        };
        for to in relation.targets.iter().filter_map(|target| diagram.place_of(target)) {
            let _ = writeln!(text, "  {}:c{port} -> {}:t [style={style}];", id(diagram, from), id(diagram, to));
        }
    }
    text + "}\n"
}

/// Escapes text for the HTML-like labels of Graphviz.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The name of a table, without the namespace if all tables have the same.
pub(in crate::page) fn name(diagram: &Diagram, place: usize) -> String {
    let table = &diagram.tables[place].table;
    if has_one_namespace(diagram) { table.table.clone() } else { table.to_string() }
}

/// An identifier that is valid in both languages, unique for each table.
fn id(diagram: &Diagram, place: usize) -> String {
    let table = &diagram.tables[place].table;
    match table.is_path_safe() {
        true => plain(&table.to_string()),
        false => format!("table_{place}"),
    }
}

fn plain(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' });
    let name: String = letters.collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("_{name}") }
}

fn quoted(text: &str) -> String {
    text.chars().map(|c| if c == '"' || c.is_control() { '\'' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::school;
    use super::*;

    #[test]
    fn mermaid_shows_the_references() {
        let text = mermaid(&school(), Columns::Keys);
        for line in [
            "    canvas_enrollments[\"enrollments\"] {\n        bigint id PK\n        bigint user_id FK\n        bigint course_id FK\n    }",
            "    canvas_enrollments }o--|| canvas_users : \"user_id\"",
            "    canvas_enrollments }o--o| canvas_courses : \"course_id\"",
            "    canvas_favorites }o..o| canvas_courses : \"context_id\"",
            "    canvas_users }o--o| canvas_users : \"merged_into_user_id\"",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("state") && mermaid(&school(), Columns::All).contains("enum state"));
    }

    #[test]
    fn dot_escapes_names() {
        let mut diagram = school();
        diagram.tables[1].table.table = "<b>\"; x".into();
        let text = dot(&diagram, Columns::Keys);
        assert!(text.contains("canvas_enrollments:c1 -> canvas_users:t [style=solid];"), "{text}");
        assert!(text.contains("&lt;b&gt;&quot;; x") && text.contains("table_1 ["), "{text}");
    }
}
