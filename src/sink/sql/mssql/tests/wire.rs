//! Sessions, the bulk path and whole loads against a scripted peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use serde_json::{Value, json};

use super::super::connection::MssqlServer;
use super::super::dialect::MssqlDialect;
use super::peer::{Answer, Peer, Seen, one};
use super::{odd, served, table_of};
use crate::error::{Kind, Result};
use crate::model::TableRef;
use crate::schema::{ACTION, TableSchema};
use crate::sink::conformance::{self, Change, at, reduced};
use crate::sink::sql::connection::{Connection, CopyColumn, CopyTarget, Server};
use crate::sink::sql::dialect::{MergeStatements, Names, Statement, Transactions};
use crate::sink::sql::sync_state::SYNC_COLUMNS;
use crate::sink::sql::{SqlOptions, SqlSink};
use crate::sink::{LoadKind, LoadPlan, Sink, WriteError};

async fn connect(peer: &Peer, query: &str) -> Result<Box<dyn Connection>> {
    MssqlServer::from_url(&peer.url(query).parse().unwrap()).unwrap().connect().await
}

fn sql(text: &str) -> Statement {
    Statement::new(text)
}

#[tokio::test]
async fn a_session_returns_rows_and_counts() {
    let peer = Peer::new(|seen| match seen {
        Seen::Sql(text, values) if text == "ask" => Answer::Rows(vec![values.clone(), vec![None, Some("b".into())]]),
        Seen::Sql(text, _) if text == "count" => one("7"),
        Seen::Sql(text, _) if text == "SELECT @@TRANCOUNT" => one("0"),
        _ => Answer::Done,
    })
    .await;
    let mut session = connect(&peer, "?ssl=disable").await.unwrap();
    let long = "ü😀".repeat(5000);
    let rows = session.rows(&sql("ask").bind("it's").bind(long.clone())).await.unwrap();
    assert_eq!(rows, [vec![Some("it's".to_owned()), Some(long.clone())], vec![None, Some("b".to_owned())]]);
    assert_eq!(session.execute(&sql("count")).await.unwrap(), 7);
    assert_eq!(session.execute(&sql("nothing")).await.unwrap(), 0);
    assert!(session.is_idle() && session.is_alive().await);
    drop(session);
    peer.wait_for(|seen| *seen == Seen::End).await;
    let seen = peer.seen();
    assert_eq!(seen[0], Seen::Login("db".into(), "me".into()));
    assert!(matches!(&seen[1], Seen::Sql(text, _) if text.contains("XACT_ABORT ON") && text.contains("ANSI_WARNINGS ON")));
    assert_eq!(seen[2], Seen::Sql("ask".into(), vec![Some("it's".into()), Some(long)]));
    assert!(!seen.contains(&Seen::Attention));
}

#[tokio::test]
async fn a_session_with_an_error_is_not_used_again() {
    let peer = Peer::new(|seen| match seen {
        Seen::Sql(text, _) if text == "bad" => Answer::Error(2627, "Violation of PRIMARY KEY constraint 'pk'. Cannot insert duplicate key in object 'o'. The duplicate key value is (secret)."),
        Seen::Sql(text, _) if text == "cut" => Answer::Cut,
        Seen::Sql(text, _) if text == "SELECT @@TRANCOUNT" => one("1"),
        _ => Answer::Done,
    })
    .await;
    let mut session = connect(&peer, "?ssl=disable").await.unwrap();
    let error = session.execute(&sql("bad")).await.unwrap_err();
    assert!(MssqlDialect.is_duplicate(&error) && error.kind() == Kind::Data);
    assert!(!format!("{error:?}").contains("secret"));
    assert!(!session.is_idle() && !session.is_alive().await);
    assert_eq!(session.execute(&sql("more")).await.unwrap_err().kind(), Kind::Target);

    let mut session = connect(&peer, "?ssl=disable").await.unwrap();
    let error = session.rows(&sql("cut")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    // A session with an open transaction is not used for another.
    let mut session = connect(&peer, "?ssl=disable").await.unwrap();
    assert!(session.is_idle() && !session.is_alive().await);
    assert!(!peer.seen().iter().any(|seen| matches!(seen, Seen::Sql(text, _) if text == "more")));
}

#[tokio::test]
async fn logins_are_refused_redirected_and_kept_from_servers_without_tls() {
    let home = Peer::new(|_| Answer::Done).await;
    let port = home.port;
    let gateway = Peer::new(move |_| Answer::Route(port)).await;
    connect(&gateway, "?ssl=disable").await.unwrap();
    assert_eq!(home.seen()[0], Seen::Login("db".into(), "me".into()));
    let circle = Peer::new(|_| Answer::Done).await;
    drop(circle);

    let strict = Peer::new(|_| Answer::Error(18_456, "Login failed for user 'me'.")).await;
    let error = connect(&strict, "?ssl=disable").await.err().unwrap();
    assert!(error.kind() == Kind::Target && error.hint_text().is_some(), "{error:?}");
    assert_eq!(error.get("number"), Some("18456"));

    // The peer offers no TLS: by default nothing is sent to it, and never the password.
    for query in ["", "?ssl=require", "?ssl=verify-full"] {
        let plain = Peer::new(|_| Answer::Done).await;
        let error = connect(&plain, query).await.err().unwrap();
        assert!(
            error.kind() == Kind::Target && error.hint_text().is_some_and(|hint| hint.contains("ssl=disable")),
            "{error:?}"
        );
        assert!(!plain.seen().iter().any(|seen| matches!(seen, Seen::Login(..))));
    }
    connect(&home, "?ssl=prefer").await.unwrap();
}

/// A batch of rows and where it goes.
fn copy(schema: &TableSchema, rows: &[Change]) -> (CopyTarget, RecordBatch, Statement) {
    let table = table_of(schema);
    let action = CopyColumn { name: "[_action]".into(), source: ACTION.into(), sql_type: "nvarchar(1)".into() };
    let columns = table.columns.iter().map(|column| CopyColumn {
        name: MssqlDialect.quote(&column.name),
        source: column.source.clone(),
        sql_type: column.stage_type.clone(),
    });
    let keys = table.columns.iter().filter(|column| column.key).map(|column| column.source.clone()).collect();
    let into = CopyTarget { table: MssqlDialect.stage(), columns: std::iter::once(action).chain(columns).collect(), keys };
    (into, conformance::changes(schema, rows), MssqlDialect.create_stage(&table).pop().unwrap())
}

#[tokio::test]
async fn rows_arrive_value_by_value() {
    let peer = Peer::new(|_| Answer::Done).await;
    let mut session = connect(&peer, "?ssl=disable").await.unwrap();
    let types = conformance::every_type();
    let mut value: Vec<_> = types.iter().map(|(column, _)| column.clone()).collect();
    let four = conformance::column("four", crate::schema::ColumnType::Ip { v4: true, v6: false }, false);
    value.push(four);
    value.push(conformance::column("odd]name \"'", conformance::TEXT, false));
    let key = vec![conformance::column("id", crate::schema::ColumnType::Int64, true)];
    let schema = conformance::schema(&TableRef::new("canvas", "types"), 1, key, value);
    let row = |extreme: usize, id: i64| {
        let mut row = json!({"id": id, "four": "1.2.3.4", "odd]name \"'": "]"});
        for (column, values) in &types {
            row[&column.name] = values[extreme].clone();
        }
        row
    };
    let rows = [Change::Up(row(0, i64::MIN)), Change::Up(row(1, i64::MAX)), Change::Del(json!({"id": 7}))];
    let (into, batch, stage) = copy(&schema, &rows);
    session.execute(&stage).await.unwrap();
    // A long string needs many packets.
    let sent = session.copy_in(&into, &batch).await.unwrap();
    assert!(sent > 200_000, "{sent}");
    assert!(session.is_idle());
    let seen = peer.seen();
    let [.., Seen::Bulk(rows), Seen::Sql(insert, long)] = &seen[..] else { panic!("{seen:?}") };
    let mut expected = json!([
        [
            "U",
            "-9223372036854775808",
            "1",
            "-32768",
            "-2147483648",
            "-9223372036854775808",
            (-3.0e38_f32).to_string(),
            (-1.7e308_f64).to_string(),
            "9999999999999999999999999999.9999999999",
            "",
            "x".repeat(100_000),
            "x",
            "0001-01-01 00:00:00.000000",
            "0001-01-01",
            "00:00:00.000000",
            "0".repeat(32),
            "0".repeat(32),
            "{\"a\":\"\",\"b\":{\"c\":-9223372036854775808}}",
            "[]",
            "{\"k\":[1]}",
            "01020304",
            "]"
        ],
        [
            "U",
            "9223372036854775807",
            "0",
            "32767",
            "2147483647",
            "9223372036854775807",
            1.0e-38_f32.to_string(),
            5e-324_f64.to_string(),
            "-9999999999999999999999999999.9999999999",
            "naïve \u{1F600}\u{10ffff} \t\"'\\ \u{0}",
            " ",
            "never announced",
            "9999-12-31 23:59:59.999999",
            "9999-12-31",
            "23:59:59.999999",
            "f".repeat(32),
            "ffff0000000000000000000000000001",
            "{\"a\":\"x\"}",
            "[\"a\",null,\"\"]",
            "null",
            "01020304",
            "]"
        ],
        [
            "D", "7", null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
            null, null, null
        ],
    ]);
    // The driver's bulk path refuses the long string; its row is inserted alone.
    let alone = expected.as_array_mut().unwrap().remove(0);
    assert_eq!(json!(rows), expected);
    assert_eq!(json!(long), alone);
    assert!(insert.starts_with("INSERT INTO [#daplake_stage] ([_action], [id], [flag], "), "{insert}");
    assert!(insert.ends_with("@P21, @P22)"), "{insert}");
    // The driver uses the quoted names of the columns in its query and its command.
    let texts: Vec<&str> =
        seen.iter().filter_map(|seen| if let Seen::Sql(text, _) = seen { Some(text.as_str()) } else { None }).collect();
    let [.., ask, command, _] = &texts[..] else { panic!() };
    assert!(
        ask.starts_with("SELECT TOP 0 [_action], [id], [flag]") && ask.ends_with(", [odd]]name \"'] FROM [#daplake_stage]"),
        "{ask}"
    );
    assert!(command.starts_with("INSERT BULK [#daplake_stage] ([_action] nvarchar("), "{command}");
    assert!(
        command.contains("[ts] datetime2(6)")
            && command.contains("[dec] decimal(38,10)")
            && command.contains("[odd]]name \"'] nvarchar(max)"),
        "{command}"
    );
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_by_column_and_key() {
    let peer = Peer::new(|_| Answer::Done).await;
    for (name, value) in
        [("clock", json!("24:00:00")), ("uuid", json!("secret")), ("four", json!("::1")), ("state", json!("secret".repeat(50)))]
    {
        let mut session = connect(&peer, "?ssl=disable").await.unwrap();
        let schema = odd();
        let (into, batch, stage) = copy(&schema, &[Change::Up(json!({"id": 1})), Change::Up(json!({"id": 5, name: value}))]);
        session.execute(&stage).await.unwrap();
        let error = session.copy_in(&into, &batch).await.unwrap_err();
        assert_eq!((error.kind(), error.get("column"), error.get("key")), (Kind::Data, Some(name), Some("id=5")), "{error:?}");
        assert!(!format!("{error:?}").contains("secret") && !session.is_idle());
        // The server waits for the rest of the rows, so the session is not used again.
        assert_eq!(session.execute(&MssqlDialect.rollback()).await.unwrap_err().kind(), Kind::Target);
    }
    assert!(!peer.seen().iter().any(|seen| matches!(seen, Seen::Bulk(_))), "an incomplete batch is not finished");
}

#[tokio::test]
async fn a_bulk_load_ends_with_an_error_or_the_end_of_the_connection() {
    let schema = odd();
    let peer = Peer::new(|seen| match seen {
        Seen::Bulk(rows) => match rows.len() {
            1 => Answer::Error(
                2628,
                "String or binary data would be truncated in table 'tempdb.#s', column 'text'. Truncated value: 'secret'.",
            ),
            2 => Answer::Cut,
            _ => Answer::Silence,
        },
        _ => Answer::Done,
    })
    .await;
    for (count, kind) in [(1, Kind::Data), (2, Kind::Target)] {
        let mut session = connect(&peer, "?ssl=disable").await.unwrap();
        let rows: Vec<Change> = (0..count).map(|id| Change::Up(json!({"id": id, "text": "secret"}))).collect();
        let (into, batch, stage) = copy(&schema, &rows);
        session.execute(&stage).await.unwrap();
        let error = session.copy_in(&into, &batch).await.unwrap_err();
        assert!(error.kind() == kind && !format!("{error:?}").contains("secret") && !session.is_idle(), "{error:?}");
        assert!(count != 1 || error.get("column") == Some("text"));
    }
    // Dropping a waiting session closes the connection, and so ends the transaction.
    let mut session = connect(&peer, "?ssl=disable").await.unwrap();
    let rows: Vec<Change> = (0..3).map(|id| Change::Up(json!({"id": id}))).collect();
    let (into, batch, stage) = copy(&schema, &rows);
    session.execute(&stage).await.unwrap();
    tokio::select! {
        result = session.copy_in(&into, &batch) => panic!("{result:?}"),
        () = peer.wait_for(|seen| matches!(seen, Seen::Bulk(rows) if rows.len() == 3)) => {}
    }
    assert!(!session.is_idle());
    let ended = |peer: &Peer| peer.seen().iter().filter(|seen| **seen == Seen::End).count();
    let before = ended(&peer);
    drop(session);
    while ended(&peer) == before {
        tokio::task::yield_now().await;
    }
    assert!(!peer.seen().contains(&Seen::Attention));
}

/// Answers a sink's queries about a table with rows: `id`, `name`, `state`.
fn sink_script(seen: &Seen) -> Answer {
    let Seen::Sql(text, values) = seen else { return Answer::Done };
    let row = |cells: &[&str]| cells.iter().map(|cell| Some((*cell).to_owned())).collect::<Vec<_>>();
    match text.as_str() {
        _ if text.starts_with("SELECT o.name, c.name") => {
            let sync = SYNC_COLUMNS.iter().map(|column| row(&["table_sync", column, "1"]));
            Answer::Rows(sync.chain([row(&["database_version", "version", "1"])]).collect())
        }
        _ if text.starts_with("SELECT [version] FROM") => one("1"),
        _ if text.starts_with("SELECT @@TRANCOUNT") => one("0"),
        _ if text.contains("@LockTimeout = 0") => one("1"),
        _ if text.starts_with("DELETE t FROM") => one("1"),
        _ if text.starts_with("SELECT CAST([source_namespace]")
            && (values.is_empty() || values[1].as_deref() == Some("users")) =>
        {
            Answer::Rows(vec![row(&["canvas", "users", "5", "1000001", "1", "1", "{}"])])
        }
        _ if text.starts_with("SELECT CAST([source_namespace]") => Answer::Rows(Vec::new()),
        _ if text.starts_with("SELECT c.name") && values[0].as_deref() == Some("[canvas].[users]") => {
            let mut rows = vec![
                row(&["id", "bigint", "8", "19", "0", "0", "1", "0", ""]),
                row(&["name", "varchar", "40", "0", "0", "0", "0", "0", ""]),
                row(&["state", "int", "4", "10", "0", "1", "0", "0", "[canvas].[users__state]"]),
            ];
            rows[..2].iter_mut().for_each(|row| row[8] = None);
            Answer::Rows(rows)
        }
        _ if text.starts_with("SELECT c.name") => Answer::Rows(Vec::new()),
        _ => Answer::Done,
    }
}

async fn load(sink: &SqlSink, schema: &TableSchema, kind: LoadKind, rows: &[Change]) -> Result<crate::sink::LoadSummary> {
    let expected = sink.committed(&schema.table).await?.map(|held| held.bookmark);
    let plan = LoadPlan {
        table: schema.table.clone(),
        schema: std::sync::Arc::new(schema.clone()),
        nested: Default::default(),
        kind,
        expected,
        run_id: "run".into(),
        job_id: "job".into(),
        layout: Default::default(),
        is_snapshot: kind == LoadKind::Replace,
        as_of: crate::model::Timestamp::now(),
    };
    let mut opened = sink.begin(plan).await?;
    opened.write(reduced(schema, vec![conformance::changes(schema, rows)])).await.map_err(WriteError::into_error)?;
    opened.commit(at(2)).await
}

fn people(table: &str, longest: u64) -> TableSchema {
    let value = json!({"name": {"type": "string", "maxLength": longest}, "state": {"type": "string", "enum": ["a"]}});
    served(&TableRef::new("canvas", table), 1, value, &["name"])
}

fn person(id: i64, name: Value) -> Value {
    json!({"id": id, "name": name, "state": "a"})
}

#[tokio::test]
async fn a_load_is_one_transaction_of_set_statements() {
    let peer = Peer::new(sink_script).await;
    let sink = SqlSink::open(&peer.url("?ssl=disable").parse().unwrap(), SqlOptions::default()).unwrap();
    sink.check().await.unwrap();
    let changes = [Change::Up(person(1, json!("é"))), Change::Up(person(2, json!(null))), Change::Del(json!({"id": 3}))];
    let loaded = load(&sink, &people("users", 20), LoadKind::Merge, &changes).await.unwrap();
    assert_eq!((loaded.upserted, loaded.deleted), (2, 1));
    load(&sink, &people("accounts", 20), LoadKind::Replace, &changes[..1]).await.unwrap();
    let talk: String = peer
        .seen()
        .iter()
        .map(|seen| match seen {
            Seen::Sql(text, values) if values.is_empty() => format!("{text};\n"),
            Seen::Sql(text, values) => format!("{text}; -- {values:?}\n"),
            other => format!("-- {other:?}\n"),
        })
        .collect();
    insta::assert_snapshot!("mssql_load", talk);
}

#[tokio::test]
async fn a_load_that_fails_in_the_middle_commits_nothing() {
    for (at_text, answer) in [
        ("bulk", Answer::Cut),
        ("bulk", Answer::Error(1105, "Could not allocate space for object 'x'.")),
        ("UPDATE t SET", Answer::Cut),
        ("INSERT INTO [canvas].[users]", Answer::Error(1205, "Transaction was deadlocked.")),
        ("UPDATE [instructure_dap]", Answer::Cut),
        ("COMMIT", Answer::Cut),
    ] {
        let is_here = move |seen: &Seen| match seen {
            Seen::Bulk(_) => at_text == "bulk",
            Seen::Sql(text, _) => text.starts_with(at_text),
            _ => false,
        };
        // The transaction of the sync state comes first.
        let peer = Peer::new(move |seen| if is_here(seen) { answer.clone() } else { sink_script(seen) }).await;
        let sink = SqlSink::open(&peer.url("?ssl=disable").parse().unwrap(), SqlOptions::default()).unwrap();
        if at_text == "COMMIT" {
            // Whether the server committed is unknown; the next run finds out.
            let error = load(&sink, &people("users", 10), LoadKind::Merge, &[]).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Target);
            continue;
        }
        let rows = [Change::Up(person(1, json!("a"))), Change::Del(json!({"id": 3}))];
        let error = load(&sink, &people("users", 10), LoadKind::Merge, &rows).await.unwrap_err();
        assert_eq!(error.get("table"), Some("canvas.users"), "{error:?}");
        let after = peer.seen().iter().position(is_here).unwrap();
        let rest: Vec<Seen> = peer.seen().split_off(after + 1);
        assert!(rest.iter().all(|seen| *seen == Seen::End), "only the end follows: {rest:?}");
    }
}

/// Texts of the statements that a peer has seen.
fn statements(peer: &Peer) -> Vec<String> {
    let texts = peer.seen().into_iter().filter_map(|seen| if let Seen::Sql(text, _) = seen { Some(text) } else { None });
    texts.collect()
}

fn place(statements: &[String], part: &str) -> usize {
    statements.iter().position(|text| text.contains(part)).unwrap_or_else(|| panic!("no {part}: {statements:#?}"))
}

fn open(peer: &Peer) -> SqlSink {
    SqlSink::open(&peer.url("?ssl=disable").parse().unwrap(), SqlOptions::default()).unwrap()
}

/// The enumeration was a text before.
#[tokio::test]
async fn a_new_snapshot_creates_the_lookup_table_before_the_foreign_key() {
    let peer = Peer::new(|seen| match seen {
        Seen::Sql(text, values) if text.starts_with("SELECT c.name") && values[0].as_deref() == Some("[canvas].[users]") => {
            let row = |cells: [&str; 8]| cells.iter().map(|cell| Some((*cell).to_owned())).chain([None]).collect::<Vec<_>>();
            Answer::Rows(vec![
                row(["id", "bigint", "8", "19", "0", "0", "1", "0"]),
                row(["name", "varchar", "40", "0", "0", "0", "0", "0"]),
                row(["state", "varchar", "-1", "0", "0", "1", "0", "0"]),
            ])
        }
        other => sink_script(other),
    })
    .await;
    load(&open(&peer), &people("users", 10), LoadKind::Replace, &[Change::Up(person(1, json!("a")))]).await.unwrap();
    let seen = statements(&peer);
    let (made, referred) =
        (place(&seen, "CREATE TABLE [canvas].[users__state]"), place(&seen, "REFERENCES [canvas].[users__state]"));
    assert!(made < referred && referred < place(&seen, "INSERT INTO [canvas].[users__state]"), "{seen:#?}");
}

#[tokio::test]
async fn enum_values_that_the_schema_does_not_list_are_reported_once() {
    for (known, expected) in [("a", 1), ("odd", 0)] {
        let peer = Peer::new(move |seen| match seen {
            Seen::Sql(text, _) if text.starts_with("SELECT [id], CAST([value]") => {
                Answer::Rows(vec![vec![Some("1".into()), Some(known.into())]])
            }
            other => sink_script(other),
        })
        .await;
        let rows = ["odd", "odd", "a"].map(|state| Change::Up(json!({"id": 1, "name": "x", "state": state})));
        let loaded = load(&open(&peer), &people("users", 10), LoadKind::Merge, &rows).await.unwrap();
        assert_eq!(loaded.warnings.len(), expected, "{loaded:?}");
        assert!(
            loaded.warnings.iter().all(|warning| warning.starts_with("`state`: ") && warning.contains(" by 1 value ")),
            "{loaded:?}"
        );
    }
}

#[tokio::test]
async fn a_bulk_load_with_missing_rows_fails() {
    for taken in [0, 1, 3] {
        let peer =
            Peer::new(move |seen| if matches!(seen, Seen::Bulk(_)) { Answer::Taken(taken) } else { sink_script(seen) }).await;
        let rows = [Change::Up(person(1, json!("a"))), Change::Up(person(2, json!("b")))];
        let error = load(&open(&peer), &people("users", 10), LoadKind::Merge, &rows).await.unwrap_err();
        let counts = (error.get("sent"), error.get("stored"));
        assert_eq!((error.kind(), counts), (Kind::Target, (Some("2"), Some(taken.to_string().as_str()))), "{error:?}");
        assert!(!statements(&peer).iter().any(|text| text.starts_with("UPDATE [instructure_dap]")), "the bookmark stays");
    }
}

/// Deadlock, lock timeout, conflict of snapshot isolation: by a merge, and by a change of the table.
#[tokio::test]
async fn a_load_that_the_server_rolls_back_succeeds_when_repeated() {
    for (number, refused) in
        [(1205, "UPDATE t SET"), (3960, "DELETE t FROM"), (1222, "ALTER TABLE [canvas].[users] ADD [born]")]
    {
        let failures = Arc::new(AtomicUsize::new(2));
        let left = Arc::clone(&failures);
        let peer = Peer::new(move |seen| match seen {
            Seen::Sql(text, _)
                if text.starts_with(refused)
                    && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() =>
            {
                Answer::Error(number, "The transaction was rolled back.")
            }
            other => sink_script(other),
        })
        .await;
        let sink = open(&peer);
        let value = json!({"name": {"type": "string", "maxLength": 10}, "state": {"type": "string", "enum": ["a"]},
            "born": {"type": "string", "format": "date"}});
        let schema = served(&TableRef::new("canvas", "users"), 2, value, &["name"]);
        let rows = [Change::Up(person(1, json!("a"))), Change::Del(json!({"id": 3}))];
        for _ in 0..2 {
            let error = load(&sink, &schema, LoadKind::Merge, &rows).await.unwrap_err();
            assert!(sink.is_retryable(&error) && error.kind() == Kind::Conflict, "{error:?}");
            assert_eq!(error.get("number"), Some(number.to_string().as_str()));
        }
        assert!(!statements(&peer).iter().any(|text| text.starts_with("UPDATE [instructure_dap]")), "the bookmark stays");
        let loaded = load(&sink, &schema, LoadKind::Merge, &rows).await.unwrap();
        assert_eq!((loaded.upserted, loaded.deleted), (1, 1));
        // Each attempt has a session of its own: the server may have done anything to the transaction of the one before.
        let logins = peer.seen().iter().filter(|seen| matches!(seen, Seen::Login(..))).count();
        assert_eq!(logins, 3, "{:#?}", statements(&peer));
    }
}

#[tokio::test]
async fn a_change_of_a_table_waits_for_locks_for_a_limited_time() {
    let peer = Peer::new(sink_script).await;
    let value = json!({"name": {"type": "string", "maxLength": 10}, "state": {"type": "string", "enum": ["a"]}, "born": {"type": "string"}});
    let schema = served(&TableRef::new("canvas", "users"), 2, value, &["name"]);
    load(&open(&peer), &schema, LoadKind::Merge, &[Change::Up(person(1, json!("a")))]).await.unwrap();
    let seen = statements(&peer);
    let change = place(&seen, "ALTER TABLE [canvas].[users] ADD [born]");
    assert_eq!(seen[change - 1], "SET LOCK_TIMEOUT 10000");
    assert!(seen[change..].iter().position(|text| text == "SET LOCK_TIMEOUT -1") < Some(4), "{seen:#?}");
}

#[tokio::test]
async fn numbers_too_close_to_zero_become_zero_and_are_counted() {
    let peer = Peer::new(sink_script).await;
    let value = json!({"double": {"type": "number"}, "single": {"type": "number", "format": "float32"}});
    let schema = served(&TableRef::new("canvas", "accounts"), 1, value, &[]);
    let rows = [json!([5e-324, 1.0e-40]), json!([f64::MIN_POSITIVE, 1.5]), json!([-1.0e-310, null])];
    let rows = rows.into_iter().zip(1..).map(|(row, id)| Change::Up(json!({"id": id, "double": row[0], "single": row[1]})));
    let loaded = load(&open(&peer), &schema, LoadKind::Replace, &rows.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(loaded.warnings.len(), 2, "{loaded:?}");
    assert!(
        loaded.warnings[0].starts_with("`double`: stored 0 for 2 ")
            && loaded.warnings[1].starts_with("`single`: stored 0 for 1 "),
        "{loaded:?}"
    );
    let sent = peer.seen().into_iter().find_map(|seen| if let Seen::Bulk(rows) = seen { Some(rows) } else { None }).unwrap();
    let sent: Vec<_> = sent.into_iter().map(|row| (row[2].clone().unwrap().parse::<f64>().unwrap(), row[3].clone())).collect();
    assert_eq!(sent, [(0.0, Some("0".into())), (f64::MIN_POSITIVE, Some("1.5".into())), (0.0, None)]);
}
