//! The house rule of `docs/development/architecture.md`: data goes down the page, imports go up. Reads every `crate::name` in `src`.

mod cycles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FLOOR: [&str; 9] = ["error", "redact", "progress", "model", "panics", "channel", "worker_thread", "child", "tls_roots"];

/// What each module may import besides the floor.
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
    ("ops", &["api", "fetch", "decode", "scan", "schema", "engine", "reduce", "store", "sink"]),
    ("cluster", &["api", "fetch", "decode", "scan", "schema", "engine", "reduce", "sink", "ops"]),
    ("page", &["schema", "ops"]),
    ("cli", &["api", "schema", "engine", "reduce", "store", "sink", "ops", "page", "cluster", "demo"]),
    ("demo", &[]),
];

pub fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
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
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for path in files {
        let inside = path.strip_prefix(&root).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let rule = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no rule"));
        seen.insert(module.clone());
        // Tests may take their rows from the made-up school.
        let is_test = inside.iter().any(|part| part == "tests" || part == "tests.rs");
        for name in imports(&std::fs::read_to_string(&path).unwrap()) {
            let floor = FLOOR.contains(&name.as_str()) && !FLOOR.contains(&module.as_str());
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
    // Folders of Parquet files keep their versions in a Delta log.
    let may_know = |name: &str, other: &str| name == "parquet_folder" && other == "delta";
    for name in &names {
        let mut files = Vec::new();
        sources(&sinks.join(name), &mut files);
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            for other in names.iter().filter(|other| *other != name && !may_know(name, other)) {
                assert!(!text.contains(&format!("sink::{other}")), "{} knows {other}", path.display());
            }
        }
    }
}

/// Other systems cannot be compiled for everywhere; so at least each call that only Unix has must stand close below its condition.
#[test]
fn code_for_unix_only_has_a_condition() {
    const ONLY_THERE: [&str; 6] = ["std::os::unix", "std::os::linux", "rustix::", "signal::unix", "UnixDatagram", "UnixStream"];
    const CONDITIONS: [&str; 3] = ["cfg(unix)", "cfg(all(unix", "target_os ="];
    const CLOSE: usize = 12;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests/it"), &mut files);
    files.retain(|path| !path.starts_with(root.join("tests/it/layering")));
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| ONLY_THERE.iter().any(|word| line.contains(word))) {
            seen += 1;
            let above = &lines[number.saturating_sub(CLOSE)..number];
            if !above.iter().any(|line| CONDITIONS.iter().any(|condition| line.contains(condition))) {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(seen > 5, "the words are still those of the source");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn each_large_library_has_one_version() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for name in ["arrow", "parquet", "datafusion", "object_store", "deltalake-core"] {
        assert_eq!(lock.matches(&format!("name = \"{name}\"\n")).count(), 1, "{name}");
    }
}
