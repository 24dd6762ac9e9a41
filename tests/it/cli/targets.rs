//! Addresses of targets: which are folders, which are refused, and that their secrets are never printed.

use std::path::{Path, PathBuf};

use crate::support::{Run, World, bare_command, canvas, paths_below, school};

const SECRET: &str = "planted-secret";

/// All paths and file contents below a folder, to search for secrets.
fn everything_below(folder: &Path) -> String {
    let content = |path: PathBuf| {
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        format!("{}\n{}", path.display(), String::from_utf8_lossy(&bytes))
    };
    paths_below(folder).into_iter().map(content).collect()
}

#[track_caller]
fn assert_discreet(world: &World, run: &Run) {
    let output = format!("{}{}", run.stdout, run.stderr);
    assert!(!output.contains(SECRET), "{output}");
    assert!(!everything_below(&world.path("")).contains(SECRET), "{run:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_address_is_refused_and_never_printed() {
    let world = World::new(school(&[canvas("users")])).await;
    let texts = [
        "host=127.0.0.1 user=u password=planted-secret dbname=d",
        "user:planted-secret@127.0.0.1/db",
        "postgresql:/u:planted-secret@127.0.0.1/db",
        "postgresql:u:planted-secret",
        "jdbc:postgresql://127.0.0.1/db?user=u&password=planted-secret",
        "Server=127.0.0.1;Database=d;User Id=u;Password=planted-secret",
        "postgressql://u:planted-secret@127.0.0.1/db",
        "postgresql+asyncpg://u:planted-secret@127.0.0.1/db",
        "mysql+pymysql://u:planted-secret@127.0.0.1/db",
        "postgresql://u:ab@planted-secret/xyz@127.0.0.1/db",
        "mysql://u:ab@planted-secret/xyz@127.0.0.1/db",
        "mssql://u:ab@planted-secret/xyz@127.0.0.1/db",
        "postgresql://u:ab#planted-secret@127.0.0.1/db",
        "mssql://127.0.0.1;user=u;password=planted-secret",
        "s3://AKIA:planted-secret/more@bucket/prefix",
        "'postgresql://u:planted-secret@127.0.0.1/db'",
    ];
    for text in texts {
        for command in ["sync", "check", "status"] {
            let run = world.daplake(&[command, "--target", text]).assert_code(2).assert_says(&["hint: "]);
            assert_discreet(&world, &run);
        }
    }
    for text in texts {
        let mut command = world.command(&["initdb", "--namespace", "canvas", "--table", "users", "--connection-string", text]);
        assert_discreet(&world, &Run::of(command.output().unwrap()).assert_code(2));
    }
    for text in &texts[..3] {
        let mut command = world.command(&["syncdb", "--namespace", "canvas", "--table", "users"]);
        let run = Run::of(command.env("DAP_CONNECTION_STRING", text).output().unwrap()).assert_code(2);
        assert_discreet(&world, &run.assert_says(&["postgresql://user"]));
        let run = Run::of(world.command(&["status"]).env("DAPLAKE_TARGET", text).output().unwrap()).assert_code(2);
        assert_discreet(&world, &run);
        assert_discreet(&world, &world.daplake(&["init", "--target", text]).assert_code(2));
    }
    assert_eq!(world.server.counters().job_starts.len(), 0);

    // In the wrong position, where the parser refuses it.
    let url = "postgresql://u:planted-secret@127.0.0.1/db";
    for arguments in
        [&["sync", url][..], &[url], &["sync", "--to", url], &["sync", "--loglevel", url], &["status", "--runs", url]]
    {
        assert_discreet(&world, &world.daplake(arguments).assert_code(2));
    }
    let run = world.daplake(&["schema", "--namespace", "canvas", "--table", "users", "--ddl", "duckdb", "--target", url]);
    assert_discreet(&world, &run.assert_code(5).assert_says(&["folder"]));
    assert_discreet(&world, &world.daplake(&["init", "--target", url]).assert_code(5).assert_says(&["${LAKE_PASSWORD}"]));
    let run = world.daplake(&["init", "--target", "mysql://127.0.0.1/db?user=u&password=planted-secret"]);
    assert_discreet(&world, &run.assert_code(5));
    let mut help = world.command(&["sync", "--help"]);
    let help = help.env("DAP_API_URL", "https://u:planted-secret@host").env("DAPLAKE_NOTIFY", "https://h/planted-secret");
    assert_discreet(&world, &Run::of(help.output().unwrap()).assert_code(0));

    // In a settings file.
    for text in texts {
        let text = format!("[service]\nclient_id = \"x\"\n[targets.a]\nurl = \"{}\"\n", text.replace(SECRET, "${PLANTED}"));
        std::fs::write(world.path("other.toml"), text).unwrap();
        let mut command = world.command(&["sync", "--settings", "other.toml"]);
        let run = Run::of(command.env("PLANTED", SECRET).output().unwrap());
        // The variable for the password is percent-encoded, so some of the addresses are valid.
        assert!(matches!(run.code, Some(2 | 5)), "{run:?}");
        assert_discreet(&world, &run);
    }
}

/// Two syncs, then all commands that read.
async fn assert_is_a_lake(world: &World, target: &str, folder: &Path, cwd: &Path, more: &[(&str, &str)]) {
    let run = |arguments: &[&str]| {
        let mut command = world.command(&[arguments, &["--target", target]].concat());
        Run::of(command.current_dir(cwd).envs(more.iter().copied()).output().unwrap()).assert_code(0)
    };
    for _ in 0..2 {
        run(&["sync", "--jobs-per-minute", "0"]).assert_says(&["1 loaded"]);
        world.school.advance();
    }
    assert!(folder.join("canvas/users/_delta_log").is_dir(), "{target} is not {}", folder.display());
    run(&["sync", "--jobs-per-minute", "0"]).assert_says(&["1 loaded"]);
    run(&["status"]).assert_says(&["canvas.users"]);
    let rows = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    let counted = run(&["query", "--output", "csv", "SELECT count(*) AS n FROM users WHERE id IS NOT NULL"]);
    assert_eq!(counted.stdout, format!("n\n{rows}\n"), "{target}");
    run(&["verify", "--jobs-per-minute", "0"]);
    run(&["history", "--table", "users"]);
    run(&["optimize"]);
    run(&["vacuum", "--dry-run"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_gets_exactly_the_given_name() {
    let world = World::new(school(&[canvas("users")])).await;
    let cwd = world.path("here");
    std::fs::create_dir_all(&cwd).unwrap();
    std::fs::create_dir_all(cwd.join("x")).unwrap();
    let home = world.path("home");
    std::fs::create_dir_all(&home).unwrap();
    let home_variable = [("HOME", home.to_str().unwrap())];
    for (target, folder) in [
        ("./a%20b", cwd.join("a%20b")),
        ("a b", cwd.join("a b")),
        ("ümlaut ß", cwd.join("ümlaut ß")),
        ("a#1", cwd.join("a#1")),
        ("what?", cwd.join("what?")),
        ("./a=b@c;d:e", cwd.join("a=b@c;d:e")),
        ("100%", cwd.join("100%")),
        ("./x/../y", cwd.join("y")),
        ("../lake-beside", world.path("lake-beside")),
        ("~/in the home", home.join("in the home")),
    ] {
        assert_is_a_lake(&world, target, &folder, &cwd, &home_variable).await;
    }
    let url = format!("file://{}", world.path("of a%url").to_str().unwrap().replace('%', "%25").replace(' ', "%20"));
    assert_is_a_lake(&world, &url, &world.path("of a%url"), &cwd, &[]).await;
    let names: Vec<String> =
        cwd.read_dir().unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.contains(&"~".to_owned()) && !names.contains(&"a b%".to_owned()), "{names:?}");

    // A `..` after a symbolic link is resolved as by the system.
    #[cfg(unix)]
    {
        std::fs::create_dir_all(world.path("far/away")).unwrap();
        std::os::unix::fs::symlink(world.path("far/away"), cwd.join("link")).unwrap();
        assert_is_a_lake(&world, "link/../there", &world.path("far/there"), &cwd, &[]).await;
    }
    for typo in ["s3:/bucket", "s3:bucket", "s3//bucket", "file:x", "gs:/b", "~nobody/x"] {
        let mut command = world.command(&["sync", "--target", typo]);
        Run::of(command.current_dir(&cwd).output().unwrap()).assert_code(2).assert_says(&["hint: "]);
        assert!(!cwd.join(typo.split(['/', ':']).next().unwrap()).exists(), "{typo}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_in_a_settings_file_start_at_its_folder_or_the_home_folder() {
    let world = World::new(school(&[canvas("users")])).await;
    let (conf, home) = (world.path("conf"), world.path("home"));
    std::fs::create_dir_all(&conf).unwrap();
    std::fs::create_dir_all(&home).unwrap();
    let sync = |url: &str| {
        let file = conf.join("daplake.toml");
        std::fs::write(&file, format!("[targets.a]\nurl = '{url}'\n[sync]\nreport = \"~/report.json\"\n")).unwrap();
        let mut command = world.command(&["sync", "--jobs-per-minute", "0", "--settings", file.to_str().unwrap()]);
        Run::of(command.env("HOME", &home).output().unwrap())
    };
    for (url, folder) in [
        ("../lake", world.path("lake")),
        ("~/lake", home.join("lake")),
        ("a%20b", conf.join("a%20b")),
        ("./x/../y", conf.join("y")),
    ] {
        sync(url).assert_code(0).assert_says(&["1 loaded"]);
        world.school.advance();
        sync(url).assert_code(0).assert_says(&["1 loaded"]);
        assert!(folder.join("canvas/users/_delta_log").is_dir(), "{url}");
    }
    assert!(home.join("report.json").is_file());
    for url in ["s3:/bucket", "u:p@host/db", "~nobody/lake"] {
        sync(url).assert_code(2).assert_says(&["targets.a.url", "line: 2", "hint: "]);
    }
    let bare = bare_command(&["status", "--target", "~/lake"]).env("HOME", &home).output().unwrap();
    Run::of(bare).assert_code(0).assert_says(&["canvas.users"]);
}
