//! The client against a scripted server: requests, responses, retries and errors.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::testing::{CLIENT_SECRET, Reply, Server, login};
use super::wire::{self, Ask, clean};
use super::*;
use crate::error::Kind;
use crate::model::{Format, Mode, Namespace, TableRef, Timestamp, Window};
use crate::redact::Secret;

const TABLES: &str = "/dap/query/canvas/table";

fn canvas() -> Namespace {
    Namespace::new("canvas")
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn snapshot() -> Query {
    Query { table: TableRef::new("canvas", "accounts"), format: Format::Jsonl, mode: None, window: Window::Snapshot }
}

fn resuming(id: &str) -> RunOptions<'_> {
    RunOptions { resume: Some(id), ..RunOptions::default() }
}

fn increment() -> Query {
    let window = Window::Increment { since: time("2026-01-01T00:00:00Z"), until: None };
    Query { window, ..snapshot() }
}

fn tables() -> Reply {
    Reply::json(200, r#"{"tables":["accounts","users"],"next":null}"#)
}

fn complete(id: &str) -> Reply {
    Reply::json(
        200,
        format!(
            r#"{{"id":"{id}","status":"complete","objects":[{{"id":"o/1","size":5}},{{"id":"o/2"}}],"schema_version":3,"at":"2026-01-02T03:04:05.6Z","extra":[1]}}"#
        ),
    )
}

fn pending(id: &str, status: &str) -> Reply {
    Reply::json(202, format!(r#"{{"id":"{id}","status":"{status}","expires_at":"2126-01-01T00:00:00Z"}}"#))
}

fn failed(id: &str) -> Reply {
    Reply::json(
        200,
        format!(r#"{{"id":"{id}","status":"failed","error":{{"type":"ProcessingError","uuid":"u-7","message":"it broke"}}}}"#),
    )
}

// ---- requests ----

#[tokio::test]
async fn requests_have_exactly_the_documented_shape() {
    let server = Server::dap(|request| match request.path() {
        TABLES => tables(),
        "/dap/query/canvas/table/accounts/schema" => Reply::json(200, r#"{"schema":{"type":"object"},"version":4,"x":1}"#),
        "/dap/object/url" => {
            Reply::json(200, r#"{"urls":{"o/2":{"url":"https://s/b?sig=2","e":1},"o/1":{"url":"https://s/a?sig=1"}}}"#)
        }
        "/dap/query/canvas/table/accounts/data" => complete("j"),
        other => panic!("{other}"),
    })
    .await;
    let client = server.client();
    assert_eq!(client.tables(&canvas()).await.unwrap(), ["accounts", "users"]);
    let schema = client.table_schema(&TableRef::new("canvas", "accounts")).await.unwrap();
    assert_eq!((schema.version, schema.schema.to_string().as_str()), (4, r#"{"type":"object"}"#));
    let urls = client.object_urls(&[ObjectId("o/1".into()), ObjectId("o/2".into())]).await.unwrap();
    assert_eq!(urls.iter().map(|url| url.reveal().as_str()).collect::<Vec<_>>(), ["https://s/a?sig=1", "https://s/b?sig=2"]);
    client.run(&snapshot()).await.unwrap();

    let seen = server.seen();
    let login = &seen[0];
    assert_eq!((login.method.as_str(), login.target.as_str()), ("POST", "/ids/auth/login"));
    assert_eq!(login.body, "grant_type=client_credentials");
    assert_eq!(login.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(login.header("authorization"), Some("Basic dXMtZWFzdC0xI3BsYW50ZWQtaWQ6cGxhbnRlZC1zZWNyZXQ="));
    assert_eq!(
        server.calls(),
        [
            "GET /dap/query/canvas/table",
            "GET /dap/query/canvas/table/accounts/schema",
            "POST /dap/object/url",
            "POST /dap/query/canvas/table/accounts/data",
        ]
    );
    assert_eq!(seen[3].body, r#"[{"id":"o/1"},{"id":"o/2"}]"#);
    assert_eq!(seen[4].body, r#"{"format":"jsonl"}"#);
    for request in &seen {
        assert_eq!(request.header("user-agent"), Some(concat!("daplake/", env!("CARGO_PKG_VERSION"))));
        assert_eq!(request.header("accept-encoding"), None);
    }
    let mut traces = Vec::new();
    for request in &seen[1..] {
        assert_eq!(request.header("authorization"), Some("Bearer planted-token-1"));
        assert_eq!(request.header("content-type"), (request.method == "POST").then_some("application/json"));
        let parent = request.header("traceparent").unwrap();
        let parts: Vec<_> = parent.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{parent}");
        assert!(parts.iter().all(|part| part.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))), "{parent}");
        traces.push(parts[1].to_owned());
    }
    traces.dedup();
    assert_eq!(traces.len(), 1);
}

#[test]
fn query_bodies_are_compact_and_omit_what_is_absent() {
    let body = |format, mode, window| {
        let query = Query { table: TableRef::new("a", "b"), format, mode, window };
        String::from_utf8(wire::query_body(&query)).unwrap()
    };
    let since = time("2022-06-13T09:30:00Z");
    assert_eq!(body(Format::Jsonl, None, Window::Snapshot), r#"{"format":"jsonl"}"#);
    assert_eq!(body(Format::Tsv, Some(Mode::Condensed), Window::Snapshot), r#"{"format":"tsv","mode":"condensed"}"#);
    assert_eq!(
        body(Format::Tsv, Some(Mode::Condensed), Window::Increment { since, until: None }),
        r#"{"format":"tsv","mode":"condensed","since":"2022-06-13T09:30:00Z"}"#
    );
    let window =
        Window::Increment { since: time("2022-06-13T09:30:00.123456+02:00"), until: Some(time("2022-06-14T00:00:00Z")) };
    assert_eq!(
        body(Format::Parquet, None, window),
        r#"{"format":"parquet","since":"2022-06-13T07:30:00.123456Z","until":"2022-06-14T00:00:00Z"}"#
    );
}

#[tokio::test]
async fn names_stay_within_their_path_segment() {
    let server = Server::dap(|_| tables()).await;
    let mut options = server.options();
    options.base_url = server.url.join("/gate%20way/").unwrap();
    let client = Client::new(options).unwrap();
    let calls = server.calls();
    assert!(calls.is_empty(), "no network before the first call");
    // The login is below the base URL, too. The script responds with tables to everything; only the path matters here.
    let _ = client.tables(&Namespace::new("x")).await;
    let logins = server.calls();
    assert!(!logins.is_empty() && logins.iter().all(|call| call == "POST /gate%20way/ids/auth/login"), "{logins:?}");

    let client = server.client();
    client.tables(&Namespace::new("a/../b?c#d%2f é")).await.unwrap();
    assert_eq!(server.calls()[1..], ["GET /dap/query/a%2F..%2Fb%3Fc%23d%252f%20%C3%A9/table"]);
    for odd in ["..", ".", ""] {
        assert_eq!(client.tables(&Namespace::new(odd)).await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(client.run_with(&snapshot(), resuming(odd)).await.unwrap_err().kind(), Kind::Data);
    }
    let started = server.calls().iter().filter(|call| call.ends_with("/data")).count();
    // The script responds with a list of tables, which is not a job: an unreadable response is retried.
    let attempts = server.options().retry.attempts as usize;
    assert_eq!(started, 3 * attempts, "an odd job id is not asked for; the query is started instead");
}

// ---- tokens ----

#[tokio::test]
async fn concurrent_and_later_calls_share_one_login() {
    let server = Server::dap(|_| tables()).await;
    let client = server.client();
    let namespace = canvas();
    for result in join_all((0..10).map(|_| client.tables(&namespace))).await {
        result.unwrap();
    }
    client.clone().tables(&namespace).await.unwrap();
    assert_eq!(server.count("/ids/auth/login"), 1);
    assert_eq!(server.count(TABLES), 11);
}

#[tokio::test]
async fn a_token_about_to_expire_is_renewed_before_the_call() {
    let mut logins = 0;
    let server = Server::start(move |request| match request.path() {
        "/ids/auth/login" => {
            logins += 1;
            // The first token expires at once.
            login(logins, if logins == 1 { 0 } else { 40 })
        }
        _ => tables(),
    })
    .await;
    let client = server.client();
    for _ in 0..3 {
        client.tables(&canvas()).await.unwrap();
    }
    let used: Vec<_> =
        server.seen().iter().filter(|r| r.path() == TABLES).map(|r| r.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(used, ["Bearer planted-token-1", "Bearer planted-token-2", "Bearer planted-token-2"]);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    let server = Server::dap(|request| match request.header("authorization") {
        Some("Bearer planted-token-1") => Reply::error(401, "AuthenticationError", ""),
        _ => tables(),
    })
    .await;
    let client = server.client();
    let namespace = canvas();
    for result in join_all((0..5).map(|_| client.tables(&namespace))).await {
        result.unwrap();
    }
    assert_eq!(server.count("/ids/auth/login"), 2, "five refusals, one renewal");

    let server = Server::dap(|_| Reply::error(401, "AuthenticationError", "")).await;
    let error = server.client().tables(&canvas()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Auth);
    assert_eq!((server.count("/ids/auth/login"), server.count(TABLES)), (2, 2));
}

#[tokio::test]
async fn a_login_is_retried_after_temporary_errors() {
    let mut script = vec![
        Reply::hang_up(),
        Reply::new(503, "<html>busy</html>"),
        Reply::error(429, "TooManyRequests", "").with("Retry-After", 0),
        login(1, 3600).cut(20, super::testing::End::Close),
    ]
    .into_iter();
    let server = Server::start(move |request| match request.path() {
        "/ids/auth/login" => script.next().unwrap_or_else(|| login(9, 3600)),
        _ => tables(),
    })
    .await;
    server.client().tables(&canvas()).await.unwrap();
    assert_eq!(server.count("/ids/auth/login"), 5);
}

#[tokio::test]
async fn a_page_in_place_of_the_token_is_retried() {
    let mut logins = 0;
    let server = Server::start(move |request| match request.path() {
        "/ids/auth/login" => {
            logins += 1;
            match logins {
                1 => Reply::new(200, "<html>Sign in</html>").with("Content-Type", "text/html"),
                _ => login(logins, 3600),
            }
        }
        _ => tables(),
    })
    .await;
    server.client().tables(&canvas()).await.unwrap();
    assert_eq!(server.count("/ids/auth/login"), 2);
}

#[tokio::test]
async fn a_rejected_login_has_a_hint_and_is_not_repeated_by_waiting_calls() {
    for (status, id, hint) in [
        (401, "us-east-1#abc", "copied whole"),
        (403, "us-east-1#abc", "copied whole"),
        (400, "us-east-1#abc", "copied whole"),
        (401, "us-east-1", "`#` begins a comment"),
    ] {
        let server = Server::start(move |_| Reply::error(status, "AuthenticationError", "")).await;
        let mut options = server.options();
        options.credentials.client_id = id.to_owned();
        let client = Client::new(options).unwrap();
        let namespace = canvas();
        for result in join_all((0..6).map(|_| client.tables(&namespace))).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), Kind::Auth);
            assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
            assert_eq!((error.get("status"), error.get("uuid")), (Some(status.to_string().as_str()), Some("u-1")));
        }
        assert_eq!(server.count("/ids/auth/login"), 1);
        client.tables(&namespace).await.unwrap_err();
        assert_eq!(server.count("/ids/auth/login"), 2, "a later call asks again");
    }
}

#[tokio::test]
async fn a_disabled_account_is_distinguished_from_a_wrong_key() {
    let server = Server::start(|_| Reply::error(403, "AccountNotOnboarded", "")).await;
    let error = server.client().tables(&canvas()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Account);
    assert!(error.hint_text().unwrap().contains("onboarding"));
}

#[test]
fn missing_credentials_and_invalid_urls_are_found_before_connecting() {
    let options = |url: &str, secret: &str| ClientOptions {
        base_url: url.parse().unwrap(),
        credentials: Credentials { client_id: "a#b".into(), client_secret: Secret::new(secret) },
        pacing: Pacing::default(),
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_secs(1), Duration::from_secs(5)),
        idle_timeout: Duration::from_secs(60),
    };
    assert_eq!(Client::new(options("https://h", "")).unwrap_err().kind(), Kind::Auth);
    for url in ["ftp://h", "mailto:x", "https://me:pw@h"] {
        let error = Client::new(options(url, "s")).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(!error.to_string().contains("pw"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("roots.pem");
    let with_bundle = || Client::new(ClientOptions { ca_bundle: Some(bundle.clone()), ..options("https://h", "s") });
    assert_eq!(with_bundle().unwrap_err().kind(), Kind::Usage);
    std::fs::write(&bundle, "no certificate").unwrap();
    assert_eq!(with_bundle().unwrap_err().message(), "The CA bundle contains no certificate");
}

// ---- retries ----

#[tokio::test]
async fn temporary_errors_are_retried_and_persistent_ones_counted() {
    let mut script =
        vec![Reply::new(504, "gateway"), Reply::hang_up(), tables().cut(10, super::testing::End::Reset)].into_iter();
    let server = Server::dap(move |_| script.next().unwrap_or_else(tables)).await;
    server.client().tables(&canvas()).await.unwrap();
    assert_eq!(server.count(TABLES), 4);

    let server = Server::dap(|_| Reply::error(500, "InternalServerError", "")).await;
    let error = server.client().tables(&canvas()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(server.count(TABLES), 4);
    for (name, value) in [
        ("attempts", "4"),
        ("status", "500"),
        ("type", "InternalServerError"),
        ("uuid", "u-1"),
        ("namespace", "canvas"),
        ("call", "list tables"),
    ] {
        assert_eq!(error.get(name), Some(value), "{error}");
    }
    assert!(error.get("tried_for").is_some());
    assert_eq!(error.causes(), ["the service says: planted message"]);
}

#[tokio::test]
async fn a_missing_response_is_a_temporary_error() {
    let mut first = true;
    let server = Server::dap(move |_| if std::mem::take(&mut first) { Reply::silence() } else { tables() }).await;
    let mut options = server.options();
    options.idle_timeout = Duration::from_millis(50);
    Client::new(options).unwrap().tables(&canvas()).await.unwrap();
    assert_eq!(server.count(TABLES), 2);
}

#[tokio::test]
async fn an_unreachable_host_is_named() {
    let server = Server::dap(|_| tables()).await;
    let options = server.options();
    drop(server);
    tokio::task::yield_now().await;
    let error = Client::new(options).unwrap().tables(&canvas()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!((error.get("host"), error.get("call"), error.get("attempts")), (Some("127.0.0.1"), Some("login"), Some("4")));
}

#[tokio::test]
async fn throttled_requests_succeed_within_the_budget() {
    let mut refusals = 20;
    let server = Server::dap(move |_| {
        refusals -= 1;
        if refusals >= 0 { Reply::error(429, "RateLimit", "").with("Retry-After", 0) } else { tables() }
    })
    .await;
    server.client().tables(&canvas()).await.unwrap();
    assert_eq!(server.count(TABLES), 21);

    let server = Server::dap(|_| Reply::new(429, "")).await;
    let mut options = server.options();
    options.retry.throttle_budget = Duration::from_millis(30);
    let error = Client::new(options).unwrap().tables(&canvas()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Throttled);
    assert!(error.get("throttled_for").is_some(), "{error}");
    assert!(server.count(TABLES) > 4, "more than the attempts for faults");

    let server = Server::dap(|_| Reply::new(429, "").with("Retry-After", 3600)).await;
    let error = server.client().tables(&canvas()).await.unwrap_err();
    assert_eq!((error.kind(), server.count(TABLES)), (Kind::Throttled, 1));
}

#[tokio::test]
async fn throttling_pauses_the_same_kind_of_call_only() {
    let (pause, order) = (Duration::from_secs(1), Arc::new(Mutex::new(Vec::new())));
    let mut first = true;
    let server = Server::dap(move |request| match request.path() {
        TABLES if std::mem::take(&mut first) => Reply::new(429, "").with("Retry-After", 1),
        TABLES => tables(),
        _ => Reply::json(200, r#"{"schema":{},"version":1}"#),
    })
    .await;
    let mut options = server.options();
    options.retry.throttle_budget = Duration::from_secs(10);
    let client = Client::new(options).unwrap();
    let namespace = canvas();
    let begin = tokio::time::Instant::now();
    let list = async {
        client.tables(&namespace).await.unwrap();
        order.lock().unwrap().push("list");
        begin.elapsed()
    };
    let other = async {
        // Waits until the response with 429 has arrived, then makes the same call and another one.
        while server.count(TABLES) == 0 {
            tokio::task::yield_now().await;
        }
        client.table_schema(&TableRef::new("canvas", "x")).await.unwrap();
        order.lock().unwrap().push("schema");
        client.tables(&namespace).await.unwrap();
        begin.elapsed()
    };
    let (list, other) = tokio::join!(list, other);
    assert_eq!(order.lock().unwrap()[0], "schema");
    assert!(list >= pause && other >= pause, "{list:?} {other:?}");
    assert_eq!(server.count(TABLES), 3, "no call was sent during the pause");
}

#[tokio::test]
async fn the_bearer_token_is_sent_to_no_other_host() {
    let foreign = Server::start(|_| tables()).await;
    let elsewhere = foreign.url.join("/x?a=planted-query").unwrap();
    let server = Server::dap(move |_| Reply::new(307, "").with("Location", &elsewhere)).await;
    let error = server.client().tables(&canvas()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(error.get("redirected_to"), Some("http://127.0.0.1"));
    assert!(foreign.seen().is_empty());

    let server = Server::dap(|request| match request.path() {
        TABLES => Reply::new(307, "").with("Location", "/moved"),
        _ => tables(),
    })
    .await;
    server.client().tables(&canvas()).await.unwrap();
    assert_eq!(server.seen()[2].header("authorization"), Some("Bearer planted-token-1"));
}

#[tokio::test]
async fn a_response_that_is_not_json_has_a_hint_about_the_base_url() {
    let server = Server::dap(|_| Reply::new(200, "<html>Sign in</html>").with("Content-Type", "text/html")).await;
    let error = server.client().tables(&canvas()).await.unwrap_err();
    assert_eq!((error.kind(), error.get("content_type")), (Kind::Data, Some("text/html")));
    assert!(error.hint_text().unwrap().contains("base URL"));
}

// ---- error responses ----

#[test]
fn errors_are_classified_by_type_then_members_then_status() {
    let range = r#","since":"2026-01-01T00:00:00Z","until":"2026-02-01T00:00:00Z""#;
    let located = r#","location":{"line":1,"column":7,"character":7}"#;
    let named = r#","id":"x","kind":"table""#;
    let cases: &[(Ask, u16, &str, &str, Kind)] = &[
        (Ask::Start, 400, "SnapshotRequiredError", range, Kind::SnapshotRequired),
        (Ask::Start, 400, "com.x.SnapshotRequired", "", Kind::SnapshotRequired),
        (Ask::Start, 400, "OutOfRangeError", range, Kind::OutOfRange),
        (Ask::Start, 400, "Something", range, Kind::OutOfRange),
        (Ask::Start, 400, "ValidationError", located, Kind::Job),
        (Ask::Start, 400, "Something", located, Kind::Job),
        (Ask::Start, 400, "ProcessingError", "", Kind::Job),
        (Ask::Start, 500, "ProcessingError", "", Kind::Unavailable),
        (Ask::Start, 404, "NotFoundError", named, Kind::NotFound),
        (Ask::Start, 400, "Something", named, Kind::NotFound),
        (Ask::Status, 404, "NotFoundError", named, Kind::Expired),
        (Ask::Status, 404, "Whatever", "", Kind::Expired),
        (Ask::Urls, 404, "NotFoundError", named, Kind::Expired),
        (Ask::Urls, 410, "Whatever", "", Kind::Expired),
        (Ask::Start, 403, "AccountDisabled", "", Kind::Account),
        (Ask::Start, 500, "AccountNotOnboardedError", "", Kind::Account),
        (Ask::Start, 403, "AccountUnderMaintenance", "", Kind::Account),
        (Ask::Start, 403, "RequestTypeForbidden", "", Kind::Job),
        (Ask::Start, 403, "Unheard", "", Kind::Auth),
        (Ask::Tables, 401, "Unheard", "", Kind::Auth),
        (Ask::Start, 429, "SnapshotRequired", range, Kind::Throttled),
        (Ask::Start, 503, "Unheard", range, Kind::Unavailable),
        (Ask::Start, 418, "Unheard", "", Kind::Job),
        (Ask::Login, 404, "Unheard", "", Kind::Usage),
    ];
    for (ask, status, class, more, kind) in cases {
        let body = format!(r#"{{"error":{{"type":"{class}","uuid":"u-1","message":"m"{more}}}}}"#);
        let error = wire::refusal(*ask, StatusCode::from_u16(*status).unwrap(), &HeaderMap::new(), body.as_bytes());
        assert_eq!(error.kind(), *kind, "{ask:?} {status} {class}");
        assert_eq!((error.get("type"), error.get("uuid")), (Some(*class), Some("u-1")));
        if more == &range {
            assert_eq!(error.get("earliest_since"), Some("2026-01-01T00:00:00Z"));
            assert_eq!(error.get("latest_until"), Some("2026-02-01T00:00:00Z"));
        }
    }
    // Only errors that every table would meet are fatal for the run.
    assert!(!Kind::Job.is_fatal_for_run() && Kind::Account.is_fatal_for_run());
    for body in ["", "<html>", "[]", r#"{"error":"text"}"#, r#"{"error":{"type":7}}"#] {
        let error = wire::refusal(Ask::Start, StatusCode::BAD_GATEWAY, &HeaderMap::new(), body.as_bytes());
        assert_eq!(error.kind(), Kind::Unavailable, "{body}");
    }
}

#[tokio::test]
async fn a_misspelled_namespace_gets_a_suggestion() {
    let server = Server::dap(|_| Reply::error(404, "NotFoundError", r#","id":"canvas_log","kind":"namespace""#)).await;
    let error = server.client().tables(&Namespace::new("canvas_log")).await.unwrap_err();
    assert_eq!((error.kind(), error.get("what")), (Kind::NotFound, Some("namespace")));
    assert_eq!(error.hint_text(), Some("did you mean the namespace `canvas_logs`?"));
    let query = Query { table: TableRef::new("canvas", "acounts"), ..snapshot() };
    let error = server.client().run(&query).await.unwrap_err();
    assert_eq!((error.kind(), error.get("table")), (Kind::NotFound, Some("canvas.acounts")));
    assert!(error.hint_text().unwrap().contains("daplake list --namespace canvas"));
}

#[test]
fn credentials_are_removed_from_text_of_the_service() {
    for (text, shown) in [
        ("plain words, and (more).", "plain words, and (more)."),
        ("Really? a=b", "Really? a=b"),
        ("see https://h/p/a.gz?X-Amz-Signature=abc&b=c now", "see https://h/p/a.gz?*** now"),
        ("\"https://me:pw@h/p\"", "\"https://***@h/p\""),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("sent eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig here", "sent *** here"),
        ("X-Amz-Signature=abc", "X-Amz-Signature=***"),
        ("client_secret=abc;x=y", "client_secret=***;x=y"),
        ("a\u{1b}[31mred\r\n", "a [31mred"),
    ] {
        assert_eq!(clean(text), shown);
    }
    assert!(clean(&"é ".repeat(4000)).chars().count() <= 503);
}

// ---- jobs ----

#[tokio::test]
async fn a_job_is_polled_until_it_is_complete() {
    let mut polls =
        vec![pending("j-1", "waiting"), pending("j-1", "thinking"), Reply::new(502, ""), pending("j-1", "running")].into_iter();
    let server = Server::dap(move |request| match request.method.as_str() {
        "POST" => pending("j-1", "waiting"),
        _ => polls.next().unwrap_or_else(|| complete("j-1")),
    })
    .await;
    let told = Mutex::new(Vec::new());
    let on_job = |job: &Job| told.lock().unwrap().push((job.id.clone(), job.status, job.expires_at));
    let options = RunOptions { on_job: Some(&on_job), ..RunOptions::default() };
    let job = server.client().run_with(&snapshot(), options).await.unwrap();
    assert_eq!(job.id, "j-1");
    assert_eq!(job.objects, [ObjectId("o/1".into()), ObjectId("o/2".into())]);
    assert_eq!((job.schema_version, job.since, job.expires_at), (3, None, None));
    assert_eq!(job.bookmark().at, time("2026-01-02T03:04:05.6Z"));
    assert_eq!(server.count("/dap/job/j-1"), 5);
    assert_eq!(*told.lock().unwrap(), [("j-1".to_owned(), JobStatus::Waiting, Some(time("2126-01-01T00:00:00Z")))]);
}

#[tokio::test]
async fn a_response_to_another_kind_of_query_is_an_error() {
    let answer = |members: &'static str| async move {
        let body = format!(r#"{{"id":"j","status":"complete","objects":[],"schema_version":3,{members}}}"#);
        Server::dap(move |_| Reply::json(200, body.clone())).await.client().run(&increment()).await
    };
    let job = answer(r#""since":"2026-01-01T00:00:00Z","until":"2026-01-01T04:00:00Z""#).await.unwrap();
    assert_eq!((job.reached, job.objects.len()), (time("2026-01-01T04:00:00Z"), 0));
    assert_eq!(answer(r#""at":"2026-01-01T04:00:00Z""#).await.unwrap_err().kind(), Kind::Data);
    let error = answer(r#""since":"2026-01-01T00:00:01Z","until":"2026-01-01T04:00:00Z""#).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.get("since"), error.get("answered_since")),
        (Kind::Data, Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:01Z"))
    );
    assert_eq!(answer(r#""until":"yesterday""#).await.unwrap_err().kind(), Kind::Data);
}

#[tokio::test]
async fn a_failed_job_is_replaced_then_reported() {
    let mut starts = 0;
    let server = Server::dap(move |request| match request.method.as_str() {
        "POST" => {
            starts += 1;
            pending(&format!("j-{starts}"), "running")
        }
        _ if request.path() == "/dap/job/j-3" => complete("j-3"),
        _ => failed(request.path().rsplit('/').next().unwrap()),
    })
    .await;
    let told = Mutex::new(Vec::new());
    let on_job = |job: &Job| told.lock().unwrap().push(job.id.clone());
    let options = RunOptions { on_job: Some(&on_job), ..RunOptions::default() };
    assert_eq!(server.client().run_with(&snapshot(), options).await.unwrap().id, "j-3");
    assert_eq!(*told.lock().unwrap(), ["j-1", "j-2", "j-3"]);

    let server = Server::dap(|_| failed("j-9")).await;
    let error = server.client().run(&snapshot()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Job);
    for (name, value) in
        [("job", "j-9"), ("type", "ProcessingError"), ("uuid", "u-7"), ("job_attempts", "3"), ("table", "canvas.accounts")]
    {
        assert_eq!(error.get(name), Some(value), "{error}");
    }
    assert_eq!(error.causes(), ["the service says: it broke"]);
    assert_eq!(server.calls().len(), 3);

    let server = Server::dap(|_| {
        Reply::json(200, r#"{"id":"j","status":"failed","error":{"type":"SnapshotRequiredError","uuid":"u","message":""}}"#)
    })
    .await;
    assert_eq!(server.client().run(&increment()).await.unwrap_err().kind(), Kind::SnapshotRequired);
    assert_eq!(server.calls().len(), 1, "asking again cannot help");
}

#[tokio::test]
async fn an_expired_job_is_replaced_once() {
    let mut starts = 0;
    let server = Server::dap(move |request| match request.method.as_str() {
        "POST" => {
            starts += 1;
            pending(&format!("j-{starts}"), "running")
        }
        _ if request.path() == "/dap/job/j-2" => complete("j-2"),
        _ => Reply::error(404, "NotFoundError", ""),
    })
    .await;
    assert_eq!(server.client().run(&snapshot()).await.unwrap().id, "j-2");

    let server = Server::dap(|request| match request.method.as_str() {
        "POST" => pending("j", "running"),
        _ => Reply::error(404, "NotFoundError", ""),
    })
    .await;
    let error = server.client().run(&snapshot()).await.unwrap_err();
    assert_eq!((error.kind(), error.get("job")), (Kind::Expired, Some("j")));
    assert_eq!(server.count("/dap/query/canvas/table/accounts/data"), 2);
}

#[tokio::test]
async fn a_job_about_to_expire_is_replaced() {
    let after = |millis: i64| Timestamp::from_micros(Timestamp::now().micros() + millis * 1000);
    let body = |id: &str, objects: &str, expires_at: Timestamp| {
        Reply::json(
            200,
            format!(
                r#"{{"id":"{id}","status":"complete","objects":[{objects}],"schema_version":1,"at":"2026-01-01T00:00:00Z","expires_at":"{expires_at}"}}"#
            ),
        )
    };
    let mut first_ends = None;
    let server = Server::dap(move |_| match first_ends {
        None => {
            let soon = after(100);
            first_ends = Some(soon);
            body("old", r#"{"id":"o"}"#, soon)
        }
        Some(soon) => {
            assert!(Timestamp::now() > soon, "asked again before the first job was gone");
            body("new", r#"{"id":"o"}"#, after(3_600_000))
        }
    })
    .await;
    assert_eq!(server.client().run(&snapshot()).await.unwrap().id, "new");
    assert_eq!(server.calls().len(), 2);

    // No objects, so the expiry does not matter.
    let server = Server::dap(move |_| body("empty", "", after(100))).await;
    assert_eq!(server.client().run(&snapshot()).await.unwrap().id, "empty");
    assert_eq!(server.calls().len(), 1);

    // If the next job expires soon as well, it is used.
    let past = after(-3_600_000);
    let server = Server::dap(move |_| body("stale", r#"{"id":"o"}"#, past)).await;
    assert_eq!(server.client().run(&snapshot()).await.unwrap().id, "stale");
    assert_eq!(server.calls().len(), 2);

    // 38 seconds by the server's clock are enough for a small download, but not for a large one.
    let server = Server::dap(move |_| {
        body("j", r#"{"id":"o"}"#, time("1994-11-06T08:49:38Z")).with("Date", "Sun, 06 Nov 1994 08:49:00 GMT")
    })
    .await;
    let client = server.client();
    client.run(&snapshot()).await.unwrap();
    assert_eq!(server.calls().len(), 1);
    let options = RunOptions { download: Duration::from_secs(60), ..RunOptions::default() };
    let query = snapshot();
    let waiting = client.run_with(&query, options);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err(), "it is waited out");
    assert_eq!(server.calls().len(), 2);
}

#[tokio::test]
async fn a_complete_job_without_objects_is_read_again() {
    let bare = |_: &super::testing::Request| Reply::json(200, r#"{"id":"j","status":"complete"}"#);
    let mut first = true;
    let server = Server::dap(move |request| if std::mem::take(&mut first) { bare(request) } else { complete("j") }).await;
    assert_eq!(server.client().run(&snapshot()).await.unwrap().objects.len(), 2);
    assert_eq!(server.calls(), ["POST /dap/query/canvas/table/accounts/data", "GET /dap/job/j"]);
    let server = Server::dap(bare).await;
    assert_eq!(server.client().run(&snapshot()).await.unwrap_err().kind(), Kind::Data);
}

#[tokio::test]
async fn resuming_uses_the_existing_job_or_starts_another_one() {
    let server = Server::dap(|request| match (request.method.as_str(), request.path()) {
        ("GET", "/dap/job/alive") => complete("alive"),
        ("GET", "/dap/job/broken") => failed("broken"),
        ("GET", "/dap/job/other") => Reply::json(
            200,
            r#"{"id":"other","status":"complete","objects":[],"schema_version":1,"until":"2026-01-01T00:00:00Z"}"#,
        ),
        ("GET", _) => Reply::error(404, "NotFoundError", ""),
        _ => complete("new"),
    })
    .await;
    let client = server.client();
    for (id, got, starts) in [("alive", "alive", 0), ("gone", "new", 1), ("broken", "new", 2), ("other", "new", 3)] {
        assert_eq!(client.run_with(&snapshot(), resuming(id)).await.unwrap().id, got);
        assert_eq!(server.count("/dap/query/canvas/table/accounts/data"), starts);
    }
}

#[tokio::test]
async fn start_and_wait_do_the_same_as_run() {
    let server = Server::dap(|request| if request.method == "POST" { pending("j", "waiting") } else { complete("j") }).await;
    let client = server.client();
    let job = client.start(&snapshot()).await.unwrap();
    assert_eq!((job.id.as_str(), job.status, job.finished()), ("j", JobStatus::Waiting, None));
    assert_eq!(server.calls().len(), 1);
    let finished = client.wait(job, RunOptions::default()).await.unwrap();
    let looked = client.look("j", &snapshot()).await.unwrap();
    assert_eq!(looked.finished(), Some(&finished));
}

#[tokio::test]
async fn an_object_without_url_has_expired() {
    let server = Server::dap(|request| match request.body.contains("bad") {
        true => Reply::json(200, r#"{"urls":{"bad":{"url":"file:///etc/passwd"}}}"#),
        false if request.body.contains("same") => {
            Reply::json(200, r#"{"urls":{"same":{"url":"https://s/a?sig=1"},"o":{"url":"https://s/a?sig=1"}}}"#)
        }
        false => Reply::json(200, r#"{"urls":{}}"#),
    })
    .await;
    let client = server.client();
    assert_eq!(client.object_urls(&[]).await.unwrap().len(), 0);
    assert_eq!(client.object_urls(&[ObjectId("o".into())]).await.unwrap_err().kind(), Kind::Expired);
    assert_eq!(client.object_urls(&[ObjectId("bad".into())]).await.unwrap_err().kind(), Kind::Data);
    let ids = ["same", "o"].map(|id| ObjectId(id.into()));
    assert_eq!(client.object_urls(&ids).await.unwrap_err().kind(), Kind::Data);
    let ids = ["same", "same"].map(|id| ObjectId(id.into()));
    assert_eq!(client.object_urls(&ids).await.unwrap().len(), 2);
}

#[test]
fn debug_output_contains_no_secret() {
    let options = ClientOptions {
        base_url: "https://h".parse().unwrap(),
        credentials: Credentials { client_id: "a#b".into(), client_secret: Secret::new(CLIENT_SECRET) },
        pacing: Pacing::default(),
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_secs(1), Duration::from_secs(5)),
        idle_timeout: Duration::from_secs(60),
    };
    let shown = format!("{options:?} {:?}", Client::new(options.clone()).unwrap());
    assert!(!shown.contains(CLIENT_SECRET), "{shown}");
}
