//! A PostgreSQL server for tests: an existing one, or a private cluster in a temporary folder. Tables are read with `psql`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A database of its own for one test; the server ends with the last of them.
pub struct Database {
    pub url: String,
    cluster: Arc<Cluster>,
}

struct Cluster {
    /// `postgresql://user@host:port/`, without a database.
    base: String,
    /// A database to connect to for making others, with the query string.
    first: String,
    bin: PathBuf,
    server: Option<(Child, tempfile::TempDir)>,
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Database {
    /// `None` when there is no server and none is required.
    pub fn new() -> Option<Self> {
        let cluster = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            match shared.upgrade() {
                Some(cluster) => cluster,
                None => {
                    let cluster = Arc::new(Cluster::new()?);
                    *shared = Arc::downgrade(&cluster);
                    cluster
                }
            }
        };
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        cluster.psql(&cluster.first, &format!("CREATE DATABASE {name}"));
        let (base, first) = (&cluster.base, &cluster.first);
        let query = first.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
        Some(Self { url: format!("{base}{name}{query}"), cluster })
    }

    /// What a statement prints, without headings.
    pub fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.url, sql)
    }

    /// The lines of a query of one JSON column. `psql` leaves characters out of what it prints as a table, but not of a copy;
    /// JSON has neither of the control characters, so that nothing is quoted.
    pub fn json(&self, select: &str) -> String {
        self.psql(&format!("COPY ({select}) TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"))
    }
}

impl Cluster {
    fn new() -> Option<Self> {
        let bin = binaries();
        if let Ok(url) = std::env::var("DAPLAKE_TEST_POSTGRES") {
            let base = url[..url.rfind('/').expect("a URL with a database") + 1].to_owned();
            return Some(Self { base, first: url, bin: bin.unwrap_or_default(), server: None });
        }
        let Some(bin) = bin else {
            let required =
                std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "postgres"));
            assert!(!required, "there is no PostgreSQL, and DAPLAKE_TEST_POSTGRES is not set");
            eprintln!("not run: postgres (install PostgreSQL, or set DAPLAKE_TEST_POSTGRES)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        // The server refuses to be run by root.
        let is_root = output(Command::new("id").arg("-u")).trim() == "0";
        let group = is_root.then(|| output(Command::new("id").args(["-g", "nobody"])).trim().to_owned());
        if is_root {
            output(Command::new("chown").arg("nobody").arg(folder.path()));
        }
        let program = |name: &str| match &group {
            None => Command::new(bin.join(name)),
            Some(group) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=nobody", &format!("--regid={group}"), "--clear-groups"]).arg(bin.join(name));
                command
            }
        };
        let mut initdb = program("initdb");
        initdb.args(["-A", "trust", "-U", "daplake", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]).arg(&data);
        output(initdb.current_dir(folder.path()));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(&data).args(["-p", &port.to_string()]).current_dir(folder.path());
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=60"] {
            postgres.args(["-c", setting]);
        }
        let server = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let base = format!("postgresql://daplake@127.0.0.1:{port}/");
        let cluster = Self { first: format!("{base}postgres"), base, bin, server: Some((server, folder)) };
        let begun = Instant::now();
        while !Command::new(cluster.bin.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()
            .unwrap()
            .success()
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(cluster)
    }

    fn psql(&self, url: &str, sql: &str) -> String {
        let psql = if self.bin.as_os_str().is_empty() { PathBuf::from("psql") } else { self.bin.join("psql") };
        let url = url.replace("ssl=", "sslmode=");
        let mut command = Command::new(psql);
        command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]);
        output(command.env("PGTZ", "UTC").env("PGCLIENTENCODING", "UTF8"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((server, _)) = &mut self.server {
            // At once, without leaving processes behind.
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

/// Where the programs are: in the path, or where Debian keeps them.
fn binaries() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let versions = std::path::Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    folders.extend(versions.map(|entry| entry.path().join("bin")));
    folders
        .into_iter()
        .find(|folder| ["initdb", "postgres", "psql", "pg_isready"].iter().all(|name| folder.join(name).is_file()))
}

fn output(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
