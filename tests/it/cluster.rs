//! `sync` on a cluster: a scheduler and two executors as separate processes, an object store and the embedded service, also when one of
//! the processes is killed.
//!
//! `DAPLAKE_TEST_KILLS` is the number of kills of each process.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daplake::demo::school::SchoolOptions;
use daplake::{TableRef, Timestamp};
use serde_json::Value;

use crate::support::s3::S3Server;
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, Random, Run, World, bare_command, canvas, files_below, folders_of, school, web_logs,
    without_settings,
};

const PREFIX: &str = "lakes/ours";

/// A process that is killed at the end of the test.
struct Node {
    child: Child,
    log: PathBuf,
}

impl Node {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null());
        Self { child: command.spawn().unwrap(), log }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    fn log_text(&self) -> String {
        let mut text = String::new();
        std::fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Cluster {
    world: World,
    store: S3Server,
    port: u16,
    scheduler: Node,
    executors: Vec<Node>,
    started: usize,
}

impl Cluster {
    async fn new(school: SchoolOptions) -> Self {
        let world = World::new(school).await;
        let store = S3Server::start().await;
        let port = free_port();
        let scheduler = Self::scheduler(&world, port);
        let mut cluster = Self { world, store, port, scheduler, executors: Vec::new(), started: 0 };
        for _ in 0..2 {
            let executor = cluster.executor();
            cluster.executors.push(executor);
        }
        cluster
    }

    fn scheduler(world: &World, port: u16) -> Node {
        let listen = format!("127.0.0.1:{port}");
        let mut command = bare_command(&["scheduler", "--listen", &listen, "--executor-timeout", "3"]);
        command.env("RUST_LOG", "info");
        let node = Node::start(command, world.path("scheduler.log"));
        let begun = Instant::now();
        while TcpStream::connect(&listen).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", node.log_text());
            std::thread::sleep(Duration::from_millis(20));
        }
        node
    }

    /// Has the credentials of the store, but not those of the service.
    fn executor(&mut self) -> Node {
        self.started += 1;
        let folder = self.world.path(&format!("executor-{}", self.started));
        std::fs::create_dir_all(&folder).unwrap();
        let (scheduler, port, control) = (format!("127.0.0.1:{}", self.port), free_port().to_string(), free_port().to_string());
        let mut command = bare_command(&["executor", "--scheduler", &scheduler, "--port", &port, "--control-port", &control]);
        command.args(["--cores", "1", "--memory-limit", "256MiB", "--temp-dir"]).arg(&folder);
        command.envs(self.store.variables()).env("RUST_LOG", "info");
        Node::start(command, self.world.path(&format!("executor-{}.log", self.started)))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let target = self.store.url(PREFIX);
        let cluster = format!("df://127.0.0.1:{}", self.port);
        let mut command = self.world.command(&["sync", "--target", &target, "--namespace", "all", "--jobs-per-minute", "0"]);
        command.args(["--cluster", &cluster, "--cluster-parts", "3"]).args(arguments).envs(self.store.variables());
        command
    }

    fn sync(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// The report of a run of one process into another folder, without the values that always differ.
    fn run_alone(&self) -> Vec<Value> {
        let (target, report) = (self.store.url("lakes/alone"), self.world.path("alone.json"));
        let mut command = self.world.command(&["sync", "--target", &target, "--namespace", "all", "--jobs-per-minute", "0"]);
        command.arg("--report").arg(&report).env("DAPLAKE_STATE_DIR", self.world.path("alone")).envs(self.store.variables());
        Run::of(command.output().unwrap()).assert_code(0);
        outcomes(&report)
    }

    fn other(&self, verb: &str, arguments: &[&str]) -> Run {
        let target = self.store.url(PREFIX);
        Run::of(self.world.command(&[verb, "--target", &target]).args(arguments).envs(self.store.variables()).output().unwrap())
    }

    fn assert_tables(&self, tables: &[TableRef], at: Timestamp) {
        for reader in ["deltalake", "duckdb-delta"] {
            self.world.assert_tables_in(&self.root(), reader, tables, at);
        }
    }

    /// The server keeps the bucket as a folder.
    fn root(&self) -> PathBuf {
        self.store.bucket().join(PREFIX)
    }

    /// Sets the time of all files to before any retention period.
    fn age_all(&self) {
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(30 * 24 * 60 * 60);
        for path in files_below(&self.root()) {
            std::fs::File::options().append(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }

    /// Data files that no commit names.
    fn orphans(&self, tables: &[TableRef]) -> Vec<String> {
        let mut orphans = Vec::new();
        for folder in folders_of(&self.root(), tables) {
            let (log, data): (Vec<PathBuf>, Vec<PathBuf>) =
                files_below(&folder).into_iter().partition(|path| path.to_string_lossy().contains("_delta_log"));
            let texts: String = log.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
            let names = data.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
            orphans.extend(names.filter(|name| name.ends_with(".parquet") && !texts.contains(name.as_str())));
        }
        orphans
    }

    /// Asserts that the logs of all nodes contain no secret.
    fn assert_no_secrets(&self) {
        for node in self.executors.iter().chain([&self.scheduler]) {
            let log_text = node.log_text();
            assert!(
                !log_text.contains(CLIENT_SECRET) && !log_text.contains(CLIENT_ID) && !log_text.contains("planted-key"),
                "{log_text}"
            );
            assert!(!log_text.contains("Signature=") && !log_text.contains("\"token\""), "{log_text}");
        }
    }
}

/// Outcomes and warnings of a report.
fn outcomes(report: &std::path::Path) -> Vec<Value> {
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let mut tables = report["tables"].as_array().unwrap().clone();
    for table in &mut tables {
        let members = table.as_object_mut().unwrap();
        members.retain(|name, _| !matches!(name.as_str(), "bytes_written" | "job_id" | "phases"));
    }
    tables
}

/// A part of the log line for a table that the driver loads itself.
const BY_THE_DRIVER: &str = "This load does not use the cluster";

const TABLES: [&str; 3] = ["users", "submissions", "courses"];

fn tables() -> Vec<TableRef> {
    TABLES.iter().map(|table| canvas(table)).chain([web_logs()]).collect()
}

fn kills() -> usize {
    std::env::var("DAPLAKE_TEST_KILLS").map_or(1, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_synced_on_a_cluster() {
    let tables = tables();
    let cluster = Cluster::new(school(&tables)).await;
    for round in 0..4 {
        if round > 0 {
            cluster.world.school.advance();
        }
        let log = cluster.world.path(&format!("round-{round}.log"));
        let report = cluster.world.path("report.json");
        let report_path = report.to_str().unwrap();
        cluster.sync(&["--logfile", log.to_str().unwrap(), "--loglevel", "info", "--report", report_path]).assert_code(0);
        assert_eq!(outcomes(&report), cluster.run_alone(), "a cluster reports the same as one process");
        let log_text = std::fs::read_to_string(&log).unwrap();
        // Later rounds have tables without changes, which the driver handles.
        assert!(round > 0 || !log_text.contains(BY_THE_DRIVER), "{log_text}");
        cluster.assert_tables(&tables, cluster.world.school.now());
    }
    cluster.assert_no_secrets();
    let status = cluster.other("status", &["--output", "json"]).assert_code(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["tables"].as_array().unwrap().len(), tables.len());

    // One process can continue after a cluster, and a cluster after one process.
    cluster.world.school.advance();
    cluster.other("sync", &["--namespace", "all", "--jobs-per-minute", "0"]).assert_code(0);
    cluster.assert_tables(&tables, cluster.world.school.now());
    cluster.world.school.advance();
    cluster.sync(&["--deletion-vectors", "on"]).assert_code(0);
    cluster.assert_tables(&tables, cluster.world.school.now());
    // Hashing needs the key, which executors do not get.
    let log = cluster.world.path("hashing.log");
    let mut hashing =
        cluster.command(&["--resnapshot", "--table", "users", "--hash-column", "users.name", "--loglevel", "info"]);
    hashing.arg("--logfile").arg(&log).env("DAPLAKE_HASH_KEY", "planted-key-planted-key");
    Run::of(hashing.output().unwrap()).assert_code(0);
    let log_text = std::fs::read_to_string(&log).unwrap();
    assert!(log_text.contains(BY_THE_DRIVER), "{log_text}");
    cluster.assert_no_secrets();
    cluster.assert_tables(&tables[1..], cluster.world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_correct_whichever_node_is_killed() {
    let mut random = Random::new();
    let tables = tables();
    let mut cluster = Cluster::new(SchoolOptions { rows: 1500, ..school(&tables) }).await;
    for _ in 0..kills() {
        for victim in ["executor", "scheduler", "driver"] {
            cluster.world.school.advance();
            let log = cluster.world.path("driver.log");
            let mut driver = Node::start(cluster.command(&[]), log);
            tokio::time::sleep(Duration::from_millis(200 + random.below(2500))).await;
            match victim {
                "executor" => {
                    cluster.executors[0].kill();
                    cluster.executors[0] = cluster.executor();
                }
                "scheduler" => {
                    cluster.scheduler.kill();
                    cluster.scheduler = Cluster::scheduler(&cluster.world, cluster.port);
                }
                _ => driver.kill(),
            }
            // The driver recovers or reports a failure; in both cases every table has its old or its new bookmark.
            let code = driver.child.wait().unwrap().code();
            assert!(matches!(code, Some(0 | 5) | None), "{victim}: {code:?}\n{}", driver.log_text());
            let again = cluster.sync(&[]);
            assert_eq!(again.code, Some(0), "{victim}\n{}\n{}", driver.log_text(), again.stderr);
            cluster.assert_tables(&tables, cluster.world.school.now());
        }
    }
    cluster.age_all();
    cluster.other("vacuum", &[]).assert_code(0);
    assert_eq!(cluster.orphans(&tables), [""; 0], "uncommitted files are removed");
    cluster.assert_tables(&tables, cluster.world.school.now());
    cluster.assert_no_secrets();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_scheduler_nothing_is_started() {
    let world = World::new(school(&[canvas("users")])).await;
    let unused = format!("df://127.0.0.1:{}", free_port());
    let run = world.daplake(&["sync", "--target", "lake", "--cluster", &unused]);
    run.assert_code(5).assert_says(&["scheduler cannot be reached", "daplake scheduler"]);
    assert_eq!(world.server.counters().job_starts.len(), 0);
    world.daplake(&["sync", "--target", "lake", "--cluster", "http://here"]).assert_code(5).assert_says(&["df://host:50050"]);
}

#[test]
fn the_one_machine_example_runs() {
    let folder = tempfile::tempdir().unwrap();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster/one-machine");
    let mut run = without_settings(Command::new("bash"));
    run.arg(script).arg(folder.path().join("cluster"));
    run.env("DAPLAKE", env!("CARGO_BIN_EXE_daplake")).env("DAPLAKE_STATE_DIR", folder.path().join("state"));
    Run::of(run.output().unwrap()).assert_code(0).assert_says(&["web_logs", "25,000", "submissions"]);
}
