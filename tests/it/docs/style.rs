//! The language of the documentation and of the sources, and links between pages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    "of old",
    "in sight",
    "begins anew",
];

/// A sentence of more words is split.
const LONGEST: usize = 40;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn pages_below(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = folder.read_dir() else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "dist", ".git"].contains(&name.as_str()) && !name.starts_with("daplake-demo") {
            pages_below(&path, into);
        } else if name.ends_with(".md") {
            into.push(path);
        }
    }
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

/// The pages of the top folder, of `docs` and of `.github`.
fn plain_pages() -> Vec<PathBuf> {
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let mut pages: Vec<PathBuf> = root().read_dir().unwrap().map(|entry| entry.unwrap().path()).filter(is_page).collect();
    for folder in ["docs", ".github"] {
        pages_below(&root().join(folder), &mut pages);
    }
    pages
}

#[test]
fn pages_are_in_plain_english() {
    let mut wrong = Vec::new();
    for page in plain_pages() {
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

/// Comments, docstrings and messages; tests may quote what others write.
#[test]
fn sources_are_in_plain_english() {
    let mut sources = Vec::new();
    crate::layering::sources(&root().join("src"), &mut sources);
    let is_test = |path: &PathBuf| path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
    sources.retain(|path| !is_test(&path.strip_prefix(root()).unwrap().to_owned()));
    assert!(sources.len() > 200, "sources are still found");
    let mut wrong = Vec::new();
    for source in &sources {
        let text = std::fs::read_to_string(source).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let low = line.to_lowercase();
            let shown = source.strip_prefix(root()).unwrap().display();
            let found = WORDS.iter().filter(|word| has_phrase(&low, word));
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
    let mut pages = Vec::new();
    pages_below(root(), &mut pages);
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
fn every_page_is_in_the_index() {
    let index = std::fs::read_to_string(root().join("docs/README.md")).unwrap();
    let mut pages = Vec::new();
    pages_below(&root().join("docs"), &mut pages);
    let missing: Vec<String> = pages
        .iter()
        .map(|page| page.strip_prefix(root().join("docs")).unwrap().display().to_string())
        .filter(|page| page != "README.md" && !index.contains(&format!("]({page})")))
        .collect();
    assert!(missing.is_empty(), "not in docs/README.md: {}", missing.join(", "));
}
