//! Each endpoint, with valid and invalid requests.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;

#[tokio::test]
async fn login_returns_a_token_with_its_expiry() {
    let caller = Caller::simple().await;
    let (status, body) = read(caller.login_request()).await;
    assert_eq!(status, 200);
    let members: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["access_token", "expires_in", "scope", "token_type"]);
    assert_eq!(body["expires_in"], 3600);
    let token = body["access_token"].as_str().unwrap();
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let payload: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let life = payload["exp"].as_i64().unwrap() - Timestamp::now().micros() / 1_000_000;
    assert!((3590..=3601).contains(&life), "{life}");
    assert_eq!(caller.server.counters().logins, 2);
}

#[tokio::test]
async fn login_refuses_wrong_requests() {
    let caller = Caller::simple().await;
    let wrong = caller
        .request(Method::POST, "/ids/auth/login")
        .basic_auth("demo-region#demo-client", Some("other"))
        .form(&[("grant_type", "client_credentials")]);
    let (status, body) = read(wrong).await;
    assert_eq!((status, error_of(&body).0.as_str()), (401, "AuthenticationError"));
    let (status, _) = read(caller.request(Method::POST, "/ids/auth/login")).await;
    assert_eq!(status, 401);
    let (status, body) = read(caller.login_request().form(&[("grant_type", "password")])).await;
    assert_eq!((status, error_of(&body).0.as_str()), (400, "ValidationError"));
    assert_eq!(read(caller.request(Method::GET, "/ids/auth/login")).await.0, 405);
    assert_eq!(caller.server.counters().refused_logins, 2);
}

#[tokio::test]
async fn every_api_call_needs_a_valid_token() {
    let caller = Caller::simple().await;
    let calls = [
        (Method::GET, "/dap/query/canvas/table"),
        (Method::GET, "/dap/query/canvas/table/many/schema"),
        (Method::POST, "/dap/query/canvas/table/many/data"),
        (Method::GET, "/dap/job/x"),
        (Method::POST, "/dap/object/url"),
    ];
    for (method, path) in calls.clone() {
        for request in [caller.request(method.clone(), path), caller.request(method.clone(), path).bearer_auth("a.b.c")] {
            let (status, body) = read(request).await;
            assert_eq!(status, 401, "{path}");
            assert_eq!(error_of(&body), ("AuthenticationError".into(), vec!["type".into(), "uuid".into(), "message".into()]));
        }
    }
    caller.server.run_ahead(Duration::from_secs(3601));
    for (method, path) in calls {
        assert_eq!(read(caller.request(method, path).bearer_auth(&caller.token)).await.0, 401);
    }
    assert_eq!(caller.server.counters().wrong_auth, 15);
}

#[tokio::test]
async fn tables_and_schemas_are_listed() {
    let caller = Caller::simple().await;
    let (status, body) = caller.get("/dap/query/canvas/table").await;
    assert_eq!((status, body), (200, json!({"tables": ["many", "none", "odd/name ?"]})));
    let (status, body) = caller.get("/dap/query/canvas/table/odd%2Fname%20%3F/schema?scope=anything").await;
    assert_eq!((status, &body["version"]), (200, &json!(1)));
    assert_eq!(body["schema"]["properties"]["key"]["properties"]["id"]["format"], "int64");

    for (path, kind, id) in [
        ("/dap/query/nowhere/table", "namespace", "nowhere"),
        ("/dap/query/nowhere/table/many/schema", "namespace", "nowhere"),
        ("/dap/query/canvas/table/nothing/schema", "table", "nothing"),
        ("/dap/job/nonsense", "job", "nonsense"),
    ] {
        let (status, body) = caller.get(path).await;
        assert_eq!(status, 404);
        let (_, members) = error_of(&body);
        assert_eq!(members, ["type", "uuid", "message", "id", "kind"]);
        assert_eq!((&body["error"]["kind"], &body["error"]["id"]), (&json!(kind), &json!(id)));
    }
    let (status, body) = caller.get("/dap/elsewhere").await;
    assert_eq!((status, error_of(&body).1.len()), (404, 3));
    assert_eq!(read(caller.request(Method::DELETE, "/dap/job/x").bearer_auth(&caller.token)).await.0, 405);
}

#[tokio::test]
async fn wrong_queries_are_refused_with_the_position() {
    let caller = Caller::simple().await;
    let ask = |body: &'static str| {
        let request = caller.request(Method::POST, "/dap/query/canvas/table/many/data").bearer_auth(&caller.token);
        read(request.header("content-type", "application/json").body(body))
    };
    for (body, line, column, character) in [
        ("{\"format\":\n \"jsonl\",}", 2, 10, 20),
        ("", 1, 1, 0),
        ("[]", 1, 1, 0),
        (r#"{"mode":"expanded"}"#, 1, 1, 0),
        (r#"{"format":"xml"}"#, 1, 2, 1),
        (r#"{"format":"csv","mode":"flat"}"#, 1, 17, 16),
        (r#"{"format":"csv","since":"2024-01-02T00:00:00"}"#, 1, 17, 16),
        (r#"{"format":"csv","since":17}"#, 1, 17, 16),
        (r#"{"format":"csv","until":"2024-01-02T00:00:00Z"}"#, 1, 17, 16),
        (r#"{"format":"csv","colour":"red"}"#, 1, 17, 16),
    ] {
        let (status, answer) = ask(body).await;
        assert_eq!((status, answer["error"]["type"].as_str().unwrap()), (400, "ValidationError"), "{body}");
        let expected = json!({"line": line, "column": column, "character": character});
        assert_eq!(answer["error"]["location"], expected, "{body}");
    }
    let plain = caller.request(Method::POST, "/dap/query/canvas/table/many/data").bearer_auth(&caller.token).body("{}");
    assert_eq!(read(plain).await.0, 400);
    assert_eq!(caller.ask("nothing", json!({"format": "csv"})).await.0, 404);
    assert_eq!(caller.server.counters().jobs_started(), 0);
}

#[tokio::test]
async fn queries_outside_the_history_are_out_of_range() {
    let caller = Caller::simple().await;
    for (since, until) in [
        ("2024-01-01T23:59:59.999999Z", None),
        ("2024-01-02T00:00:00Z", Some("2024-01-02T04:00:00.000001Z")),
        ("2024-01-02T05:00:00Z", None),
        ("2024-01-02T03:00:00Z", Some("2024-01-02T01:00:00Z")),
    ] {
        let mut query = json!({"format": "jsonl", "since": since});
        if let Some(until) = until {
            query["until"] = until.into();
        }
        let (status, body) = caller.ask("many", query).await;
        let (name, members) = error_of(&body);
        assert_eq!((status, name.as_str()), (400, "OutOfRange"), "{since} {until:?}");
        assert_eq!(members, ["type", "uuid", "message", "since", "until"]);
        assert_eq!(body["error"]["since"], "2024-01-02T00:00:00Z");
        assert_eq!(body["error"]["until"], "2024-01-02T04:00:00Z");
    }
    caller.server.require_snapshot(&many(), commit(1));
    let (status, body) = caller.ask("many", json!({"format": "jsonl", "since": FIRST.to_string()})).await;
    assert_eq!((status, error_of(&body).0.as_str()), (400, "SnapshotRequired"));
    assert_eq!(body["error"]["since"], "2024-01-02T04:00:00Z");
    assert_eq!(caller.ask("none", json!({"format": "jsonl", "since": FIRST.to_string()})).await.0, 202);
    caller.run("many", json!({"format": "jsonl", "since": commit(1).to_string()})).await;
}

#[tokio::test]
async fn a_snapshot_reports_at_and_an_increment_since_and_until() {
    let caller = Caller::simple().await;
    let job = caller.run("many", json!({"format": "jsonl"})).await;
    let members: Vec<_> = job.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "status", "expires_at", "objects", "schema_version", "at"]);
    assert_eq!((&job["status"], &job["at"]), (&json!("complete"), &json!("2024-01-02T04:00:00Z")));
    assert_eq!((job["schema_version"].as_i64(), job["objects"].as_array().unwrap().len()), (Some(1), 4));
    let id = job["objects"][1]["id"].as_str().unwrap();
    assert_eq!(id, format!("{}/part-00001-c000.jsonl.gz", job["id"].as_str().unwrap()));
    let life = job["expires_at"].as_str().unwrap().parse::<Timestamp>().unwrap().micros() - Timestamp::now().micros();
    assert!((23 * HOUR..=24 * HOUR).contains(&life));

    caller.server.advance();
    assert_eq!(caller.server.advance(), commit(3));
    let since = "2024-01-02T02:00:00+02:00";
    let job = caller.run("many", json!({"format": "tsv", "mode": "condensed", "since": since})).await;
    let members: Vec<_> = job.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "status", "expires_at", "objects", "schema_version", "since", "until"]);
    assert_eq!((&job["since"], &job["until"]), (&json!("2024-01-02T00:00:00Z"), &json!("2024-01-02T12:00:00Z")));
    assert_eq!((job["schema_version"].as_i64(), job["objects"].as_array().unwrap().len()), (Some(2), 2));

    let until = caller.run("many", json!({"format": "tsv", "since": since, "until": "2024-01-02T05:00:00Z"})).await;
    assert_eq!(until["until"], "2024-01-02T05:00:00Z");
    let newest = commit(3).to_string();
    let nothing = caller.run("many", json!({"format": "tsv", "since": newest})).await;
    assert_eq!((&nothing["objects"], &nothing["until"]), (&json!([]), &json!(newest)));
    assert_eq!(caller.run("none", json!({"format": "csv"})).await["objects"], json!([]));
}

#[tokio::test]
async fn a_job_waits_runs_and_expires() {
    let delay = (Duration::from_secs(100), Duration::from_secs(200));
    let options = ServeOptions { job_delay: delay, job_life: Duration::from_secs(1000), ..ServeOptions::instant() };
    let caller = Caller::new(Desk::new(3), options).await;
    let (status, job) = caller.ask("many", json!({"format": "csv"})).await;
    assert_eq!((status, &job["status"]), (202, &json!("waiting")));
    let path = format!("/dap/job/{}", job["id"].as_str().unwrap());
    caller.server.run_ahead(delay.0);
    let (status, running) = caller.get(&path).await;
    assert_eq!((status, &running["status"], &running["expires_at"]), (202, &json!("running"), &job["expires_at"]));
    caller.server.run_ahead(delay.1);
    let complete = caller.end_of(&job).await;
    assert_eq!(complete["status"], "complete");
    let url = caller.urls(&complete).await.remove(0);

    caller.server.run_ahead(Duration::from_secs(700));
    let (status, gone) = caller.get(&path).await;
    assert_eq!((status, &gone["error"]["kind"]), (404, &json!("job")));
    let (status, gone) = caller.post("/dap/object/url", complete["objects"].clone()).await;
    assert_eq!((status, &gone["error"]["kind"]), (404, &json!("object")));
    assert_eq!(error_of(&gone).1, ["type", "uuid", "message", "id", "kind"]);
    assert_eq!(gone["error"]["id"], complete["objects"][0]["id"]);
    let download = caller.download(&url).await;
    assert_eq!(download.status(), 404);
    assert!(download.text().await.unwrap().contains("<Code>NoSuchKey</Code>"));
}

#[tokio::test]
async fn an_equal_query_returns_the_current_job() {
    let caller = Caller::simple().await;
    let first = caller.run("many", json!({"format": "jsonl"})).await;
    let (status, again) = caller.ask("many", json!({"format": "jsonl", "mode": "expanded"})).await;
    assert_eq!((status, &again), (200, &first));
    for other in [json!({"format": "csv"}), json!({"format": "jsonl", "mode": "condensed"})] {
        assert_ne!(caller.ask("many", other).await.1["id"], first["id"]);
    }
    caller.server.advance();
    assert_ne!(caller.ask("many", json!({"format": "jsonl"})).await.1["id"], first["id"], "newer data, newer job");
    let counters = caller.server.counters();
    assert_eq!((counters.jobs_started(), counters.jobs_reattached), (4, 1));
    assert_eq!(counters.job_starts[0].id, first["id"].as_str().unwrap());
    assert_eq!(counters.job_starts[0].table, many());

    caller.server.run_ahead(Duration::from_secs(24 * 3600));
    let caller = Caller { token: caller.login().await, ..caller };
    assert_ne!(caller.ask("many", json!({"format": "jsonl"})).await.1["id"], first["id"], "the old job has expired");
}

#[tokio::test]
async fn a_failing_job_is_returned_until_it_has_failed() {
    let options = ServeOptions { job_delay: (Duration::ZERO, Duration::from_secs(100)), ..ServeOptions::instant() };
    let caller = Caller::new(Desk::new(1), options).await;
    caller.server.inject(Fault::JobFails { message: "Out of memory".into() }, Times::Once);
    let query = json!({"format": "jsonl"});
    let (_, job) = caller.ask("many", query.clone()).await;
    // One call later the result exists, but the status does not show it yet.
    assert_eq!(caller.ask("many", query.clone()).await, (202, job.clone()));
    caller.server.run_ahead(Duration::from_secs(100));
    let failed = caller.end_of(&job).await;
    assert_eq!((&failed["status"], &failed["error"]["message"]), (&json!("failed"), &json!("Out of memory")));
    assert_ne!(caller.ask("many", query).await.1["id"], job["id"]);
}

#[tokio::test]
async fn urls_are_returned_in_batches_and_wrong_requests_are_refused() {
    let caller = Caller::simple().await;
    let job = caller.run("many", json!({"format": "parquet"})).await;
    assert_eq!(caller.urls(&job).await.len(), 4);
    let (status, body) = caller.post("/dap/object/url", json!([])).await;
    assert_eq!((status, body), (200, json!({"urls": {}})));
    for wrong in [json!({}), json!([{"name": "x"}]), json!(["x"])] {
        let (status, body) = caller.post("/dap/object/url", wrong).await;
        assert_eq!((status, error_of(&body).0.as_str()), (400, "ValidationError"));
    }
    for unknown in ["x", "x/y", "../../etc/passwd"] {
        let (status, body) = caller.post("/dap/object/url", json!([job["objects"][0], {"id": unknown}])).await;
        assert_eq!((status, &body["error"]["id"]), (404, &json!(unknown)));
    }
}

#[tokio::test]
async fn limits_apply_to_each_endpoint() {
    let window = Duration::from_secs(60);
    let options = ServeOptions { limits: [1, 2, 1, 3, 1], limit_window: window, ..ServeOptions::instant() };
    let caller = Caller::new(Desk::new(1), options).await;
    let job = caller.ask("many", json!({"format": "csv"})).await.1;
    for (path, limit) in [("/dap/query/canvas/table", 1), ("/dap/query/canvas/table/many/schema", 2), ("/dap/job/nonsense", 3)]
    {
        for _ in 0..limit {
            assert_ne!(caller.get(path).await.0, 429);
        }
        let refused = caller.request(Method::GET, path).bearer_auth(&caller.token).send().await.unwrap();
        assert_eq!(refused.status(), 429);
        let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((50..=60).contains(&wait), "{wait}");
        assert_eq!(error_of(&refused.json().await.unwrap()).1.len(), 3);
    }
    assert_eq!(caller.ask("many", json!({"format": "csv"})).await.0, 429);
    assert_eq!(caller.post("/dap/object/url", json!([])).await.0, 200);
    assert_eq!(caller.post("/dap/object/url", json!([])).await.0, 429);

    caller.server.run_ahead(window);
    assert_eq!(caller.get("/dap/query/canvas/table").await.0, 200);
    assert_eq!(caller.ask("many", json!({"format": "csv"})).await.1["id"], job["id"]);
    let counters = caller.server.counters();
    for endpoint in [Endpoint::Tables, Endpoint::Schema, Endpoint::Data, Endpoint::Job, Endpoint::Urls] {
        assert_eq!(counters.throttled_of(endpoint), 1, "{endpoint:?}");
    }
    assert_eq!((counters.calls_of(Endpoint::Job), counters.peak_calls[&Endpoint::Job]), (4, 4));
    assert_eq!((counters.calls_of(Endpoint::Tables), counters.peak_calls[&Endpoint::Tables]), (3, 2));
}

#[tokio::test]
async fn several_servers_run_concurrently_and_stop_when_dropped() {
    let one = Caller::simple().await;
    let two = Caller::simple().await;
    assert_ne!(one.server.url(), two.server.url());
    let (status, _) = read(two.request(Method::GET, "/dap/query/canvas/table").bearer_auth(&one.token)).await;
    assert_eq!(status, 401, "a token is good for its own server only");

    let url = one.server.url();
    let job = one.run("many", json!({"format": "csv"})).await;
    drop(one.server);
    // The listener closes when the runtime has dropped the aborted task.
    while one.http.get(url.clone()).send().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(job["status"], "complete");
    assert_eq!(two.get("/dap/query/canvas/table").await.0, 200);
}

/// The runtime of a test waits for blocking work, so this test ends only if dropping the server stops the encoding.
#[tokio::test]
async fn dropping_the_server_stops_encoding() {
    let caller = Caller::new(Desk::new(i64::MAX), ServeOptions { rows_per_object: 1000, ..ServeOptions::instant() }).await;
    let (status, job) = caller.ask("many", json!({"format": "csv"})).await;
    let (still, again) = caller.get(&format!("/dap/job/{}", job["id"].as_str().unwrap())).await;
    assert_eq!((status, still, &again["status"]), (202, 202, &json!("running")));
}

#[tokio::test]
async fn only_loopback_addresses_are_allowed() {
    let options = ServeOptions { listen: "0.0.0.0:0".parse().unwrap(), ..ServeOptions::default() };
    assert!(!format!("{options:?}").contains("demo-secret"));
    assert_eq!(Server::serve(Desk::new(1), options).await.unwrap_err().kind(), crate::Kind::Usage);
}

#[tokio::test]
async fn commits_can_be_automatic() {
    let desk = Desk::new(1);
    let options = ServeOptions { commit_every: Some(Duration::from_millis(1)), ..ServeOptions::instant() };
    let caller = Caller::new(desk.clone(), options).await;
    loop {
        let (status, job) = caller.ask("many", json!({"format": "csv"})).await;
        assert!(status < 300);
        if caller.end_of(&job).await["at"].as_str() > Some(commit(4).to_string().as_str()) {
            break;
        }
    }
    assert!(desk.commits().len() > 5);
}
