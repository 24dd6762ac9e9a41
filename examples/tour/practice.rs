//! What every example needs: an embedded server with a school, a client, an engine, and the tables to load.

use std::sync::Arc;
use std::time::Duration;

use daplake::demo::school::{School, SchoolOptions};
use daplake::demo::serve::{ServeOptions, Server};
use daplake::ops::Selection;
use daplake::{Client, ClientOptions, Credentials, Engine, EngineOptions, Error, Kind, Pacing, Result, Secret};

/// Starts the embedded server and creates a client. With your own API key you need only the client.
pub async fn start() -> Result<(Arc<School>, Server, Client)> {
    let school = Arc::new(School::new(SchoolOptions { commits: 1, ..SchoolOptions::default() }));
    let serving = ServeOptions { credentials: ("example#client".into(), "example-secret".into()), ..ServeOptions::instant() };
    let server = Server::start(school.clone(), serving).await?;
    let credentials = Credentials { client_id: "example#client".into(), client_secret: Secret::new("example-secret") };
    // The server answers at once, so polls need not wait and job starts need no limit.
    let client = Client::new(ClientOptions {
        pacing: Pacing::off(),
        poll: (Duration::from_millis(20), Duration::from_secs(1)),
        ..ClientOptions::new(server.url(), credentials)
    })?;
    Ok((school, server, client))
}

/// The engine: 256 MiB of memory, spill files in the system's temporary folder, two streams per table.
pub fn engine() -> Result<Engine> {
    Engine::new(EngineOptions { memory_limit: 256 << 20, temp_dir: None, partitions: 2 })
}

/// Two tables of one namespace.
pub fn selection() -> Selection {
    Selection { namespaces: vec!["canvas".into()], tables: vec!["users".into(), "accounts".into()], exclude: Vec::new() }
}

/// A folder that is removed at the end of the example.
pub fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|error| Error::new(Kind::Io, "Cannot create a temporary folder").caused_by(error))
}
