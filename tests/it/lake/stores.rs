//! Syncs into independent object stores: SeaweedFS for S3, Azurite for Azure. `verify` compares all rows with the service.

use std::process::{Command, Stdio};

use daplake::demo::school::SchoolOptions;

use crate::support::machines::sync_from_two_machines;
use crate::support::stores::Store;
use crate::support::{Run, World, canvas, school, web_logs};

struct Remote {
    world: World,
    store: Store,
    format: &'static str,
}

impl Remote {
    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let target = format!("{}/lakes/{}", self.store.url, self.format);
        let mut command = self.world.command(&[verb, "--target", &target, "--format", self.format]);
        for option in &self.store.options {
            command.args(["--store-option", option]);
        }
        command.args(arguments).envs(self.store.variables.clone());
        command
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Run {
        Run::of(self.command(verb, arguments).output().unwrap())
    }

    fn assert_correct(&self, label: &str) {
        eprintln!("verifying {} {label}", self.format);
        self.run("verify", &["--jobs-per-minute", "0"]).assert_code(0);
        let now = self.world.school.now();
        let users = self.world.school.expected(&canvas("users"), now).unwrap().len();
        let answer = self.run("query", &["SELECT count(*) AS n FROM users", "--output", "csv"]).assert_code(0);
        assert_eq!(answer.stdout, format!("n\n{users}\n"));
    }
}

const SYNC: [&str; 4] = ["--namespace", "all", "--jobs-per-minute", "0"];

async fn keep_a_lake_up_to_date(start: fn() -> Option<Store>) {
    let tables = [canvas("users"), canvas("submissions"), web_logs()];
    for format in ["delta", "parquet"] {
        let Some(store) = start() else { return };
        let remote = Remote { world: World::new(school(&tables)).await, store, format };
        for round in 0..3 {
            if round > 0 {
                remote.world.school.advance();
            }
            remote.run("sync", &SYNC).assert_code(0);
            remote.assert_correct("after a sync");
        }
        // Of two writers one commits first; the other continues from its bookmark.
        remote.world.school.advance();
        let spawn = || remote.command("sync", &SYNC).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        for child in [spawn(), spawn()] {
            let run = Run::of(tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap());
            run.assert_code(0);
        }
        remote.run("sync", &SYNC).assert_code(0);
        remote.assert_correct("after two writers");
        remote.run("optimize", &[]).assert_code(0);
        remote.run("vacuum", &[]).assert_code(0);
        remote.assert_correct("after optimize and vacuum");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_in_seaweedfs_is_kept_up_to_date() {
    keep_a_lake_up_to_date(Store::seaweedfs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_in_azurite_is_kept_up_to_date() {
    keep_a_lake_up_to_date(Store::azurite).await;
}

async fn two_machines_share_a_lake(format: &'static str) {
    let tables = [canvas("users"), canvas("submissions"), canvas("courses"), web_logs()];
    let Some(store) = Store::seaweedfs() else { return };
    // Few changes per commit, so that the tables stay small in hundreds of commits.
    let school = SchoolOptions { change_rate: 0.01, ..school(&tables) };
    let remote = Remote { world: World::new(school).await, store, format };
    let figures = sync_from_two_machines(&remote.world, || remote.command("sync", &SYNC)).await;
    assert!(figures.loaded > tables.len() && figures.commits > 0, "{figures:?}");
    remote.run("sync", &SYNC).assert_code(0);
    remote.assert_correct("after two machines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_keep_delta_tables_in_seaweedfs_correct() {
    two_machines_share_a_lake("delta").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_keep_parquet_folders_in_seaweedfs_correct() {
    two_machines_share_a_lake("parquet").await;
}
