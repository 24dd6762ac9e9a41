//! PostgreSQL shared with other users: poolers, settings of roles and databases, functions of users, readers, privileges.

use std::process::Stdio;
use std::time::{Duration, Instant};

use daplake::demo::school::SchoolOptions;
use daplake::ops::{self, SyncRequest, Target};

use crate::support::database::TestDatabase;
use crate::support::postgres::{Database, Pooler};
use crate::support::{Run, World, assert_same, canvas, failures, school};

const TABLES: [&str; 7] = ["users", "courses", "accounts", "enrollments", "submissions", "assignments", "pseudonyms"];

async fn world() -> World {
    World::new(school(&TABLES.map(canvas))).await
}

fn sync(world: &World, target: &str, more: &[&str]) -> Run {
    let always = ["--non-interactive", "sync", "--namespace", "canvas", "--jobs-per-minute", "0", "--target", target];
    world.daplake(&[&always, more].concat())
}

fn assert_now(world: &World, database: &Database) {
    let tables = TABLES.map(canvas);
    for (table, rows) in tables.iter().zip(database.rows_of(&tables)) {
        assert_same(&world.school, table, world.school.now(), rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_in_transaction_mode_sessions_stay_unchanged() {
    let Some(database) = Database::new() else { return };
    let Some(pooler) = Pooler::start(&database, 3) else { return };
    let world = world().await;
    // Session state that does not come from the pooler.
    let left = "SELECT (SELECT string_agg(name || '=' || setting, ', ') FROM pg_settings WHERE source = 'session' AND name NOT IN \
                ('client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', 'application_name', 'IntervalStyle')), \
                current_setting('search_path'), (SELECT count(*) FROM pg_prepared_statements), \
                (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
                (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
    for round in 0..3 {
        sync(&world, &pooler.url, if round == 2 { &["--resnapshot"] } else { &[] }).assert_code(0);
        assert_now(&world, &database);
        // The pool hands out its sessions in turn.
        for _ in 0..6 {
            assert_eq!(pooler.psql(left), "|\"$user\", public|0|0|0\n");
            assert_eq!(pooler.psql("SHOW statement_timeout"), pooler.psql("SHOW lock_timeout"));
        }
        world.school.advance();
    }
    let mut initdb = world.command(&["--non-interactive", "dropdb", "--namespace", "canvas", "--table", "users"]);
    Run::of(initdb.env("DAP_CONNECTION_STRING", &pooler.url).output().unwrap()).assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_role_and_the_database_change_nothing() {
    let Some(database) = Database::new() else { return };
    let name = database.name();
    for setting in [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "statement_timeout = '40ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '300ms'",
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Kolkata'",
        "IntervalStyle = 'sql_standard'",
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
        "extra_float_digits = -5",
        "search_path = ''",
        "client_encoding = 'LATIN1'",
        "row_security = on",
        "check_function_bodies = off",
        "jit = on",
    ] {
        database.psql(&format!("ALTER DATABASE {name} SET {setting}"));
    }
    let world = world().await;
    let target: Target = database.url.parse().unwrap();
    let sink = ops::open_sink(&target, &world.engine()).unwrap();
    for _ in 0..4 {
        let request = SyncRequest { sink: std::sync::Arc::clone(&sink), concurrency: 4, ..world.request() };
        assert_eq!(failures(&ops::sync(request).await.unwrap()), [""; 0]);
        world.school.advance();
    }
    sync(&world, &database.url, &[]).assert_code(0);
    for setting in ["statement_timeout", "DateStyle", "TimeZone", "extra_float_digits", "standard_conforming_strings"] {
        database.psql(&format!("ALTER DATABASE {name} RESET {setting}"));
    }
    assert_now(&world, &database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_of_users_see_the_usual_search_path() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    sync(&world, &database.url, &[]).assert_code(0);
    database.psql(
        "CREATE FUNCTION public.fold(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; \
         CREATE FUNCTION public.norm(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN fold($1); END'; \
         CREATE INDEX mine ON canvas.users (public.norm(name)); \
         ALTER TABLE canvas.users ADD CONSTRAINT sane CHECK (public.norm(name) IS NULL OR public.norm(name) = lower(name)); \
         CREATE TABLE public.seen (path text); \
         CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO seen VALUES (current_setting(''search_path'')); RETURN NEW; END'; \
         CREATE TRIGGER watched BEFORE INSERT OR UPDATE ON canvas.users FOR EACH ROW EXECUTE FUNCTION public.watch()",
    );
    for more in [&[][..], &["--resnapshot"]] {
        world.school.advance();
        sync(&world, &database.url, more).assert_code(0);
        assert_now(&world, &database);
    }
    assert_eq!(database.psql("SELECT DISTINCT path FROM public.seen"), "\"$user\", public\n");
}

/// Operators that users create for the types of columns are not used instead of the server's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_of_users_are_never_called() {
    let Some(database) = Database::new() else { return };
    database.psql(
        "CREATE FUNCTION public.never(varchar, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''used''; END'; \
         CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = public.never); \
         CREATE FUNCTION public.never2(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''used''; END'; \
         CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.never2)",
    );
    let world = World::new(SchoolOptions { only: None, rows: 60, ..school(&[]) }).await;
    for _ in 0..2 {
        let always = ["--non-interactive", "sync", "--namespace", "all", "--jobs-per-minute", "0", "--target", &database.url];
        world.daplake(&always).assert_code(0);
        world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_the_server_rolls_back_is_repeated() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    sync(&world, &database.url, &[]).assert_code(0);
    // A sequence is not rolled back: the first two loads fail.
    for (code, failures) in [("40001", 1), ("40P01", 2)] {
        database.psql(&format!(
            "DROP SEQUENCE IF EXISTS public.tries; CREATE SEQUENCE public.tries; \
             CREATE OR REPLACE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN IF nextval(''public.tries'') <= {failures} THEN RAISE EXCEPTION ''rolled back'' USING ERRCODE = ''{code}''; END IF; RETURN NULL; END'; \
             CREATE OR REPLACE TRIGGER refused BEFORE INSERT OR UPDATE OR DELETE ON canvas.submissions \
             FOR EACH STATEMENT EXECUTE FUNCTION public.refuse()"
        ));
        world.school.advance();
        sync(&world, &database.url, &[]).assert_code(0).assert_says(&["loading again"]);
        assert_now(&world, &database);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_change_of_a_table_in_use_does_not_block_readers() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    sync(&world, &database.url, &[]).assert_code(0);
    // The schema has the column, so it is added again.
    database.psql("ALTER TABLE canvas.users DROP COLUMN name");
    world.school.advance();
    let held = Duration::from_secs(12);
    let reader = {
        let (database, seconds) = (Database::again(&database), held.as_secs());
        std::thread::spawn(move || {
            database.psql(&format!("BEGIN; SELECT count(*) FROM canvas.users; SELECT pg_sleep({seconds}); COMMIT"))
        })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut command = world.command(&[
        "--non-interactive",
        "sync",
        "--namespace",
        "canvas",
        "--jobs-per-minute",
        "0",
        "--target",
        &database.url,
    ]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    while begun.elapsed() < held - Duration::from_secs(1) {
        let asked = Instant::now();
        database.psql("SELECT count(*) FROM canvas.users");
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    reader.join().unwrap();
    let run = Run::of(child.wait_with_output().unwrap()).assert_code(0);
    assert!(longest < Duration::from_secs(4), "{longest:?}");
    run.assert_says(&["waits for other sessions", "session ", "user daplake"]);
    sync(&world, &database.url, &["--table", "users", "--resnapshot"]).assert_code(0);
    assert_now(&world, &database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_privilege_is_named_with_its_grant() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    let name = database.name().to_owned();
    let role = format!("r{name}");
    let url = database.url_of(&role);
    database.psql(&format!(
        "CREATE ROLE {role} LOGIN; REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {role}"
    ));
    let quoted = format!("\"{role}\"");
    let mut granted = Vec::new();
    // Each hint is followed until nothing is missing.
    for _ in 0..8 {
        let run = sync(&world, &url, &["--table", "users"]);
        if run.code == Some(0) {
            break;
        }
        let run = run.assert_code(5);
        let text = format!("{}{}", run.stdout, run.stderr);
        let start = text.find("GRANT ").unwrap_or_else(|| panic!("no grant: {text}"));
        let end = start + text[start..].rfind(&quoted).unwrap() + quoted.len();
        let grant = text[start..end].lines().next().unwrap().to_owned();
        database.psql(&grant);
        if grant.starts_with("GRANT TEMPORARY") {
            // Reported before a run.
            let check = world.daplake(&["check", "--target", &url]);
            check.assert_says(&[&format!("GRANT CREATE ON DATABASE \"{name}\" TO {quoted}")]);
        }
        granted.push(grant);
    }
    sync(&world, &url, &["--table", "users"]).assert_code(0);
    assert!(granted.iter().any(|grant| grant.starts_with("GRANT TEMPORARY ON DATABASE")), "{granted:?}");
    assert!(granted.iter().any(|grant| grant.starts_with("GRANT CREATE ON DATABASE")), "{granted:?}");
    // A table of another owner, which only the owner can change.
    database.psql("ALTER TABLE canvas.users OWNER TO daplake; ALTER TABLE canvas.users DROP COLUMN name");
    world.school.advance();
    sync(&world, &url, &["--table", "users"])
        .assert_code(5)
        .assert_says(&[&format!("ALTER TABLE \"canvas\".\"users\" OWNER TO {quoted}")]);
    database.psql(&format!("ALTER ROLE {role} NOLOGIN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_database_is_reported() {
    let Some(database) = Database::new() else { return };
    let world = world().await;
    database.psql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name()));
    sync(&world, &database.url, &[]).assert_code(5).assert_says(&["read-only", "replica", "default_transaction_read_only"]);
}

/// A schema and tables that another role made, as an administrator would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_the_privileges_that_loads_of_existing_tables_lack() {
    let Some(database) = Database::new() else { return };
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    sync(&world, &database.url, &[]).assert_code(0);
    let name = database.name().to_owned();
    let role = format!("r{name}");
    let url = database.url_of(&role);
    database.psql(&format!(
        "CREATE ROLE {role} LOGIN; REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {role}; \
         GRANT USAGE ON SCHEMA canvas, instructure_dap TO {role}; \
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA canvas, instructure_dap TO {role}"
    ));
    let check = |more: &[&str]| world.daplake(&[&["check", "--namespace", "canvas", "--target", &url], more].concat());
    world.school.advance();
    let before = database.psql("SELECT count(*), max(oid) FROM pg_class");
    let grant = format!("GRANT DELETE ON \"canvas\".\"users\" TO {role}");
    check(&[]).assert_code(5).assert_says(&["lacks privileges", "canvas.accounts (DELETE)", "canvas.users (DELETE)", &grant]);
    sync(&world, &url, &[]).assert_code(5);
    database.psql(&format!(
        "REVOKE UPDATE ON instructure_dap.table_sync FROM {role}; GRANT DELETE ON canvas.users, canvas.accounts TO {role}"
    ));
    check(&[]).assert_code(5).assert_says(&["instructure_dap.table_sync (UPDATE)"]);
    database.psql(&format!("GRANT UPDATE ON instructure_dap.table_sync TO {role}"));
    // What it may do is enough for the tables that exist, as long as their schema stays.
    let run = check(&[]).assert_code(0);
    run.assert_says(&["warn", "none can be created", "canvas.users (OWNER)", "OWNER TO"]);
    assert_eq!(database.psql("SELECT count(*), max(oid) FROM pg_class"), before, "nothing is created");
    sync(&world, &url, &[]).assert_code(0);
    // A table that does not exist cannot be created.
    database.psql("DROP TABLE canvas.users; DELETE FROM instructure_dap.table_sync WHERE source_table = 'users'");
    check(&[]).assert_code(5).assert_says(&["FAIL", "permission denied"]);
    check(&["--table", "accounts"]).assert_code(0);
    database.psql(&format!("ALTER ROLE {role} NOLOGIN"));
}
