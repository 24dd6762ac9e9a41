//! Values as self-contained pages and pictures: one HTML file with everything in it, nothing loaded from elsewhere, readable in
//! light and dark, on paper, and without scripts. It finds nothing out by itself and writes no file.

#[cfg(feature = "lake")]
mod chart;
mod diagram;
pub(crate) mod figures;
#[cfg(feature = "lake")]
mod status;

pub use diagram::{Columns, diagram_page, dot, mermaid};
#[cfg(feature = "lake")]
pub use status::status_page;

/// Style of all pages.
const STYLE: &str = include_str!("style.css");

/// Text as HTML: whatever a server or a file said, it stays text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
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

/// A whole page. The policy forbids the browser to load or send anything, whatever a text might have smuggled in.
fn document(title: &str, style: &str, body: &str, script: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n{body}\n<script>\n{script}</script>\n</body>\n</html>\n",
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<b a='x'>\"&"), "&lt;b a=&#39;x&#39;&gt;&quot;&amp;");
        assert!(document("</title><script>", "", "", "").contains("<title>&lt;/title&gt;&lt;script&gt;</title>"));
    }
}
