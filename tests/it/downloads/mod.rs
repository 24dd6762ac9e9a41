//! Compatibility with scripts for the official client: commands, options, variables, streams, files and exit codes of the built program,
//! against the embedded server.

mod files;
mod library;
mod resume;
mod streams;
mod usage;

use std::path::{Path, PathBuf};
use std::process::Command;

use daplake::TableRef;
use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::ServeOptions;

use crate::support::{Run, World, canvas, school, serving};

/// Accounts, courses and users; users have 8 objects.
pub async fn small_world() -> World {
    world_of(&[canvas("accounts"), canvas("courses"), canvas("users")]).await
}

pub async fn world_of(tables: &[TableRef]) -> World {
    let school = SchoolOptions { table_rows: vec![(canvas("users"), 250)], ..school(tables) };
    World::with(school, ServeOptions { rows_per_object: 32, ..serving() }).await
}

pub fn run(command: &mut Command) -> Run {
    Run::of(command.output().unwrap())
}

/// The text without the ids, which differ from run to run.
pub fn filtered(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let mut words = Vec::new();
        for word in line.split(' ') {
            words.push(filtered_word(word));
        }
        out.push_str(&words.join(" "));
    }
    out
}

fn filtered_word(word: &str) -> String {
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut word = word.to_owned();
    let mut at = 0;
    while let Some(candidate) = word.get(at..at + 36) {
        let lengths: Vec<usize> = candidate.split('-').map(str::len).collect();
        if lengths == [8, 4, 4, 4, 12] && candidate.split('-').all(is_hex) {
            word.replace_range(at..at + 36, "<id>");
        }
        at += 1;
        while at < word.len() && !word.is_char_boundary(at) {
            at += 1;
        }
    }
    word
}

/// Names of the entries of a folder, sorted, including hidden ones.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The only job folder below `downloads`.
pub fn job_folder(world: &World, downloads: &str) -> PathBuf {
    let folder = world.path(downloads);
    let jobs: Vec<String> = names(&folder).into_iter().filter(|name| name.starts_with("job_")).collect();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    folder.join(&jobs[0])
}
