//! The parameters and results of the client. The wire format is in `wire.rs`.

use crate::model::{Bookmark, Format, Mode, TableRef, Timestamp, Window};
use crate::redact::Secret;

/// An API key.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The client id, such as `us-east-1#...`. It is not a secret.
    pub client_id: String,
    /// The client secret, which the service shows once, when the key is created.
    pub client_secret: Secret,
}

/// A query of one table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// The table.
    pub table: TableRef,
    /// The file format of the result.
    pub format: Format,
    /// How nested objects are written. `None`: the service's default, which is expanded.
    pub mode: Option<Mode>,
    /// Snapshot or increment.
    pub window: Window,
}

/// The schema of a table as the service returns it.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionedSchema {
    /// A JSON Schema with `properties.meta`, `.key` and `.value`.
    pub schema: serde_json::Value,
    /// The version. Versions grow strictly.
    pub version: i64,
}

/// The id of a result file. It is valid as long as its job, typically 24 hours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub String);

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// Not started yet.
    Waiting,
    /// Running. An unknown status counts as this, with a warning.
    Running,
    /// Finished; the objects are available.
    Complete,
    /// Failed.
    Failed,
}

/// A complete job with its result.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedJob {
    /// The id of the job.
    pub id: String,
    /// The query.
    pub query: Query,
    /// The result files, in the service's order. Empty if there are no changes.
    pub objects: Vec<ObjectId>,
    /// The schema version of the rows.
    pub schema_version: i64,
    /// The `since` in the service's response, for increments.
    pub since: Option<Timestamp>,
    /// The `at` of a snapshot or the `until` of an increment: the `since` of the next increment.
    pub reached: Timestamp,
    /// When the job and its objects expire.
    pub expires_at: Option<Timestamp>,
}

impl FinishedJob {
    /// The bookmark of a table after this job has been loaded.
    pub fn bookmark(&self) -> Bookmark {
        Bookmark { at: self.reached, schema_version: self.schema_version }
    }
}
