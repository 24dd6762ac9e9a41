//! HTML pages, diagrams and the data dictionary. A page is one self-contained HTML file: it loads nothing from elsewhere, and is readable in light
//! and dark mode, on paper and without scripts. This module reads no data and writes no files.

#[cfg(feature = "lake")]
mod chart;
mod diagram;
mod dictionary;
pub(crate) mod figures;
#[cfg(feature = "lake")]
mod status;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::redact::visible_lines;

pub use diagram::{Columns, diagram_page, dot, mermaid};
pub use dictionary::{dictionary_markdown, dictionary_page};
#[cfg(feature = "lake")]
pub use status::status_page;

/// Style of all pages.
const STYLE: &str = include_str!("style.css");
/// Forbids the browser to load or send anything, even if a page contained markup of others.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";

/// A complete page. `style` and `script` are constants of this crate and are not escaped.
fn document(title: &str, style: &'static str, body: &Markup, script: &'static str) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body {
                (body)
                script { (PreEscaped(script)) }
            }
        }
    };
    // Markup is escaped; names of the service may also have control characters.
    visible_lines(&page.into_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let text = "</title><b a=\"x\">&\u{1b}\u{202e}";
        let page = document(text, "", &html! { p title=(text) { (text) } }, "");
        assert!(page.contains("<title>&lt;/title&gt;&lt;b a=&quot;x&quot;&gt;&amp;\\u001b\\u202e</title>"), "{page}");
        assert!(
            page.contains("<p title=\"&lt;/title&gt;&lt;b a=&quot;x&quot;&gt;&amp;\\u001b\\u202e\">&lt;/title&gt;"),
            "{page}"
        );
    }
}
