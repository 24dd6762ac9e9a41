//! The diagram as a page: a picture that is complete without scripts; with scripts it has search, zoom and a panel for the
//! relations of one table. Below it are all tables with their columns, for paper and for screen readers.

use maud::{Markup, html};

use super::layout::{Layout, Place, layout};
use super::text::name;
use super::{Columns, Shown, anchor, shown, type_word};
use crate::model::TableRef;
use crate::page::document;
use crate::page::figures::{counted, grouped};
use crate::schema::{Diagram, Evidence, Relation};

const STYLE: &str = concat!(include_str!("picture.css"), include_str!("diagram.css"));
const SCRIPT: &str = include_str!("diagram.js");
const HEAD_HEIGHT: f64 = 28.0;
const ROW_HEIGHT: f64 = 19.0;
/// Width of a character, slightly more than in most fonts.
const CHARACTER: f64 = 6.9;
const MARGIN: f64 = 24.0;
/// CSS class and meaning of each kind of line, for the legend.
const LINES: [(&str, &str); 3] =
    [("line", "refers to"), ("line choice", "refers to one of several"), ("line named", "inferred from the column name")];

/// The page of a diagram, as a complete HTML document.
pub fn diagram_page(diagram: &Diagram) -> String {
    let documented = diagram.relations.iter().filter(|relation| relation.evidence == Evidence::Documented).count();
    let summary = format!(
        "{}, {} ({} documented, {} inferred from column names)",
        counted(diagram.tables.len() as u64, "table"),
        counted(diagram.relations.len() as u64, "reference"),
        grouped(documented as u64),
        grouped((diagram.relations.len() - documented) as u64)
    );
    let body = html! {
        header {
            h1 { "Tables and their relations" }
            p { (summary) }
        }
        nav aria-label="Tables" {
            label class="hidden-label" for="search" { "Find a table or a column" }
            input id="search" class="needs-script" type="search" placeholder="Find a table or a column" autocomplete="off";
            p id="found" class="needs-script" role="status" {}
            ul id="list" {
                @for (table, schema) in diagram.tables.iter().enumerate() {
                    li { a href={ "#" (anchor(diagram, table)) } title=(schema.table) { (name(diagram, table)) } }
                }
            }
        }
        main {
            div id="stage" { (picture(diagram)) }
            div class="tools needs-script" {
                button type="button" id="in" aria-label="Zoom in" { "+" }
                button type="button" id="out" aria-label="Zoom out" { "\u{2212}" }
                button type="button" id="fit" { "Fit" }
                label { input type="checkbox" id="all"; " all lines" }
            }
            (legend())
        }
        aside id="panel" aria-live="polite" hidden {}
        div id="tables" {
            h2 { "All tables" }
            @for table in 0..diagram.tables.len() { (article(diagram, table)) }
        }
    };
    document("Tables and their relations", STYLE, &body, SCRIPT)
}

/// The meaning of the lines.
pub(in crate::page) fn legend() -> Markup {
    html! {
        p class="legend" {
            @for (class, meaning) in LINES {
                span {
                    svg width="34" height="8" aria-hidden="true" { path class=(class) d="M0 4H34" {} }
                    " " (meaning)
                }
            }
        }
    }
}

/// A row of a box.
struct Row {
    name: String,
    is_key: bool,
    relation: Option<usize>,
    /// The referenced table, in a short form.
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
            to: relation.map_or(String::new(), |relation| target_of(&diagram.relations[relation])),
        })
        .collect()
}

fn target_of(relation: &Relation) -> String {
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

/// The tables as boxes, each a link to the anchor of its table, with lines between them. The styles are in `picture.css`.
pub(in crate::page) fn picture(diagram: &Diagram) -> Markup {
    let boxes: Vec<Vec<Row>> = (0..diagram.tables.len()).map(|table| rows(diagram, table)).collect();
    let sizes: Vec<(f64, f64)> = boxes.iter().enumerate().map(|(table, rows)| size_of(&name(diagram, table), rows)).collect();
    let edges = edges(diagram);
    let pairs: Vec<(usize, usize)> = edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let laid = layout(&sizes, &pairs);
    let (width, height) = (laid.width + 2.0 * MARGIN, laid.height + 2.0 * MARGIN);
    html! {
        svg id="picture" viewBox=(format!("{:.0} {:.0} {width:.0} {height:.0}", -MARGIN, -MARGIN))
            width=(format!("{width:.0}")) height=(format!("{height:.0}")) role="group"
            aria-label="Diagram of the tables; the list below has the same content" {
            defs {
                marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" {
                    path d="M0 0L8 4L0 8Z" {}
                }
            }
            g id="world" {
                g class="lines" {
                    @for edge in &edges {
                        @let row = boxes[edge.from].iter().position(|row| row.relation == Some(edge.relation)).unwrap_or(0);
                        path class=(class_of(diagram, &laid, edge)) data-from=(edge.from) data-to=(edge.to)
                            d=(line(&laid.places[edge.from], row, &laid.places[edge.to], edge.from == edge.to)) {}
                    }
                }
                @for (table, rows) in boxes.iter().enumerate() {
                    (drawn(diagram, table, rows, &laid.places[table], laid.is_hub[table]))
                }
            }
        }
    }
}

fn class_of(diagram: &Diagram, laid: &Layout, edge: &Edge) -> String {
    let relation = &diagram.relations[edge.relation];
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
    class
}

fn drawn(diagram: &Diagram, table: usize, rows: &[Row], place: &Place, is_hub: bool) -> Markup {
    let full = diagram.tables[table].table.to_string();
    let anchor = anchor(diagram, table);
    let width = format!("{:.1}", place.width);
    let head = format!("M0 {HEAD_HEIGHT}V6Q0 0 6 0H{:.1}Q{width} 0 {width} 6V{HEAD_HEIGHT}Z", place.width - 6.0);
    html! {
        a id={ "diagram:" (anchor) } href={ "#" (anchor) } class=(if is_hub { "table hub" } else { "table" }) data-table=(table)
            transform=(format!("translate({:.1} {:.1})", place.x, place.y)) {
            title { (full) }
            rect class="box" width=(width) height=(format!("{:.1}", place.height)) rx="6" {}
            path class="head" d=(head) {}
            text class="name" x="10" y="18.5" { (name(diagram, table)) }
            @for (number, row) in rows.iter().enumerate() {
                @let y = format!("{:.1}", HEAD_HEIGHT + number as f64 * ROW_HEIGHT + 15.0);
                text class=(if row.is_key { "key" } else { "column" }) x="10" y=(y) { (row.name) }
                @if !row.to.is_empty() {
                    text class="to" x=(format!("{:.1}", place.width - 10.0)) y=(y) text-anchor="end" { "\u{2192} " (row.to) }
                }
            }
        }
    }
}

/// The path of a line, from the side of the column's box that is nearer to the head of the other box.
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
        // Boxes above each other: around the right side.
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

/// A table with its columns as text.
fn article(diagram: &Diagram, table: usize) -> Markup {
    let schema = &diagram.tables[table];
    let full = schema.table.to_string();
    html! {
        article id=(anchor(diagram, table)) data-table=(table) {
            h3 { (full) }
            @if let Some(description) = &schema.description { p { (description) } }
            table {
                thead { tr { th scope="col" { "Column" } th scope="col" { "Type" } } }
                tbody { @for column in shown(diagram, table, Columns::All) { (column_row(diagram, &column)) } }
            }
            (referred_by(diagram, &schema.table))
        }
    }
}

/// The columns that refer to a table, if there are any.
pub(in crate::page) fn referred_by(diagram: &Diagram, table: &TableRef) -> Markup {
    let referring = diagram.referring(table);
    html! {
        @if !referring.is_empty() {
            p class="referring" {
                strong { "Referred to by" } " "
                @for (place, relation) in referring.iter().enumerate() {
                    @if place > 0 { ", " }
                    (link(diagram, &relation.from)) "." code { (relation.column) }
                }
            }
        }
    }
}

fn column_row(diagram: &Diagram, Shown { column, is_key, relation }: &Shown<'_>) -> Markup {
    html! {
        tr {
            th scope="row" {
                code { (column.name) }
                @if *is_key { " " span class="mark" { "key" } }
            }
            td {
                (type_word(&column.column_type))
                @if !column.required { " " span class="quiet" { "or null" } }
                @if let Some(relation) = relation.map(|relation| &diagram.relations[relation]) {
                    div class="refers" {
                        "\u{2192} "
                        @for (place, target) in relation.targets.iter().enumerate() {
                            @if place > 0 { ", " }
                            (link(diagram, target))
                        }
                        @if relation.evidence == Evidence::Named { " " span class="quiet" { "(inferred from its name)" } }
                    }
                }
                @if let Some(description) = &column.description { div class="quiet" { (description) } }
            }
        }
    }
}

/// A link to a table, or its name if the diagram does not have it.
pub(in crate::page) fn link(diagram: &Diagram, table: &TableRef) -> Markup {
    html! {
        @match diagram.place_of(table) {
            Some(place) => a href={ "#" (anchor(diagram, place)) } { (table) },
            None => (table),
        }
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
