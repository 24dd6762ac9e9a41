//! A PostgreSQL server for tests: an existing one, or a private cluster in a temporary folder. Tables are read with `psql`.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A database for one test. The server stops when the last one is dropped.
pub struct Database {
    pub url: String,
    cluster: Arc<Cluster>,
}

struct Cluster {
    /// `postgresql://user@host:port/`, without a database.
    base: String,
    /// The URL of the database from which others are created, with the query string.
    first: String,
    bin: PathBuf,
    own: Option<Mutex<Own>>,
}

/// The installed server, and the newest one.
static SHARED: [Mutex<Weak<Cluster>>; 2] = [const { Mutex::new(Weak::new()) }; 2];

impl Database {
    /// A database on the installed server. `None` if there is no server and none is required.
    pub fn new() -> Option<Self> {
        Self::shared(0, Cluster::new)
    }

    /// A database on the newest server, in the folder `DAPLAKE_TEST_POSTGRES_NEWEST` (see `tests/run`). `None` if there is none and none is
    /// required.
    pub fn newest() -> Option<Self> {
        Self::shared(1, || Some(Cluster::private(newest_binaries()?)))
    }

    fn shared(place: usize, start: impl FnOnce() -> Option<Cluster>) -> Option<Self> {
        let cluster = {
            let mut shared = SHARED[place].lock();
            match shared.upgrade() {
                Some(cluster) => cluster,
                None => {
                    let cluster = Arc::new(start()?);
                    *shared = Arc::downgrade(&cluster);
                    cluster
                }
            }
        };
        Some(Self::of(cluster))
    }

    /// Like [`Database::alone`], on the newest server.
    pub fn newest_alone() -> Option<Self> {
        Some(Self::of(Arc::new(Cluster::private(newest_binaries()?))))
    }

    /// A database on a server of its own. `None` if there is none and none is required.
    pub fn alone() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(!is_required(), "there is no PostgreSQL");
            eprintln!("not run: a private postgres (install PostgreSQL)");
            return None;
        };
        Some(Self::of(Arc::new(Cluster::private(bin))))
    }

    fn of(cluster: Arc<Cluster>) -> Self {
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        cluster.psql(&cluster.first, &format!("CREATE DATABASE {name}"));
        let (base, first) = (&cluster.base, &cluster.first);
        let query = first.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
        Self { url: format!("{base}{name}{query}"), cluster }
    }

    /// Kills the server, which must be its own, and starts it again.
    pub fn crash(&self) {
        self.cluster.own.as_ref().expect("a server of its own").lock().again("-QUIT");
    }

    /// The output of a statement, without headings.
    pub fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.url, sql)
    }

    /// The same database, for another thread.
    pub fn again(other: &Self) -> Self {
        Self { url: other.url.clone(), cluster: Arc::clone(&other.cluster) }
    }

    /// The connection string of another user, who needs no password on a private server.
    pub fn url_of(&self, user: &str) -> String {
        self.url.replacen("//daplake@", &format!("//{user}@"), 1)
    }

    /// The name of the database.
    pub fn name(&self) -> &str {
        let name = &self.url[self.url.rfind('/').unwrap() + 1..];
        name.split('?').next().unwrap()
    }

    /// The lines of a query of one JSON column, by `COPY`: `psql` drops some characters from tables. JSON text has no control characters, so
    /// nothing is escaped.
    pub fn json(&self, select: &str) -> String {
        self.psql(&format!("COPY ({select}) TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"))
    }
}

impl Cluster {
    fn new() -> Option<Self> {
        let bin = binaries();
        if let Ok(url) = std::env::var("DAPLAKE_TEST_POSTGRES") {
            let base = url[..url.rfind('/').expect("a URL with a database") + 1].to_owned();
            return Some(Self { base, first: url, bin: bin.unwrap_or_default(), own: None });
        }
        let Some(bin) = bin else {
            assert!(!is_required(), "there is no PostgreSQL, and DAPLAKE_TEST_POSTGRES is not set");
            eprintln!("not run: postgres (install PostgreSQL, or set DAPLAKE_TEST_POSTGRES)");
            return None;
        };
        Some(Self::private(bin))
    }

    fn private(bin: PathBuf) -> Self {
        let server = Own::start(&bin, "host all all 127.0.0.1/32 trust\n", &[]);
        let base = format!("postgresql://daplake@127.0.0.1:{}/", server.port);
        Self { first: format!("{base}postgres"), base, bin, own: Some(Mutex::new(server)) }
    }

    fn psql(&self, url: &str, sql: &str) -> String {
        psql(&self.bin, url, sql)
    }
}

/// A private cluster. The superuser `daplake` needs no password on the socket; tests configure further access.
pub struct Own {
    pub port: u16,
    bin: PathBuf,
    folder: tempfile::TempDir,
    settings: Vec<String>,
    server: Child,
}

impl Own {
    /// Starts a cluster with lines of `pg_hba.conf` and settings such as `ssl=on`. `prepare` creates the files that they refer to. `None` if there
    /// is no server and none is required, or if it is an existing one.
    pub fn new(access: &str, settings: &[&str], prepare: impl FnOnce(&Path)) -> Option<Self> {
        let bin = binaries();
        assert!(bin.is_some() || !is_required(), "there is no PostgreSQL");
        let Some(bin) = bin else {
            eprintln!("not run: a private postgres (install PostgreSQL)");
            return None;
        };
        Some(Self::start_with(&bin, access, settings, prepare))
    }

    fn start(bin: &Path, access: &str, settings: &[&str]) -> Self {
        Self::start_with(bin, access, settings, |_| {})
    }

    fn start_with(bin: &Path, access: &str, settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        if is_root() {
            output(Command::new("chown").arg("nobody").arg(folder.path()));
        }
        let mut initdb = program(bin, "initdb");
        initdb.args(["-A", "trust", "-U", "daplake", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]).arg(&data);
        output(initdb.current_dir(folder.path()));
        std::fs::write(data.join("pg_hba.conf"), format!("local all daplake trust\n{access}")).unwrap();
        prepare(&data);
        if is_root() {
            output(Command::new("chown").args(["-R", "nobody"]).arg(&data));
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sockets = format!("unix_socket_directories={}", folder.path().display());
        let fixed = ["listen_addresses=127.0.0.1", &sockets, "fsync=off", "max_connections=60"];
        let settings: Vec<String> = fixed.iter().chain(settings).map(|setting| setting.to_string()).collect();
        let server = serve(bin, folder.path(), port, &settings);
        Self { port, bin: bin.to_owned(), folder, settings, server }
    }

    /// The folder of the socket.
    pub fn sockets(&self) -> &Path {
        self.folder.path()
    }

    /// The output of a statement of the superuser in the database `postgres`.
    pub fn psql(&self, sql: &str) -> String {
        let url = format!("postgresql:///postgres?host={}&port={}&user=daplake", self.folder.path().display(), self.port);
        psql(&self.bin, &url, sql)
    }

    /// Restarts the server: sessions end, rows stay.
    pub fn restart(&mut self) {
        self.again("-INT");
    }

    fn again(&mut self, signal: &str) {
        stop(&mut self.server, signal);
        self.server = serve(&self.bin, self.folder.path(), self.port, &self.settings);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Immediately, without leaving processes behind.
        stop(&mut self.server, "-QUIT");
    }
}

fn is_required() -> bool {
    requires("postgres")
}

fn requires(part: &str) -> bool {
    std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == part))
}

fn newest_binaries() -> Option<PathBuf> {
    let folder = std::env::var_os("DAPLAKE_TEST_POSTGRES_NEWEST").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        assert!(!requires("postgres-newest"), "DAPLAKE_TEST_POSTGRES_NEWEST is not set");
        eprintln!("not run: the newest PostgreSQL (set DAPLAKE_TEST_POSTGRES_NEWEST, or use tests/run)");
    }
    folder.map(PathBuf::from)
}

/// A pgbouncer in transaction mode in front of a database.
pub struct Pooler {
    pub url: String,
    bin: PathBuf,
    server: Child,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// `None` if it is neither installed nor required.
    pub fn start(database: &Database, connections: usize) -> Option<Self> {
        let Some(program) = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).is_file())
        else {
            assert!(!requires("pgbouncer"), "there is no pgbouncer");
            eprintln!("not run: pgbouncer (install it)");
            return None;
        };
        let behind = database.url.split_once("@").unwrap().1;
        let (address, name) = behind.split_once('/').unwrap();
        let (host, port) = address.split_once(':').unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {users}\npool_mode = transaction\ndefault_pool_size = {connections}\n\
             min_pool_size = 0\nlogfile = {log}\n",
            users = folder.path().join("users").display(),
            log = folder.path().join("log").display(),
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), settings).unwrap();
        std::fs::write(folder.path().join("users"), "\"daplake\" \"\"\n").unwrap();
        if is_root() {
            output(Command::new("chown").args(["-R", "nobody"]).arg(folder.path()));
        }
        let program = Path::new(program);
        let mut command = self::program(program.parent().unwrap(), "pgbouncer");
        command.arg(folder.path().join("pgbouncer.ini")).current_dir(folder.path());
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", listen)).is_err() {
            let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "pgbouncer does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let url = format!("postgresql://daplake@127.0.0.1:{listen}/{name}");
        Some(Self { url, bin: database.cluster.bin.clone(), server, _folder: folder })
    }

    /// The output of a statement through pgbouncer.
    pub fn psql(&self, sql: &str) -> String {
        psql(&self.bin, &self.url, sql)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        stop(&mut self.server, "-TERM");
    }
}

fn stop(server: &mut Child, signal: &str) {
    let _ = Command::new("kill").args([signal, &server.id().to_string()]).status();
    let _ = server.wait();
}

/// Starts the server and waits until it accepts connections.
fn serve(bin: &Path, folder: &Path, port: u16, settings: &[String]) -> Child {
    let mut postgres = program(bin, "postgres");
    postgres.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]).current_dir(folder);
    for setting in settings {
        postgres.args(["-c", setting]);
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let server = postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let begun = Instant::now();
    let port = port.to_string();
    let is_ready =
        || Command::new(bin.join("pg_isready")).arg("-q").arg("-h").arg(folder).args(["-p", &port]).status().unwrap();
    while !is_ready().success() {
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not start: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

/// The server refuses to run as root.
fn is_root() -> bool {
    output(Command::new("id").arg("-u")).trim() == "0"
}

fn program(bin: &Path, name: &str) -> Command {
    if !is_root() {
        return Command::new(bin.join(name));
    }
    let group = output(Command::new("id").args(["-g", "nobody"]));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", &format!("--regid={}", group.trim()), "--clear-groups"]).arg(bin.join(name));
    command
}

fn psql(bin: &Path, url: &str, sql: &str) -> String {
    let psql = if bin.as_os_str().is_empty() { PathBuf::from("psql") } else { bin.join("psql") };
    let url = url.replace("ssl=", "sslmode=");
    let mut command = Command::new(psql);
    command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]);
    output(command.env("PGTZ", "UTC").env("PGCLIENTENCODING", "UTF8"))
}

/// The folder of the programs: in `PATH`, or where Debian installs them.
fn binaries() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let versions = std::path::Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    folders.extend(versions.map(|entry| entry.path().join("bin")));
    folders.into_iter().find(|folder| {
        ["initdb", "postgres", "psql", "pg_isready"].iter().all(|name| folder.join(format!("{name}{EXE_SUFFIX}")).is_file())
    })
}

fn output(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
