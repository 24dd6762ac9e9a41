//! Finds import cycles between the files of `src`, within modules and between them.
//!
//! Reads the source as tokens: `use` trees and paths in code that begin with `crate`, `self`, `super` or a child module. A path is followed
//! through `pub use` to the file that defines the name. Test code does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Module = Vec<String>;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Sep,
    Mark(char),
}

/// The code of a file without comments, strings and character literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let (c, next) = (chars[at], chars.get(at + 1).copied().unwrap_or(' '));
        let rest = || chars[at..].iter().collect::<String>();
        if c == '/' && next == '/' {
            at += chars[at..].iter().position(|c| *c == '\n').unwrap_or(chars.len() - at);
        } else if c == '/' && next == '*' {
            at += 2 + rest().find("*/").map_or(chars.len(), |end| rest()[..end].chars().count());
        } else if c == 'r' && (next == '"' || (next == '#' && matches!(chars.get(at + 2), Some('"' | '#')))) {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = at + 2 + hashes;
            let length = chars[body..].windows(close.len()).position(|window| window == close.as_slice());
            at = length.map_or(chars.len(), |length| body + length + close.len());
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' && next == '\\' {
            at += 3;
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if c == '\'' && chars.get(at + 2) == Some(&'\'') {
            at += 3;
        } else if c.is_alphabetic() || c == '_' {
            let word: String = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
            at += word.chars().count();
            out.push(Token::Word(word));
        } else if c == ':' && next == ':' {
            out.push(Token::Sep);
            at += 2;
        } else {
            if !c.is_whitespace() {
                out.push(Token::Mark(c));
            }
            at += 1;
        }
    }
    out
}

/// The imports of a file: paths that it uses, names that it re-exports by `pub use`, and its child modules.
#[derive(Default)]
struct Imports {
    uses: Vec<Module>,
    re_exports: BTreeMap<String, Module>,
    children: BTreeSet<String>,
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    module: &'a Module,
    imports: Imports,
}

impl Reader<'_> {
    fn word(&self, at: usize) -> Option<&str> {
        match self.tokens.get(at) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn is(&self, at: usize, mark: char) -> bool {
        self.tokens.get(at) == Some(&Token::Mark(mark))
    }

    /// The index after the bracket that closes the one at `at`.
    fn behind(&self, at: usize, open: char, close: char) -> usize {
        let mut depth = 0;
        for (place, token) in self.tokens.iter().enumerate().skip(at) {
            if *token == Token::Mark(open) {
                depth += 1;
            } else if *token == Token::Mark(close) {
                depth -= 1;
                if depth == 0 {
                    return place + 1;
                }
            }
        }
        self.tokens.len()
    }

    fn read(mut self) -> Imports {
        for at in 0..self.tokens.len() {
            if self.word(at) == Some("mod") && self.is(at + 2, ';') {
                self.imports.children.extend(self.word(at + 1).map(str::to_owned));
            }
        }
        let mut is_test = false;
        let mut is_public = false;
        while self.at < self.tokens.len() {
            let at = self.at;
            match &self.tokens[at] {
                Token::Mark('#') if self.is(at + 1, '[') => {
                    let end = self.behind(at + 1, '[', ']');
                    let words: Vec<_> = (at..end).filter_map(|at| self.word(at)).collect();
                    is_test |= words == ["cfg", "test"] || words == ["test"] || words == ["cfg", "all", "test"];
                    self.at = end;
                    continue;
                }
                // Code of tests: skipped with its body.
                Token::Word(_) if is_test => {
                    let semicolon = (at..self.tokens.len()).find(|at| self.is(*at, ';')).unwrap_or(self.tokens.len());
                    let brace = (at..self.tokens.len()).find(|at| self.is(*at, '{')).unwrap_or(self.tokens.len());
                    self.at = if brace < semicolon { self.behind(brace, '{', '}') } else { semicolon + 1 };
                    is_test = false;
                    continue;
                }
                Token::Word(word) if word == "pub" => {
                    is_public = true;
                    self.at = if self.is(at + 1, '(') { self.behind(at + 1, '(', ')') } else { at + 1 };
                    continue;
                }
                Token::Word(word) if word == "use" => {
                    self.at += 1;
                    self.tree(Vec::new(), is_public);
                }
                Token::Word(word)
                    if ["crate", "self", "super"].contains(&word.as_str()) || self.imports.children.contains(word.as_str()) =>
                {
                    let is_start = at == 0 || self.tokens[at - 1] != Token::Sep && !self.is(at - 1, '.');
                    let mut path = vec![word.clone()];
                    self.at += 1;
                    while is_start && self.tokens.get(self.at) == Some(&Token::Sep) && self.word(self.at + 1).is_some() {
                        path.extend(self.word(self.at + 1).map(str::to_owned));
                        self.at += 2;
                    }
                    if path.len() > 1 {
                        self.imports.uses.extend(self.absolute(&path));
                    }
                }
                _ => self.at += 1,
            }
            is_public = false;
        }
        self.imports
    }

    /// One `use` tree, from `self.at` to its `;`, `,` or `}`.
    fn tree(&mut self, mut path: Module, is_public: bool) {
        loop {
            if self.is(self.at, '{') {
                self.at += 1;
                while !self.is(self.at, '}') && self.at < self.tokens.len() {
                    self.tree(path.clone(), is_public);
                    self.at += usize::from(self.is(self.at, ','));
                }
                self.at += 1;
                return;
            }
            match self.word(self.at) {
                Some(word) => path.push(word.to_owned()),
                None => path.push("*".to_owned()),
            }
            self.at += 1;
            if self.tokens.get(self.at) == Some(&Token::Sep) {
                self.at += 1;
            } else {
                break;
            }
        }
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if self.word(self.at) == Some("as") {
            name = self.word(self.at + 1).unwrap_or("_").to_owned();
            self.at += 2;
        }
        let Some(path) = self.absolute(&path) else { return };
        if is_public {
            self.imports.re_exports.insert(name, path);
        } else {
            self.imports.uses.push(path);
        }
    }

    fn absolute(&self, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let mut start = self.module.clone();
        match first.as_str() {
            "crate" => start.clear(),
            "self" => {}
            "super" => {
                start.pop();
                let more = rest.iter().take_while(|word| *word == "super").count();
                start.truncate(start.len().saturating_sub(more));
                return Some(start.into_iter().chain(rest[more..].iter().cloned()).collect());
            }
            child if self.imports.children.contains(child) => start.push(child.to_owned()),
            _ => return None,
        }
        Some(start.into_iter().chain(rest.iter().cloned()).collect())
    }
}

/// The file that defines what a path names.
fn defines(path: &[String], files: &BTreeMap<Module, Imports>, depth: usize) -> Option<Module> {
    let module = (0..=path.len()).rev().map(|length| &path[..length]).find(|module| files.contains_key(*module))?;
    let rest = &path[module.len()..];
    let re_export = rest.first().and_then(|name| files[module].re_exports.get(name));
    match re_export {
        Some(path) if depth < 8 => {
            let path: Module = path.iter().chain(&rest[1..]).cloned().collect();
            defines(&path, files, depth + 1)
        }
        _ => Some(module.to_vec()),
    }
}

/// Groups of files that can reach each other by imports.
fn groups(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    fn reach(from: &Module, edges: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
        let mut seen = BTreeSet::new();
        let mut left: Vec<&Module> = edges[from].iter().collect();
        while let Some(module) = left.pop() {
            if seen.insert(module.clone()) {
                left.extend(edges[module].iter());
            }
        }
        seen
    }
    let reached: BTreeMap<&Module, BTreeSet<Module>> = edges.keys().map(|module| (module, reach(module, edges))).collect();
    let mut found: Vec<Vec<Module>> = Vec::new();
    for (module, others) in &reached {
        if others.contains(*module) && !found.iter().flatten().any(|known| known == *module) {
            found.push(others.iter().filter(|other| reached[other].contains(*module)).cloned().collect());
        }
    }
    found
}

fn cycles(root: &Path) -> Vec<String> {
    let mut files = BTreeMap::new();
    for path in super::sources(root) {
        let inside = path.strip_prefix(root).unwrap().with_extension("");
        let mut module: Module = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.iter().any(|part| part == "tests" || part == "testing") || module == ["main"] {
            continue;
        }
        if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
            module.pop();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let tokens = tokens(&text);
        let imports = Reader { tokens: &tokens, at: 0, module: &module, imports: Imports::default() }.read();
        files.insert(module, imports);
    }
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, imports) in &files {
        let to = imports.uses.iter().filter_map(|path| defines(path, &files, 0)).filter(|to| to != module);
        edges.insert(module.clone(), to.collect());
    }
    let mut lines = Vec::new();
    for group in groups(&edges) {
        for from in &group {
            for to in edges[from].iter().filter(|to| group.contains(to)) {
                lines.push(format!("{} -> {}", from.join("/"), to.join("/")));
            }
        }
    }
    lines
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn no_files_import_each_other() {
    let found = cycles(&source());
    assert!(found.is_empty(), "these imports close a cycle: {found:#?}");
}

/// A reader cannot survey a folder with more source files than this.
const MOST_FILES: usize = 15;

#[test]
fn no_folder_has_too_many_source_files() {
    let sources = super::sources(&source());
    let mut counts: BTreeMap<&Path, usize> = BTreeMap::new();
    for path in &sources {
        *counts.entry(path.parent().unwrap()).or_default() += 1;
    }
    let full: Vec<_> = counts.into_iter().filter(|(_, files)| *files > MOST_FILES).collect();
    assert!(full.is_empty(), "these folders have too many source files: {full:?}");
}

#[test]
fn a_cycle_is_found_through_re_exports() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; pub use a::one::Thing;");
    write("a/mod.rs", "mod one; mod two; pub use self::one::Thing; pub(crate) use two::{self as second, Other};");
    write(
        "a/one.rs",
        "use super::two; // crate::b is not meant\n fn f() -> &'static str { two::NAME; \"crate::b::x\" } pub struct Thing;",
    );
    write("a/two.rs", "use crate::a::Thing as T; #[cfg(test)] mod tests { use crate::b::*; } pub const NAME: char = '\"';");
    write("b.rs", "use crate::a::{Thing, second::Other};");
    assert_eq!(cycles(folder.path()), ["a/one -> a/two", "a/two -> a/one"]);
}
