//! The dictionary as a page: complete without scripts; with scripts it can be searched.

use maud::{Markup, html};

use super::{Entry, OVERSIZED, counted, counts, default_of, entries, enum_values};
use crate::page::diagram::{anchor, legend, link, name, picture, referred_by};
use crate::page::document;
use crate::schema::{Diagram, Evidence, Relation};

const STYLE: &str = concat!(include_str!("../diagram/picture.css"), include_str!("dictionary.css"));
const SCRIPT: &str = include_str!("dictionary.js");
const TITLE: &str = "Data dictionary";

/// The page of a dictionary, as a complete HTML document. It has the diagram of the tables, whose boxes lead to their columns.
pub fn dictionary_page(diagram: &Diagram) -> String {
    let (tables, columns) = counts(diagram);
    let body = html! {
        a class="skip" href="#tables" { "Skip to the tables" }
        header {
            h1 { (TITLE) }
            p { (counted(tables, "table")) ", " (counted(columns, "column")) }
        }
        div class="layout" {
            nav aria-label="Tables" {
                label class="hidden-label" for="search" { "Find a table, a column or a description" }
                input id="search" class="needs-script" type="search" placeholder="Find a table or a column" autocomplete="off";
                p id="found" class="needs-script" role="status" {}
                ul id="list" {
                    li { a href="#diagram" { "Diagram" } }
                    @for (place, schema) in diagram.tables.iter().enumerate() {
                        li { a href={ "#" (anchor(diagram, place)) } title=(schema.table) { (name(diagram, place)) } }
                    }
                }
            }
            main {
                section id="diagram" {
                    h2 { "Diagram" }
                    p class="quiet" { "A box leads to the columns of its table. Lines to the tables with the most references are not drawn." }
                    div class="stage" tabindex="0" role="region" aria-label="Diagram of the tables" { (picture(diagram)) }
                    (legend())
                }
                div id="tables" {
                    @for place in 0..diagram.tables.len() { (article(diagram, place)) }
                }
            }
        }
    };
    document(TITLE, STYLE, &body, SCRIPT)
}

fn article(diagram: &Diagram, place: usize) -> Markup {
    let schema = &diagram.tables[place];
    let anchor = anchor(diagram, place);
    html! {
        article id=(anchor) {
            div class="head" {
                h2 tabindex="-1" { (schema.table) }
                @for paragraph in schema.description.iter().flat_map(|text| text.split("\n\n")) { p { (paragraph) } }
            }
            p class="quiet" {
                (counted(schema.columns().count() as u64, "column")) ", schema version " (schema.version) ", "
                a href={ "#diagram:" (anchor) } { "show in the diagram" }
            }
            @for warning in &schema.warnings { p class="quiet" { "Note: " (warning) "." } }
            table {
                thead { tr { th scope="col" { "Column" } th scope="col" { "Type" } th scope="col" { "Description" } } }
                tbody { @for entry in entries(diagram, place) { (row(diagram, &entry)) } }
            }
            (referred_by(diagram, &schema.table))
        }
    }
}

fn row(diagram: &Diagram, entry: &Entry<'_>) -> Markup {
    let Entry { path, column, is_key, relation } = entry;
    let kind = &column.column_type;
    html! {
        tr {
            th scope="row" {
                code { (path) }
                @if *is_key { " " span class="mark" { "key" } }
            }
            td data-label="Type" {
                (kind.describe())
                @if !column.required { " " span class="quiet" { "or null" } }
            }
            td data-label="Description" {
                @if let Some(description) = &column.description { div { (description) } }
                @if let Some((values, is_open)) = enum_values(kind) {
                    div class="values" {
                        span class="quiet" { "Values:" }
                        @for value in values { " " code { (value) } }
                        @if is_open { " " span class="quiet" { "or others" } }
                    }
                }
                @if let Some(default) = default_of(column) { div { span class="quiet" { "Default: " } code { (default) } } }
                @if column.oversizeable { div class="quiet" { (OVERSIZED) } }
                @if let Some(relation) = relation { (refers(diagram, relation)) }
            }
        }
    }
}

fn refers(diagram: &Diagram, relation: &Relation) -> Markup {
    html! {
        div class="refers" {
            span class="quiet" { @if relation.targets.len() > 1 { "Refers to one of " } @else { "Refers to " } }
            @for (number, target) in relation.targets.iter().enumerate() {
                @if number > 0 { ", " }
                (link(diagram, target))
            }
            @if relation.evidence == Evidence::Named { " " span class="quiet" { "(inferred from the column name)" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::awkward;
    use super::*;

    #[test]
    fn the_page_has_everything_escaped_and_loads_nothing() {
        let page = dictionary_page(&awkward());
        assert_eq!(page.matches("<article").count(), 3);
        assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("<h2 tabindex=\"-1\">new.odd &lt;name&gt;|</h2>"));
        assert!(
            page.contains("id=\"table-2\"") && page.contains("href=\"#table-2\"") && page.contains("id=\"diagram:table-2\"")
        );
        for text in [
            "<code>x|y</code> <code>`</code> <code>&lt;i&gt;</code>",
            "text, at most 5 characters",
            "Default: </span><code>d</code>",
            "<code>tags.element.name</code>",
            "Refers to one of </span><a href=\"#new.users\">new.users</a>, <a href=\"#new.groups\">new.groups</a>",
            "<p>People | &lt;b&gt;all&lt;/b&gt;</p>",
            "3 tables, 10 columns",
            "<a href=\"#new.users\">new.users</a>.<code>user_id</code>",
        ] {
            assert!(page.contains(text), "{text} is not in\n{page}");
        }
        for word in ["http://", "https://", " src=", "@import", "url(http"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
