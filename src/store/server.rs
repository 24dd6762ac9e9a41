//! An S3 server on loopback (`s3s-fs`) for tests, which can inject failures. `s3s-fs` checks for an existing object before it writes; a lock
//! around conditional requests makes them atomic, as commits require.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub const ACCESS_KEY: &str = "PLANTEDACCESSKEY";
pub const SECRET_KEY: &str = "planted-store-secret-77aa";
pub const SESSION_TOKEN: &str = "planted-session-token-88bb";
pub const BUCKET: &str = "lake-bucket";

/// An injected failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503 SlowDown.
    SlowDown,
    /// 501 NotImplemented.
    NotImplemented,
    /// 403 ExpiredToken, quoting the token as Amazon does.
    Expired,
    /// The connection is closed within the request's body.
    ResetUpload,
    /// The connection is closed within the response.
    CutDownload,
    /// `If-None-Match` is ignored.
    Unconditional,
    /// The request is executed, but the response is 500.
    LostAnswer,
    /// The response is delayed.
    Slow(Duration),
}

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub is_conditional: bool,
}

impl Seen {
    /// Whether it uploads a part of an object.
    pub fn is_part(&self) -> bool {
        self.method == Method::PUT && self.target.contains("partNumber=")
    }

    /// Whether it deletes one or several objects.
    pub fn is_removal(&self) -> bool {
        (self.method == Method::DELETE && !self.is_abort()) || (self.method == Method::POST && self.target.ends_with("?delete"))
    }

    /// Whether it aborts an upload.
    pub fn is_abort(&self) -> bool {
        self.method == Method::DELETE && self.target.contains("uploadId=")
    }

    /// Whether it reads an object or a range of one.
    pub fn is_download(&self) -> bool {
        self.method == Method::GET && !self.target.contains("list-type=")
    }
}

struct Rule {
    fault: Fault,
    matches: fn(&Seen) -> bool,
    /// The number of matching requests that succeed before.
    pass: usize,
    times: usize,
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    conditional: tokio::sync::Mutex<()>,
}

/// A running server with one bucket. Stops when dropped.
pub struct S3Server {
    pub endpoint: String,
    folder: tempfile::TempDir,
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl S3Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        // Headers are signed, so a header can be ignored only by a server without authentication.
        let careless = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap()).build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, [service, careless], Arc::clone(&state))).abort_handle();
        Self { endpoint, folder, state, task }
    }

    /// Injects a failure into the next matching requests, after some that succeed.
    pub fn fault(&self, fault: Fault, matches: fn(&Seen) -> bool, pass: usize, times: usize) {
        self.state.rules.lock().unwrap().push(Rule { fault, matches, pass, times });
    }

    pub fn clear_faults(&self) {
        self.state.rules.lock().unwrap().clear();
    }

    /// Whether all failures were injected.
    pub fn faults_are_used_up(&self) -> bool {
        self.state.rules.lock().unwrap().iter().all(|rule| rule.times == 0)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The environment variables for clients of this server.
    pub fn variables(&self) -> [(String, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// The bucket as a folder.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The objects below a prefix, with their sizes.
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.bucket().join(prefix)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = folder.read_dir() else { continue };
            for entry in entries.map(Result::unwrap) {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) => {
                        let name = entry.path().strip_prefix(self.bucket()).unwrap().to_str().unwrap().to_owned();
                        found.insert(name, metadata.len());
                    }
                    // Removed in the meantime.
                    Err(_) => {}
                }
            }
        }
        found
    }

    /// The parts of unfinished uploads.
    pub fn left_parts(&self) -> usize {
        let names = Path::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".upload_id-")).count()
    }
}

async fn accept(listener: TcpListener, services: [S3Service; 2], state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (services, state) = (services.clone(), Arc::clone(&state));
                connections.spawn(async move {
                    let answer = service_fn(move |request| {
                        let (services, state) = (services.clone(), Arc::clone(&state));
                        async move { respond(services, state, request).await }
                    });
                    // An error means that the client has disconnected, or an injected failure.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl State {
    fn next(&self, seen: &Seen) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| rule.times > 0 && (rule.matches)(seen))?;
        if rule.pass > 0 {
            rule.pass -= 1;
            return None;
        }
        rule.times -= 1;
        Some(rule.fault)
    }
}

fn cut_short(whole: &Bytes) -> Body {
    let half = whole.slice(..whole.len() / 2);
    let frames: [Result<Frame<Bytes>, std::io::Error>; 2] = [Ok(Frame::data(half)), Err(std::io::Error::other("cut"))];
    Body::http_body_unsync(StreamBody::new(futures::stream::iter(frames)))
}

async fn respond(
    [careful, careless]: [S3Service; 2],
    state: Arc<State>,
    request: Request<Incoming>,
) -> std::io::Result<Response<Body>> {
    let seen = Seen {
        method: request.method().clone(),
        target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        is_conditional: request.headers().contains_key("if-none-match"),
    };
    let fault = state.next(&seen);
    state.seen.lock().unwrap().push(seen.clone());
    let mut request = request;
    let mut service = careful;
    match fault {
        Some(Fault::SlowDown) => return Ok(refusal(request, 503, "SlowDown", "Please reduce your request rate.").await),
        Some(Fault::NotImplemented) => return Ok(refusal(request, 501, "NotImplemented", "A header is not implemented.").await),
        Some(Fault::Expired) => return Ok(refusal(request, 403, "ExpiredToken", "The provided token has expired.").await),
        Some(Fault::ResetUpload) => {
            let _ = request.body_mut().frame().await;
            return Err(std::io::Error::other("reset"));
        }
        Some(Fault::Unconditional) => {
            request.headers_mut().remove("if-none-match");
            request.headers_mut().remove("authorization");
            service = careless;
        }
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::CutDownload | Fault::LostAnswer) | None => {}
    }
    let guard = if request.headers().contains_key("if-none-match") { Some(state.conditional.lock().await) } else { None };
    let answer = service.call(request.map(Body::from)).await;
    drop(guard);
    let answer = answer.map_err(|error| std::io::Error::other(format!("{error:?}")))?;
    match fault {
        Some(Fault::LostAnswer) => Ok(page(500, "InternalError", "We encountered an internal error.")),
        Some(Fault::CutDownload) => {
            let (parts, body) = answer.into_parts();
            let whole = body.collect().await.map_err(|error| std::io::Error::other(error.to_string()))?.to_bytes();
            Ok(Response::from_parts(parts, cut_short(&whole)))
        }
        _ => Ok(answer),
    }
}

async fn refusal(request: Request<Incoming>, status: u16, code: &str, message: &str) -> Response<Body> {
    // Read the request completely, so that the response arrives.
    let _: Result<_, hyper::Error> = request.into_body().collect().await;
    page(status, code, message)
}

fn page(status: u16, code: &str, message: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message><Token-0>{SESSION_TOKEN}</Token-0></Error>"
    );
    Response::builder().status(status).header("content-type", "application/xml").body(Body::from(Bytes::from(text))).unwrap()
}
