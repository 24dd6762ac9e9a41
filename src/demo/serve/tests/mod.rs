//! The server over real HTTP, with a small source in place of the school.

mod calls;
mod content;
mod downloads;
mod faults;

use std::io::Read;
use std::sync::{Arc, Mutex};

use flate2::read::MultiGzDecoder;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::server::Server;
use super::source::{Records, Source};
use super::*;
use crate::demo::record::{Cell, Field, Layout, Record};
use crate::model::{Op, TableRef, Timestamp};

const HOUR: i64 = 3_600_000_000;
/// 2024-01-02T00:00:00Z.
const FIRST: Timestamp = Timestamp::from_micros(1_704_153_600_000_000);

/// Three tables: `many` with numbered rows, `none` without rows, `odd/name ?` with one row.
#[derive(Debug)]
pub(super) struct Desk {
    commits: Mutex<Vec<Timestamp>>,
    rows: i64,
    name: Option<String>,
    read: std::sync::atomic::AtomicU64,
}

impl Desk {
    /// Two commits, four hours apart.
    fn new(rows: i64) -> Arc<Self> {
        Self::named(rows, None)
    }

    fn named(rows: i64, name: Option<String>) -> Arc<Self> {
        let commits = Mutex::new(vec![FIRST, commit(1)]);
        Arc::new(Self { commits, rows, name, read: Default::default() })
    }
}

fn commit(number: i64) -> Timestamp {
    Timestamp::from_micros(FIRST.micros() + number * 4 * HOUR)
}

fn many() -> TableRef {
    TableRef::new("canvas", "many")
}

fn upsert(ts: Timestamp, id: i64) -> Record {
    let tail = Cell::Object(vec![("even".into(), Cell::Bool(id % 2 == 0)), ("note".into(), Cell::Null)]);
    let value = vec![Cell::Text(format!("row, {id}").into()), Cell::Int(id * 10), tail];
    Record { ts, op: Op::Upsert, key: vec![Cell::Int(id)], value: Some(value) }
}

impl Source for Desk {
    fn fingerprint(&self) -> Option<String> {
        self.name.clone()
    }

    fn tables(&self, namespace: &str) -> Option<Vec<String>> {
        (namespace == "canvas").then(|| vec!["many".into(), "none".into(), "odd/name ?".into()])
    }

    fn commits(&self) -> Vec<Timestamp> {
        self.commits.lock().unwrap().clone()
    }

    fn advance(&self) -> Timestamp {
        let mut commits = self.commits.lock().unwrap();
        let next = commit(commits.len() as i64);
        commits.push(next);
        next
    }

    fn schema_version(&self, _: &TableRef, at: Timestamp) -> Option<i64> {
        Some(if at < commit(3) { 1 } else { 2 })
    }

    fn schema(&self, _: &TableRef, _: i64) -> Option<Value> {
        Some(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "meta": {"type": "object", "properties": {"ts": {"type": "string", "format": "date-time"}}},
                "key": {"type": "object", "properties": {"id": {"type": "integer", "format": "int64"}}},
                "value": {"type": "object", "properties": {
                    "name": {"type": "string"},
                    "count": {"type": "integer", "format": "int32"},
                    "tail": {"type": "object", "properties": {"even": {"type": "boolean"}, "note": {"type": "string"}}}
                }}
            }
        }))
    }

    fn layout(&self, _: &TableRef, _: i64) -> Option<Layout> {
        let leaf = |name: &str| Field { name: name.into(), members: vec![] };
        let tail = Field { name: "tail".into(), members: vec![leaf("even"), leaf("note")] };
        Some(Layout { key: vec!["id".into()], value: vec![leaf("name"), leaf("count"), tail] })
    }

    fn snapshot(&self, table: &TableRef, _: Timestamp) -> Option<Records<'_>> {
        self.read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let rows = match table.table.as_str() {
            "many" => self.rows,
            "none" => 0,
            _ => 1,
        };
        Some(Box::new((1..=rows).map(|id| upsert(FIRST, id))))
    }

    /// Each commit inserts a row and deletes one.
    fn changes(&self, table: &TableRef, since: Timestamp, until: Timestamp) -> Option<Records<'_>> {
        self.read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let commits = if table.table == "many" { self.commits() } else { Vec::new() };
        let inside = (0i64..).zip(commits).filter(move |(_, ts)| since < *ts && *ts <= until);
        Some(Box::new(inside.flat_map(|(number, ts)| {
            [upsert(ts, 1000 + number), Record { ts, op: Op::Delete, key: vec![Cell::Int(number)], value: None }]
        })))
    }
}

/// A small client, independent of `api`.
struct Caller {
    server: Server<Desk>,
    http: reqwest::Client,
    token: String,
}

impl Caller {
    async fn new(desk: Arc<Desk>, options: ServeOptions) -> Self {
        let server = Server::serve(desk, options).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut caller = Self { server, http, token: String::new() };
        caller.token = caller.login().await;
        caller
    }

    /// Twenty rows in objects of five, without delays and limits.
    async fn simple() -> Self {
        Self::new(Desk::new(20), ServeOptions { rows_per_object: 5, ..ServeOptions::instant() }).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{}", self.server.url().as_str().trim_end_matches('/'), path))
    }

    fn login_request(&self) -> RequestBuilder {
        self.request(Method::POST, "/ids/auth/login")
            .basic_auth("demo-region#demo-client", Some("demo-secret"))
            .form(&[("grant_type", "client_credentials")])
    }

    async fn login(&self) -> String {
        let (status, body) = read(self.login_request()).await;
        assert_eq!(status, 200);
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        read(self.request(Method::GET, path).bearer_auth(&self.token)).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.request(Method::POST, path).bearer_auth(&self.token).json(&body)).await
    }

    async fn ask(&self, table: &str, query: Value) -> (u16, Value) {
        self.post(&format!("/dap/query/canvas/table/{table}/data"), query).await
    }

    /// Polls until the job has ended.
    async fn end_of(&self, job: &Value) -> Value {
        loop {
            let (status, job) = self.get(&format!("/dap/job/{}", job["id"].as_str().unwrap())).await;
            match status {
                202 => tokio::task::yield_now().await,
                200 => return job,
                _ => panic!("{status} {job}"),
            }
        }
    }

    async fn run(&self, table: &str, query: Value) -> Value {
        let (status, job) = self.ask(table, query).await;
        assert!(status == 200 || status == 202, "{status} {job}");
        self.end_of(&job).await
    }

    async fn urls(&self, job: &Value) -> Vec<String> {
        let (status, body) = self.post("/dap/object/url", job["objects"].clone()).await;
        assert_eq!(status, 200, "{body}");
        let objects = job["objects"].as_array().unwrap();
        assert_eq!(body["urls"].as_object().unwrap().len(), objects.len());
        let url = |id: &str| body["urls"][id]["url"].as_str().unwrap().to_owned();
        objects.iter().map(|object| url(object["id"].as_str().unwrap())).collect()
    }

    async fn download(&self, url: &str) -> Response {
        self.http.get(url).send().await.unwrap()
    }

    /// All objects of a query's result.
    async fn objects(&self, table: &str, query: Value) -> Vec<Vec<u8>> {
        let job = self.run(table, query).await;
        let mut objects = Vec::new();
        for url in self.urls(&job).await {
            let response = self.download(&url).await;
            assert_eq!(response.status(), 200);
            objects.push(response.bytes().await.unwrap().to_vec());
        }
        objects
    }
}

async fn read(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    (status, response.json().await.unwrap())
}

fn unzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

/// Type and member names of an error body.
fn error_of(body: &Value) -> (String, Vec<String>) {
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{body}"));
    assert_eq!(error["uuid"].as_str().unwrap().len(), 36);
    assert!(error["message"].is_string());
    (error["type"].as_str().unwrap().to_owned(), error.keys().cloned().collect())
}
