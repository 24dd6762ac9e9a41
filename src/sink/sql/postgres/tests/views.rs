//! Views, rules, policies and triggers on a column that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Database, Fixture, SqlOptions, SqlSink, fixture, fixture_on, integers, load, served};
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::LoadKind;
use crate::sink::conformance::{Change, at};
use crate::sink::sql::DependentViews;

/// A sink of another user or with other options.
fn with(fixture: Fixture, url: &str, options: SqlOptions) -> Fixture {
    Fixture { sink: Box::new(SqlSink::open(&url.parse().unwrap(), options).unwrap()), ..fixture }
}

fn number(format: &str) -> Value {
    json!({"c": {"type": "integer", "format": format}, "d": {"type": "string", "maxLength": 3}})
}

fn row(id: i64, c: i64) -> Change {
    Change::Up(json!({"id": id, "c": c, "d": "x"}))
}

/// All that belongs to the views of the schema `rep` and to the parts of the tables of `canvas`, except for ids.
const EVERYTHING: &str = "SELECT string_agg(x::text, E'\\n' ORDER BY x::text) FROM (\
     SELECT ('view', c.oid::regclass, c.relkind, c.relispopulated, c.relowner::regrole, c.relacl, c.reloptions, c.reltablespace, \
       pg_get_viewdef(c.oid), obj_description(c.oid)) AS x FROM pg_class c WHERE relnamespace = 'rep'::regnamespace AND relkind IN ('v', 'm') \
     UNION ALL SELECT ('column', attrelid::regclass, attname, attacl, attstattarget, attoptions, col_description(attrelid, attnum), \
       (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum)) \
       FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'rep'::regnamespace AND relkind IN ('v', 'm') AND attnum > 0 \
     UNION ALL SELECT ('index', pg_get_indexdef(indexrelid), indisclustered, indisvalid, obj_description(indexrelid)) FROM pg_index \
       JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = 'rep'::regnamespace \
     UNION ALL SELECT ('statistics', pg_get_statisticsobjdef(oid)) FROM pg_statistic_ext \
     UNION ALL SELECT ('rule', pg_get_ruledef(r.oid), ev_enabled, obj_description(r.oid)) FROM pg_rewrite r \
       JOIN pg_class c ON c.oid = ev_class WHERE relnamespace IN ('rep'::regnamespace, 'canvas'::regnamespace) AND rulename <> '_RETURN' \
     UNION ALL SELECT ('trigger', pg_get_triggerdef(t.oid), tgenabled, obj_description(t.oid)) FROM pg_trigger t \
       JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace IN ('rep'::regnamespace, 'canvas'::regnamespace) AND NOT tgisinternal \
     UNION ALL SELECT ('policy', polname, polcmd, polpermissive, polroles::regrole[], pg_get_expr(polqual, polrelid), \
       pg_get_expr(polwithcheck, polrelid), obj_description(oid)) FROM pg_policy) AS everything";

/// Roles of one test: the loader, the owner of the views, and two readers.
struct Roles([String; 4]);

impl Roles {
    fn create(database: &Database, name: &str) -> Self {
        let roles = ["etl", "analyst", "boss", "clerk"].map(|role| format!("{name}_{role}"));
        for role in &roles {
            let exists = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'");
            if database.psql(&exists) == "0\n" {
                database.psql(&format!("CREATE ROLE {role} LOGIN"));
            }
        }
        let Self([etl, analyst, boss, clerk]) = Self(roles.clone());
        database.psql(&format!(
            "GRANT {analyst}, {boss} TO {etl}; GRANT CREATE, TEMPORARY ON DATABASE \"{}\" TO {etl}; CREATE SCHEMA rep AUTHORIZATION {analyst}; \
             GRANT USAGE ON SCHEMA rep TO {boss}, {clerk}",
            database.name()
        ));
        Self(roles)
    }

    /// Replaces the short names of the roles.
    fn named(&self, sql: &str) -> String {
        let Self([etl, analyst, boss, clerk]) = self;
        sql.replace("$etl", etl).replace("$analyst", analyst).replace("$boss", boss).replace("$clerk", clerk)
    }
}

async fn everything_of_views_survives(database: Database, name: &str) {
    let roles = Roles::create(&database, name);
    let (database, fixture) = fixture_on(database);
    let fixture = with(fixture, &database.url_of(&roles.0[0]), SqlOptions::default());
    let table = TableRef::new("canvas", "seen");
    let rows = [row(1, 1), row(2, 2)];
    load(&fixture, &served(&table, 1, number("int16"), &[]), LoadKind::Replace, &rows, at(1)).await.unwrap();
    database.psql(&roles.named(
        "GRANT USAGE ON SCHEMA canvas TO $analyst, $clerk; GRANT SELECT ON canvas.seen TO $analyst, $clerk; \
         CREATE TABLE public.audit (id bigint, c int, how text); GRANT ALL ON public.audit TO $etl; \
         CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           INSERT INTO public.audit VALUES (new.id, new.c, 'trigger'); RETURN new; END $$",
    ));
    database.psql(&roles.named(
        "SET ROLE $etl; ALTER TABLE canvas.seen ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY \"my policy\" ON canvas.seen AS RESTRICTIVE FOR SELECT TO $clerk, $boss USING (c > 1); \
         CREATE POLICY all_rows ON canvas.seen USING (true) WITH CHECK (c IS NOT NULL); \
         COMMENT ON POLICY \"my policy\" ON canvas.seen IS 'it''s mine'; \
         CREATE RULE noted AS ON DELETE TO canvas.seen WHERE old.c > 2 DO ALSO INSERT INTO public.audit VALUES (old.id, old.c, 'rule'); \
         COMMENT ON RULE noted ON canvas.seen IS 'a rule'; ALTER TABLE canvas.seen DISABLE RULE noted; \
         CREATE TRIGGER noted AFTER INSERT ON canvas.seen FOR EACH ROW WHEN (new.c > 2) EXECUTE FUNCTION public.noted(); \
         COMMENT ON TRIGGER noted ON canvas.seen IS 'a trigger'; ALTER TABLE canvas.seen ENABLE ALWAYS TRIGGER noted",
    ));
    database.psql(&roles.named(
        "SET ROLE $analyst; ALTER DEFAULT PRIVILEGES IN SCHEMA rep GRANT SELECT ON TABLES TO $boss; \
         CREATE VIEW rep.\"V 1\" WITH (security_barrier) AS SELECT id, c AS \"C\", d FROM canvas.seen WHERE c > 0; \
         COMMENT ON VIEW rep.\"V 1\" IS E'a\\\\b $do$ %s'; COMMENT ON COLUMN rep.\"V 1\".\"C\" IS 'it''s c'; \
         REVOKE ALL ON rep.\"V 1\" FROM $boss; REVOKE DELETE ON rep.\"V 1\" FROM $analyst; \
         GRANT SELECT ON rep.\"V 1\" TO $boss WITH GRANT OPTION; GRANT UPDATE (\"C\") ON rep.\"V 1\" TO $clerk; \
         GRANT INSERT ON rep.\"V 1\" TO PUBLIC; SET ROLE $boss; GRANT SELECT ON rep.\"V 1\" TO $clerk; SET ROLE $analyst; \
         CREATE VIEW rep.v2 AS SELECT \"C\" + 1 AS n, id FROM rep.\"V 1\" WITH LOCAL CHECK OPTION; \
         ALTER VIEW rep.v2 ALTER COLUMN n SET DEFAULT 7; REVOKE ALL ON rep.v2 FROM $boss; \
         CREATE RULE no_insert AS ON INSERT TO rep.v2 DO INSTEAD NOTHING; COMMENT ON RULE no_insert ON rep.v2 IS 'none'; \
         CREATE VIEW rep.keyed AS SELECT id, count(d) AS k FROM canvas.seen WHERE c = c GROUP BY id; \
         CREATE VIEW rep.apart AS SELECT id, d FROM canvas.seen; \
         CREATE MATERIALIZED VIEW rep.sums WITH (fillfactor = 70) AS SELECT n, count(*) AS k, sum(n)::int8 AS s FROM rep.v2 GROUP BY n; \
         CREATE UNIQUE INDEX sums_n ON rep.sums (n); CREATE INDEX sums_k ON rep.sums USING hash (k); \
         COMMENT ON INDEX rep.sums_n IS 'unique'; ALTER MATERIALIZED VIEW rep.sums CLUSTER ON sums_n; \
         ALTER MATERIALIZED VIEW rep.sums ALTER COLUMN k SET STATISTICS 500; ALTER MATERIALIZED VIEW rep.sums ALTER COLUMN k SET (n_distinct = 5); \
         CREATE STATISTICS rep.both ON n, k FROM rep.sums; COMMENT ON MATERIALIZED VIEW rep.sums IS 'the sums'; \
         CREATE MATERIALIZED VIEW rep.unfilled AS SELECT n FROM rep.v2 WITH NO DATA; \
         CREATE MATERIALIZED VIEW rep.top AS SELECT max(k) AS k FROM rep.sums; \
         CREATE VIEW rep.last AS SELECT t.k, s.s FROM rep.top t JOIN rep.sums s USING (k)",
    ));
    let apart = database.psql("SELECT 'rep.apart'::regclass::oid");
    // With instead-of triggers only a superuser's function is at hand.
    database.psql(&roles.named(
        "CREATE FUNCTION public.instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; SET ROLE $analyst; \
         CREATE TRIGGER instead INSTEAD OF UPDATE ON rep.v2 FOR EACH ROW EXECUTE FUNCTION public.instead(); \
         COMMENT ON TRIGGER instead ON rep.v2 IS 'instead'",
    ));
    let before = database.psql(EVERYTHING);
    for (version, format, kind) in [(2, "int32", LoadKind::Merge), (3, "int64", LoadKind::Replace)] {
        let schema = served(&table, version, number(format), &[]);
        let rows = [row(1, 1), row(2, 2), row(3, 3), row(4, 3)];
        let loaded = load(&fixture, &schema, kind, &rows, at(version)).await.unwrap();
        let note = loaded.schema_changes.iter().find(|note| note.starts_with("recreated for it: ")).unwrap();
        assert!(
            ["view rep.\"V 1\"", "view rep.v2", "materialized view rep.sums", "policy \"my policy\" of canvas.seen"]
                .iter()
                .all(|name| note.contains(name)),
            "{note}"
        );
        assert!(!note.contains("rep.apart"), "{note}");
        assert_eq!(database.psql(EVERYTHING), before, "{format}");
        // Materialized views have the new rows.
        assert_eq!(database.psql("SELECT n, k, s FROM rep.sums ORDER BY n"), "2|1|2\n3|1|3\n4|2|8\n", "{format}");
        assert_eq!(database.psql("SELECT k, s FROM rep.last"), "2|8\n");
    }
    assert_eq!(database.psql("SELECT 'rep.apart'::regclass::oid"), apart);
    assert_eq!(database.psql(&roles.named("SET ROLE $clerk; SELECT \"C\" FROM rep.\"V 1\" ORDER BY 1")), "1\n2\n3\n3\n");
    // The trigger saw all rows, those of the change as well.
    assert_eq!(database.psql("SELECT id, how FROM public.audit ORDER BY 1, 2"), "3|trigger\n3|trigger\n4|trigger\n4|trigger\n");
    // A longer string changes another column of the same views.
    let longer = [Change::Up(json!({"id": 1, "c": 1, "d": "longer"}))];
    let schema = served(&table, 3, number("int64"), &[]);
    let loaded = load(&fixture, &schema, LoadKind::Merge, &longer, at(4)).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|note| note.contains("view rep.apart")), "{loaded:?}");
    assert_eq!(database.psql("SELECT d FROM rep.apart WHERE id = 1"), "longer\n");
    assert_eq!(database.psql("SELECT count(*) FROM rep.sums"), "3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_keep_all_that_belongs_to_them_when_a_column_changes() {
    let Some(database) = Database::new() else { return };
    everything_of_views_survives(database, "views").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_keep_all_that_belongs_to_them_on_the_newest_postgresql() {
    let Some(database) = Database::newest() else { return };
    everything_of_views_survives(database, "views_newest").await;
}

/// Queries the server until it is stopped, with pauses in milliseconds. Returns how often, or the first error.
fn query_in_a_loop(
    url: &str,
    prepare: Option<&'static str>,
    query: &'static str,
    pause: u64,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<Result<u32, String>> {
    let url = url.to_owned();
    tokio::spawn(async move {
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let explain = |error: tokio_postgres::Error| format!("{query}: {:?}", error.as_db_error());
        let statement = match prepare {
            Some(text) => Some(client.prepare(text).await.map_err(explain)?),
            None => None,
        };
        let mut times = 0;
        while !stop.load(Ordering::Relaxed) {
            match &statement {
                Some(statement) => drop(client.query(statement, &[]).await.map_err(explain)?),
                None => drop(client.simple_query(query).await.map_err(explain)?),
            }
            times += 1;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(times)
    })
}

/// Dashboards read views of views while their columns change again and again: they wait, but get no error. One of them holds a lock on the
/// table while it reads a view, against the order in which the change locks them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_of_views_get_no_error_while_a_column_changes() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "watched");
    let schema = |version: i64, format: &str| served(&table, version, number(format), &[]);
    let rows: Vec<Change> = (1..200).map(|id| row(id, id % 7)).collect();
    load(&fixture, &schema(1, "int16"), LoadKind::Replace, &rows, at(1)).await.unwrap();
    database.psql(
        "CREATE SCHEMA rep; CREATE VIEW rep.v1 AS SELECT id, c FROM canvas.watched; CREATE VIEW rep.v2 AS SELECT c, count(*) AS k FROM rep.v1 GROUP BY c; \
         CREATE VIEW rep.v3 AS SELECT sum(k)::int8 AS k FROM rep.v2; CREATE MATERIALIZED VIEW rep.m AS SELECT k FROM rep.v3",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let reader = |prepare, query, pause| query_in_a_loop(&database.url, prepare, query, pause, Arc::clone(&stop));
    let readers = [
        reader(None, "SELECT * FROM rep.v3", 0),
        reader(None, "SELECT v3.k, m.k FROM rep.v3, rep.m", 0),
        reader(Some("SELECT k FROM rep.v3"), "prepared", 0),
        reader(Some("SELECT k, c::text FROM rep.v2"), "prepared, below", 0),
        reader(
            None,
            "BEGIN; SELECT count(*) FROM canvas.watched; SELECT pg_sleep(0.02); SELECT k FROM rep.v3; SELECT k FROM rep.m; COMMIT",
            100,
        ),
        reader(None, "BEGIN; SELECT count(*) FROM rep.v1; SELECT pg_sleep(0.01); SELECT k FROM rep.v3; COMMIT", 20),
    ];
    let mut version = 1;
    for _ in 0..3 {
        for format in ["int32", "int64", "int16"] {
            version += 1;
            // Only a snapshot makes a column narrower.
            let kind = if format == "int16" { LoadKind::Replace } else { LoadKind::Merge };
            load(&fixture, &schema(version, format), kind, &rows, at(version)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let times = reader.await.unwrap();
        assert!(times.as_ref().is_ok_and(|times| *times > 0), "{times:?}");
    }
    assert_eq!(database.psql("SELECT k FROM rep.m"), "199\n");
}

/// Nothing changes, and the error names the view and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_cannot_be_recreated_stops_the_change_and_is_named() {
    let Some(database) = Database::new() else { return };
    let roles = Roles::create(&database, "refused");
    let (database, fixture) = fixture_on(database);
    let options = SqlOptions { drop_removed_columns: true, ..SqlOptions::default() };
    let fixture = with(fixture, &database.url_of(&roles.0[0]), options);
    let table = TableRef::new("canvas", "seen");
    let old = served(&table, 1, number("int32"), &[]);
    load(&fixture, &old, LoadKind::Replace, &[row(1, 1)], at(1)).await.unwrap();
    database.psql(&roles.named(
        "GRANT USAGE ON SCHEMA canvas TO $analyst, $clerk; GRANT SELECT ON canvas.seen TO $analyst, $clerk; GRANT ALL ON SCHEMA rep TO $etl, $clerk",
    ));
    let text = json!({"c": {"type": "string"}, "d": {"type": "string", "maxLength": 3}});
    let gone = json!({"d": {"type": "string", "maxLength": 3}});
    for (name, role, create, value, sentence, hint) in [
        (
            "of a column that goes",
            "$analyst",
            "CREATE VIEW rep.v1 AS SELECT id, c FROM canvas.seen; CREATE VIEW rep.v AS SELECT id FROM rep.v1",
            &gone,
            "View rep.v1 uses seen.c, which is to be dropped, and cannot be recreated",
            "change the view",
        ),
        (
            "with arithmetic",
            "$analyst",
            "CREATE VIEW rep.v1 AS SELECT c FROM canvas.seen; CREATE VIEW rep.v AS SELECT c + 1 AS n FROM rep.v1",
            &text,
            "View rep.v depends on seen.c, which is to become text, and cannot be recreated",
            "change the view",
        ),
        (
            "of a role of others",
            "$clerk",
            "CREATE VIEW rep.v AS SELECT c FROM canvas.seen",
            &text,
            "View rep.v uses seen.c, which is to become text, and belongs to role refused_clerk",
            "GRANT refused_clerk TO refused_etl",
        ),
        (
            "that a function returns",
            "$analyst",
            "CREATE VIEW rep.v AS SELECT c FROM canvas.seen; CREATE FUNCTION rep.f() RETURNS SETOF rep.v LANGUAGE sql AS 'SELECT * FROM rep.v'",
            &text,
            "View rep.v uses seen.c, which is to become text, and cannot be dropped",
            "change the view",
        ),
        (
            "with a policy on a number",
            "$etl",
            "CREATE POLICY large ON canvas.seen USING (c > 5)",
            &text,
            "Policy large of canvas.seen uses seen.c, which is to become text, and cannot be recreated",
            "change the policy",
        ),
    ] {
        let whole = "SELECT count(*), string_agg(pg_get_viewdef(c.oid), ' ' ORDER BY relname) FROM pg_class c WHERE relkind IN ('v', 'm') AND relnamespace = 'rep'::regnamespace";
        database.psql(&roles.named(&format!("SET ROLE {role}; {create}")));
        let before = database.psql(whole);
        let new = served(&table, 2, value.clone(), &[]);
        let error = load(&fixture, &new, LoadKind::Merge, &[], at(2)).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Target, sentence), "{name}: {error:?}");
        assert!(error.hint_text().is_some_and(|text| text.contains(hint) && text.contains("no new data")), "{name}: {error:?}");
        assert_eq!(error.get("table"), Some("canvas.seen"), "{name}");
        assert_eq!(database.psql(whole), before, "{name}");
        assert_eq!(database.psql("SELECT c FROM canvas.seen"), "1\n", "{name}");
        assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark, at(1), "{name}");
        database.psql("DROP FUNCTION IF EXISTS rep.f; DROP VIEW IF EXISTS rep.v; DROP VIEW IF EXISTS rep.v1; DROP POLICY IF EXISTS large ON canvas.seen");
    }
    // A temporary view of another session.
    let (client, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.unwrap();
    let session = tokio::spawn(connection);
    client.batch_execute("CREATE TEMPORARY VIEW mine AS SELECT c FROM canvas.seen").await.unwrap();
    let new = served(&table, 2, text, &[]);
    let error = load(&fixture, &new, LoadKind::Merge, &[], at(2)).await.unwrap_err();
    assert!(error.message().contains("mine uses seen.c") && error.message().contains("temporary"), "{error:?}");
    drop(client);
    session.await.unwrap().unwrap();
    // The view that a query materializes must not fail on the new rows.
    database.psql(
        &roles
            .named("SET ROLE $analyst; CREATE MATERIALIZED VIEW rep.m AS SELECT 1 / (4 - c::text::int) AS c FROM canvas.seen"),
    );
    let error = load(&fixture, &new, LoadKind::Merge, &[Change::Up(json!({"id": 4, "c": "4"}))], at(2)).await.unwrap_err();
    assert_eq!(error.message(), "Materialized view rep.m was recreated for a changed column and cannot be filled", "{error:?}");
    assert_eq!(database.psql("SELECT c FROM rep.m"), "0\n");
    assert_eq!(database.psql("SELECT id, c FROM canvas.seen"), "1|1\n");
    load(&fixture, &new, LoadKind::Merge, &[Change::Up(json!({"id": 4, "c": "5"}))], at(2)).await.unwrap();
    assert_eq!(database.psql("SELECT c FROM rep.m ORDER BY c"), "-1\n0\n");
}

/// A view whose query groups by the primary key depends on the key itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_depends_on_the_primary_key_survives_another_key() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "keyed");
    let schema = |version, keys: &[&str], values: &[&str]| integers(&table, version, keys, values);
    let rows = [Change::Up(json!({"id": 1, "part": 1}))];
    load(&fixture, &schema(1, &["id", "part"], &["c"]), LoadKind::Replace, &rows, at(1)).await.unwrap();
    database.psql("CREATE VIEW canvas.counted AS SELECT id, part, c, count(*) AS k FROM canvas.keyed GROUP BY id, part");
    let error = load(
        &fixture,
        &schema(2, &["part", "c"], &["id"]),
        LoadKind::Replace,
        &[Change::Up(json!({"id": 1, "part": 1, "c": 1}))],
        at(2),
    )
    .await
    .unwrap_err();
    let sentence = "View canvas.counted uses the primary key of keyed, which is to get other columns, and cannot be recreated";
    assert_eq!(error.message(), sentence, "{error:?}");
    database.psql(
        "CREATE OR REPLACE VIEW canvas.counted AS SELECT id, part, c, count(*) AS k FROM canvas.keyed GROUP BY id, part, c",
    );
    load(&fixture, &schema(2, &["id"], &["part", "c"]), LoadKind::Replace, &rows, at(2)).await.unwrap();
    assert_eq!(database.psql("SELECT k FROM canvas.counted"), "1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_not_touched_on_request() {
    let Some((database, fixture)) = fixture() else { return };
    let options = SqlOptions { dependent_views: DependentViews::Fail, ..SqlOptions::default() };
    let fixture = with(fixture, &database.url, options);
    let table = TableRef::new("canvas", "seen");
    load(&fixture, &served(&table, 1, number("int32"), &[]), LoadKind::Replace, &[row(1, 1)], at(1)).await.unwrap();
    database.psql(
        "CREATE VIEW public.v_all AS SELECT * FROM canvas.seen; CREATE MATERIALIZED VIEW public.sums AS SELECT sum(c) FROM canvas.seen",
    );
    let error =
        load(&fixture, &served(&table, 2, number("int64"), &[]), LoadKind::Merge, &[row(1, 1)], at(2)).await.unwrap_err();
    assert_eq!(error.message(), "Materialized view public.sums uses seen.c, which is to become bigint");
    assert_eq!(error.get("also"), Some("view public.v_all (seen.c)"), "{error:?}");
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("pg_get_viewdef('public.sums'::regclass, true)") && hint.contains("no new data"), "{hint}");
    // Also if rows need a wider column.
    database.psql("DROP MATERIALIZED VIEW public.sums");
    let longer = [Change::Up(json!({"id": 1, "c": 1, "d": "longer"}))];
    let error = load(&fixture, &served(&table, 1, number("int32"), &[]), LoadKind::Merge, &longer, at(2)).await.unwrap_err();
    assert_eq!(error.message(), "View public.v_all uses seen.d, which is to become text");
    assert_eq!(database.psql("SELECT c, d FROM canvas.seen"), "1|x\n");
}
