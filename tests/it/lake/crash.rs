//! The process is killed at random times and run again until it finishes; the tables equal those of an undisturbed run.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{Random, World, canvas, school, web_logs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_correct_after_kills_at_random_times() {
    let mut random = Random::new();
    let tables = [canvas("users"), canvas("submissions"), canvas("courses"), web_logs()];
    let world = World::new(daplake::demo::school::SchoolOptions { rows: 2000, ..school(&tables) }).await;
    let arguments = ["sync", "--target", "lake", "--namespace", "all", "--jobs-per-minute", "0"];
    let mut kills = 0;
    for round in 0..4 {
        if round > 0 {
            world.school.advance();
        }
        for _ in 0..4 {
            let mut child = world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(100 + random.below(1500))).await;
            if child.try_wait().unwrap().is_none() {
                kills += 1;
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        world.daplake(&arguments).assert_code(0);
        world.assert_tables("deltalake", &tables, world.school.now());
    }
    assert!(kills > 0, "at least one run was really killed");
}
