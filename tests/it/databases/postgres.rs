//! Connections to PostgreSQL: logins, TLS in all modes, sockets, variables, and sessions that end during a load. Each test has a private
//! server, which shows how clients are connected.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daplake::Kind;
use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Fault, Times};
use daplake::internals::sink::sql::{SqlOptions, SqlSink};
use daplake::ops::{Outcome, SyncRequest};
use daplake::sink::Sink;

use crate::support::postgres::{Database, Own};
use crate::support::{Run, World, bare_command, canvas, failures, school};

const PASSWORD: &str = "planted p/w & 50%";
const IN_A_URL: &str = "planted%20p%2Fw%20%26%2050%25";

fn sink(url: &str) -> SqlSink {
    SqlSink::open(&url.parse().unwrap(), SqlOptions::default()).unwrap()
}

/// Runs `openssl` in a folder.
fn openssl(folder: &Path, line: &str) {
    let done = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Two authorities; certificates of the first for the server (as `localhost`) and for the user `carol`.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        openssl(folder, &format!("req -x509 {key} -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN={authority}"));
    }
    for (name, subject, extension) in
        [("server", "anything", "subjectAltName=DNS:localhost"), ("carol", "carol", "extendedKeyUsage=clientAuth")]
    {
        std::fs::write(folder.join("extensions"), extension).unwrap();
        openssl(folder, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={subject}"));
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.crt"
            ),
        );
    }
}

struct Secured {
    server: Own,
    certificates: tempfile::TempDir,
}

/// A server with TLS, and users for each way to log in.
fn secured() -> Option<Secured> {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let access = "hostssl all only_tls all scram-sha-256\n\
                  hostnossl all only_plain all scram-sha-256\n\
                  host all scram all scram-sha-256\n\
                  host all old all md5\n\
                  hostssl all carol all cert\n";
    let settings = ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key", "ssl_ca_file=ca.crt"];
    let copy = |data: &Path| {
        for name in ["server.crt", "server.key", "ca.crt"] {
            std::fs::copy(folder.path().join(name), data.join(name)).unwrap();
        }
        #[cfg(unix)]
        std::fs::set_permissions(data.join("server.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let server = Own::new(access, &settings, copy)?;
    let password = PASSWORD.replace('\'', "''");
    for user in ["only_tls", "only_plain", "scram", "carol"] {
        server.psql(&format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'"));
    }
    server.psql(&format!("SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD '{password}'"));
    Some(Secured { server, certificates: folder })
}

impl Secured {
    fn file(&self, name: &str) -> PathBuf {
        self.certificates.path().join(name)
    }

    /// Whether the session of a connection string uses TLS, as the server sees it; otherwise the error.
    async fn by_tls(&self, user: &str, host: &str, query: &str) -> daplake::Result<bool> {
        let name = format!("probe-{}", uuid::Uuid::new_v4().simple());
        let port = self.server.port;
        let query = query.replace("CA", &self.file("ca.crt").to_string_lossy());
        let query = query.replace("OTHER", &self.file("other.crt").to_string_lossy());
        let sink = sink(&format!("postgresql://{user}:{IN_A_URL}@{host}:{port}/postgres?application_name={name}&{query}"));
        sink.check().await?;
        let seen = self
            .server
            .psql(&format!("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = '{name}'"));
        Ok(seen == "t\n")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_modes_of_tls_are_those_of_libpq() {
    let Some(secured) = secured() else { return };
    // User, host, parameters, and either whether TLS is used or a part of the error.
    let cases: &[(&str, &str, &str, Result<bool, &str>)] = &[
        ("scram", "localhost", "ssl=disable", Ok(false)),
        ("scram", "localhost", "ssl=allow", Ok(false)),
        ("scram", "localhost", "ssl=prefer", Ok(true)),
        ("scram", "localhost", "", Ok(true)),
        ("scram", "localhost", "sslmode=require", Ok(true)),
        ("scram", "localhost", "ssl=verify-ca&sslrootcert=CA", Ok(true)),
        ("scram", "localhost", "ssl=verify-full&sslrootcert=CA", Ok(true)),
        // A certificate for another name.
        ("scram", "127.0.0.1", "ssl=require", Ok(true)),
        ("scram", "127.0.0.1", "ssl=verify-ca&sslrootcert=CA", Ok(true)),
        ("scram", "127.0.0.1", "ssl=verify-full&sslrootcert=CA", Err("name")),
        // Another authority, or only the system's.
        ("scram", "localhost", "ssl=verify-ca&sslrootcert=OTHER", Err("certificate")),
        ("scram", "localhost", "ssl=verify-full&sslrootcert=OTHER", Err("certificate")),
        ("scram", "localhost", "ssl=verify-ca", Err("")),
        ("scram", "localhost", "ssl=require&sslrootcert=OTHER", Err("certificate")),
        ("scram", "localhost", "ssl=prefer&sslrootcert=OTHER", Ok(true)),
        ("scram", "localhost", "ssl=verify-ca&sslrootcert=/nowhere/ca.crt", Err("sslrootcert")),
        // Requirements of the server.
        ("only_tls", "localhost", "ssl=disable", Err("28000")),
        ("only_tls", "localhost", "ssl=allow", Ok(true)),
        ("only_tls", "localhost", "ssl=prefer", Ok(true)),
        ("only_plain", "localhost", "ssl=disable", Ok(false)),
        ("only_plain", "localhost", "ssl=allow", Ok(false)),
        ("only_plain", "localhost", "ssl=prefer", Ok(false)),
        ("only_plain", "localhost", "ssl=require", Err("28000")),
        // The older password method.
        ("old", "localhost", "ssl=disable", Ok(false)),
        ("old", "localhost", "ssl=require", Ok(true)),
    ];
    for (user, host, query, expected) in cases {
        let found = secured.by_tls(user, host, query).await;
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{user}@{host} {query}"),
            (Err(error), Err(word)) => {
                let text = format!("{error:?}");
                assert!(text.contains(word) && error.hint_text().is_some(), "{user}@{host} {query}: {text}");
                assert!(!text.contains("planted"), "{text}");
            }
            _ => panic!("{user}@{host} {query}: {found:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_logs_its_user_in() {
    let Some(secured) = secured() else { return };
    let own = format!("sslcert={}&sslkey={}", secured.file("carol.crt").display(), secured.file("carol.key").display());
    assert!(secured.by_tls("carol", "localhost", &format!("ssl=verify-full&sslrootcert=CA&{own}")).await.unwrap());
    let error = secured.by_tls("carol", "localhost", "ssl=require").await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.get("sqlstate") == Some("28000"), "{error:?}");
    let half = format!("ssl=require&sslcert={}", secured.file("carol.crt").display());
    assert_eq!(secured.by_tls("carol", "localhost", &half).await.unwrap_err().kind(), Kind::Usage);
    let wrong = half.replace("carol.crt", "nobody.crt") + "&sslkey=/nowhere/key";
    let error = secured.by_tls("carol", "localhost", &wrong).await.unwrap_err();
    assert!(error.kind() == Kind::Usage && error.get("sslcert").is_some(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_logins_are_explained_without_the_password() {
    let Some(secured) = secured() else { return };
    let port = secured.server.port;
    let cases = [
        (format!("scram:planted-wrong@localhost:{port}/postgres"), "28P01"),
        (format!("scram@localhost:{port}/postgres"), "requires a password"),
        (format!("nobody:{IN_A_URL}@localhost:{port}/postgres"), "28000"),
        (format!("scram:{IN_A_URL}@localhost:{port}/never%20made"), "3D000"),
        (format!("old:planted-wrong@localhost:{port}/postgres?ssl=disable"), "28P01"),
        (format!("scram:{IN_A_URL}@localhost:{port}/postgres?ssl=verify-ca&sslrootcert=/nowhere"), "cannot be read"),
        (format!("scram:{IN_A_URL}@127.0.0.1:1/postgres"), "cannot be reached"),
        (format!("scram:{IN_A_URL}@no.such.host.invalid:{port}/postgres"), "host not found"),
    ];
    for (rest, word) in cases {
        let output = bare_command(&["status", "--target", &format!("postgresql://{rest}")]).output().unwrap();
        let run = Run::of(output);
        assert!(run.code != Some(0) && run.stderr.contains(word) && run.stderr.contains("hint"), "{rest}: {run:?}");
        assert!(!run.stderr.contains("planted") && !run.stdout.contains("planted"), "{rest}: {run:?}");
    }
    let output =
        bare_command(&["status", "--target", &format!("postgresql://scram@localhost:{port}/postgres?planted=x&ssl=disable")])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
    let run = Run::of(output).assert_code(0);
    // By its position: a password with an `&` would be split there.
    assert!(run.stderr.contains("parameter: 1") && !run.stderr.contains("planted"), "an unknown part is named: {run:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_used_unless_tls_is_required() {
    let Some(database) = Database::new() else { return };
    let with = |mode: &str| format!("{}{}ssl={mode}", database.url, if database.url.contains('?') { "&" } else { "?" });
    if database.psql("SHOW ssl") == "on\n" {
        eprintln!("not run: the server given by DAPLAKE_TEST_POSTGRES has TLS");
        return;
    }
    for mode in ["disable", "allow", "prefer"] {
        sink(&with(mode)).check().await.unwrap();
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = sink(&with(mode)).check().await.unwrap_err();
        assert!(error.kind() == Kind::Target && error.message().contains("does not offer TLS"), "{mode}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_variables_and_the_password_file_are_used() {
    let access = "local all me scram-sha-256\nhost all me all scram-sha-256\n";
    let Some(server) = Own::new(access, &[], |_| {}) else { return };
    server.psql(&format!("CREATE ROLE me LOGIN PASSWORD '{PASSWORD}'"));
    server.psql("CREATE DATABASE mine OWNER me");
    let (port, folder) = (server.port.to_string(), server.sockets().to_str().unwrap().to_owned());
    let encoded = folder.replace('/', "%2F");
    let status = |target: &str, variables: &[(&str, &str)]| {
        let mut command = bare_command(&["status", "--target", target]);
        command.envs(variables.iter().copied()).env("HOME", &folder);
        Run::of(command.output().unwrap())
    };
    let password = ("PGPASSWORD", PASSWORD);
    // A Unix socket in every notation; the TLS mode does not matter.
    for target in [
        format!("postgresql://me@{encoded}:{port}/mine?ssl=require"),
        format!("postgresql://me@/mine?host={folder}&port={port}"),
        format!("postgresql:///mine?host={folder}&port={port}&user=me"),
        format!("postgresql://me:{IN_A_URL}@/mine?host={folder}&port={port}&ssl=disable"),
    ] {
        status(&target, &[password]).assert_code(0).assert_says(&["No tables"]);
    }
    // Everything from variables, and a variable that the string overrides.
    let all = [("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "me"), ("PGDATABASE", "mine"), password];
    status("postgresql://", &all).assert_code(0);
    status("postgresql://", &[&all[..], &[("PGSSLMODE", "require")]].concat())
        .assert_code(5)
        .assert_says(&["does not offer TLS"]);
    status("postgresql://?ssl=prefer", &[&all[..], &[("PGSSLMODE", "require")]].concat()).assert_code(0);
    status("postgresql://", &[&all[..], &[("PGSSLMODE", "perhaps")]].concat()).assert_code(5).assert_says(&["mode"]);
    // The password file, in the home folder or elsewhere.
    let target = format!("postgresql://me@127.0.0.1:{port}/mine");
    status(&target, &[]).assert_code(5).assert_says(&["requires a password"]);
    let file = server.sockets().join(".pgpass");
    std::fs::write(&file, format!("127.0.0.1:{port}:*:me:{PASSWORD}\n")).unwrap();
    #[cfg(unix)]
    {
        status(&target, &[]).assert_code(5).assert_says(&["chmod 600"]);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    status(&target, &[]).assert_code(0);
    let elsewhere = server.sockets().join("elsewhere");
    std::fs::rename(&file, &elsewhere).unwrap();
    status(&target, &[("PGPASSFILE", elsewhere.to_str().unwrap())]).assert_code(0);
    // A server that does not answer is given up after the timeout.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("postgresql://me@{}/mine?connect_timeout=1", silent.local_addr().unwrap());
    status(&target, &[password]).assert_code(5).assert_says(&["does not answer"]);
}

/// Waits until a query of the server has an answer.
async fn until(database: &Database, sql: &str) {
    let begun = Instant::now();
    while database.psql(sql).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_killed_while_rows_stream_leaves_nothing_and_the_next_run_works() {
    let Some(database) = Database::new() else { return };
    let table = canvas("submissions");
    let world = World::new(SchoolOptions { rows: 3000, ..school(std::slice::from_ref(&table)) }).await;
    let sessions =
        "FROM pg_stat_activity WHERE application_name = 'daplake' AND datname = current_database() AND query LIKE 'COPY%'";
    for (verb, left) in [("initdb", "t|0\n"), ("syncdb", "f|1\n")] {
        // Some rows arrive, then none for a while.
        world.server.inject_after(1, Some(&table), Fault::parse("stall:2:1000").unwrap(), Times::N(2));
        let arguments =
            ["--non-interactive", verb, "--namespace", "canvas", "--table", "submissions", "--jobs-per-minute", "0"];
        let mut command = world.command(&arguments);
        command.env("DAP_CONNECTION_STRING", &database.url).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        until(&database, &format!("SELECT pid {sessions}")).await;
        database.psql(&format!("SELECT pg_terminate_backend(pid) {sessions}"));
        let run = Run::of(child.wait_with_output().unwrap()).assert_code(5);
        assert!(run.stderr.contains("canvas.submissions") && run.stderr.contains("connection"), "{run:?}");
        assert_eq!(
            database.psql(
                "SELECT to_regclass('canvas.submissions') IS NULL, count(*) FROM instructure_dap.table_sync WHERE source_table = 'submissions'"
            ),
            left,
            "{verb}"
        );
        world.server.clear_faults();
        Run::of(world.command(&arguments).env("DAP_CONNECTION_STRING", &database.url).output().unwrap()).assert_code(0);
        let expected = world.school.expected(&table, world.school.now()).unwrap().len();
        assert_eq!(database.psql("SELECT count(*) FROM canvas.submissions"), format!("{expected}\n"));
        world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sessions_are_not_used_after_a_restart_of_the_server() {
    let Some(mut server) = Own::new("host all daplake 127.0.0.1/32 trust\n", &[], |_| {}) else { return };
    let tables = [canvas("users"), canvas("courses"), canvas("accounts")];
    let world = World::new(school(&tables)).await;
    let sink = sink(&format!("postgresql://daplake@127.0.0.1:{}/postgres", server.port));
    let sync = || daplake::ops::sync(SyncRequest { sink: std::sync::Arc::new(sink.clone()), ..world.request() });
    assert_eq!(failures(&sync().await.unwrap()), [""; 0]);
    let kept = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'daplake'";
    assert_eq!(server.psql(kept), "t\n");
    server.restart();
    assert_eq!(server.psql(kept), "f\n");
    world.school.advance();
    let report = sync().await.unwrap();
    assert_eq!(failures(&report), [""; 0]);
    assert!(report.tables.iter().all(|table| matches!(table.outcome, Outcome::Loaded { .. })), "{report:?}");
}
