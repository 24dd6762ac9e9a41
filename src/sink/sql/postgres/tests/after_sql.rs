//! Statements of the user at the end of a load.

use serde_json::json;

use super::{Fixture, SqlOptions, SqlSink, fixture, load, served};
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::LoadKind;
use crate::sink::conformance::{Change, at};

/// A sink with these statements for `canvas.t*`.
fn with(url: &str, statements: &[&str]) -> Fixture {
    let after_sql = statements.iter().map(|statement| ("canvas.t*".to_owned(), (*statement).to_owned())).collect();
    let options = SqlOptions { after_sql, ..SqlOptions::default() };
    let read =
        |_: TableRef| -> futures::future::BoxFuture<'static, Vec<arrow::array::RecordBatch>> { Box::pin(async { Vec::new() }) };
    Fixture { sink: Box::new(SqlSink::open(&url.parse().unwrap(), options).unwrap()), read: Box::new(read) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_after_a_load_are_part_of_its_transaction() {
    let Some((database, plain)) = fixture() else { return };
    let table = TableRef::new("canvas", "tracked");
    let schema = served(&table, 1, json!({"a": {"type": "string"}}), &[]);
    let row = |id: i64| Change::Up(json!({"id": id, "a": "x"}));
    database.psql("CREATE TABLE public.seen (n bigint, xid xid8 DEFAULT pg_current_xact_id())");
    let counting = with(
        &database.url,
        &[
            "/* rows and times */ INSERT INTO public.seen SELECT count(*) FROM canvas.tracked",
            "SELECT now(), 1.5::numeric, ARRAY[1], count(*) FROM public.seen",
            "SET search_path = pg_temp",
        ],
    );
    load(&counting, &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
    load(&counting, &schema, LoadKind::Merge, &[row(2)], at(2)).await.unwrap();
    assert_eq!(database.psql("SELECT n FROM public.seen ORDER BY n"), "1\n2\n");
    // The rows of the table and of the statement have the same transaction.
    let same = "SELECT count(*) FROM public.seen s JOIN canvas.tracked t ON t.xmin::text::bigint = s.xid::text::bigint WHERE t.id = s.n";
    assert_eq!(database.psql(same), "2\n");
    // Other tables have none.
    let other = TableRef::new("canvas", "other");
    load(&counting, &served(&other, 1, json!({}), &[]), LoadKind::Replace, &[], at(1)).await.unwrap();
    assert_eq!(database.psql("SELECT count(*) FROM public.seen"), "2\n");

    for (statement, field) in [
        ("SELECT * FROM public.\"planted secret\"", Some("a table or view does not exist")),
        ("SELECT planted secret FROM", Some("syntax error")),
        ("DO $$ BEGIN RAISE EXCEPTION 'planted secret'; END $$", None),
        ("INSERT INTO canvas.tracked VALUES (3, 'planted secret')", Some("a key occurs twice")),
        ("SELECT 1; COMMIT; SELECT 'planted secret'", Some("syntax error")),
    ] {
        let failing = with(&database.url, &["INSERT INTO public.seen VALUES (7)", statement]);
        for kind in [LoadKind::Merge, LoadKind::Replace] {
            let error = load(&failing, &schema, kind, &[row(3)], at(3)).await.unwrap_err();
            assert_eq!((error.message(), error.get("error")), ("Statement 2 of after_sql failed", field), "{error:?}");
            assert!(error.get("table") == Some("canvas.tracked") && error.hint_text().is_some(), "{error:?}");
            assert!(!format!("{error:?}").contains("planted"), "{error:?}");
            assert_eq!(database.psql("SELECT max(n) FROM public.seen"), "2\n", "{statement}");
            assert_eq!(database.psql("SELECT max(id) FROM canvas.tracked"), "2\n", "{statement}");
            assert_eq!(plain.sink.committed(&table).await.unwrap().unwrap().bookmark, at(2), "{statement}");
        }
    }
    // A first load leaves no table.
    let first = TableRef::new("canvas", "table_of_a_failure");
    let failing = with(&database.url, &["SELECT 1 / 0"]);
    let error = load(&failing, &served(&first, 1, json!({}), &[]), LoadKind::Replace, &[], at(1)).await.unwrap_err();
    assert_eq!(error.message(), "Statement 1 of after_sql failed");
    assert_eq!(database.psql("SELECT to_regclass('canvas.table_of_a_failure') IS NULL"), "t\n");
    for statement in ["COMMIT", "-- x\nrollback", "START TRANSACTION", "prepare transaction 'x'", "", "(;ABORT"] {
        let refused = with(&database.url, &[statement]);
        let error = load(&refused, &schema, LoadKind::Merge, &[row(3)], at(3)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (Kind::Usage, "Statement 1 of after_sql cannot run in the load's transaction")
        );
    }
}
