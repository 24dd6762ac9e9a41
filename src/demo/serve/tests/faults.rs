//! Faults of calls, jobs and downloads, as a client sees them.

use std::time::{Duration, Instant};

use super::*;

const SCHEMA: &str = "/dap/query/canvas/table/many/schema";

fn fault(text: &str) -> Fault {
    Fault::parse(text).unwrap()
}

/// The response to a request for the schema.
async fn schema(caller: &Caller) -> Response {
    caller.request(Method::GET, SCHEMA).bearer_auth(&caller.token).send().await.unwrap()
}

#[tokio::test]
async fn throttling_has_every_form_of_retry_after() {
    let caller = Caller::simple().await;
    for name in ["throttle:schema:7", "throttle:schema:none", "throttle:schema:date:30"] {
        caller.server.inject(fault(name), Times::Once);
    }
    let answer = schema(&caller).await;
    assert_eq!((answer.status(), &answer.headers()["retry-after"]), (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap()));
    let answer = schema(&caller).await;
    assert_eq!((answer.status(), answer.headers().get("retry-after")), (StatusCode::TOO_MANY_REQUESTS, None));
    let answer = schema(&caller).await;
    let date = chrono::DateTime::parse_from_rfc2822(answer.headers()["retry-after"].to_str().unwrap()).unwrap();
    let wait = date.timestamp() - Timestamp::now().micros() / 1_000_000;
    assert!((29..=32).contains(&wait), "{wait}");
    assert_eq!(schema(&caller).await.status(), 200);
    assert_eq!(caller.server.counters().throttled_of(Endpoint::Schema), 3);
    assert_eq!(caller.server.counters().faults["Throttle"], 3);
}

#[tokio::test]
async fn server_errors_have_every_form() {
    let caller = Caller::simple().await;
    for status in [500, 502, 504] {
        caller.server.inject(fault(&format!("error-{status}:schema")), Times::Once);
        let (answered, body) = caller.get(SCHEMA).await;
        assert_eq!((answered, error_of(&body).1.len()), (status, 3));
    }
    caller.server.inject(fault("html-503:schema"), Times::Once);
    caller.server.inject(fault("not-json:schema"), Times::Once);
    for status in [503, 200] {
        let answer = schema(&caller).await;
        assert_eq!(answer.status(), status);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(answer.text().await.unwrap().starts_with("<html>"));
    }
    caller.server.inject(fault("broken-json:schema"), Times::Once);
    let answer = schema(&caller).await;
    assert_eq!((answer.status(), &answer.headers()["content-type"]), (StatusCode::OK, &"application/json".parse().unwrap()));
    assert!(serde_json::from_str::<Value>(&answer.text().await.unwrap()).is_err());
    caller.server.inject(fault("login-fails"), Times::Once);
    assert_eq!(read(caller.login_request()).await.0, 500);
    assert_eq!(caller.login().await.split('.').count(), 3);
    for (name, error_type) in [
        ("account-disabled", "AccountDisabled"),
        ("account-not-onboarded", "AccountNotOnboarded"),
        ("account-under-maintenance", "AccountUnderMaintenance"),
        ("request-type-forbidden", "RequestTypeForbidden"),
    ] {
        caller.server.inject(fault(name), Times::Once);
        let (status, body) = caller.ask("many", json!({"format": "csv"})).await;
        assert_eq!((status, error_of(&body)), (403, (error_type.into(), vec!["type".into(), "uuid".into(), "message".into()])));
    }
    caller.server.inject(fault("error-500:objects"), Times::Once);
    let job = caller.run("many", json!({"format": "csv"})).await;
    let url = caller.urls(&job).await.remove(0);
    let answer = caller.download(&url).await;
    assert_eq!(
        (answer.status(), &answer.headers()["content-type"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &"application/xml".parse().unwrap())
    );
    assert_eq!(caller.download(&url).await.status(), 200);
}

/// Wine reports a reset connection as one that ended early.
fn is_reset(error: &reqwest::Error) -> bool {
    let text = format!("{error:?}");
    text.contains("ConnectionReset") || (cfg!(windows) && text.contains("Incomplete"))
}

#[tokio::test]
async fn a_connection_can_be_reset_before_the_response() {
    let caller = Caller::simple().await;
    caller.server.inject(fault("hang-up:schema"), Times::Always);
    let error = caller.request(Method::GET, SCHEMA).bearer_auth(&caller.token).send().await.unwrap_err();
    assert!(is_reset(&error), "{error:?}");
    caller.server.clear_faults();
    assert_eq!(schema(&caller).await.status(), 200);
}

#[tokio::test]
async fn tokens_can_become_invalid_at_a_call() {
    let caller = Caller::simple().await;
    caller.server.inject(fault("token-dies:2"), Times::Once);
    assert_eq!(caller.get(SCHEMA).await.0, 200);
    assert_eq!(caller.get(SCHEMA).await.0, 200);
    assert_eq!(caller.get(SCHEMA).await.0, 401);
    assert_eq!(caller.get(SCHEMA).await.0, 401);
    let caller = Caller { token: caller.login().await, ..caller };
    assert_eq!(caller.get(SCHEMA).await.0, 200);
}

#[tokio::test]
async fn every_response_can_have_unknown_members() {
    let caller = Caller::simple().await;
    caller.server.inject(fault("extra-members"), Times::Always);
    let extra = "x_new_member";
    assert!(read(caller.login_request()).await.1[extra].is_object());
    let answer = caller.get(SCHEMA).await.1;
    assert!(answer[extra].is_object() && !answer["schema"].to_string().contains(extra));
    let job = caller.run("many", json!({"format": "csv"})).await;
    assert!(job[extra].is_object() && job["objects"][0][extra].is_object());
    let id = job["objects"][0]["id"].as_str().unwrap();
    let urls = caller.post("/dap/object/url", json!([{"id": id}])).await.1;
    assert!(urls[extra].is_object() && urls["urls"][id][extra].is_object());
    assert_eq!(urls["urls"].as_object().unwrap().len(), 1, "the map of URLs stays a map of URLs");
    let refused = caller.get("/dap/job/x").await.1;
    assert!(refused["error"][extra].is_object());
}

#[tokio::test]
async fn increments_can_be_refused() {
    let caller = Caller::simple().await;
    let other = TableRef::new("canvas", "none");
    caller.server.inject_for(&many(), fault("snapshot-required"), Times::Once);
    caller.server.inject_for(&many(), fault("out-of-range"), Times::Once);
    caller.server.inject_for(&other, fault("out-of-range"), Times::Always);
    let query = json!({"format": "jsonl", "since": FIRST.to_string()});
    assert_eq!(caller.ask("many", json!({"format": "jsonl"})).await.0, 202, "snapshots are not concerned");
    for expected in ["SnapshotRequired", "OutOfRange"] {
        let (status, body) = caller.ask("many", query.clone()).await;
        assert_eq!((status, error_of(&body).0.as_str()), (400, expected));
        assert_eq!(body["error"]["since"], commit(1).to_string());
    }
    assert_eq!(caller.ask("many", query).await.0, 202);
}

#[tokio::test]
async fn jobs_can_fail_vanish_and_have_an_unknown_status() {
    let caller = Caller::simple().await;
    caller.server.inject(fault("job-fails"), Times::Once);
    let query = json!({"format": "jsonl"});
    let failed = caller.run("many", query.clone()).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(error_of(&failed).1, ["type", "uuid", "message"]);
    assert_eq!(failed["error"]["message"], "");
    let members: Vec<_> = failed.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "status", "expires_at", "error"]);

    caller.server.inject(fault("job-vanishes"), Times::Once);
    let (_, job) = caller.ask("many", query.clone()).await;
    assert_ne!(job["id"], failed["id"], "a failed job is not found again");
    let path = format!("/dap/job/{}", job["id"].as_str().unwrap());
    assert_eq!(caller.get(&path).await.0, 404);
    assert_eq!(caller.get(&path).await.0, 404);

    caller.server.inject(fault("unknown-status"), Times::Once);
    let (status, strange) = caller.ask("many", query.clone()).await;
    assert_eq!(status, 202);
    assert!(!["waiting", "running", "complete", "failed"].contains(&strange["status"].as_str().unwrap()));
    assert_eq!(caller.end_of(&strange).await["status"], "complete");

    caller.server.inject(fault("job-expires:5"), Times::Once);
    let (_, short) = caller.ask("many", json!({"format": "csv"})).await;
    let left = short["expires_at"].as_str().unwrap().parse::<Timestamp>().unwrap().micros() - Timestamp::now().micros();
    assert!(left <= 5_000_000, "{left}");
    caller.server.run_ahead(Duration::from_secs(5));
    let (_, next) = caller.ask("many", json!({"format": "csv"})).await;
    assert_ne!(next["id"], short["id"]);

    caller.server.inject(fault("empty-table"), Times::Once);
    assert_eq!(caller.run("many", json!({"format": "tsv"})).await["objects"], json!([]));

    let old = caller.run("many", json!({"format": "parquet"})).await;
    caller.server.advance();
    caller.server.inject(fault("stale-job"), Times::Once);
    assert_eq!(caller.ask("many", json!({"format": "parquet"})).await.1, old);
    assert_ne!(caller.ask("many", json!({"format": "parquet"})).await.1["id"], old["id"]);

    caller.server.inject(fault("newer-schema"), Times::Once);
    let newer = caller.get(SCHEMA).await.1;
    assert_eq!(newer["version"], 2);
    assert!(newer["schema"]["properties"]["value"]["properties"]["added_later"].is_object());
    assert_eq!(caller.get(SCHEMA).await.1["version"], 1);
}

#[tokio::test]
async fn urls_and_objects_can_expire() {
    let caller = Caller::simple().await;
    let job = caller.run("many", json!({"format": "jsonl"})).await;
    caller.server.inject(fault("url-expires"), Times::Once);
    let urls = caller.urls(&job).await;
    assert_eq!(caller.download(&urls[0]).await.status(), 403);
    assert_eq!(caller.download(&urls[1]).await.status(), 200);

    caller.server.inject_after(1, None, fault("gone-at-trade"), Times::Once);
    let (status, body) = caller.post("/dap/object/url", job["objects"].clone()).await;
    assert_eq!((status, &body["error"]["id"]), (404, &job["objects"][1]["id"]));
    caller.server.inject(fault("gone-at-download"), Times::Once);
    assert_eq!(caller.download(&urls[1]).await.status(), 404);

    caller.server.inject(fault("redirect"), Times::Always);
    let found = caller.download(&urls[1]).await;
    assert_eq!(found.status(), 302);
    let target = found.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(caller.download(&target).await.status(), 200);
}

/// URL and bytes of one object.
async fn one_object(caller: &Caller) -> (String, Vec<u8>) {
    let job = caller.run("many", json!({"format": "jsonl"})).await;
    let url = caller.urls(&job).await.remove(0);
    let whole = caller.download(&url).await.bytes().await.unwrap().to_vec();
    (url, whole)
}

/// Content length, the bytes received before the error, and the error.
async fn broken_download(caller: &Caller, url: &str) -> (Option<u64>, Vec<u8>, reqwest::Error) {
    let mut response = caller.download(url).await;
    let length = response.content_length();
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => panic!("the body ended in peace"),
            Err(error) => return (length, bytes, error),
        }
    }
}

#[tokio::test]
async fn bodies_can_end_early() {
    let caller = Caller::simple().await;
    let (url, whole) = one_object(&caller).await;
    for name in ["cut:50", "reset:50", "reset:0"] {
        let sent = if name.ends_with(":0") { 0 } else { 50 };
        caller.server.inject(fault(name), Times::Once);
        let (length, bytes, error) = broken_download(&caller, &url).await;
        assert_eq!((length, bytes.as_slice()), (Some(whole.len() as u64), &whole[..sent]), "{name}");
        let is_expected =
            if name.starts_with("cut") { format!("{error:?}").contains("IncompleteBody") } else { is_reset(&error) };
        assert!(is_expected, "{name}: {error:?}");
    }
    // Even for a small object.
    caller.server.inject(fault("cut:1000000"), Times::Once);
    assert_eq!(broken_download(&caller, &url).await.1, &whole[..whole.len() - 1]);

    caller.server.inject(fault("short-length:60"), Times::Once);
    let short = caller.download(&url).await;
    assert_eq!((short.status(), short.content_length()), (StatusCode::OK, Some(60)));
    assert_eq!(short.bytes().await.unwrap(), whole[..60]);
    assert_eq!(caller.download(&url).await.bytes().await.unwrap(), whole);
}

#[tokio::test]
async fn stores_can_ignore_ranges_and_redirect() {
    let caller = Caller::simple().await;
    let (url, whole) = one_object(&caller).await;
    caller.server.inject(fault("no-ranges"), Times::Once);
    let response = caller.http.get(&url).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!((response.status(), response.bytes().await.unwrap().as_ref()), (StatusCode::OK, &whole[..]));
    let response = caller.http.get(&url).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);

    caller.server.inject(fault("throttle:objects:3"), Times::Once);
    let response = caller.download(&url).await;
    assert_eq!((response.status(), &response.headers()["retry-after"]), (StatusCode::TOO_MANY_REQUESTS, &"3".parse().unwrap()));
    assert!(response.text().await.unwrap().contains("<Code>SlowDown</Code>"));

    caller.server.inject(fault("content-encoding"), Times::Once);
    let response = caller.download(&url).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(response.bytes().await.unwrap(), whole);
}

#[tokio::test]
async fn stores_can_be_slow() {
    let caller = Caller::simple().await;
    let (url, whole) = one_object(&caller).await;
    caller.server.inject(fault(&format!("drip:{}", whole.len() * 5)), Times::Once);
    let begun = Instant::now();
    let mut response = caller.download(&url).await;
    let mut chunks = 0;
    while response.chunk().await.unwrap().is_some() {
        chunks += 1;
    }
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    assert!(chunks > 1);

    // During a stall no bytes arrive.
    caller.server.inject(fault("stall:3600:20"), Times::Once);
    let mut response = caller.download(&url).await;
    let mut bytes = Vec::new();
    while bytes.len() < 20 {
        bytes.extend_from_slice(&response.chunk().await.unwrap().unwrap());
    }
    assert_eq!(bytes, &whole[..20]);
    assert!(tokio::time::timeout(Duration::from_millis(50), response.chunk()).await.is_err());
}
