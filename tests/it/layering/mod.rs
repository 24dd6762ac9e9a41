//! The rule of `docs/development/architecture.md`: data flows down the list of modules, imports go up. Reads every `crate::name` in `src`.

mod cycles;
mod public_api;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::files_below;

const BASE: [&str; 9] = ["error", "redact", "progress", "model", "panics", "channel", "worker_thread", "child", "tls_roots"];

/// What each module may import besides the base modules.
const ALLOWED: &[(&str, &[&str])] = &[
    ("redact", &[]),
    ("error", &["redact"]),
    ("progress", &[]),
    ("panics", &["error"]),
    ("channel", &["error", "panics"]),
    ("worker_thread", &["error", "panics"]),
    ("child", &[]),
    ("tls_roots", &["error"]),
    ("model", &["error", "redact"]),
    ("schema", &[]),
    ("api", &[]),
    ("fetch", &["api"]),
    ("decode", &["schema"]),
    ("scan", &["api", "fetch", "decode", "schema"]),
    ("engine", &[]),
    ("reduce", &["schema", "engine"]),
    ("store", &[]),
    ("sink", &["schema", "engine", "reduce", "store"]),
    ("catalog", &["store", "sink"]),
    ("ops", &["api", "fetch", "decode", "scan", "schema", "engine", "reduce", "store", "sink", "catalog"]),
    ("cluster", &["api", "fetch", "decode", "scan", "schema", "engine", "reduce", "sink", "ops"]),
    ("page", &["schema", "ops"]),
    ("cli", &["api", "schema", "engine", "reduce", "store", "sink", "ops", "page", "cluster", "demo"]),
    ("demo", &[]),
];

/// The Rust files below a folder.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// First names after `crate::`, grouped imports included; comments do not count.
fn imports(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let text = code.join("\n");
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (place, _) in text.match_indices("crate::") {
        let rest = &text[place + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if c.is_whitespace() => {}
                    _ if depth == 0 && start => {
                        found.insert(word(&group[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.insert(word(rest));
        }
    }
    found.remove("");
    found
}

#[test]
fn every_module_imports_only_modules_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let files = sources(&root);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for path in files {
        let inside = path.strip_prefix(&root).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main", "internals"].contains(&module.as_str()) {
            continue;
        }
        let rule = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no rule"));
        seen.insert(module.clone());
        // Tests may use the rows of the embedded server.
        let is_test = inside.iter().any(|part| part == "tests" || part == "tests.rs");
        for name in imports(&std::fs::read_to_string(&path).unwrap()) {
            let floor = BASE.contains(&name.as_str()) && !BASE.contains(&module.as_str());
            let is_allowed = name == module || floor || rule.contains(&name.as_str()) || (is_test && name == "demo");
            if !is_allowed {
                wrong.push(format!("{} imports {name}", inside.display()));
            }
        }
    }
    assert_eq!(seen.len(), ALLOWED.len(), "every rule has its module");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn no_sink_imports_another() {
    let sinks = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sink");
    let names: Vec<String> = sinks
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(!names.is_empty());
    // Parquet folders keep their versions in a Delta log.
    let may_import = |name: &str, other: &str| name == "parquet_folder" && other == "delta";
    for name in &names {
        for path in sources(&sinks.join(name)) {
            let text = std::fs::read_to_string(&path).unwrap();
            for other in names.iter().filter(|other| *other != name && !may_import(name, other)) {
                assert!(!text.contains(&format!("sink::{other}")), "{} imports {other}", path.display());
            }
        }
    }
}

/// Not every machine can compile for other systems, so each call that only Unix has must follow its `cfg` within a few lines.
#[test]
fn code_for_unix_only_has_a_condition() {
    const UNIX_ONLY: [&str; 6] = ["std::os::unix", "std::os::linux", "rustix::", "signal::unix", "UnixDatagram", "UnixStream"];
    const CONDITIONS: [&str; 3] = ["cfg(unix)", "cfg(all(unix", "target_os ="];
    const CLOSE: usize = 12;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = [sources(&root.join("src")), sources(&root.join("tests/it"))].concat();
    files.retain(|path| !path.starts_with(root.join("tests/it/layering")));
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| UNIX_ONLY.iter().any(|word| line.contains(word))) {
            seen += 1;
            let above = &lines[number.saturating_sub(CLOSE)..number];
            if !above.iter().any(|line| CONDITIONS.iter().any(|condition| line.contains(condition))) {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(seen > 5, "the patterns still match the source");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn each_large_library_has_one_version() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for name in ["arrow", "parquet", "datafusion", "object_store", "deltalake-core"] {
        assert_eq!(lock.matches(&format!("name = \"{name}\"\n")).count(), 1, "{name}");
    }
}
