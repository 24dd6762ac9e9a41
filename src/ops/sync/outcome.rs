//! The result of one table of a run.

use crate::decode::DecodeCounts;
use crate::model::{TableRef, Timestamp, counted};
use crate::ops::runs::{Outcome, Phases};
use crate::redact::visible;
use crate::schema::TableSchema;
use crate::sink::CommittedState;

/// The service keeps logs for 30 days. The warning leaves time to sync before rows are lost.
const LOG_WARNING_DAYS: i64 = 20;

/// The result of a table that did not fail.
pub(super) struct TableOutcome {
    pub(super) outcome: Outcome,
    pub(super) job_id: Option<String>,
    pub(super) phases: Phases,
    pub(super) warnings: Vec<String>,
}

impl TableOutcome {
    /// A result without any work.
    pub(super) fn of(outcome: Outcome) -> Self {
        Self { outcome, job_id: None, phases: Phases::default(), warnings: Vec::new() }
    }

    /// Combines a load with that of the following increment.
    pub(super) fn then(self, next: TableOutcome) -> Self {
        let mut warnings = self.warnings;
        warnings.extend(next.warnings.into_iter().filter(|warning| !warnings.contains(warning)).collect::<Vec<_>>());
        let phases = Phases {
            job: self.phases.job + next.phases.job,
            load: self.phases.load + next.phases.load,
            commit: self.phases.commit + next.phases.commit,
        };
        let (outcome, job_id) = match (self.outcome, next.outcome) {
            (
                Outcome::Loaded { query, upserted, deleted, objects, bytes_written, bad_rows, schema_changes, .. },
                Outcome::Loaded {
                    upserted: more_upserted,
                    deleted: more_deleted,
                    rows,
                    objects: more_objects,
                    bytes_written: more_bytes,
                    bad_rows: more_bad_rows,
                    bookmark,
                    schema_version,
                    schema_changes: more_changes,
                    ..
                },
            ) => {
                let outcome = Outcome::Loaded {
                    query,
                    upserted: upserted + more_upserted,
                    deleted: deleted + more_deleted,
                    rows,
                    objects: objects + more_objects,
                    bytes_written: bytes_written + more_bytes,
                    bad_rows: bad_rows + more_bad_rows,
                    bookmark,
                    schema_version,
                    schema_changes: schema_changes.into_iter().chain(more_changes).collect(),
                };
                (outcome, next.job_id)
            }
            (Outcome::Unchanged { .. }, loaded @ Outcome::Loaded { .. }) => (loaded, next.job_id),
            (first, _) => (first, self.job_id),
        };
        Self { outcome, job_id, phases, warnings }
    }
}

/// Notes about a load for people, one sentence each.
pub(super) fn warnings(
    table: &TableRef,
    committed: Option<&CommittedState>,
    schema: &TableSchema,
    counts: &DecodeCounts,
    repeated_keys: u64,
    of_target: Vec<String>,
) -> Vec<String> {
    let mut warnings = schema.warnings.clone();
    warnings.extend(of_target);
    let mut note = |count: u64, before: &str, noun: &str, after: &str| {
        if count > 0 {
            warnings.push(format!("{before}{}{after}", counted(count, noun)));
        }
    };
    note(counts.bad_rows, "wrote ", "unreadable row", " to the file for bad rows");
    note(counts.oversized, "the service sent placeholders for ", "value", " over its size limit");
    note(counts.cut_fractions, "truncated ", "timestamp", " to microseconds");
    note(counts.nulled_times, "stored null for ", "time", " outside the years 1 to 9999");
    note(counts.required_nulls, "required columns have ", "null", "");
    // Logs repeat rows by design.
    let advice = if table.is_log() {
        ""
    } else {
        ". Keys should be unique: load a new snapshot with --resnapshot after 24 hours, because the service returns the same result until \
         then; if the number stays, report it to the service's support"
    };
    note(
        repeated_keys,
        "dropped ",
        "row",
        &format!(" of the snapshot with the key of another row; the latest row of each key was loaded{advice}"),
    );
    if !counts.unknown_columns.is_empty() {
        let names: Vec<&str> = counts.unknown_columns.iter().map(String::as_str).take(10).collect();
        warnings.push(format!("columns that are not in the schema were ignored: {}", names.join(", ")));
    }
    if !counts.absent_columns.is_empty() {
        let names: Vec<&str> = counts.absent_columns.iter().map(String::as_str).take(10).collect();
        warnings.push(format!("columns are missing in the service's files and null in the loaded rows: {}", names.join(", ")));
    }
    if let (true, Some(state)) = (table.is_log(), committed) {
        let days = (Timestamp::now().micros() - state.bookmark.at.micros()) / 86_400_000_000;
        if days > LOG_WARNING_DAYS {
            warnings.push(format!(
                "the table was {days} days old; the service keeps logs for 30 days, so older rows may be missing"
            ));
        }
    }
    // The service's names may hold control characters.
    let warnings: Vec<String> = warnings.iter().map(|warning| visible(warning).into_owned()).collect();
    for warning in &warnings {
        tracing::info!(table = %table, warning, "Note");
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_escape_control_characters_of_names() {
        let table = TableRef::new("canvas", "users");
        let group = serde_json::json!({"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]});
        let schema =
            serde_json::json!({"type": "object", "properties": {"key": group, "value": {"type": "object", "properties": {}}}});
        let schema = TableSchema::read(&table, 1, schema).unwrap();
        let counts = DecodeCounts { unknown_columns: [String::from("a\u{202e}\u{9b}b")].into(), ..DecodeCounts::default() };
        let notes = warnings(&table, None, &schema, &counts, 0, Vec::new());
        assert_eq!(notes, ["columns that are not in the schema were ignored: a\\u202e\\u009bb"]);
    }
}
