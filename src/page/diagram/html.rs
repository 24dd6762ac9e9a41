//! The diagram as a page: a picture that is whole without scripts, with search, zoom and a view of one table's relations when they
//! run. Below it, for paper and for who cannot see the picture, every table with its columns.

use std::fmt::Write as _;

use super::layout::{Layout, Place, layout};
use super::text::name;
use super::{Columns, Shown, shown, type_word};
use crate::page::figures::grouped;
use crate::page::{document, escape};
use crate::schema::{Diagram, Evidence, Relation};

const STYLE: &str = include_str!("diagram.css");
const SCRIPT: &str = include_str!("diagram.js");
const HEAD_HEIGHT: f64 = 28.0;
const ROW_HEIGHT: f64 = 19.0;
/// Width of a character of the font, a little more than it takes in most.
const CHARACTER: f64 = 6.9;
const MARGIN: f64 = 24.0;

/// The whole page.
pub fn diagram_page(diagram: &Diagram) -> String {
    let boxes: Vec<Vec<Row>> = (0..diagram.tables.len()).map(|table| rows(diagram, table)).collect();
    let sizes: Vec<(f64, f64)> = boxes.iter().enumerate().map(|(table, rows)| size_of(&name(diagram, table), rows)).collect();
    let edges = edges(diagram);
    let pairs: Vec<(usize, usize)> = edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let laid = layout(&sizes, &pairs);
    let documented = diagram.relations.iter().filter(|relation| relation.evidence == Evidence::Documented).count();
    let summary = format!(
        "{} tables, {} columns that refer to others ({} by the documentation, {} by their names)",
        grouped(diagram.tables.len() as u64),
        grouped(diagram.relations.len() as u64),
        grouped(documented as u64),
        grouped((diagram.relations.len() - documented) as u64)
    );
    let list: String = (0..diagram.tables.len())
        .map(|table| {
            let (full, shown) = (escape(&diagram.tables[table].table.to_string()), escape(&name(diagram, table)));
            format!("<li><a href=\"#{full}\">{shown}</a></li>")
        })
        .collect();
    let articles: String = (0..diagram.tables.len()).map(|table| article(diagram, table)).collect();
    let body = format!(
        "<header><h1>Tables and their relations</h1><p>{summary}</p></header>\n\
         <nav aria-label=\"Tables\"><label class=\"hidden-label\" for=\"search\">Find a table or a column</label>\
         <input id=\"search\" class=\"needs-script\" type=\"search\" placeholder=\"Find a table or a column\" autocomplete=\"off\">\
         <p id=\"found\" class=\"needs-script\" role=\"status\"></p><ul id=\"list\">{list}</ul></nav>\n\
         <main><div id=\"stage\">{}</div>\
         <div class=\"tools needs-script\"><button type=\"button\" id=\"in\" aria-label=\"Zoom in\">+</button>\
         <button type=\"button\" id=\"out\" aria-label=\"Zoom out\">\u{2212}</button><button type=\"button\" id=\"fit\">Fit</button>\
         <label><input type=\"checkbox\" id=\"all\"> all lines</label></div>\
         <p class=\"legend\"><span><svg width=\"34\" height=\"8\" aria-hidden=\"true\"><path class=\"line\" d=\"M0 4H34\"/></svg> refers to</span>\
         <span><svg width=\"34\" height=\"8\" aria-hidden=\"true\"><path class=\"line choice\" d=\"M0 4H34\"/></svg> to one of several</span>\
         <span><svg width=\"34\" height=\"8\" aria-hidden=\"true\"><path class=\"line named\" d=\"M0 4H34\"/></svg> by its name</span></p></main>\n\
         <aside id=\"panel\" aria-live=\"polite\" hidden></aside>\n<div id=\"tables\"><h2>All tables</h2>{articles}</div>",
        picture(diagram, &boxes, &laid, &edges)
    );
    document("Tables and their relations", STYLE, &body, SCRIPT)
}

/// A line of a box.
struct Row {
    name: String,
    is_key: bool,
    relation: Option<usize>,
    /// What it refers to, in a few words.
    to: String,
}

/// A line from a column to a table.
struct Edge {
    from: usize,
    to: usize,
    relation: usize,
}

fn rows(diagram: &Diagram, table: usize) -> Vec<Row> {
    let rows = shown(diagram, table, Columns::Keys);
    rows.into_iter()
        .map(|Shown { column, is_key, relation }| Row {
            name: column.name.clone(),
            is_key,
            relation,
            to: relation.map_or(String::new(), |relation| words_of(&diagram.relations[relation])),
        })
        .collect()
}

fn words_of(relation: &Relation) -> String {
    match &relation.targets[..] {
        [only] if only.namespace == relation.from.namespace => only.table.clone(),
        [only] => only.to_string(),
        several => format!("one of {}", several.len()),
    }
}

fn edges(diagram: &Diagram) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (number, relation) in diagram.relations.iter().enumerate() {
        let Some(from) = diagram.place_of(&relation.from) else { continue };
        for to in relation.targets.iter().filter_map(|target| diagram.place_of(target)) {
            edges.push(Edge { from, to, relation: number });
        }
    }
    edges
}

fn size_of(name: &str, rows: &[Row]) -> (f64, f64) {
    let text = |text: &str| text.chars().count() as f64 * CHARACTER;
    let widest = rows.iter().map(|row| text(&row.name) + if row.to.is_empty() { 0.0 } else { text(&row.to) * 0.92 + 26.0 });
    let width = widest.fold(text(name) * 1.12, f64::max) + 24.0;
    (width.max(130.0), HEAD_HEIGHT + rows.len() as f64 * ROW_HEIGHT + 6.0)
}

fn picture(diagram: &Diagram, boxes: &[Vec<Row>], laid: &Layout, edges: &[Edge]) -> String {
    let mut lines = String::new();
    for edge in edges {
        let relation = &diagram.relations[edge.relation];
        let row = boxes[edge.from].iter().position(|row| row.relation == Some(edge.relation)).unwrap_or(0);
        let mut class = String::from("line");
        if relation.targets.len() > 1 {
            class.push_str(" choice");
        }
        if relation.evidence == Evidence::Named {
            class.push_str(" named");
        }
        if laid.is_hub[edge.to] || laid.is_hub[edge.from] {
            class.push_str(" far");
        }
        let _ = write!(
            lines,
            "<path class=\"{class}\" data-from=\"{}\" data-to=\"{}\" d=\"{}\"/>",
            edge.from,
            edge.to,
            line(&laid.places[edge.from], row, &laid.places[edge.to], edge.from == edge.to)
        );
    }
    let mut tables = String::new();
    for (table, rows) in boxes.iter().enumerate() {
        tables.push_str(&drawn(diagram, table, rows, &laid.places[table], laid.is_hub[table]));
    }
    let (width, height) = (laid.width + 2.0 * MARGIN, laid.height + 2.0 * MARGIN);
    format!(
        "<svg id=\"picture\" viewBox=\"{:.0} {:.0} {width:.0} {height:.0}\" role=\"group\" aria-label=\"Diagram of the tables; the same is \
         told in words below\"><defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8Z\"/></marker></defs><g id=\"world\"><g class=\"lines\">{lines}</g>{tables}</g></svg>",
        -MARGIN, -MARGIN
    )
}

fn drawn(diagram: &Diagram, table: usize, rows: &[Row], place: &Place, is_hub: bool) -> String {
    let full = escape(&diagram.tables[table].table.to_string());
    let mut text = format!(
        "<a href=\"#{full}\" class=\"table{}\" data-table=\"{table}\" transform=\"translate({:.1} {:.1})\"><title>{full}</title>\
         <rect class=\"box\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\"/><path class=\"head\" d=\"M0 {HEAD_HEIGHT}V6Q0 0 6 0H{:.1}Q{w:.1} 0 {w:.1} \
         6V{HEAD_HEIGHT}Z\"/><text class=\"name\" x=\"10\" y=\"18.5\">{}</text>",
        if is_hub { " hub" } else { "" },
        place.x,
        place.y,
        place.width,
        place.height,
        place.width - 6.0,
        escape(&name(diagram, table)),
        w = place.width,
    );
    for (number, row) in rows.iter().enumerate() {
        let y = HEAD_HEIGHT + number as f64 * ROW_HEIGHT + 15.0;
        let class = if row.is_key { "key" } else { "column" };
        let _ = write!(text, "<text class=\"{class}\" x=\"10\" y=\"{y:.1}\">{}</text>", escape(&row.name));
        if !row.to.is_empty() {
            let _ = write!(
                text,
                "<text class=\"to\" x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">\u{2192} {}</text>",
                place.width - 10.0,
                escape(&row.to)
            );
        }
    }
    text + "</a>"
}

/// From the column's side that is nearer to the head of the other box.
fn line(from: &Place, row: usize, to: &Place, is_self: bool) -> String {
    let start_y = from.y + HEAD_HEIGHT + row as f64 * ROW_HEIGHT + 10.5;
    let end_y = to.y + HEAD_HEIGHT / 2.0;
    if is_self {
        let x = from.x + from.width;
        return format!("M{x:.1} {start_y:.1}C{0:.1} {start_y:.1} {0:.1} {end_y:.1} {x:.1} {end_y:.1}", x + 34.0);
    }
    let (start_x, end_x, way) = if to.x + to.width <= from.x {
        (from.x, to.x + to.width, -1.0)
    } else if from.x + from.width <= to.x {
        (from.x + from.width, to.x, 1.0)
    } else {
        // One above the other: around the right side.
        let (start, end) = (from.x + from.width, to.x + to.width);
        let out = start.max(end) + 40.0;
        return format!("M{start:.1} {start_y:.1}C{out:.1} {start_y:.1} {out:.1} {end_y:.1} {end:.1} {end_y:.1}");
    };
    let bend = way * ((end_x - start_x).abs() / 2.0).clamp(30.0, 160.0);
    format!(
        "M{start_x:.1} {start_y:.1}C{:.1} {start_y:.1} {:.1} {end_y:.1} {end_x:.1} {end_y:.1}",
        start_x + bend,
        end_x - bend
    )
}

/// A table in words.
fn article(diagram: &Diagram, table: usize) -> String {
    let schema = &diagram.tables[table];
    let full = escape(&schema.table.to_string());
    let mut text = format!("<article id=\"{full}\" data-table=\"{table}\"><h3>{full}</h3>");
    if let Some(description) = &schema.description {
        let _ = write!(text, "<p>{}</p>", escape(description));
    }
    text.push_str("<table><thead><tr><th scope=\"col\">Column</th><th scope=\"col\">Type</th></tr></thead><tbody>");
    for Shown { column, is_key, relation } in shown(diagram, table, Columns::All) {
        let mark = if is_key { " <span class=\"mark\">key</span>" } else { "" };
        let optional = if column.required { "" } else { " <span class=\"quiet\">or null</span>" };
        let _ = write!(
            text,
            "<tr><th scope=\"row\"><code>{}</code>{mark}</th><td>{}{optional}",
            escape(&column.name),
            type_word(&column.column_type)
        );
        if let Some(relation) = relation {
            let relation = &diagram.relations[relation];
            let targets: Vec<String> = relation.targets.iter().map(|target| link(diagram, &target.to_string())).collect();
            let how = if relation.evidence == Evidence::Named { " <span class=\"quiet\">(by its name)</span>" } else { "" };
            let _ = write!(text, "<div class=\"refers\">\u{2192} {}{how}</div>", targets.join(", "));
        }
        if let Some(description) = &column.description {
            let _ = write!(text, "<div class=\"quiet\">{}</div>", escape(description));
        }
        text.push_str("</td></tr>");
    }
    text.push_str("</tbody></table>");
    let referring: Vec<String> = diagram
        .relations
        .iter()
        .filter(|relation| relation.targets.contains(&schema.table))
        .map(|relation| format!("{}.<code>{}</code>", link(diagram, &relation.from.to_string()), escape(&relation.column)))
        .collect();
    if !referring.is_empty() {
        let _ = write!(text, "<p class=\"referring\"><strong>Referred to by</strong> {}</p>", referring.join(", "));
    }
    text + "</article>"
}

fn link(diagram: &Diagram, full: &str) -> String {
    let name = escape(full);
    match diagram.tables.iter().any(|schema| schema.table.to_string() == full) {
        true => format!("<a href=\"#{name}\">{name}</a>"),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::school;
    use super::*;

    #[test]
    fn the_page_has_every_table_and_line_and_loads_nothing() {
        let page = diagram_page(&school());
        assert_eq!(page.matches("<article").count(), 4);
        assert_eq!(page.matches("class=\"table").count(), 4);
        // users to itself, enrollments twice, favorites to users and, of its two choices, to courses.
        assert_eq!(page.matches("data-from=").count(), 5);
        assert!(page.contains("What &lt;people&gt; call &quot;it&quot;"));
        for word in ["http://", "https://", " src=", "@import", "url(http"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
