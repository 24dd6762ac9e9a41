//! What goes into the client and comes out of it. The wire format is in `wire.rs`.

use crate::model::{Bookmark, Format, Mode, TableRef, Timestamp, Window};
use crate::redact::Secret;

/// An API key.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Such as `us-east-1#...`; not secret, but logged only where the official client does.
    pub client_id: String,
    /// Shown once when the key was made.
    pub client_secret: Secret,
}

/// A question to the service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// Of which table.
    pub table: TableRef,
    /// In which file format.
    pub format: Format,
    /// Absent: the server's default (expanded).
    pub mode: Option<Mode>,
    /// Snapshot or increment.
    pub window: Window,
}

/// A table schema as the service gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionedSchema {
    /// JSON Schema with `properties.meta/key/value`.
    pub schema: serde_json::Value,
    /// Strictly growing.
    pub version: i64,
}

/// Id of one result file; valid as long as its job, typically 24 h.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub String);

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// Not begun.
    Waiting,
    /// Under way. An unknown status word counts as this, with a warning.
    Running,
    /// Objects are there.
    Complete,
    /// Ended with an error.
    Failed,
}

/// A complete job and what it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedJob {
    /// Its id.
    pub id: String,
    /// What was asked.
    pub query: Query,
    /// Result files, in the service's order; may be empty (no changes).
    pub objects: Vec<ObjectId>,
    /// Version of the schema that the rows follow.
    pub schema_version: i64,
    /// `since` as answered, for increments.
    pub since: Option<Timestamp>,
    /// `at` of a snapshot, `until` of an increment: the next `since`.
    pub reached: Timestamp,
    /// When job and objects vanish.
    pub expires_at: Option<Timestamp>,
}

impl FinishedJob {
    /// The bookmark a load of this job reaches.
    pub fn bookmark(&self) -> Bookmark {
        Bookmark { at: self.reached, schema_version: self.schema_version }
    }
}
