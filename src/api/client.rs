//! The client: calls with pacing and retries. Jobs are in `query.rs`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, redirect};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::{Host, Url};

use super::auth::Tokens;
use super::exchange::{Answer, exchange};
use super::pacing::{Pacer, Pacing};
use super::retry::{Retry, RetryPolicy, RetryReason, retry_after, server_date};
use super::wire::{self, Ask};
use super::{Credentials, ObjectId, VersionedSchema};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{KNOWN_NAMESPACES, Namespace, TableRef, Timestamp, nearest};
use crate::redact::SafeUrl;
use crate::tls_roots::read_bundle;

const USER_AGENT: &str = concat!("daplake/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;

/// The number of concurrent calls, each of which may need a connection.
const MAX_CALLS: usize = 32;

/// The characters of a path segment that are encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The options of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The URL of the service: `https://api-gateway.instructure.com`.
    pub base_url: Url,
    /// The API key.
    pub credentials: Credentials,
    /// Limits on the rate of calls.
    pub pacing: Pacing,
    /// Retries after temporary errors.
    pub retry: RetryPolicy,
    /// A file of additional root certificates (PEM).
    pub ca_bundle: Option<PathBuf>,
    /// The first and the longest time between two polls of a job.
    pub poll: (Duration, Duration),
    /// A request or download without any progress for this time fails, and is retried.
    pub idle_timeout: Duration,
}

impl ClientOptions {
    /// The options for a service and an API key, with the service's limits and default retries and timeouts.
    pub fn new(base_url: Url, credentials: Credentials) -> Self {
        Self {
            base_url,
            credentials,
            pacing: Pacing::default(),
            retry: RetryPolicy::default(),
            ca_bundle: None,
            poll: (Duration::from_millis(300), Duration::from_secs(10)),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// A client of the DAP API. One per run is enough: clones are cheap and share the token, the pacing and the connections.
///
/// Every future can be dropped at any await. At most a job is left on the service, which the next run resumes.
///
/// Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`) or the system's settings, unless the base URL is this machine. The
/// bearer token is sent to the origin of the base URL only.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use daplake::{Client, ClientOptions, Credentials, Namespace, Secret, TableRef};
///
/// let credentials = Credentials {
///     client_id: std::env::var("DAP_CLIENT_ID")?,
///     client_secret: Secret::new(std::env::var("DAP_CLIENT_SECRET")?),
/// };
/// let client = Client::new(ClientOptions::new("https://api-gateway.instructure.com".parse()?, credentials))?;
/// for table in client.tables(&Namespace::new("canvas")).await? {
///     let schema = client.table_schema(&TableRef::new("canvas", table.as_str())).await?;
///     println!("{table}: version {}, {}", schema.version, schema.schema["properties"]["value"]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    base: Url,
    http: reqwest::Client,
    objects: reqwest::Client,
    tokens: Tokens,
    pacers: Pacers,
    calls: Semaphore,
    retry: RetryPolicy,
    poll: (Duration, Duration),
    idle: Duration,
    trace_id: String,
    /// The server's clock minus the local clock in microseconds, as of the last response.
    clock_offset: AtomicI64,
}

struct Pacers {
    job_starts: Pacer,
    job_status: Pacer,
    table_lists: Pacer,
    schemas: Pacer,
    object_urls: Pacer,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base_url", &SafeUrl::new(self.0.base.clone())).finish_non_exhaustive()
    }
}

/// One call to the API.
pub(super) struct Call<'a> {
    pub(super) ask: Ask,
    pub(super) method: Method,
    /// Path segments, not encoded.
    pub(super) path: &'a [&'a str],
    pub(super) body: Option<Vec<u8>>,
}

impl Client {
    /// Creates a client. Does not connect.
    ///
    /// # Errors
    /// Kind `Usage` for an invalid base URL or CA bundle, `Auth` if the id or the secret is empty.
    pub fn new(options: ClientOptions) -> Result<Self> {
        let ClientOptions { base_url, credentials, pacing, retry, ca_bundle, poll, idle_timeout } = options;
        if !matches!(base_url.scheme(), "http" | "https") || !base_url.has_host() {
            return Err(Error::new(Kind::Usage, "The base URL is not an http or https URL")
                .with_field("base_url", SafeUrl::new(base_url)));
        }
        if credentials.client_id.is_empty() || credentials.client_secret.is_empty() {
            return Err(Error::new(Kind::Auth, "The client id or the client secret is missing")
                .hint("set `DAP_CLIENT_ID` and `DAP_CLIENT_SECRET`, in quotes: the id contains a `#`"));
        }
        if !base_url.username().is_empty() || base_url.password().is_some() {
            return Err(Error::new(Kind::Usage, "The base URL must not contain a user or a password")
                .with_field("base_url", SafeUrl::new(base_url)));
        }
        let roots = match &ca_bundle {
            Some(path) => read_bundle(path).with_field("ca_bundle", path.display())?,
            None => Vec::new(),
        };
        let builder = || {
            let mut builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(CONNECT_TIMEOUT)
                // A Referer header would send a signed URL to the target of a redirect.
                .referer(false)
                // Bodies must arrive as they are stored, whatever features other crates enable in `reqwest`.
                .no_gzip()
                .no_brotli()
                .no_zstd()
                .no_deflate();
            for root in &roots {
                builder = builder.add_root_certificate(root.clone());
            }
            if is_loopback(&base_url) { builder.no_proxy() } else { builder }
        };
        let unusable = "The HTTP client cannot be set up";
        let http = builder()
            .redirect(same_origin_only())
            .build()
            .map_err(reqwest::Error::without_url)
            .context(Kind::Usage, unusable)?;
        let objects = builder()
            .redirect(never_to_plain_http())
            // One connection per download, so that a slow reader delays its own object only.
            .http1_only()
            .build()
            .map_err(reqwest::Error::without_url)
            .context(Kind::Usage, unusable)?;
        let login = address(&base_url, &["ids", "auth", "login"])?;
        let tokens = Tokens::new(http.clone(), login, credentials, retry.clone(), idle_timeout);
        let pacer = |limit| Pacer::new(limit, pacing.window);
        let pacers = Pacers {
            job_starts: pacer(pacing.job_starts),
            job_status: pacer(pacing.job_status),
            table_lists: pacer(pacing.table_lists),
            schemas: pacer(pacing.schemas),
            object_urls: pacer(pacing.object_urls),
        };
        let trace_id = uuid::Uuid::new_v4().simple().to_string();
        tracing::debug!(base_url = %SafeUrl::new(base_url.clone()), trace_id, "Client ready");
        let clock_offset = AtomicI64::new(0);
        let idle = idle_timeout;
        let calls = Semaphore::new(MAX_CALLS);
        Ok(Self(Arc::new(Inner {
            base: base_url,
            http,
            objects,
            tokens,
            pacers,
            calls,
            retry,
            poll,
            idle,
            trace_id,
            clock_offset,
        })))
    }

    /// Sets a function that reads the credentials again. It is called when a login is rejected and by [`Client::reload_credentials`], so that
    /// rotated credentials are picked up. Only the first call has an effect.
    pub fn set_credentials_source(&self, source: impl Fn() -> Result<Credentials> + Send + Sync + 'static) {
        self.0.tokens.set_source(Box::new(source));
    }

    /// Reads the credentials again, if a source is set.
    ///
    /// # Errors
    /// Errors of the source.
    pub fn reload_credentials(&self) -> Result<()> {
        self.0.tokens.reload().map(drop)
    }

    /// Uses these credentials from the next login on.
    #[cfg(feature = "lake")]
    pub(crate) fn replace_credentials(&self, credentials: Credentials) {
        self.0.tokens.replace(credentials);
    }

    /// The names of the tables of a namespace, without the namespace, in the order of the service.
    ///
    /// # Errors
    /// Kind `NotFound` if the account does not have the namespace, `Auth` or `Account` if the login is refused, `Unavailable` if the service
    /// cannot be reached.
    pub async fn tables(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let path = ["dap", "query", namespace.as_str(), "table"];
        let call = Call { ask: Ask::Tables, method: Method::GET, path: &path, body: None };
        let tables = self.call(call, wire::tables).await;
        tables.map_err(|error| namespace_hint(error, namespace).with_field("namespace", namespace))
    }

    /// Reserves this many table-list calls per minute for first attempts; retries must not use them.
    pub(crate) fn reserve_table_lists(&self, calls: usize) {
        self.0.pacers.table_lists.reserve(calls);
    }

    /// The current schema of a table.
    ///
    /// # Errors
    /// Kind `NotFound` if there is no such table; otherwise as for [`Client::tables`].
    pub async fn table_schema(&self, table: &TableRef) -> Result<VersionedSchema> {
        let path = ["dap", "query", table.namespace.as_str(), "table", &table.table, "schema"];
        let call = Call { ask: Ask::Schema, method: Method::GET, path: &path, body: None };
        let schema = self.call(call, wire::schema).await;
        schema.map_err(|error| table_hint(error, table).with_field("table", table))
    }

    /// The pre-signed URLs of objects, in the order of `ids`, by one call. Fails with kind `Expired` if an object no longer exists.
    #[doc(hidden)]
    pub async fn object_urls(&self, ids: &[ObjectId]) -> Result<Vec<SafeUrl>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let path = ["dap", "object", "url"];
        let call = Call { ask: Ask::Urls, method: Method::POST, path: &path, body: Some(wire::objects_body(ids)) };
        self.call(call, |headers, body| wire::urls(headers, body, ids)).await.with_field("objects", ids.len())
    }

    /// The time of the service's clock, estimated from its last response.
    pub(crate) fn server_now(&self) -> Timestamp {
        let offset = self.0.clock_offset.load(Ordering::Relaxed);
        Timestamp::from_micros(Timestamp::now().micros().saturating_add(offset))
    }

    /// The HTTP client for objects, which never sends the token.
    pub(crate) fn objects_http(&self) -> &reqwest::Client {
        &self.0.objects
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        &self.0.retry
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        self.0.idle
    }

    pub(super) fn poll_bounds(&self) -> (Duration, Duration) {
        self.0.poll
    }

    /// Makes a call with pacing and a valid token. Repeats it after temporary errors, and once with a new token after a 401.
    pub(super) async fn call<T>(&self, call: Call<'_>, read: impl Fn(&HeaderMap, &[u8]) -> Result<T>) -> Result<T> {
        let inner = &*self.0;
        let url = address(&inner.base, call.path).with_field("call", call.ask)?;
        let pacer = inner.pacers.of(call.ask);
        let mut retry = Retry::new(&inner.retry);
        let (mut refused_token, mut has_renewed) = (None, false);
        let mut permit = pacer.enter().await;
        loop {
            // After waiting for the permit, which can take longer than the token is valid.
            let token = match refused_token.take() {
                None => inner.tokens.fresh().await?,
                Some(refused) => inner.tokens.instead_of(&refused).await?,
            };
            let slot = inner.calls.acquire().await.context(Kind::Bug, "The client is closing")?;
            let attempt = retry.attempt();
            let sent_at = Instant::now();
            let mut request = inner
                .http
                .request(call.method.clone(), url.clone())
                .header(AUTHORIZATION, token.header())
                .header("traceparent", inner.traceparent());
            if let Some(body) = &call.body {
                request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
            }
            let outcome = exchange(request, inner.idle).await;
            drop(slot);
            let took_ms = sent_at.elapsed().as_millis() as u64;
            let (reason, error) = match outcome {
                Ok(Answer { status, headers, body }) => {
                    tracing::debug!(call = %call.ask, status = status.as_u16(), attempt, took_ms, bytes = body.len(), "Response received");
                    inner.set_clock(&headers);
                    if status.is_success() {
                        match read(&headers, &body) {
                            // Truncated, or the page of a proxy: may be temporary.
                            Err(error) if error.kind() == Kind::Data => {
                                (RetryReason::Fault, error.with_field("call", call.ask))
                            }
                            done => return done.map_err(|error| retry.annotate(error.with_field("call", call.ask))),
                        }
                    } else if status.as_u16() == 401 && !has_renewed {
                        tracing::debug!(call = %call.ask, "The token is no longer accepted; logging in again");
                        (refused_token, has_renewed) = (Some(token), true);
                        drop(permit);
                        permit = pacer.enter_again().await;
                        continue;
                    } else {
                        let error = wire::refusal(call.ask, status, &headers, &body);
                        match (error.kind(), retry_after(&headers)) {
                            (Kind::Throttled, after) | (Kind::Unavailable, after @ Some(_)) => {
                                (RetryReason::Throttled(after), error)
                            }
                            (Kind::Unavailable, None) => (RetryReason::Fault, error),
                            _ => return Err(retry.annotate(error)),
                        }
                    }
                }
                Err(fault) => {
                    let error = fault.error.with_field("call", call.ask).with_field("host", url.host_str().unwrap_or_default());
                    tracing::debug!(call = %call.ask, attempt, took_ms, %error, "No response");
                    if !fault.is_temporary {
                        return Err(retry.annotate(error));
                    }
                    (RetryReason::Fault, error)
                }
            };
            match reason {
                RetryReason::Throttled(_) => {
                    // All calls of this kind pause: the others would be refused, too.
                    let Some(wait) = retry.next_wait(reason) else { return Err(retry.annotate(error)) };
                    tracing::debug!(call = %call.ask, attempt, wait_ms = wait.as_millis() as u64, "Throttled by the service");
                    permit.refused(wait);
                }
                RetryReason::Fault | RetryReason::Stale => {
                    drop(permit);
                    retry.wait(reason, error).await?;
                }
            }
            permit = pacer.enter_again().await;
        }
    }
}

impl Inner {
    /// A W3C `traceparent` header: one trace for the client, one parent per call.
    fn traceparent(&self) -> HeaderValue {
        let span = uuid::Uuid::new_v4().simple().to_string();
        // Bits 4 to 7 of byte 6 of a version 4 UUID are never all zero, so neither is this half.
        HeaderValue::from_str(&format!("00-{}-{}-01", self.trace_id, &span[..16])).unwrap_or(HeaderValue::from_static(""))
    }

    fn set_clock(&self, headers: &HeaderMap) {
        if let Some(theirs) = server_date(headers) {
            self.clock_offset.store(theirs.micros().saturating_sub(Timestamp::now().micros()), Ordering::Relaxed);
        }
    }
}

impl Pacers {
    fn of(&self, ask: Ask) -> &Pacer {
        match ask {
            Ask::Start => &self.job_starts,
            // Logins are made by `Tokens` and not paced.
            Ask::Status | Ask::Login => &self.job_status,
            Ask::Tables => &self.table_lists,
            Ask::Schema => &self.schemas,
            Ask::Urls => &self.object_urls,
        }
    }
}

/// Appends encoded path segments to `base`. Fails for names that a URL would normalise away, such as `..`.
fn address(base: &Url, segments: &[&str]) -> Result<Url> {
    let mut path = base.path().trim_end_matches('/').to_owned();
    for segment in segments {
        if matches!(*segment, "" | "." | "..") {
            return Err(Error::new(Kind::NotFound, "The name cannot exist on the service")
                .with_field("name", format_args!("{segment:?}")));
        }
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    let mut url = base.clone();
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// Adds a hint if the namespace does not exist.
fn namespace_hint(error: Error, namespace: &Namespace) -> Error {
    if error.kind() != Kind::NotFound {
        return error;
    }
    match unknown_namespace(namespace) {
        Some(hint) => error.hint(hint),
        None => error.hint("the account does not have this namespace; `daplake check --namespace all` lists those that it has"),
    }
}

/// Adds a hint if the table does not exist.
pub(super) fn table_hint(error: Error, table: &TableRef) -> Error {
    if error.kind() != Kind::NotFound {
        return error;
    }
    let hint = unknown_namespace(&table.namespace);
    error.hint(hint.unwrap_or_else(|| format!("`daplake list --namespace {}` lists its tables", table.namespace)))
}

/// The hint for an unknown namespace; `None` for a known one.
fn unknown_namespace(namespace: &Namespace) -> Option<String> {
    let name = namespace.as_str();
    if KNOWN_NAMESPACES.contains(&name) {
        return None;
    }
    Some(match nearest(name, KNOWN_NAMESPACES.into_iter()) {
        Some(near) => format!("did you mean the namespace `{near}`?"),
        None => format!("namespaces are {}", KNOWN_NAMESPACES.join(", ")),
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn same_origin_only() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
        if same && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
    })
}

fn never_to_plain_http() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let downgraded =
            attempt.previous().last().is_some_and(|last| last.scheme() == "https") && attempt.url().scheme() != "https";
        if !downgraded && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
    })
}

/// The HTTP client for the user's own endpoints, such as webhooks, with the same certificates as for the service. It follows no redirects,
/// since the URL may be a secret.
pub fn hook_http(url: &Url, ca_bundle: Option<&std::path::Path>) -> Result<reqwest::Client> {
    let roots = ca_bundle.map(read_bundle).transpose()?.unwrap_or_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .referer(false)
        .redirect(reqwest::redirect::Policy::none());
    for root in roots {
        builder = builder.add_root_certificate(root);
    }
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(reqwest::Error::without_url).context(Kind::Usage, "The HTTP client cannot be set up")
}
