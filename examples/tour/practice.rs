//! What every example needs: a served school, a client of it, an engine, and the tables to load.

use std::sync::Arc;
use std::time::Duration;

use daplake::Result;
use daplake::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
use daplake::demo::school::{School, SchoolOptions};
use daplake::demo::serve::{ServeOptions, Server};
use daplake::engine::{Engine, EngineOptions};
use daplake::ops::Selection;
use daplake::redact::Secret;

/// Starts the embedded server. With your own key, only the client is needed: give it the address of the service and the key.
pub async fn start() -> Result<(Arc<School>, Server, Client)> {
    let school = Arc::new(School::new(SchoolOptions { commits: 1, ..SchoolOptions::default() }));
    let serving = ServeOptions { credentials: ("example#client".into(), "example-secret".into()), ..ServeOptions::instant() };
    let server = Server::start(school.clone(), serving).await?;
    let client = Client::new(ClientOptions {
        base_url: server.url(),
        credentials: Credentials { client_id: "example#client".into(), client_secret: Secret::new("example-secret") },
        pacing: Pacing { job_starts: 0, ..Pacing::default() },
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_millis(20), Duration::from_secs(1)),
        idle_timeout: Duration::from_secs(60),
    })?;
    Ok((school, server, client))
}

/// Memory limit in bytes, folder for spilled rows, and number of streams per table.
pub fn engine() -> Result<Engine> {
    Engine::new(EngineOptions { memory_limit: 256 << 20, temp_dir: None, partitions: 2 })
}

/// Two tables of one namespace.
pub fn selection() -> Selection {
    Selection { namespaces: vec!["canvas".into()], tables: vec!["users".into(), "accounts".into()], exclude: Vec::new() }
}

/// A folder that disappears with the example.
pub fn folder() -> Result<tempfile::TempDir> {
    use daplake::error::{Kind, ResultExt};
    tempfile::tempdir().context(Kind::Io, "A temporary folder cannot be made")
}
