//! Tests for MySQL and MariaDB only; those for all databases are in `sql.rs`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use daplake::Kind;
use daplake::ops::{self, Target};

use crate::support::mysql::{Brand, Database, Server};
use crate::support::{World, assert_same, canvas, school, web_logs};

/// Creates an authority and a certificate that it signed, for a name.
fn certify(folder: &Path, authority: &str, name: &str) {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {authority}.key -out {authority}.pem -days 30 \
         -subj '/CN={authority}' 2>&1 && \
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {authority}-server.key -out server.csr -subj /CN=server 2>&1 && \
         printf 'subjectAltName={name}\\n' > names && \
         openssl x509 -req -in server.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 30 -extfile names \
         -out {authority}-server.pem 2>&1 && chmod 644 {authority}-server.key"
    );
    let done = Command::new("sh").args(["-c", &script]).current_dir(folder).output().expect("a shell");
    assert!(done.status.success(), "openssl: {}", String::from_utf8_lossy(&done.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_of_mariadb_is_as_strict_as_requested() {
    tls_is_as_strict_as_requested(Brand::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_of_mysql_is_as_strict_as_requested() {
    tls_is_as_strict_as_requested(Brand::Mysql).await;
}

async fn tls_is_as_strict_as_requested(brand: Brand) {
    let folder = tempfile::tempdir().unwrap();
    Command::new("chmod").arg("755").arg(folder.path()).status().unwrap();
    certify(folder.path(), "elsewhere", "DNS:db.example");
    certify(folder.path(), "here", "IP:127.0.0.1");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let start = |authority: &str| {
        Server::start(
            brand,
            &[
                &format!("--ssl-ca={}", file(&format!("{authority}.pem"))),
                &format!("--ssl-cert={}", file(&format!("{authority}-server.pem"))),
                &format!("--ssl-key={}", file(&format!("{authority}-server.key"))),
                "--require-secure-transport=ON",
            ],
        )
    };
    for (authority, other, is_right_name) in [("elsewhere", "here", false), ("here", "elsewhere", true)] {
        let Some(server) = start(authority) else { return };
        let server = Arc::new(server);
        let database = Database::on(&server);
        let (ca, wrong) = (file(&format!("{authority}.pem")), file(&format!("{other}.pem")));
        let socket = server.socket().unwrap().display().to_string();
        for (query, expected) in [
            ("ssl=disable".to_owned(), false),
            ("ssl=allow".to_owned(), true),
            ("ssl=prefer".to_owned(), true),
            ("ssl=require".to_owned(), true),
            ("ssl=verify-ca".to_owned(), false),
            (format!("ssl=verify-ca&sslrootcert={ca}"), true),
            (format!("ssl=verify-ca&sslrootcert={wrong}"), false),
            (format!("ssl=verify-full&ssl-ca={ca}"), is_right_name),
            (format!("ssl=verify-full&ssl-ca={wrong}"), false),
            (format!("socket={socket}"), true),
        ] {
            let target: Target = format!("{}?{query}", database.url).parse().unwrap();
            let engine = daplake::Engine::new(Default::default()).unwrap();
            let done = ops::open_sink(&target, &engine).unwrap().check().await;
            assert_eq!(done.is_ok(), expected, "{authority}: {query}: {done:?}");
            if let Err(error) = done {
                assert!(error.kind() == Kind::Target && error.hint_text().is_some(), "{query}: {error:?}");
            }
        }
    }
}

/// Many servers disable the bulk path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_bulk_path_rows_are_inserted_with_one_warning() {
    without_the_bulk_path(Brand::Mariadb, &["--local-infile=0"]).await;
}

/// A strict server, like many hosted ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mysql_server_that_requires_primary_keys_can_be_used() {
    let settings = ["--local-infile=0", "--sql-require-primary-key=ON", "--sql-generate-invisible-primary-key=ON"];
    without_the_bulk_path(Brand::Mysql, &settings).await;
}

async fn without_the_bulk_path(brand: Brand, settings: &[&str]) {
    let Some(server) = Server::start(brand, settings) else { return };
    let database = Database::on(&Arc::new(server));
    let tables = [canvas("users"), canvas("courses"), web_logs()];
    let world = World::new(school(&tables)).await;
    let arguments = ["--non-interactive", "sync", "--namespace", "all", "--jobs-per-minute", "0", "--target", &database.url];
    for _ in 0..2 {
        let run = world.daplake(&arguments).assert_code(0);
        assert_eq!(run.stderr.matches("LOAD DATA LOCAL INFILE disabled").count(), 1, "{run:?}");
        for table in &tables {
            let rows = database.rows(&format!("{}__{}", table.namespace, table.table));
            assert_same(&world.school, table, world.school.now(), rows);
        }
        world.school.advance();
    }
}

#[test]
fn a_host_that_does_not_resolve_is_reported() {
    for scheme in ["postgresql", "mysql", "mssql"] {
        let target = format!("{scheme}://me:planted-password@no-such-host.invalid/x");
        let output = crate::support::bare_command(&["status", "--target", &target]).output().unwrap();
        let run = crate::support::Run::of(output).assert_code(5).assert_says(&["host not found"]);
        assert!(!run.stderr.contains("planted-password"), "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_mariadb_rolls_back_is_repeated() {
    undone_loads_are_repeated(Brand::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_mysql_rolls_back_is_repeated() {
    undone_loads_are_repeated(Brand::Mysql).await;
}

/// A deadlock and a lock timeout, as the server reports them.
async fn undone_loads_are_repeated(brand: Brand) {
    let Some(database) = Database::new(brand) else { return };
    // Each commit of the school changes some of these.
    let submissions = [canvas("submissions")];
    let world = World::new(school(&submissions)).await;
    let arguments = ["--non-interactive", "sync", "--namespace", "canvas", "--jobs-per-minute", "0", "--target", &database.url];
    world.daplake(&arguments).assert_code(0);
    for (code, state, failures) in [(1213, "40001", 1), (1205, "HY000", 2)] {
        // A rollback does not undo changes of a MyISAM table: the first loads fail.
        database.sql("DROP TABLE IF EXISTS tries; CREATE TABLE tries (n int) ENGINE = MyISAM; INSERT INTO tries VALUES (0)");
        database.sql(&format!(
            "DROP TRIGGER IF EXISTS refused;\nDELIMITER //\nCREATE TRIGGER refused BEFORE INSERT ON canvas__submissions FOR EACH ROW BEGIN \
             UPDATE tries SET n = n + 1; IF (SELECT n FROM tries) <= {failures} THEN \
             SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'The transaction was rolled back'; END IF; END //\nDELIMITER ;"
        ));
        world.school.advance();
        world.daplake(&arguments).assert_code(0).assert_says(&["loading again"]);
        assert_same(&world.school, &submissions[0], world.school.now(), database.rows("canvas__submissions"));
        assert_eq!(database.sql("SELECT n > 1 FROM tries"), "1\n");
    }
}
