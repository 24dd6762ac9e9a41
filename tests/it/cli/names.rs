//! Names of tables and columns in options: a misspelt one ends the run before anything is loaded. Options of a settings file with
//! several targets, and what `check` reports about them.

#[cfg(feature = "postgres")]
use crate::support::postgres::Database;
use crate::support::{CLIENT_ID, CLIENT_SECRET};
use daplake::demo::school::SchoolOptions;

use crate::support::{Run, World, bare_command, canvas, school, web_logs};

const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];

fn sync(world: &World, more: &[&str]) -> Run {
    let mut command = world.command(&[&SYNC[..], more].concat());
    Run::of(command.env("DAPLAKE_HASH_KEY", "a-key-for-tests-0123456789").output().unwrap())
}

async fn world() -> World {
    World::new(school(&[canvas("accounts"), canvas("users"), canvas("pseudonyms"), web_logs()])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misspelt_table_ends_the_run_before_any_job() {
    let world = world().await;
    for (options, words) in [
        (["--hash-column", "pseudonym.unique_id"], "pseudonyms`"),
        (["--hash-column", "canvas.pseudonym.unique_id"], "pseudonyms`"),
        (["--hash-column", "cavnas.pseudonyms.unique_id"], "`canvas.pseudonyms`"),
        (["--drop-column", "user.*name"], "`users`"),
        (["--column", "usrs.id"], "`users`"),
        (["--exclude", "acounts"], "`accounts`"),
        (["--exclude", "canvas.something_else"], "something_else"),
        (["--deletes", "usres=mark"], "`users`"),
        (["--mode", "usres=history"], "`users`"),
        (["--partition-by", "usres=day(created_at)"], "`users`"),
        (["--drop-column", "*.emial_of_none"], "emial_of_none"),
        (["--hash-column", "all.emial_of_none"], "emial_of_none"),
    ] {
        sync(&world, &options).assert_code(5).assert_says(&[words, "hint: "]);
        assert!(!world.lake().join("canvas").exists(), "{options:?}");
    }
    std::fs::write(world.path("own.toml"), "[tables.pseudonym]\nhash_columns = [\"unique_id\"]\n").unwrap();
    sync(&world, &["--settings", "own.toml"]).assert_code(5).assert_says(&["pseudonyms`"]);
    sync(&world, &["--column", "users.id,users.emial"]).assert_code(5).assert_says(&["emial", "does not have"]);
    assert_eq!(world.server.counters().job_starts.iter().filter(|start| format!("{start:?}").contains("users")).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_tables_outside_the_run_are_accepted() {
    let world = world().await;
    for options in [
        &["--exclude", "canvas_logs.web_logs"][..],
        &["--exclude", "web_logs"],
        &["--drop-column", "catalog.users.email"],
        &["--drop-column", "web_logs.no_such_column", "--table", "accounts"],
        &["--drop-column", "users.sortable_name", "--table", "accounts"],
        &["--drop-column", "users.sortable_name", "--exclude", "users"],
        &["--drop-column", "*.sortable_name", "--table", "accounts"],
    ] {
        let run = sync(&world, options).assert_code(0);
        assert!(!run.stderr.contains("misspelt") && !run.stderr.contains("WARN"), "{options:?}: {run:?}");
    }
    let run = sync(&world, &["--exclude", "nothing_*", "--drop-column", "no?such.x,users.*_nothing"]).assert_code(0);
    run.assert_says(&["nothing_*", "no?such", "*_nothing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_column_of_an_existing_table_is_not_taken_for_a_misspelt_one() {
    let world = World::new(SchoolOptions { evolving: true, ..school(&[canvas("courses"), canvas("users")]) }).await;
    sync(&world, &["--table", "users"]).assert_code(0);
    let before = world.fingerprint();
    world.school.advance();
    for option in ["--hash-column", "--drop-column"] {
        sync(&world, &["--table", "users", option, "users.emial"]).assert_code(5).assert_says(&["emial", "does not have"]);
    }
    assert_eq!(world.fingerprint(), before);

    // A later schema version removes the column; the option that names it stays.
    let run = |target: &str, option: &str| {
        let arguments =
            ["sync", "--target", target, "--jobs-per-minute", "0", "--table", "courses", option, "courses.turnitin_id"];
        let mut command = world.command(&arguments);
        Run::of(command.env("DAPLAKE_HASH_KEY", "a-key-for-tests-0123456789").output().unwrap())
    };
    for round in 0..10 {
        for (target, option) in [("hashed", "--hash-column"), ("dropped", "--drop-column")] {
            assert_eq!(run(target, option).code, Some(0), "{option} in round {round}");
        }
        world.school.advance();
    }
    run("fresh", "--drop-column").assert_code(5).assert_says(&["turnitin_id"]);
}

/// The program with a settings file.
fn with_file(world: &World, arguments: &[&str], text: &str) -> Run {
    let text = format!(
        "[service]\nurl = \"{}\"\nclient_id = \"{CLIENT_ID}\"\nclient_secret = \"${{MY_SECRET}}\"\n[pacing]\njob_starts = 0\n{text}",
        world.server.url()
    );
    std::fs::write(world.path("daplake.toml"), text).unwrap();
    let mut command = bare_command(arguments);
    command.current_dir(world.path("")).env("DAPLAKE_STATE_DIR", world.path("state")).env("MY_SECRET", CLIENT_SECRET);
    Run::of(command.output().unwrap())
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_for_lakes_do_not_fail_a_database_in_the_same_file() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    let text = format!(
        "[tables.\"canvas.users\"]\nmode = \"history\"\npartition_by = \"month(created_at)\"\ndrop_columns = [\"sortable_name\"]\n[tables.accounts]\nmode = \"changes\"\n[tables.pseudonyms]\ndeletes = \"mark\"\n[targets.lake]\nurl = \"lake\"\n[targets.lake.tables.accounts]\nmode = \"current\"\n[targets.warehouse]\nurl = \"{}\"\ninclude = [\"users\"]\n[targets.warehouse.tables.\"canvas.users\"]\ndrop_columns = [\"short_name\"]\n",
        database.url
    );
    for _ in 0..2 {
        let run = with_file(&world, &["sync"], &text).assert_code(0);
        assert_eq!(run.stderr.matches("is ignored for warehouse").count(), 1, "{run:?}");
        assert!(!run.stderr.contains("misspelt") && run.stderr.matches("WARN").count() <= 1, "{run:?}");
        world.school.advance();
    }
    let columns = database.psql("SELECT column_name FROM information_schema.columns WHERE table_name = 'users'");
    assert!(columns.contains("sortable_name") && !columns.contains("short_name"), "{columns}");
    // A table mode that databases have is not ignored.
    assert!(columns.contains("_valid_from"), "{columns}");
    let head = |table: &str| {
        let sql = format!("SELECT * FROM {table} LIMIT 1");
        world
            .daplake(&["query", "--target", "lake", "--output", "csv", &sql])
            .assert_code(0)
            .stdout
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    let users = head("users");
    assert!(users.contains("_valid_from") && users.contains("short_name") && !users.contains("sortable_name"), "{users}");
    assert!(!head("accounts").contains("_action"));
    with_file(&world, &["check"], &text).assert_code(0).assert_says(&["is ignored for warehouse", "ok    tables"]);
    // On the command line the same option is refused.
    let typed = world.daplake(&["sync", "--target", &database.url, "--mode", "users=changes", "--table", "users"]);
    typed.assert_code(38).assert_says(&["--mode changes"]);
}

/// Features of Delta tables are refused for a database, ignored with a warning for Parquet folders, and ignored where a file has them
/// for all targets.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_of_delta_tables_are_not_silently_ignored() {
    const NOWHERE: &str = "postgresql://u@127.0.0.1:1/d";
    let world = world().await;
    for option in ["--change-data-feed", "--iceberg"] {
        let at = |target: &[&str], value: &str| {
            let arguments = ["sync", "--table", "users", "--jobs-per-minute", "0", option, value];
            world.daplake(&[&arguments[..], &["--target"], target].concat())
        };
        let run = at(&[NOWHERE], "on").assert_code(38);
        run.assert_says(&[
            &format!("{option} on is for Delta tables"),
            "the target is a database",
            "hint: leave the option out",
        ]);
        at(&[NOWHERE], "off").assert_code(5).assert_says(&["127.0.0.1:1"]);
        at(&["folders", "--format", "parquet"], "on").assert_code(0).assert_says(&[&format!("{option} on is ignored")]);
        let name = option.trim_start_matches('-').replace('-', "_");
        let file =
            format!("[sync]\n{name} = \"on\"\n[targets.lake]\nurl = \"lake\"\n[targets.warehouse]\nurl = \"{NOWHERE}\"\n");
        let run = with_file(&world, &["check"], &file).assert_code(5);
        run.assert_says(&[
            &format!("{name} in the settings file is for lake tables and is ignored for warehouse"),
            "127.0.0.1:1",
        ]);
    }
}

/// The same failure of several tables is printed once.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_that_tables_share_is_printed_once() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    let run = world.daplake(&["sync", "--target", &database.url, "--mode", "changes", "--jobs-per-minute", "0"]);
    let run = run.assert_code(38).assert_says(&["3 of 3 tables failed"]);
    assert!(run.stderr.contains("\n  tables: canvas.accounts, canvas.pseudonyms, canvas.users\n"), "{run:?}");
    assert_eq!(run.stderr.matches("error: This kind of target").count(), 1, "{run:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reports_what_sync_would_refuse() {
    let world = world().await;
    let lake = "[targets.lake]\nurl = \"lake\"\n";
    for (text, words) in [
        ("[tables.users]\nhash_columns = [\"sortable_name\"]\n", "DAPLAKE_HASH_KEY"),
        ("[tables.usres]\ndrop_columns = [\"name\"]\n", "`users`"),
        ("[tables.users]\ndrop_columns = [\"nmae\"]\n", "nmae"),
        ("[tables.users]\ndrop_columns = [\"id\"]\n", "key column"),
        ("[tables.users]\npartition_by = \"day(craeted_at)\"\n", "craeted_at"),
        ("[sync]\nexclude = [\"acounts\"]\n", "`accounts`"),
        ("[sync]\ntables = [\"usres\"]\n", "`users`"),
        ("[notify]\nurl = \"ftp://host/planted-secret\"\n", "--notify"),
    ] {
        let run = with_file(&world, &["check"], &format!("{lake}{text}")).assert_code(5).assert_says(&[words, "FAIL"]);
        assert!(!format!("{run:?}").contains("planted-secret"));
    }
    assert_eq!(world.server.counters().job_starts.len(), 0);
    assert!(world.fingerprint().is_empty());
    let good =
        "[tables.users]\ndrop_columns = [\"sortable_name\"]\nmode = \"history\"\n[tables.accounts]\ndeletes = \"mark\"\n";
    with_file(&world, &["check"], &format!("{lake}{good}")).assert_code(0).assert_says(&["ok    tables"]);
    with_file(&world, &["sync"], &format!("{lake}{good}")).assert_code(0);
    // The mode of an existing table cannot be changed.
    let changed = good.replace("history", "current");
    with_file(&world, &["check"], &format!("{lake}{changed}")).assert_code(5).assert_says(&["FAIL"]);
}

/// `check` applies the rules of a load to each table with options.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_refuses_the_options_that_sync_refuses() {
    let world = world().await;
    let both = |options: &[&str]| {
        ["check", "sync"].map(|command| {
            let pacing = if command == "sync" { &["--jobs-per-minute", "0"][..] } else { &[] };
            let target = [command, "--target", "lake", "--table", "users"];
            let mut command = world.command(&[&target[..], pacing, options].concat());
            Run::of(command.env("DAPLAKE_HASH_KEY", "a-key-for-tests-0123456789").output().unwrap())
        })
    };
    for (options, words) in [
        (&["--partition-by", "users=day(name)"][..], &["cannot be partitioned", "type: string"][..]),
        (&["--partition-by", "users=month(id)"], &["cannot be partitioned", "type: "]),
        (&["--partition-by", "*=day(craeted_at)"], &["does not have the column", "craeted_at"]),
        (
            &["--partition-by", "users=day(created_at)", "--hash-column", "users.created_at"],
            &["cannot be partitioned", "type: string"],
        ),
        (&["--partition-by", "users=day(created_at)", "--drop-column", "users.created_at"], &["does not have", "created_at"]),
        (&["--change-data-feed", "on", "--mode", "users=history"], &["change data feed", "--change-data-feed off"]),
        (&["--change-data-feed", "on", "--deletes", "users=mark"], &["change data feed", "--change-data-feed off"]),
    ] {
        let [check, sync] = both(options);
        assert_eq!(sync.code, check.code, "{options:?}: {check:?}");
        assert_ne!(check.code, Some(0), "{options:?}: {check:?}");
        check.assert_says(&["FAIL"]).assert_says(words);
        sync.assert_says(words);
        assert!(!world.lake().join("canvas/users/_delta_log").exists(), "{options:?}");
    }
    for options in [&["--partition-by", "users=day(created_at)"][..], &["--partition-by", "users=day(created_at)"]] {
        for run in both(options) {
            run.assert_code(0);
        }
    }
    assert!(world.lake().join("canvas/users/_delta_log").exists());
}

/// Files and tables of other programs in the place of tables, in both lake formats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_refuses_the_folders_that_sync_refuses() {
    let world = World::new(school(&[canvas("accounts"), canvas("users")])).await;
    let run = |command: &str, format: &str| {
        let pacing = if command == "sync" { &["--jobs-per-minute", "0"][..] } else { &[] };
        world.daplake(&[&[command, "--target", "lake", "--format", format, "--table", "users"], pacing].concat())
    };
    let folder = world.lake().join("canvas/users");
    let log = folder.join("_delta_log/00000000000000000000.json");
    let foreign_log = concat!(
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#,
        "\n",
        r#"{"metaData":{"id":"a","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}"#,
        "\n"
    );
    for format in ["delta", "parquet"] {
        for (file, text) in
            [(folder.join("mine.csv"), "a,b"), (folder.clone(), "a file"), (log.clone(), foreign_log), (log.clone(), "{")]
        {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, text).unwrap();
            let before = world.fingerprint();
            let [check, sync] = ["check", "sync"].map(|command| run(command, format).assert_code(5));
            check.assert_says(&["FAIL", "canvas.users", "hint: "]);
            sync.assert_says(&["canvas.users", "hint: "]);
            assert_eq!(world.fingerprint(), before, "{format}: {}", file.display());
            std::fs::remove_dir_all(world.lake()).unwrap();
        }
    }
    run("sync", "parquet").assert_code(0);
    let before = world.fingerprint();
    run("check", "parquet").assert_code(0);
    assert_eq!(world.fingerprint(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_does_not_complete_an_interrupted_swap() {
    let world = World::new(school(&[canvas("accounts"), canvas("users")])).await;
    let run = |command: &str, more: &[&str]| {
        world.daplake(&[&[command, "--target", "lake", "--format", "parquet"][..], more].concat()).assert_code(0);
    };
    run("sync", &["--jobs-per-minute", "0"]);
    // A crash between the two renames of a swap, and one before the first.
    let hidden = world.lake().join(".daplake/canvas");
    std::fs::rename(world.lake().join("canvas/users"), hidden.join("users.old")).unwrap();
    std::fs::create_dir(hidden.join("accounts.next")).unwrap();
    std::fs::write(hidden.join("accounts.next/mine.csv"), "a").unwrap();
    let before = world.fingerprint();
    run("check", &[]);
    run("check", &["--drop-column", "users.name", "--exclude", "accounts"]);
    assert_eq!(world.fingerprint(), before);
    run("sync", &["--jobs-per-minute", "0"]);
    assert!(world.lake().join("canvas/users").is_dir() && !hidden.join("users.old").exists());
    assert!(world.lake().join("canvas/accounts/mine.csv").exists() && !hidden.join("accounts.next").exists());
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_creates_what_a_load_creates_and_rolls_it_back() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    let schemas =
        || database.psql("SELECT count(*) FROM information_schema.schemata WHERE schema_name IN ('canvas', 'instructure_dap')");
    world.daplake(&["check", "--target", &database.url]).assert_code(0);
    assert_eq!(schemas().trim(), "0");
    let role = format!("r{}", uuid::Uuid::new_v4().simple());
    database.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"));
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("x")).unwrap();
    let run = world.daplake(&["check", "--target", url.as_str()]);
    let dropped = database.psql(&format!("DROP ROLE {role}"));
    run.assert_code(5).assert_says(&["FAIL", "permission denied"]);
    assert!(!dropped.contains("ERROR"), "{dropped}");
}
