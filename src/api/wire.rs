//! The JSON of the API, and the meaning of its error responses. No I/O.
//!
//! Unknown members are ignored. The state of a job follows from its status and members. An error response is classified by its `type`, then
//! by its members, then by the HTTP status.

use std::collections::HashMap;
use std::fmt;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::{JobStatus, ObjectId, Query, VersionedSchema};
use crate::error::{Error, Kind, Result};
use crate::model::{Timestamp, Window};
use crate::redact::{SafeUrl, shortened};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Login,
    Tables,
    Schema,
    Start,
    Status,
    Urls,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ask::Login => "login",
            Ask::Tables => "list tables",
            Ask::Schema => "read schema",
            Ask::Start => "start job",
            Ask::Status => "read job",
            Ask::Urls => "get object URLs",
        })
    }
}

// ---- requests ----

/// The body of `POST .../data`.
pub(super) fn query_body(query: &Query) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body {
        format: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<String>,
    }
    let (since, until) = match query.window {
        Window::Snapshot => (None, None),
        Window::Increment { since, until } => (Some(since), until),
    };
    json(&Body {
        format: query.format.as_str(),
        mode: query.mode.map(|mode| mode.as_str()),
        since: since.map(|time| time.to_string()),
        until: until.map(|time| time.to_string()),
    })
}

/// The body of `POST /dap/object/url`.
pub(super) fn objects_body(ids: &[ObjectId]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Object<'a> {
        id: &'a str,
    }
    json(&ids.iter().map(|id| Object { id: &id.0 }).collect::<Vec<_>>())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Strings and lists of strings cannot fail to serialise, and the service would refuse an empty body.
    serde_json::to_vec(value).unwrap_or_default()
}

// ---- responses ----

/// Parses a response. The error has only the position, without the parser's text, which may quote the response.
pub(super) fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8], what: &'static str) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        let media = clean(media.split(';').next().unwrap_or_default().trim());
        let is_json = media.ends_with("json");
        let error_of_body = Error::new(Kind::Data, "The service's response cannot be read")
            .with_field("answer", what)
            .with_field("content_type", media)
            .with_field("bytes", body.len())
            .with_field("position", format_args!("line {} column {}", error.line(), error.column()));
        if is_json {
            error_of_body
        } else {
            error_of_body.hint("check the base URL, and whether a login page or a proxy responds in place of the service")
        }
    })
}

pub(super) fn tables(headers: &HeaderMap, body: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Body {
        tables: Vec<String>,
    }
    Ok(parse::<Body>(headers, body, "list of tables")?.tables)
}

pub(super) fn schema(headers: &HeaderMap, body: &[u8]) -> Result<VersionedSchema> {
    #[derive(Deserialize)]
    struct Body {
        schema: Value,
        version: i64,
    }
    let Body { schema, version } = parse(headers, body, "table schema")?;
    Ok(VersionedSchema { schema, version })
}

/// URLs in the order of `ids`.
pub(super) fn urls(headers: &HeaderMap, body: &[u8], ids: &[ObjectId]) -> Result<Vec<SafeUrl>> {
    #[derive(Deserialize)]
    struct Body {
        urls: HashMap<String, Signed>,
    }
    #[derive(Deserialize)]
    struct Signed {
        url: String,
    }
    let Body { urls } = parse(headers, body, "object URLs")?;
    // With one URL for two objects, the rows of one of them would be missing.
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for id in ids {
        let Some(signed) = urls.get(&id.0) else { continue };
        if owners.insert(&signed.url, &id.0).is_some_and(|other| other != id.0) {
            return Err(Error::new(Kind::Data, "The service returned one URL for two objects").with_field("object", &id.0));
        }
    }
    ids.iter()
        .map(|id| {
            let signed = urls.get(&id.0).ok_or_else(|| {
                Error::new(Kind::Expired, "The service returned no URL for an object")
                    .with_field("object", &id.0)
                    .hint("run the command again; objects expire 24 hours after their job was started")
            })?;
            match Url::parse(&signed.url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(SafeUrl::new(url)),
                _ => {
                    Err(Error::new(Kind::Data, "The service returned an invalid URL for an object").with_field("object", &id.0))
                }
            }
        })
        .collect()
}

/// A job as the service returns it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobAnswer {
    pub(super) id: String,
    pub(super) status: JobStatus,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Pending,
    /// The status is complete, but there are no objects yet: poll again.
    Bare,
    Complete {
        objects: Vec<ObjectId>,
        schema_version: i64,
        at: Option<Timestamp>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    },
    Failed(Reason),
}

pub(super) fn job(headers: &HeaderMap, body: &[u8]) -> Result<JobAnswer> {
    #[derive(Deserialize)]
    struct Body {
        id: String,
        status: Option<String>,
        expires_at: Option<String>,
        objects: Option<Vec<Object>>,
        schema_version: Option<i64>,
        at: Option<String>,
        since: Option<String>,
        until: Option<String>,
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Object {
        id: String,
    }
    let body: Body = parse(headers, body, "job")?;
    let timestamp = |name: &'static str, text: Option<String>| match text {
        Some(text) => {
            text.parse::<Timestamp>().map(Some).map_err(|error| error.with_field("member", name).with_field("job", &body.id))
        }
        None => Ok(None),
    };
    let expires_at = match timestamp("expires_at", body.expires_at) {
        Ok(time) => time,
        Err(_) => {
            // Not required: an expired job is also detected by a 404.
            tracing::warn!(job = %body.id, "The expiry of a job cannot be read");
            None
        }
    };
    let has_result = body.objects.is_some() && body.schema_version.is_some() && (body.at.is_some() || body.until.is_some());
    let status = match body.status.as_deref() {
        Some("waiting") => JobStatus::Waiting,
        Some("running") => JobStatus::Running,
        Some("complete") => JobStatus::Complete,
        Some("failed") => JobStatus::Failed,
        _ if has_result => JobStatus::Complete,
        _ if body.error.is_some() => JobStatus::Failed,
        other => {
            tracing::warn!(job = %body.id, status = %clean(other.unwrap_or("none")), "Unknown job status; treated as running");
            JobStatus::Running
        }
    };
    let outcome = match status {
        JobStatus::Waiting | JobStatus::Running => Outcome::Pending,
        JobStatus::Failed => Outcome::Failed(body.error.as_ref().map(Reason::read).unwrap_or_default()),
        JobStatus::Complete => match (body.objects, body.schema_version) {
            (Some(objects), Some(schema_version)) => Outcome::Complete {
                objects: objects.into_iter().map(|object| ObjectId(object.id)).collect(),
                schema_version,
                at: timestamp("at", body.at)?,
                since: timestamp("since", body.since)?,
                until: timestamp("until", body.until)?,
            },
            _ => Outcome::Bare,
        },
    };
    Ok(JobAnswer { id: body.id, status, expires_at, outcome })
}

// ---- errors ----

/// The `error` object of a response or of a failed job, as far as it is readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) class: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) message: Option<String>,
    since: Option<String>,
    until: Option<String>,
    location: Option<String>,
    id: Option<String>,
    kind: Option<String>,
}

impl Reason {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(clean).filter(|text| !text.is_empty());
        let location = value.get("location").filter(|location| location.is_object()).map(|location| {
            let number = |name: &str| location.get(name).and_then(Value::as_i64).map_or("?".to_owned(), |n| n.to_string());
            format!("line {} column {}", number("line"), number("column"))
        });
        Self {
            class: text("type"),
            uuid: text("uuid"),
            message: text("message"),
            since: text("since"),
            until: text("until"),
            location,
            id: text("id"),
            kind: text("kind"),
        }
    }

    fn of_body(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        value.get("error").filter(|error| error.is_object()).map(Self::read)
    }

    /// The error by its type.
    pub(super) fn known(&self) -> Option<Known> {
        let class = self.class.as_deref()?;
        [
            ("SnapshotRequired", Known::SnapshotRequired),
            ("OutOfRange", Known::OutOfRange),
            ("AccountDisabled", Known::Disabled),
            ("AccountNotOnboarded", Known::NotOnboarded),
            ("AccountUnderMaintenance", Known::Maintenance),
            ("RequestTypeForbidden", Known::Forbidden),
            ("Validation", Known::Invalid),
            ("NotFound", Known::NotFound),
            ("Authentication", Known::Unauthenticated),
            ("Unauthorized", Known::Unauthenticated),
        ]
        .into_iter()
        .find_map(|(name, known)| class.contains(name).then_some(known))
    }

    fn by_members(&self) -> Option<Known> {
        if self.since.is_some() {
            Some(Known::OutOfRange)
        } else if self.location.is_some() {
            Some(Known::Invalid)
        } else if self.id.is_some() && self.kind.is_some() {
            Some(Known::NotFound)
        } else {
            None
        }
    }

    /// Adds the fields of the service's error, and its message as the cause.
    pub(super) fn explain(&self, mut error: Error) -> Error {
        for (name, value) in [
            ("type", &self.class),
            ("uuid", &self.uuid),
            ("earliest_since", &self.since),
            ("latest_until", &self.until),
            ("location", &self.location),
            ("what", &self.kind),
        ] {
            if let Some(value) = value {
                error = error.with_field(name, value);
            }
        }
        match &self.message {
            Some(message) => error.caused_by(format!("the service says: {message}")),
            None => error,
        }
    }
}

/// Errors with a known type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    SnapshotRequired,
    OutOfRange,
    Disabled,
    NotOnboarded,
    Maintenance,
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
}

impl Known {
    pub(super) fn error(self, ask: Ask) -> Error {
        match self {
            Known::SnapshotRequired => {
                Error::new(Kind::SnapshotRequired, "The table was reloaded on the service; increments need a new snapshot")
                    .hint("reload the table: `daplake sync --on-snapshot-required resnapshot`")
            }
            Known::OutOfRange => Error::new(Kind::OutOfRange, "The service has no changes for the requested window")
                .hint("choose a later `since`, or reload the table from a snapshot"),
            Known::Disabled => Error::new(Kind::Account, "The account is disabled for data access")
                .hint("ask your institution's administrator or the vendor's support"),
            Known::NotOnboarded => Error::new(Kind::Account, "The account is not onboarded to the data platform yet")
                .hint("onboarding takes days to weeks after the request; try again later, or ask the vendor's support"),
            Known::Maintenance => {
                Error::new(Kind::Account, "The account is under maintenance").hint("try again later; no changes are lost")
            }
            // Kind `Job`, since it concerns one kind of query only: other tables can still be loaded.
            Known::Forbidden => {
                Error::new(Kind::Job, "The account is not allowed to run this kind of query (snapshot or increment)")
                    .hint("perhaps too many snapshots were requested: use increments, or ask the vendor's support")
            }
            // Kind `Job`, since queries of other tables may be valid.
            Known::Invalid => Error::new(Kind::Job, "The service rejected the request as invalid"),
            Known::NotFound => not_found(ask),
            Known::Unauthenticated => Error::new(Kind::Auth, "The service rejected the credentials"),
        }
    }
}

fn not_found(ask: Ask) -> Error {
    match ask {
        Ask::Login => {
            Error::new(Kind::Usage, "The base URL has no login endpoint").hint("check `--base-url` (or `DAP_API_URL`)")
        }
        Ask::Tables => Error::new(Kind::NotFound, "The service has no such namespace"),
        Ask::Schema | Ask::Start => Error::new(Kind::NotFound, "The service has no such table"),
        Ask::Status => Error::new(Kind::Expired, "The job has expired")
            .hint("run the command again; jobs expire 24 hours after they were started"),
        Ask::Urls => Error::new(Kind::Expired, "The objects of the job have expired")
            .hint("run the command again; objects expire 24 hours after their job was started"),
    }
}

/// The error of a response with status 300 or above. Kind `Unavailable` is temporary; kind `Throttled` asks for slower calls.
pub(super) fn refusal(ask: Ask, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let reason = Reason::of_body(body);
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        Error::new(Kind::Throttled, "The service's request limit is exceeded")
            .hint("pause other programs that use the same key")
    } else {
        let by_name = reason.as_ref().and_then(Reason::known);
        let by_members = || reason.as_ref().filter(|_| status.is_client_error()).and_then(Reason::by_members);
        match by_name.or_else(by_members) {
            Some(known) => known.error(ask),
            None if is_from_intermediary(ask, status, headers, body) => {
                Error::new(Kind::Unavailable, "A proxy or firewall refused the request, not the service")
                    .hint("ask your network's administrators whether a proxy or firewall blocks the host")
            }
            None => by_status(ask, status, headers),
        }
    };
    let error = error.with_field("call", ask).with_field("status", status.as_u16());
    match reason {
        Some(reason) => reason.explain(error),
        None => error.with_field("answer_bytes", body.len()),
    }
}

/// Whether an error response comes from a proxy or a firewall. The service responds in JSON; an HTML page, or a 403 or 407 without JSON, is
/// not from the service. At the login, a 401 without JSON counts as the service's, and an HTML page with 404 means a wrong base URL.
fn is_from_intermediary(ask: Ask, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    let is_json = serde_json::from_slice::<Value>(body).is_ok_and(|value| value.is_object());
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_page = media_type.trim_start().to_ascii_lowercase().starts_with("text/html")
        || body.trim_ascii_start().first().is_some_and(|byte| *byte == b'<');
    match status.as_u16() {
        407 => true,
        401 if ask == Ask::Login => is_page,
        401 | 403 => !is_json,
        404 | 410 if ask == Ask::Login => false,
        400..=499 => is_page,
        // A captive portal. At the first calls of a run, a moved base URL is more likely.
        300..=399 => !matches!(ask, Ask::Login | Ask::Tables),
        _ => false,
    }
}

fn by_status(ask: Ask, status: StatusCode, headers: &HeaderMap) -> Error {
    match status.as_u16() {
        300..=399 => {
            let host = headers
                .get(reqwest::header::LOCATION)
                .and_then(|value| Url::parse(value.to_str().ok()?).ok())
                .and_then(|url| Some(format!("{}://{}", url.scheme(), url.host_str()?)));
            let error = Error::new(Kind::Usage, "The service redirects to another URL, to which the token is not sent")
                .hint("set `--base-url` (or `DAP_API_URL`) to the new URL of the service");
            match host {
                Some(host) => error.with_field("redirected_to", clean(&host)),
                None => error,
            }
        }
        401 => Known::Unauthenticated.error(ask),
        403 => Error::new(Kind::Auth, "The service does not permit this request with this key"),
        400 if ask == Ask::Login => Known::Unauthenticated.error(ask),
        404 | 410 => not_found(ask),
        408 | 425 | 500.. => Error::new(Kind::Unavailable, "The service reported an internal error"),
        _ => Error::new(Kind::Job, "The service refused the request"),
    }
}

// ---- text of the service ----

/// The maximum length of text that is repeated from the service.
const MAX_TEXT: usize = 500;

/// Makes text of the service safe for terminals and logs: without control characters, URL queries, and anything that looks like a credential.
pub(super) fn clean(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut shown = String::new();
    let mut after_bearer = false;
    for word in plain.split_inclusive([' ', '"', '\'', '<', '>', '(', ')', '[', ']', ',', ';']) {
        let (core, end) = match word.char_indices().next_back() {
            Some((at, last)) if !last.is_alphanumeric() && " \"'<>()[],;".contains(last) => word.split_at(at),
            _ => (word, ""),
        };
        if core.is_empty() {
            shown.push_str(end);
            continue;
        }
        shown.push_str(&without_credentials(core, after_bearer));
        shown.push_str(end);
        after_bearer = ["bearer", "basic"].iter().any(|scheme| core.eq_ignore_ascii_case(scheme));
    }
    shortened(shown.trim(), MAX_TEXT).into_owned()
}

fn without_credentials(word: &str, after_bearer: bool) -> String {
    // `eyJ` is base64 for `{"`: a JWT.
    if after_bearer || (word.len() > 20 && word.contains("eyJ")) {
        return "***".to_owned();
    }
    let mut word = word.to_owned();
    if let Some(start) = word.find("://").map(|at| at + 3) {
        let end = word[start..].find(['/', '?', '#']).map_or(word.len(), |at| start + at);
        if let Some(at) = word[start..end].rfind('@') {
            word.replace_range(start..start + at, "***");
        }
    }
    if let Some(query) = word.find('?')
        && word.len() > query + 1
    {
        word.truncate(query);
        word.push_str("?***");
    } else if let Some(equals) = word.find('=') {
        let name = word[..equals].to_ascii_lowercase();
        if ["sig", "token", "secret", "password", "credential", "key", "auth"].iter().any(|mark| name.contains(mark)) {
            word.truncate(equals + 1);
            word.push_str("***");
        }
    }
    word
}
