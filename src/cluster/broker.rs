//! The URL broker: a small server of the driver that gives executors pre-signed URLs of objects and takes their reports. It implements the
//! two calls of the service that a download needs (login, object URLs), so that executors read objects with the same client. Their login is
//! a random token, valid for the objects of one load.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::api::{Client, ObjectId, Retry, RetryPolicy, RetryReason, exchange};
use crate::decode::DecodeCounts;
use crate::error::{Error, Kind, Result, ResultExt};

/// Size limit of a request, enough for thousands of object ids, bytes.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Announced lifetime of a token; executors then log in again.
const TOKEN_SECONDS: u64 = 3600;
/// Timeout for the header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts to report a part to the driver.
const ATTEMPTS: u32 = 4;
/// Path for reports of parts.
const PART: &str = "/daplake/part";

/// The report of an executor on the objects of a part. The report of a second attempt replaces the first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Number of the part's first object.
    pub(super) part: usize,
    /// Numbers of the objects that were read to their end.
    pub(super) objects: Vec<usize>,
    /// Number of changes.
    pub(super) changes: u64,
    pub(super) counts: DecodeCounts,
}

/// The server; it stops when it is dropped.
#[derive(Debug)]
pub(super) struct Broker {
    address: Url,
    loads: Loads,
    _serving: JoinSet<()>,
}

/// Open loads, by token.
#[derive(Clone, Default)]
struct Loads(Arc<Mutex<HashMap<String, Load>>>);

struct Load {
    name: String,
    client: Client,
    objects: HashSet<ObjectId>,
    reports: BTreeMap<usize, Report>,
}

/// Access to the URLs of one load's objects, valid until the driver ends the load.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Lease {
    /// URL of the broker.
    pub(super) address: Url,
    /// Name of the load.
    pub(super) load: String,
    pub(super) token: String,
}

impl std::fmt::Debug for Lease {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("address", &self.address.as_str()).field("load", &self.load).finish_non_exhaustive()
    }
}

/// A load that is open at the broker until this is dropped.
#[derive(Debug)]
pub(super) struct RegisteredLoad {
    loads: Loads,
    pub(super) lease: Lease,
}

impl std::fmt::Debug for Loads {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.lock().values().map(|load| &load.name)).finish()
    }
}

impl Loads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Load>> {
        self.0.lock()
    }
}

impl RegisteredLoad {
    /// Numbers of objects and changes reported so far.
    pub(super) fn read(&self) -> (u64, u64) {
        self.sum(|(objects, changes), report| (objects + report.objects.len() as u64, changes + report.changes))
    }

    /// Numbers of the objects that were read to their end, ascending.
    pub(super) fn finished(&self) -> Vec<usize> {
        let finished: BTreeSet<usize> = self.sum(|mut all: BTreeSet<usize>, report| {
            all.extend(&report.objects);
            all
        });
        finished.into_iter().collect()
    }

    /// Counts of the decoders reported so far.
    pub(super) fn counts(&self) -> DecodeCounts {
        self.sum(|mut counts: DecodeCounts, report| {
            counts.add(&report.counts);
            counts
        })
    }

    fn sum<T: Default>(&self, add: impl Fn(T, &Report) -> T) -> T {
        let loads = self.loads.lock();
        loads.get(&self.lease.token).into_iter().flat_map(|load| load.reports.values()).fold(T::default(), add)
    }

    /// Discards the reports of an earlier attempt.
    pub(super) fn restart(&self) {
        if let Some(load) = self.loads.lock().get_mut(&self.lease.token) {
            load.reports.clear();
        }
    }
}

impl Drop for RegisteredLoad {
    fn drop(&mut self) {
        self.loads.lock().remove(&self.lease.token);
    }
}

impl Broker {
    /// Starts to listen. Executors reach the server at `host`, or else at the address of `listen`.
    ///
    /// # Errors
    /// Kind `Usage` if the address cannot be used.
    pub(super) async fn start(listen: SocketAddr, host: Option<&str>) -> Result<Self> {
        let unusable = "The driver cannot listen for executors";
        let listener = TcpListener::bind(listen).await.context(Kind::Usage, unusable).map_err(|error| {
            error.with_field("address", listen).hint("set --cluster-listen to an address of this machine, such as 10.0.0.5:0")
        })?;
        let bound = listener.local_addr().context(Kind::Io, unusable)?;
        let host = host.map_or_else(|| bound.ip().to_string(), str::to_owned);
        let address = Url::parse(&http_address(&host, bound.port())).context(Kind::Usage, unusable)?;
        let loads = Loads::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, loads.clone()));
        Ok(Self { address, loads, _serving: serving })
    }

    /// Opens a load with these objects.
    pub(super) fn register(&self, name: &str, client: &Client, objects: &[ObjectId]) -> RegisteredLoad {
        // 244 random bits.
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let objects = objects.iter().cloned().collect();
        let load = Load { name: name.to_owned(), client: client.clone(), objects, reports: BTreeMap::new() };
        self.loads.lock().insert(token.clone(), load);
        let lease = Lease { address: self.address.clone(), load: name.to_owned(), token };
        RegisteredLoad { loads: self.loads.clone(), lease }
    }
}

/// A URL with IPv6 addresses in brackets.
pub(super) fn http_address(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("http://[{host}]:{port}"),
        false => format!("http://{host}:{port}"),
    }
}

async fn serve(listener: TcpListener, loads: Loads) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Usually too many open files, which is temporary.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let loads = loads.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(loads.clone(), request));
                    let mut server = hyper::server::conn::http1::Builder::new();
                    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                    // The client repeats failed requests.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(loads: Loads, request: Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_REQUEST_BYTES).collect().await else {
        return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE, "Invalid", "The request is too large"));
    };
    let body = body.to_bytes();
    let authorization = parts.headers.get(AUTHORIZATION);
    Ok(match (parts.method, parts.uri.path()) {
        (Method::POST, "/ids/auth/login") => login(&loads, authorization),
        (Method::POST, "/dap/object/url") => match bearer(&loads, authorization) {
            Some(token) => urls(&loads, &token, &body).await,
            None => unknown(),
        },
        (Method::POST, PART) => match bearer(&loads, authorization) {
            Some(token) => add_report(&loads, &token, &body),
            None => unknown(),
        },
        _ => refusal(StatusCode::NOT_FOUND, "NotFound", "Unknown path"),
    })
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn refusal(status: StatusCode, kind: &str, message: &str) -> Answer {
    json_answer(status, &json!({"error": {"type": kind, "message": message}}))
}

fn unknown() -> Answer {
    refusal(StatusCode::UNAUTHORIZED, "Unauthenticated", "The driver does not know this load; it has ended or was restarted")
}

fn login(loads: &Loads, authorization: Option<&HeaderValue>) -> Answer {
    let pair =
        authorization.and_then(|value| value.to_str().ok()?.strip_prefix("Basic ")).and_then(|text| STANDARD.decode(text).ok());
    let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
    let known = pair.as_deref().and_then(|pair| pair.split_once(':')).filter(|(name, token)| {
        let loads = loads.lock();
        loads.get(*token).is_some_and(|load| load.name == *name)
    });
    match known {
        Some((_, token)) => {
            json_answer(StatusCode::OK, &json!({"access_token": token, "token_type": "bearer", "expires_in": TOKEN_SECONDS}))
        }
        None => unknown(),
    }
}

/// The token, if it belongs to an open load.
fn bearer(loads: &Loads, authorization: Option<&HeaderValue>) -> Option<String> {
    let token = authorization?.to_str().ok()?.strip_prefix("Bearer ")?;
    loads.lock().contains_key(token).then(|| token.to_owned())
}

#[derive(Deserialize)]
struct Requested {
    id: ObjectId,
}

async fn urls(loads: &Loads, token: &str, body: &[u8]) -> Answer {
    let Ok(requested) = serde_json::from_slice::<Vec<Requested>>(body) else {
        return refusal(StatusCode::BAD_REQUEST, "Invalid", "Cannot read the ids");
    };
    let ids: Vec<ObjectId> = requested.into_iter().map(|requested| requested.id).collect();
    let client = {
        let loads = loads.lock();
        let Some(load) = loads.get(token) else { return unknown() };
        if ids.iter().any(|id| !load.objects.contains(id)) {
            return refusal(StatusCode::NOT_FOUND, "NotFound", "The object does not belong to this load");
        }
        load.client.clone()
    };
    match client.object_urls(&ids).await {
        Ok(urls) => {
            let urls: serde_json::Map<String, Value> =
                ids.into_iter().zip(urls).map(|(id, url)| (id.0, json!({"url": url.reveal().as_str()}))).collect();
            json_answer(StatusCode::OK, &json!({"urls": urls}))
        }
        Err(error) => {
            tracing::debug!(%error, "Cannot give URLs to an executor");
            match error.kind() {
                Kind::Expired | Kind::NotFound => refusal(StatusCode::NOT_FOUND, "NotFound", "The object has expired"),
                Kind::Throttled => refusal(StatusCode::TOO_MANY_REQUESTS, "Throttled", "The service throttles the driver"),
                Kind::Auth | Kind::Account => refusal(StatusCode::FORBIDDEN, "Forbidden", "The service rejects the driver"),
                _ => refusal(StatusCode::BAD_GATEWAY, "Unavailable", "The service did not answer the driver"),
            }
        }
    }
}

fn add_report(loads: &Loads, token: &str, body: &[u8]) -> Answer {
    let Ok(report) = serde_json::from_slice::<Report>(body) else {
        return refusal(StatusCode::BAD_REQUEST, "Invalid", "Cannot read the report");
    };
    match loads.lock().get_mut(token) {
        Some(load) => {
            load.reports.insert(report.part, report);
            json_answer(StatusCode::OK, &json!({}))
        }
        None => unknown(),
    }
}

/// Reports a part to the driver.
///
/// # Errors
/// Kind `Unavailable` if the driver cannot be reached, `Cancelled` if it has ended the load.
pub(super) async fn report(client: &Client, lease: &Lease, report: &Report) -> Result<()> {
    let unreachable = "Cannot report to the driver";
    let url = lease.address.join(PART).context(Kind::Bug, unreachable)?;
    let body = serde_json::to_vec(report).context(Kind::Bug, unreachable)?;
    let mut retry = Retry::new(&RetryPolicy { attempts: ATTEMPTS, ..client.retry_policy().clone() });
    loop {
        retry.attempt();
        let request = client.objects_http().post(url.clone()).bearer_auth(&lease.token).body(body.clone());
        let failure = match exchange(request, client.idle_timeout()).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                return Err(Error::new(Kind::Cancelled, "The driver has ended the load"));
            }
            Ok(answer) => Error::new(Kind::Unavailable, unreachable).with_field("status", answer.status.as_u16()),
            Err(fault) => Error::new(Kind::Unavailable, unreachable).caused_by(fault.error),
        };
        retry.wait(RetryReason::Fault, failure).await?;
    }
}
