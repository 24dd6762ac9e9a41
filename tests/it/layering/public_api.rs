//! The public API against `public_api.txt`, so that no change of it goes unnoticed. `DAPLAKE_UPDATE_DOCS=1` rewrites the file.
//!
//! The public names are those that `lib.rs`, `ops/mod.rs` and `sink/mod.rs` export by `pub use` and `pub mod`; all other modules are private.
//! Their members are read from the source, which rustfmt has formatted, without `demo`, `conformance` and `#[doc(hidden)]`. Not seen are items
//! that a macro writes, automatic traits, and the difference between features: an item of any feature is listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Modules whose items do not count.
const NOT_LISTED: [&str; 2] = ["demo", "conformance"];

/// A new name must be worth its place.
const MOST_NAMES: usize = 65;

struct Source {
    path: PathBuf,
    lines: Vec<String>,
}

impl Source {
    fn read(path: &Path) -> Self {
        let lines = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        Self { path: path.to_owned(), lines }
    }

    /// The attributes above a line.
    fn attributes(&self, line: usize) -> impl Iterator<Item = &str> {
        let above = self.lines[..line].iter().rev().map(|line| line.trim());
        above.take_while(|line| line.starts_with("#[") || line.starts_with("///")).filter(|line| line.starts_with("#["))
    }

    fn is_hidden(&self, line: usize) -> bool {
        self.attributes(line).any(|attribute| attribute == "#[doc(hidden)]" || attribute == "#[cfg(test)]")
    }

    /// The text from a line to the end of its statement or the beginning of its body.
    fn statement(&self, line: usize) -> String {
        let mut text = String::new();
        for line in &self.lines[line..] {
            let line = line.trim();
            text.push_str(line);
            if line.ends_with([';', '{']) || line.ends_with("{}") || line.ends_with('}') {
                break;
            }
            if !line.ends_with('(') {
                text.push(' ');
            }
        }
        let text = text.trim_end_matches("{}").trim_end_matches([';', '{']).trim_end();
        text.replace(", )", ")")
    }

    /// The lines of the block that begins at a line of the file's outermost level.
    fn block(&self, line: usize) -> std::ops::Range<usize> {
        let is_one_line = self.lines[line].ends_with([';', '}']);
        let length = if is_one_line { 1 } else { self.lines[line..].iter().position(|line| line == "}").unwrap() };
        line + 1..line + length
    }
}

/// The `pub use` and `pub mod` items of a file, as paths from the root of the crate.
fn exports(source: &Source, module: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, line) in source.lines.iter().enumerate().filter(|(at, _)| !source.is_hidden(*at)) {
        if let Some(name) = line.strip_prefix("pub mod ") {
            found.push(vec![name.trim_end_matches(';').to_owned()]);
        }
        let Some(_) = line.strip_prefix("pub use ") else { continue };
        let statement = source.statement(at);
        let path = statement.strip_prefix("pub use ").unwrap();
        let (path, names) = path.split_once('{').unwrap_or_else(|| path.rsplit_once("::").unwrap());
        let mut path: Vec<String> = path.split("::").map(str::to_owned).filter(|part| !part.is_empty()).collect();
        match path[0].as_str() {
            "crate" => drop(path.remove(0)),
            "self" => path[0] = module.to_owned(),
            _ if module.is_empty() => {}
            _ => path.insert(0, module.to_owned()),
        }
        for name in names.trim_end_matches('}').split(',').map(str::trim).filter(|name| !name.is_empty()) {
            assert!(name != "*" && !name.contains(" as "), "{}: {statement}", source.path.display());
            found.push(path.iter().map(String::as_str).chain([name]).map(str::to_owned).collect());
        }
    }
    found
}

/// The kind and the name of the item that a line defines, if it is public.
fn item(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("pub ")?;
    let rest = rest
        .strip_prefix("async ")
        .or_else(|| rest.strip_prefix("const ").filter(|rest| rest.starts_with("fn ")))
        .unwrap_or(rest);
    let (kind, rest) = rest.split_once(' ')?;
    let name = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
    ["struct", "enum", "trait", "fn", "type", "const"].contains(&kind).then_some((kind, name))
}

/// The public members of a struct, an enum or a trait.
fn members(source: &Source, line: usize, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_hidden = false;
    for at in source.block(line) {
        let (text, is_hidden) = (&source.lines[at], source.is_hidden(at));
        let depth = text.len() - text.trim_start().len();
        let text = text.trim();
        let is_member = match kind {
            "struct" => depth == 4 && text.starts_with("pub "),
            "enum" => (depth == 4 || depth == 8) && text.starts_with(char::is_alphabetic),
            _ => depth == 4 && (text.starts_with("fn ") || text.starts_with("async fn ")),
        };
        if depth == 4 && !text.starts_with(['/', '#', '}']) {
            in_hidden = is_hidden;
        }
        if is_member && !in_hidden {
            let statement = if kind == "trait" { source.statement(at) } else { text.to_owned() };
            let statement = statement.trim_end_matches([',', '{']).trim_end();
            found.push(format!("{}{}", " ".repeat(depth), statement.trim_start_matches("pub ")));
        }
    }
    found
}

/// The public methods and the traits of a type, from the `impl` blocks of some files.
fn implementations(sources: &[&Source], name: &str) -> Vec<String> {
    let mut methods = Vec::new();
    let mut traits = BTreeSet::new();
    for source in sources {
        for (at, line) in source.lines.iter().enumerate() {
            let Some(rest) = line.strip_prefix("impl").filter(|_| !source.is_hidden(at)) else { continue };
            let rest = rest.trim_end_matches("{}").trim_end_matches('{').trim();
            let rest = if rest.starts_with('<') { rest.split_once("> ").map_or(rest, |(_, rest)| rest) } else { rest };
            let of = |text: &str| text.split(['<', ' ']).next().unwrap().rsplit("::").next().unwrap() == name;
            if let Some((implemented, subject)) = rest.split_once(" for ") {
                if of(subject) {
                    traits.insert(format!("    impl {}", implemented.trim()));
                }
                continue;
            }
            if !of(rest) {
                continue;
            }
            for at in source.block(at) {
                let text = &source.lines[at];
                if text.strip_prefix("    ").and_then(item).is_some() && !source.is_hidden(at) {
                    methods.push(format!("    {}", source.statement(at).trim_start_matches("pub ")));
                }
            }
        }
    }
    methods.extend(traits);
    methods
}

/// The names of types that a signature mentions, without the name of the item itself.
fn types_in(text: &str) -> impl Iterator<Item = &str> {
    let types = text.find([':', '(', '<', '>']).map_or("", |at| &text[at..]);
    let words = types.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with(|letter: char| letter.is_ascii_uppercase()))
}

/// The source files of a module, given by the path of one of its items.
fn files_of<'a>(sources: &'a BTreeMap<PathBuf, Source>, root: &Path, path: &[String]) -> Vec<&'a Source> {
    let mut folder = root.to_owned();
    for part in &path[..path.len() - 1] {
        let file = folder.join(format!("{part}.rs"));
        if file.exists() {
            return vec![&sources[&file]];
        }
        match folder.join(part) {
            inner if inner.is_dir() => folder = inner,
            _ => break,
        }
    }
    sources.iter().filter(|(path, _)| path.starts_with(&folder)).map(|(_, source)| source).collect()
}

/// The public API as text, the number of public names, and the mentioned types of the crate that are not public.
fn public_api() -> (String, usize, BTreeSet<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources: BTreeMap<PathBuf, Source> =
        super::sources(&root).into_iter().map(|path| (path.clone(), Source::read(&path))).collect();
    let (mut text, mut names, mut mentioned) = (String::new(), BTreeSet::new(), BTreeSet::new());
    for (title, file, module) in
        [("daplake", "lib.rs", ""), ("daplake::ops", "ops/mod.rs", "ops"), ("daplake::sink", "sink/mod.rs", "sink")]
    {
        text.push_str(&format!("{}{title}\n", if text.is_empty() { "" } else { "\n" }));
        let mut paths = exports(&sources[&root.join(file)], module);
        paths.sort_by_key(|path| path.last().cloned());
        for path in paths {
            let name = path.last().unwrap().as_str();
            if NOT_LISTED.contains(&name) {
                continue;
            }
            names.insert(name.to_owned());
            if path.len() == 1 && module.is_empty() {
                text.push_str(&format!("  mod {name}\n"));
                continue;
            }
            let files = files_of(&sources, &root, &path);
            let defined: Vec<(&Source, usize, &str)> = files
                .iter()
                .flat_map(|source| source.lines.iter().enumerate().map(move |(at, line)| (*source, at, line)))
                .filter_map(|(source, at, line)| {
                    item(line).filter(|(_, found)| *found == name).map(|(kind, _)| (source, at, kind))
                })
                .collect();
            let [(source, at, kind)] = defined[..] else { panic!("{} is defined {} times", path.join("::"), defined.len()) };
            let derives: Vec<&str> =
                source.attributes(at).filter_map(|line| line.strip_prefix("#[derive(")?.strip_suffix(")]")).collect();
            let mut lines = vec![match kind {
                "fn" | "type" | "const" => source.statement(at).trim_start_matches("pub ").to_owned(),
                _ => format!("{kind} {name}"),
            }];
            if !["fn", "type", "const"].contains(&kind) {
                lines.extend(derives.iter().map(|derived| format!("    derive {derived}")));
                lines.extend(members(source, at, kind));
                lines.extend(implementations(&files, name));
            }
            mentioned.extend(lines.iter().flat_map(|line| types_in(line)).map(str::to_owned));
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    let own = sources.values().flat_map(|source| &source.lines).filter_map(|line| item(line));
    let own: BTreeSet<&str> =
        own.filter(|(kind, _)| ["struct", "enum", "trait"].contains(kind)).map(|(_, name)| name).collect();
    let private = mentioned.into_iter().filter(|name| own.contains(name.as_str()) && !names.contains(name)).collect();
    (text, names.len(), private)
}

#[test]
fn the_public_api_is_the_listed_one() {
    let (api, names, private) = public_api();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/layering/public_api.txt");
    if std::env::var_os("DAPLAKE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &api).unwrap();
    }
    let listed = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    let changed: Vec<&str> = api.lines().filter(|line| !listed.lines().any(|known| known == *line)).collect();
    assert!(api == listed, "the public API differs from {}; new lines: {changed:#?}", path.display());
    assert!(names <= MOST_NAMES, "{names} public names");
    assert!(private.is_empty(), "the public API mentions private types: {private:?}");
}
