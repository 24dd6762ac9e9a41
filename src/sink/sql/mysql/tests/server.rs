//! A MySQL or MariaDB server for tests: an existing one, or a private one in a temporary folder. Tables are read with the
//! `mariadb` client.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

/// The kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brand {
    /// MariaDB as Debian installs it, or the server in `DAPLAKE_TEST_MYSQL`.
    Mariadb,
    /// A current MySQL, in the folder that `tests/servers/mysql` created.
    Mysql,
}

/// A database for one test. The server stops when the last one is dropped.
pub struct Database {
    pub url: String,
    pub name: String,
    server: Arc<Server>,
}

/// A running server.
pub struct Server {
    /// `mysql://user:password@host:port/`, without a database.
    base: String,
    /// The query string of the URL, with its question mark.
    query: String,
    client: PathBuf,
    has_tls: bool,
    own: Option<Own>,
}

/// A private server.
struct Own {
    command: Mutex<Command>,
    process: Mutex<Child>,
    folder: tempfile::TempDir,
}

static SHARED: [Mutex<Weak<Server>>; 2] = [const { Mutex::new(Weak::new()) }; 2];

impl Database {
    /// `None` if there is no server and none is required.
    pub fn new(brand: Brand) -> Option<Self> {
        let server = {
            let mut shared = SHARED[brand as usize].lock();
            match shared.upgrade() {
                Some(server) => server,
                None => {
                    let server = Arc::new(Server::shared(brand)?);
                    *shared = Arc::downgrade(&server);
                    server
                }
            }
        };
        Some(Self::on(&server))
    }

    /// A database on a server of its own that keeps committed data when it is killed.
    pub fn alone(brand: Brand) -> Option<Self> {
        Some(Self::on(&Arc::new(Server::start(brand, &["--innodb-flush-log-at-trx-commit=1"])?)))
    }

    /// Kills the server, which must be its own, and starts it again.
    pub fn crash(&self) {
        let own = self.server.own.as_ref().expect("a server of its own");
        let mut process = own.process.lock();
        process.kill().unwrap();
        process.wait().unwrap();
        *process = own.command.lock().spawn().unwrap();
        self.server.wait();
    }

    /// A database of a server that is not the shared one.
    pub fn on(server: &Arc<Server>) -> Self {
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        server.sql("", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        Self { url: format!("{}{name}{}", server.base, server.query), name, server: Arc::clone(server) }
    }

    /// The output of a statement: lines of cells separated by tabs, without headings, with special characters escaped.
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    /// The rows of a table (`canvas__users`) as the server returns them: timestamps as microseconds and dates as days since 1970, decimals as
    /// text, lookup values in place of their ids.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        let members: Vec<String> = self
            .columns(table)
            .iter()
            .map(|column| format!("'{}', {}", column.name.replace('\\', "\\\\").replace('\'', "''"), column.read()))
            .collect();
        let select = format!("SELECT JSON_OBJECT({}) FROM `{table}` AS t", members.join(", "));
        let lines = self.server.client(&self.name, &["--raw"], &select);
        lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// The columns of a table.
    pub fn columns(&self, table: &str) -> Vec<Column> {
        let made = self.sql(&format!("SHOW CREATE TABLE `{table}`"));
        let list = self.sql(&format!(
            "SELECT JSON_ARRAY(c.COLUMN_NAME, c.COLUMN_TYPE, (SELECT MIN(k.REFERENCED_TABLE_NAME) FROM information_schema.KEY_COLUMN_USAGE k \
             WHERE k.TABLE_SCHEMA = DATABASE() AND k.TABLE_NAME = '{table}' AND k.COLUMN_NAME = c.COLUMN_NAME)) \
             FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = DATABASE() AND c.TABLE_NAME = '{table}' ORDER BY c.ORDINAL_POSITION"
        ));
        let unescaped = list.replace("\\\\", "\\");
        let columns = unescaped.lines().map(|line| {
            let (name, sql_type, lookup): (String, String, Option<String>) = serde_json::from_str(line).unwrap();
            // In MariaDB, JSON is text with a check constraint.
            let is_json = sql_type == "json" || made.contains(&format!("json_valid(`{}`)", name.replace('`', "``")));
            Column { name, sql_type: if is_json { "json".to_owned() } else { sql_type }, lookup }
        });
        columns.collect()
    }
}

/// A column in the catalogue.
pub struct Column {
    pub name: String,
    pub sql_type: String,
    /// Its lookup table.
    pub lookup: Option<String>,
}

impl Column {
    /// An expression whose value can be put into JSON.
    fn read(&self) -> String {
        let name = format!("t.`{}`", self.name.replace('`', "``"));
        if let Some(lookup) = &self.lookup {
            return format!("(SELECT l.value FROM `{lookup}` AS l WHERE l.id = {name}) COLLATE utf8mb4_bin");
        }
        match self.sql_type.split('(').next().unwrap() {
            "tinyint" => format!("JSON_EXTRACT(IF({name}, 'true', 'false'), IF({name} IS NULL, NULL, '$'))"),
            "datetime" => format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {name})"),
            "date" => format!("DATEDIFF({name}, '1970-01-01')"),
            "time" => format!("TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM CAST({name} AS CHAR)))"),
            "double" | "decimal" => format!("CAST({name} AS CHAR)"),
            "varbinary" => format!("INET6_NTOA({name})"),
            "binary" => format!(
                "IF({name} IS NULL, NULL, LOWER(CONCAT_WS('-', SUBSTR(HEX({name}), 1, 8), SUBSTR(HEX({name}), 9, 4), SUBSTR(HEX({name}), 13, 4), \
                 SUBSTR(HEX({name}), 17, 4), NULLIF(SUBSTR(HEX({name}), 21), ''))))"
            ),
            "json" => format!("JSON_EXTRACT({name}, '$')"),
            "smallint" | "int" | "bigint" => name,
            // The server cannot concatenate texts with different collations.
            _ => format!("CONVERT({name} USING utf8mb4) COLLATE utf8mb4_bin"),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.server.sql("", &format!("DROP DATABASE {}", self.name));
        }
    }
}

impl Server {
    fn shared(brand: Brand) -> Option<Self> {
        if let (Brand::Mariadb, Ok(url)) = (brand, std::env::var("DAPLAKE_TEST_MYSQL")) {
            let (url, query) =
                url.split_once('?').map_or((url.as_str(), String::new()), |(url, query)| (url, format!("?{query}")));
            let base = url[..url.rfind('/').expect("a URL with a database") + 1].to_owned();
            let client = program(&["mariadb", "mysql"]).expect("the client program `mariadb` or `mysql`");
            return Some(Self { base, query, client, has_tls: false, own: None });
        }
        Self::start(brand, &[])
    }

    /// A private server with additional settings. `None` if it is neither installed nor required.
    pub fn start(brand: Brand, settings: &[&str]) -> Option<Self> {
        let programs = match brand {
            Brand::Mariadb => Programs::mariadb(),
            Brand::Mysql => Programs::mysql(),
        };
        let Some(Programs { server, client, make_data }) = programs else {
            let (word, hint) = match brand {
                Brand::Mariadb => ("mariadb", "install mariadb-server, or set DAPLAKE_TEST_MYSQL"),
                Brand::Mysql => ("mysql", "set DAPLAKE_TEST_MYSQL_SERVER, or use tests/run"),
            };
            let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|known| known == word));
            assert!(!required, "there is no server for {word}: {hint}");
            eprintln!("not run: {word} ({hint})");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        make_data(folder.path());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = server;
        command.arg(format!("--datadir={}", data.display())).arg(format!("--port={port}"));
        command.arg(format!("--socket={}", folder.path().join("s").display()));
        // A starting server removes files that it takes for its own leftovers, so each has its own temporary folder.
        command.arg(format!("--tmpdir={}", folder.path().display()));
        command.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin", "--local-infile=1"]);
        command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]);
        command.args(["--innodb-doublewrite=0", "--innodb-flush-method=nosync", "--max-connections=100"]).args(settings);
        let process = command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let own = Own { command: Mutex::new(command), process: Mutex::new(process), folder };
        let base = format!("mysql://root@127.0.0.1:{port}/");
        let has_tls = settings.iter().any(|setting| setting.starts_with("--ssl"));
        let started = Self { base, query: String::new(), client, has_tls, own: Some(own) };
        started.wait();
        Some(started)
    }

    fn wait(&self) {
        let begun = Instant::now();
        while !self.command("", &[]).args(["-e", "DO 0"]).output().unwrap().status.success() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The TCP port of the server.
    pub fn socket(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| own.folder.path().join("s"))
    }

    fn command(&self, database: &str, arguments: &[&str]) -> Command {
        let url = url::Url::parse(&self.base).unwrap();
        let mut command = Command::new(&self.client);
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--protocol=tcp"]);
        command.arg(format!("--host={}", url.host_str().unwrap())).arg(format!("--port={}", url.port().unwrap_or(3306)));
        command.arg(format!("--user={}", url.username())).args(self.has_tls.then_some("--ssl")).args(arguments);
        if let Some(password) = url.password() {
            command.env("MYSQL_PWD", password);
        }
        if !database.is_empty() {
            command.arg(database);
        }
        command
    }

    fn client(&self, database: &str, arguments: &[&str], sql: &str) -> String {
        output(self.command(database, arguments).args(["-e", sql]))
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        self.client(database, &[], sql)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = self.own.as_mut().map(|own| own.process.get_mut()) {
            // Durability is not needed.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The programs of a private server.
struct Programs {
    /// The server's command, with the arguments that its kind needs.
    server: Command,
    client: PathBuf,
    /// Creates the data folder `data` in a folder.
    make_data: Box<dyn FnOnce(&Path)>,
}

impl Programs {
    fn mariadb() -> Option<Self> {
        let (server, install) = (program(&["mariadbd"])?, program(&["mariadb-install-db"])?);
        // The server refuses to run as root.
        let is_root = is_root();
        let run = move |name: &Path| {
            if !is_root {
                return Command::new(name);
            }
            let group = output(Command::new("id").args(["-g", "nobody"]));
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", &format!("--regid={}", group.trim()), "--clear-groups"]).arg(name);
            command
        };
        let mut server = run(&server);
        server.args(["--no-defaults", "--innodb-log-file-size=64M"]);
        let make_data = move |folder: &Path| {
            if is_root {
                output(Command::new("chown").arg("nobody").arg(folder));
            }
            let mut command = run(&install);
            command.arg("--no-defaults").arg(format!("--datadir={}", folder.join("data").display()));
            command.args(["--skip-test-db", "--auth-root-authentication-method=normal", "--skip-name-resolve"]);
            // A starting server removes the temporary tables in its folder, including those of another server with the same folder.
            output(command.current_dir(folder).env("TMPDIR", folder));
        };
        Some(Self { server, client: program(&["mariadb"])?, make_data: Box::new(make_data) })
    }

    fn mysql() -> Option<Self> {
        let made = PathBuf::from(std::env::var_os("DAPLAKE_TEST_MYSQL_SERVER")?);
        let mut server = Command::new(made.join("mysqld"));
        server.args(["--mysqlx=OFF", "--performance-schema=OFF", "--innodb-redo-log-capacity=64M"]);
        server.args(is_root().then_some("--user=root"));
        let make_data = move |folder: &Path| {
            output(Command::new("cp").arg("-a").arg(made.join("data")).arg(folder));
        };
        Some(Self { server, client: program(&["mariadb", "mysql"])?, make_data: Box::new(make_data) })
    }
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).trim() == "0"
}

/// The first of these programs that is found in `PATH` or where Debian installs servers.
fn program(names: &[&str]) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    folders.push(PathBuf::from("/usr/sbin"));
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

fn output(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
