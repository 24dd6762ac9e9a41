//! The language of the documentation and of the sources, and links between pages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::files_below;

/// Calques and private idioms: each has a plain English form.
const WORDS: &[&str] = &[
    "anew",
    "of chance",
    "by chance",
    "what becomes of",
    "is told",
    "are told",
    "was told",
    "were told",
    "gone on with",
    "goes on with",
    "go on with",
    "stands in for",
    "stand in for",
    "stands aside",
    "whoever",
    "at leisure",
    "come about",
    "comes about",
    "could be had",
    "can be had",
    "cannot be had",
    "to be had",
    "there is no way to",
    "nobody",
    "of its own make",
    "of our own make",
    "sets down",
    "set down",
    "what waits",
    "as ever",
    "of ours",
    "thereof",
    "so many of",
    "that is all there is",
    "holds good",
    "made good",
    "told of",
    "tells of",
    "in sight",
    "behind our back",
    "foreign reader",
    "foreign readers",
    "for good",
    "bad weather",
    "all the same",
    "in the midst",
    "book-keeping",
    "knows of",
    "know of",
    "told apart",
    "tell apart",
    "somebody",
    "puts right",
    "put right",
    "kept right",
    "leaves the others alone",
    "what becomes",
    "is of no concern",
    "got in between",
    "comma list",
    "as the table is",
    "in silence",
    "the way back",
    "take it for",
    "takes it for",
    "all else",
];

/// Where `nobody` is the name of a user.
const NOBODY: &[&str] = &["\"nobody\"", "=nobody", "~nobody", "nobody@", "nobody.crt", "\"nobody:"];

/// A sentence of more words is split.
const LONGEST: usize = 40;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the top folder and of the folders with documentation.
pub fn pages() -> Vec<PathBuf> {
    let entries = root().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let folders =
        ["docs", ".github", "packaging", "examples", "benches", "tests"].map(|folder| files_below(&root().join(folder)));
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    entries.chain(folders.into_iter().flatten()).filter(is_page).collect()
}

/// Lines outside of fenced blocks, with their numbers; code within a line is left out.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" CODE ");
            lines.push((number + 1, plain));
        }
    }
    lines
}

fn has_phrase(line: &str, phrase: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    line.match_indices(phrase)
        .any(|(at, _)| is_edge(line[..at].chars().next_back()) && is_edge(line[at + phrase.len()..].chars().next()))
}

#[test]
fn pages_are_in_plain_english() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let shown = page.strip_prefix(root()).unwrap().display().to_string();
        let lines = prose(&text);
        for (number, line) in &lines {
            let low = line.to_lowercase();
            wrong.extend(
                WORDS.iter().filter(|word| has_phrase(&low, word)).map(|word| format!("{shown}:{number}: {word}: {line}")),
            );
        }
        // Paragraphs, list items and table rows; a sentence never goes on from one to the next.
        let mut paragraphs: Vec<(usize, String)> = Vec::new();
        let mut is_open = false;
        for (number, line) in lines {
            let begins = line.trim_start().starts_with(['|', '-', '#', '*'])
                || line.trim_start().starts_with(|c: char| c.is_ascii_digit());
            if line.trim().is_empty() {
                is_open = false;
            } else if is_open && !begins {
                paragraphs.last_mut().unwrap().1.push_str(&format!(" {}", line.trim()));
            } else {
                paragraphs.push((number, line.trim().to_owned()));
                is_open = !line.trim_start().starts_with(['|', '#']);
            }
        }
        for (number, paragraph) in paragraphs {
            for sentence in
                paragraph.split(['.', '?', '!', '|', ':', ';']).filter(|part| part.split_whitespace().count() > LONGEST)
            {
                wrong.push(format!("{shown}:{number}: {} words: {sentence}", sentence.split_whitespace().count()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a file contains comments or messages: sources, scripts and settings, but no data, and not the word list above.
fn is_source(path: &Path) -> bool {
    const ENDINGS: [&str; 10] = ["rs", "py", "toml", "txt", "yml", "yaml", "rb", "service", "timer", "c"];
    let is_data = |part: std::path::Component<'_>| {
        ["target", "corpus", "dist", "__pycache__"].map(Some).contains(&part.as_os_str().to_str())
    };
    let is_text = path.extension().is_none_or(|ending| ENDINGS.iter().any(|known| ending == *known));
    is_text && !path.components().any(is_data) && !path.ends_with("docs/style.rs")
}

/// Comments, docstrings, messages and names of tests.
#[test]
fn sources_are_in_plain_english() {
    let mut sources: Vec<PathBuf> =
        ["justfile", "Cargo.toml", "pyproject.toml", "deny.toml", "clippy.toml", ".typos.toml", "build.rs"]
            .map(|name| root().join(name))
            .into_iter()
            .filter(|path| path.exists())
            .collect();
    for folder in ["src", "tests", "benches", "examples", "packaging", "schemas", ".ci", ".github"] {
        sources
            .extend(files_below(&root().join(folder)).into_iter().filter(|path| is_source(path.strip_prefix(root()).unwrap())));
    }
    assert!(sources.len() > 350, "sources are still found");
    let mut wrong = Vec::new();
    for source in &sources {
        let shown = source.strip_prefix(root()).unwrap().display();
        let text = std::fs::read_to_string(source).unwrap_or_else(|error| panic!("{shown}: {error}"));
        for (number, line) in text.lines().enumerate() {
            // A name is a sentence whose words are joined.
            let low = line.to_lowercase().replace('_', " ");
            let is_user = |word: &str| word == "nobody" && NOBODY.iter().any(|use_of| line.contains(use_of));
            let found = WORDS.iter().filter(|word| has_phrase(&low, word) && !is_user(word));
            wrong.extend(found.map(|word| format!("{shown}:{}: {word}: {}", number + 1, line.trim())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut fenced = false;
    let is_heading = |line: &&str| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced && line.starts_with('#')
    };
    text.lines().filter(is_heading).map(anchor).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    let mut count = 0;
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for (number, line) in prose(&text) {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                count += 1;
                let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
                let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
                let is_there = target.exists() && heading.is_none_or(|heading| anchors(&target).contains(heading));
                if !is_there {
                    broken.push(format!("{}:{number}: {link}", page.strip_prefix(root()).unwrap().display()));
                }
            }
        }
    }
    assert!(count > 40, "links are still found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_metric_is_in_the_reference() {
    let source = std::fs::read_to_string(root().join("src/cli/observability/metrics.rs")).unwrap();
    let page = std::fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let families = source.split("FAMILIES").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let names: Vec<&str> = families.split('"').filter(|text| text.starts_with("daplake_")).collect();
    assert!(names.len() > 15, "metrics are still found");
    for name in names {
        assert!(page.contains(&format!("| `{name}` |")), "docs/reference/metrics.md lacks {name}");
    }
}

/// The index is what people read first; `SUMMARY.md` is the table of contents of mdBook.
#[test]
fn every_page_is_in_the_index_and_in_the_summary() {
    let docs = root().join("docs");
    for list in ["README.md", "SUMMARY.md"] {
        let index = std::fs::read_to_string(docs.join(list)).unwrap();
        let missing: Vec<String> = pages()
            .iter()
            .filter_map(|page| Some(page.strip_prefix(&docs).ok()?.to_str()?.replace('\\', "/")))
            .filter(|page| page != "SUMMARY.md" && page != list && !index.contains(&format!("]({page})")))
            .collect();
        assert!(missing.is_empty(), "not in docs/{list}: {}", missing.join(", "));
    }
}
