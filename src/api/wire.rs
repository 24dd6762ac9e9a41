//! The service's JSON, read with tolerance and written with none; and what its refusals mean. No I/O.
//!
//! Unknown members are ignored everywhere. The shape of a job is decided by status and members. A refusal is judged by its `type`
//! first, then by its members, then by the status.

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
use crate::redact::SafeUrl;

/// What is asked of the service.
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

// ---- what we send ----

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
    // Strings and lists of strings cannot fail to serialise; an empty body would be refused, not misunderstood.
    serde_json::to_vec(value).unwrap_or_default()
}

// ---- what we get ----

/// Parses an answer. The text of the parser's error names positions and types, never values we would not show.
pub(super) fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8], what: &'static str) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        let media = clean(media.split(';').next().unwrap_or_default().trim());
        let is_json = media.ends_with("json");
        let ours = Error::new(Kind::Data, "The service's answer cannot be read")
            .with_field("answer", what)
            .with_field("content_type", media)
            .with_field("bytes", body.len())
            .with_field("position", format_args!("line {} column {}", error.line(), error.column()));
        match is_json {
            true => ours,
            false => ours.hint("is the base URL right, and is no login page or proxy in between?"),
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
    ids.iter()
        .map(|id| {
            let signed = urls.get(&id.0).ok_or_else(|| {
                Error::new(Kind::Expired, "The service gives no URL for an object")
                    .with_field("object", &id.0)
                    .hint("ask the query anew; objects vanish 24 hours after their job was started")
            })?;
            match Url::parse(&signed.url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(SafeUrl::new(url)),
                _ => Err(Error::new(Kind::Data, "The service gives an unusable URL for an object").with_field("object", &id.0)),
            }
        })
        .collect()
}

/// A job as answered.
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
    /// Said to be complete, but without its objects: to be read once more.
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
    let moment = |name: &'static str, text: Option<String>| match text {
        Some(text) => {
            text.parse::<Timestamp>().map(Some).map_err(|error| error.with_field("member", name).with_field("job", &body.id))
        }
        None => Ok(None),
    };
    let expires_at = match moment("expires_at", body.expires_at) {
        Ok(time) => time,
        Err(_) => {
            // It only saves time; without it a vanished job is noticed by its 404.
            tracing::warn!(job = %body.id, "The end of a job's life cannot be read");
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
            tracing::warn!(job = %body.id, status = %clean(other.unwrap_or("none")), "Unknown job status; taken as running");
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
                at: moment("at", body.at)?,
                since: moment("since", body.since)?,
                until: moment("until", body.until)?,
            },
            _ => Outcome::Bare,
        },
    };
    Ok(JobAnswer { id: body.id, status, expires_at, outcome })
}

// ---- refusals ----

/// The `error` object of an answer or of a failed job, as far as it can be read.
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

    /// By name. Order matters: `SnapshotRequired` has the members of `OutOfRange`.
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

    /// Adds what support and users need.
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

/// Refusals that have a name.
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
                    .hint("load the table anew: `daplake sync --on-snapshot-required resnapshot`")
            }
            Known::OutOfRange => Error::new(Kind::OutOfRange, "The service holds no changes for the asked window")
                .hint("choose a later `since`, or load the table anew from a snapshot"),
            Known::Disabled => Error::new(Kind::Account, "The account is disabled for data access")
                .hint("ask your institution's administrator or the vendor's support"),
            Known::NotOnboarded => Error::new(Kind::Account, "The account is not onboarded to the data platform yet")
                .hint("onboarding takes days to weeks after it was asked for; try again later, or ask the vendor's support"),
            Known::Maintenance => {
                Error::new(Kind::Account, "The account is under maintenance").hint("try again later; nothing is lost meanwhile")
            }
            // Of kind `Job`: it concerns one kind of query, so the run goes on with the other tables.
            Known::Forbidden => {
                Error::new(Kind::Job, "The service forbids this kind of query (snapshot or increment) to the account")
                    .hint("too many snapshots were asked for, perhaps: use increments, or ask the vendor's support")
            }
            // Likewise: the next table may be valid.
            Known::Invalid => Error::new(Kind::Job, "The service finds the request invalid"),
            Known::NotFound => not_found(ask),
            Known::Unauthenticated => Error::new(Kind::Auth, "The service does not accept the credentials"),
        }
    }
}

fn not_found(ask: Ask) -> Error {
    match ask {
        Ask::Login => {
            Error::new(Kind::Usage, "There is no login at the base URL").hint("check `--base-url` (or `DAP_API_URL`)")
        }
        Ask::Tables => Error::new(Kind::NotFound, "The service does not know the namespace"),
        Ask::Schema | Ask::Start => Error::new(Kind::NotFound, "The service does not know the table"),
        Ask::Status => Error::new(Kind::Expired, "The job is gone")
            .hint("ask the query anew; jobs vanish 24 hours after they were started"),
        Ask::Urls => Error::new(Kind::Expired, "The objects of the job are gone")
            .hint("ask the query anew; objects vanish 24 hours after their job was started"),
    }
}

/// What an answer of status 300 or above means. Kind `Unavailable`: may pass; kind `Throttled`: asked for patience.
pub(super) fn refusal(ask: Ask, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let reason = Reason::of_body(body);
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        Error::new(Kind::Throttled, "The service's limit of requests is exceeded")
            .hint("let other programs with the same key pause")
    } else {
        let by_name = reason.as_ref().and_then(Reason::known);
        let by_members = || reason.as_ref().filter(|_| status.is_client_error()).and_then(Reason::by_members);
        match by_name.or_else(by_members) {
            Some(known) => known.error(ask),
            None if is_from_another(ask, status, headers, body) => {
                Error::new(Kind::Unavailable, "The request is refused by something on the way, and not by the service")
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

/// Whether a refusal comes from a proxy or a firewall. The service answers in JSON; a page, or a bare 403 or 407, is not its own. A bare
/// 401 is taken for the service's at the login, and a page with 404 there for a wrong base URL.
fn is_from_another(ask: Ask, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
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
        // A captive portal. At the first calls of a run it is more likely a base URL that has moved.
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
            let error = Error::new(Kind::Usage, "The service redirects to another place; the token is not sent there")
                .hint("set `--base-url` (or `DAP_API_URL`) to where the service really is");
            match host {
                Some(host) => error.with_field("redirected_to", clean(&host)),
                None => error,
            }
        }
        401 => Known::Unauthenticated.error(ask),
        403 => Error::new(Kind::Auth, "The service refuses the request to this key"),
        400 if ask == Ask::Login => Known::Unauthenticated.error(ask),
        404 | 410 => not_found(ask),
        408 | 425 | 500.. => Error::new(Kind::Unavailable, "The service has a fault"),
        _ => Error::new(Kind::Job, "The service refuses the request"),
    }
}

// ---- texts of others ----

/// The longest text of the service that we repeat.
const MAX_TEXT: usize = 500;

/// Text of the service, fit for a terminal and a log: no control characters, no URL queries, nothing that looks like a credential.
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
    let shown = shown.trim();
    match shown.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", &shown[..end]),
        None => shown.to_owned(),
    }
}

fn without_credentials(word: &str, after_bearer: bool) -> String {
    // `eyJ` is `{"` in base64: a JWT.
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
