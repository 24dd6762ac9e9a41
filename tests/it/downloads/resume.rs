//! Downloads that are killed at any time and run again: no second job while the first exists, no finished file downloaded twice, and correct
//! files at the end.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use daplake::demo::serve::{Fault, Times};

use super::{job_folder, names, small_world};
use crate::support::{Random, World};

/// Bytes that the server has sent of each object that is complete on disk, by object id.
fn finished(world: &World) -> BTreeMap<String, u64> {
    let mut complete = Vec::new();
    let downloads = world.path("downloads");
    for folder in names(&downloads) {
        let job = folder.trim_start_matches('.').trim_start_matches("job_").trim_end_matches(".part").to_owned();
        let files = names(&downloads.join(&folder)).into_iter().filter(|name| name.ends_with(".gz"));
        complete.extend(files.map(|name| format!("{job}/{name}")));
    }
    let counters = world.server.counters();
    complete.into_iter().map(|id| (id.clone(), counters.objects[&id].bytes)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_at_random_times_nothing_is_requested_or_downloaded_twice() {
    let mut random = Random::new();
    let world = small_world().await;
    // Nine objects of about 8 KiB, two at once: about a second in all.
    world.server.inject(Fault::parse("drip:40000").unwrap(), Times::Always);
    let arguments = ["snapshot", "--namespace", "canvas", "--table", "users,courses", "--concurrency", "2"];
    let mut before = BTreeMap::new();
    let mut kills = 0;
    let mut kills_with_finished_files = 0;
    for _ in 0..60 {
        let mut child = world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(20 + random.below(400))).await;
        let ended = child.try_wait().unwrap();
        if ended.is_none() {
            kills += 1;
            child.kill().unwrap();
        }
        child.wait().unwrap();
        let now = finished(&world);
        kills_with_finished_files += usize::from(ended.is_none() && !now.is_empty());
        for (id, bytes) in &before {
            assert_eq!(now.get(id), Some(bytes), "{id} was complete and was downloaded again");
        }
        before = now;
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
    }
    world.server.clear_faults();
    world.daplake(&arguments).assert_code(0);
    assert!(kills > 0, "at least one run was really killed");
    eprintln!("{kills} kills, {kills_with_finished_files} of them with finished files");
    let counters = world.server.counters();
    assert_eq!(counters.jobs_started(), 2, "one per table: {:?}", counters.job_starts);
    let jobs = names(&world.path("downloads"));
    assert_eq!(jobs.len(), 2, "{jobs:?}");
    let files: usize = jobs.iter().map(|job| names(&world.path("downloads").join(job)).len() - 1).sum();
    assert_eq!(files, counters.objects.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_work_without_a_state_folder() {
    let world = small_world().await;
    std::fs::write(world.path("state"), "a file in the way").unwrap();
    let run = world.daplake(&["snapshot", "--namespace", "canvas", "--table", "users"]).assert_code(0);
    assert!(run.stdout.contains("⚠") && run.stdout.contains("journal"), "{}", run.stdout);
    assert_eq!(names(&job_folder(&world, "downloads")).len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_files_survive_the_loss_of_the_journal() {
    let world = small_world().await;
    world.server.inject_after(3, None, Fault::parse("short-length:200").unwrap(), Times::Always);
    world.daplake(&["snapshot", "--namespace", "canvas", "--table", "users"]).assert_code(5);
    let before = finished(&world);
    assert!(!before.is_empty());
    std::fs::remove_dir_all(world.path("state")).unwrap();
    world.server.clear_faults();
    world.daplake(&["snapshot", "--namespace", "canvas", "--table", "users"]);
    for (id, bytes) in finished(&world).iter().filter(|(id, _)| before.contains_key(*id)) {
        assert_eq!(before[id], *bytes, "{id}");
    }
    assert_eq!(world.server.counters().jobs_started(), 1);
}
