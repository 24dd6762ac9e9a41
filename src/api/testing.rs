//! A scripted HTTP server for the tests of `api` and `fetch`. It uses plain sockets, so that it can also misbehave below HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

use super::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
use crate::redact::Secret;

pub(crate) const CLIENT_ID: &str = "us-east-1#planted-id";
pub(crate) const CLIENT_SECRET: &str = "planted-secret";

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, not decoded.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `n` of `Range: bytes=n-`.
    pub(crate) fn range(&self) -> Option<usize> {
        Some(self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().unwrap())
    }
}

/// The action after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The connection stays open.
    Keep,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more is sent.
    Stall,
}

/// A reply, valid or not.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
    end: End,
    is_silent: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None, end: End::Keep, is_silent: false }
    }

    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Self::new(status, body.into()).with("Content-Type", "application/json; charset=utf-8")
    }

    pub(crate) fn error(status: u16, class: &str, more: &str) -> Self {
        Self::json(status, format!(r#"{{"error":{{"type":"{class}","uuid":"u-1","message":"planted message"{more}}}}}"#))
    }

    /// Closes the connection without a reply.
    pub(crate) fn hang_up() -> Self {
        Self { is_silent: true, end: End::Close, ..Self::new(0, "") }
    }

    pub(crate) fn silence() -> Self {
        Self { is_silent: true, end: End::Stall, ..Self::new(0, "") }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Announces the whole body but sends only its first `sent` bytes.
    pub(crate) fn cut(mut self, sent: usize, end: End) -> Self {
        self.length = Some(self.body.len() as u64);
        self.body.truncate(sent);
        self.end = end;
        self
    }

    /// The object `bytes` from a store that supports ranges.
    pub(crate) fn object(request: &Request, bytes: &[u8], etag: &str) -> Self {
        let reply = match request.range() {
            Some(from) if from >= bytes.len() => Self::new(416, "").with("Content-Range", format!("bytes */{}", bytes.len())),
            Some(from) => Self::new(206, &bytes[from..])
                .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            None => Self::new(200, bytes),
        };
        reply.with("ETag", etag)
    }
}

/// A running server; stops when dropped.
pub(crate) struct Server {
    pub(crate) url: Url,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

type Handler = Box<dyn FnMut(&Request) -> Reply + Send>;

impl Server {
    /// Calls `handler` for every request, in the order of arrival.
    pub(crate) async fn start(handler: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(Box::new(handler)));
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                // Dropped together with this task, which ends all connections.
                let mut conversations = tokio::task::JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    conversations.spawn(converse(socket, handler.clone(), seen.clone()));
                }
            }
        });
        Self { url, seen, task }
    }

    /// Like [`Server::start`], but handles logins itself: the n-th returns the token `planted-token-n`, which is valid for an hour.
    pub(crate) async fn dap(mut handler: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let mut logins = 0;
        Self::start(move |request| {
            if request.path() != "/ids/auth/login" {
                return handler(request);
            }
            logins += 1;
            login(logins, 3600)
        })
        .await
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// `METHOD target` of all requests so far, without logins.
    pub(crate) fn calls(&self) -> Vec<String> {
        let is_login = |request: &Request| request.path() == "/ids/auth/login";
        self.seen()
            .iter()
            .filter(|request| !is_login(request))
            .map(|request| format!("{} {}", request.method, request.target))
            .collect()
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|request| request.path() == path).count()
    }

    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions {
            base_url: self.url.clone(),
            credentials: Credentials { client_id: CLIENT_ID.to_owned(), client_secret: Secret::new(CLIENT_SECRET) },
            pacing: Pacing::off(),
            retry: RetryPolicy {
                attempts: 4,
                first_delay: Duration::from_millis(1),
                max_delay: Duration::from_millis(4),
                throttle_budget: Duration::from_millis(500),
                job_attempts: 3,
            },
            ca_bundle: None,
            poll: (Duration::from_millis(1), Duration::from_millis(4)),
            idle_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The reply to the n-th login.
pub(crate) fn login(n: usize, expires_in: u64) -> Reply {
    let body = r#"{"access_token":"planted-token-N","expires_in":S,"scope":"x","token_type":"bearer","new_member":{}}"#;
    Reply::json(200, body.replace('N', &n.to_string()).replace('S', &expires_in.to_string()))
}

async fn converse(socket: TcpStream, handler: Arc<Mutex<Handler>>, seen: Arc<Mutex<Vec<Request>>>) {
    let mut socket = BufReader::new(socket);
    while let Some(request) = read_request(&mut socket).await {
        let reply = {
            let mut handler = handler.lock().unwrap();
            seen.lock().unwrap().push(request.clone());
            handler(&request)
        };
        if !reply.is_silent {
            let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
            for (name, value) in &reply.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str(&format!("Content-Length: {}\r\n\r\n", reply.length.unwrap_or(reply.body.len() as u64)));
            if socket.write_all(head.as_bytes()).await.is_err() || socket.write_all(&reply.body).await.is_err() {
                return;
            }
        }
        match reply.end {
            End::Keep => {}
            End::Close => return,
            End::Reset => {
                // Wait until the client has read the reply: a reset discards the buffers.
                let _ = tokio::time::timeout(Duration::from_millis(5), socket.read_u8()).await;
                let _ = socket.get_ref().set_zero_linger();
                return;
            }
            End::Stall => {
                // Until the client disconnects.
                let _ = socket.read_to_end(&mut Vec::new()).await;
                return;
            }
        }
    }
}

async fn read_request(socket: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await.ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some(Request { method, target, headers, body: String::from_utf8(body).unwrap() })
}
