//! The id spaces of all tables, which rows need in order to refer to other tables. Columns and history are unknown here.

use std::collections::HashMap;

use super::scale;
use crate::demo::school::catalogue::index::ENTRIES;
use crate::demo::school::values::keys::{KeyKind, Space};
use crate::demo::school::values::random::{mix, part_of, salt, unit};

/// The id spaces of one school.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    spaces: Vec<Space>,
    names: HashMap<String, usize>,
}

impl World {
    /// `rows_of` returns the number of rows of a table (by full name) where it differs from the proportion.
    pub(super) fn new(seed: u64, submissions: u64, rows_of: impl Fn(&str) -> Option<u64>) -> Self {
        let mut world = Self { seed, spaces: Vec::new(), names: HashMap::new() };
        for entry in ENTRIES {
            let name = entry.full_name();
            let kind = match (entry.namespace, entry.table) {
                ("canvas_logs", _) => KeyKind::Uuid,
                ("canvas", _) => KeyKind::Sharded,
                _ => KeyKind::Plain,
            };
            world.add(&name, rows_of(&name).unwrap_or_else(|| scale::rows(&name, submissions)), kind);
        }
        for target in ENTRIES.iter().flat_map(|entry| entry.references).flat_map(|(_, targets)| *targets) {
            if !world.names.contains_key(*target) {
                world.add(target, scale::rows(target, submissions), KeyKind::Plain);
            }
        }
        // The key of `enrollment_states` is the id of an enrollment.
        let (states, enrollments) = (world.names["canvas.enrollment_states"], world.names["canvas.enrollments"]);
        world.spaces[states] = world.spaces[enrollments].clone();
        world
    }

    fn add(&mut self, name: &str, rows: u64, kind: KeyKind) {
        self.names.insert(name.to_owned(), self.spaces.len());
        self.spaces.push(Space { salt: mix(self.seed ^ salt(name)), rows, kind });
    }

    pub(super) fn find(&self, table: &str) -> Option<usize> {
        self.names.get(table).copied()
    }

    #[inline]
    pub(super) fn space(&self, table: usize) -> &Space {
        &self.spaces[table]
    }
}

/// A column's reference to the rows of another table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    pub(super) table: usize,
    salt: u64,
    /// Early rows are referenced much more often: a few courses have most of the students.
    skewed: bool,
}

impl Reference {
    pub(super) fn new(world: &World, target: &str, column: &str) -> Option<Self> {
        let skewed =
            ["canvas.courses", "canvas.accounts", "canvas.roles", "catalog.accounts", "catalog.products"].contains(&target);
        world.find(target).map(|table| Self { table, salt: salt(column), skewed })
    }

    /// The referenced row for a seed: a row of the target's first commit, or 0 if it has none.
    #[inline]
    pub(super) fn row(&self, world: &World, seed: u64) -> u64 {
        let hash = mix(seed ^ self.salt);
        let rows = world.space(self.table).rows;
        if self.skewed {
            let part = unit(hash);
            (part * part * rows as f64) as u64
        } else {
            part_of(hash, rows)
        }
    }

    #[inline]
    pub(super) fn id(&self, world: &World, seed: u64) -> i64 {
        world.space(self.table).id(self.row(world, seed))
    }
}

/// The table that a value of a `*_type` column names, without its namespace.
pub(super) fn table_of(word: &str) -> Option<String> {
    let irregular = match word {
        "Announcement" => "discussion_topics",
        "StudentEnrollment" => "enrollments",
        "UserProfile" => "users",
        "Purgatory" => "purgatories",
        "Quizzes::Quiz" => "quizzes",
        "Quizzes::QuizStatistics" => "quiz_statistics",
        "Quizzes::QuizSubmission" => "quiz_submissions",
        "SisBatch" => "sis_batches",
        "ADHOC"
        | "Noop"
        | "College"
        | "Department"
        | "CoursePace"
        | "MediaTrack"
        | "ContextModuleSubHeader"
        | "ExternalUrl" => {
            return None;
        }
        _ => "",
    };
    if !irregular.is_empty() {
        return Some(irregular.to_owned());
    }
    let mut name = String::with_capacity(word.len() + 4);
    for (place, letter) in word.replace("::", "").char_indices() {
        if letter.is_ascii_uppercase() && place > 0 {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name.push('s');
    Some(name)
}

/// The value of a `*_type` column without an enum for a table.
pub(super) fn word_of(table: &str) -> Option<&'static str> {
    Some(match table {
        "catalog.accounts" => "Account",
        "catalog.products" => "Product",
        "canvas.assessment_question_banks" => "AssessmentQuestionBank",
        "canvas.courses" => "Course",
        _ => return None,
    })
}
