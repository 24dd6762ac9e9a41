//! The process is killed at random moments and run again until it ends; the tables equal those of an undisturbed run.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{World, canvas, school, web_logs};

/// Small steps of a generator, so that a failure can be replayed from the seed it prints.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_and_run_again_the_tables_are_right() {
    let seed = std::env::var("DAPLAKE_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64);
    eprintln!("DAPLAKE_TEST_SEED={seed}");
    let mut state = seed;
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
            tokio::time::sleep(Duration::from_millis(100 + random(&mut state) % 1500)).await;
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
