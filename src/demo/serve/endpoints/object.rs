//! Objects: signed URLs, and the object store behind them with byte ranges, entity tags and faults.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH,
    IF_RANGE, LOCATION, RANGE,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::io::AsyncSeekExt;

use crate::demo::serve::clock::later;
use crate::demo::serve::endpoints::download::{Delivery, Ending};
use crate::demo::serve::endpoints::query::json_body;
use crate::demo::serve::faults::fault::Fault;
use crate::demo::serve::http::answer::{Answer, Answered, Body, response, xml_error};
use crate::demo::serve::http::connection::Link;
use crate::demo::serve::jobs::job::Job;
use crate::demo::serve::jobs::store::Part;
use crate::demo::serve::state::State;
use crate::model::Timestamp;

const EXPIRES: &str = "X-Demo-Expires";
const SIGNATURE: &str = "X-Demo-Signature";
/// Marks the target of a redirect.
const HOP: &str = "X-Demo-Hop";

/// The job of an object, if it has not expired.
pub(crate) fn job_of(state: &State, object: &str) -> Option<Arc<Job>> {
    state.jobs.get(object.split('/').next()?, state.clock.now())
}

/// The first object id of a request for URLs.
pub(crate) fn first_id(body: &str) -> Option<String> {
    let value: Value = serde_json::from_str(body).ok()?;
    Some(value.get(0)?.get("id")?.as_str()?.to_owned())
}

/// Finds an object of a job that has not expired.
fn find(state: &State, object: &str) -> Option<(Arc<Job>, Part)> {
    let job = job_of(state, object)?;
    let (_, name) = object.split_once('/')?;
    let part = job.part(name)?.clone();
    Some((job, part))
}

/// `POST /dap/object/url`.
pub(crate) fn urls(state: &State, body: &str) -> Answered {
    let invalid = || Box::new(Answer::invalid("Not an array of objects with `id`", body, 0));
    let asked = json_body(body)?;
    let mut urls = Map::new();
    for item in asked.as_array().ok_or_else(invalid)? {
        let id = item.get("id").and_then(Value::as_str).ok_or_else(invalid)?;
        let (job, _) = find(state, id).ok_or_else(|| Answer::not_found("object", id))?;
        if state.faults.strikes(Some(job.table()), &Fault::GoneAtTrade) {
            return Err(Answer::not_found("object", id).into());
        }
        let now = state.clock.now();
        let expires = match state.faults.strikes(Some(job.table()), &Fault::UrlExpires) {
            true => Timestamp::from_micros(now.micros() - 1),
            false => later(now, state.options.url_life),
        };
        let signature = state.sign(id, expires);
        let mut url = state.url.clone();
        url.set_path(&format!("/objects/{id}"));
        url.query_pairs_mut().append_pair(EXPIRES, &expires.micros().to_string()).append_pair(SIGNATURE, &signature);
        urls.insert(id.to_owned(), json!({"url": url.as_str()}));
    }
    Ok(Answer::ok(json!({"urls": urls})))
}

/// The requested bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// First byte and number of bytes.
    Range(u64, u64),
    Unsatisfiable,
}

/// Parses a `Range` header. Anything but a single byte range is ignored, as RFC 9110 allows.
fn extent(header: Option<&HeaderValue>, length: u64) -> Extent {
    let spec = header.and_then(|value| value.to_str().ok()).and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Extent::Whole };
    match (first.trim(), last.trim()) {
        ("", last) => match last.parse::<u64>() {
            Ok(0) => Extent::Unsatisfiable,
            Ok(_) if length == 0 => Extent::Unsatisfiable,
            Ok(suffix) => Extent::Range(length.saturating_sub(suffix), suffix.min(length)),
            Err(_) => Extent::Whole,
        },
        (first, last) => {
            let end = if last.is_empty() { Ok(u64::MAX) } else { last.parse::<u64>() };
            match (first.parse::<u64>(), end) {
                (Ok(first), Ok(last)) if first > last => Extent::Whole,
                (Ok(first), Ok(_)) if first >= length => Extent::Unsatisfiable,
                (Ok(first), Ok(last)) => Extent::Range(first, last.min(length - 1) - first + 1),
                _ => Extent::Whole,
            }
        }
    }
}

/// Whether a list of entity tags contains this one.
fn names_tag(header: &HeaderValue, etag: &str) -> bool {
    header.to_str().is_ok_and(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"))
}

fn set(headers: &mut HeaderMap, name: hyper::header::HeaderName, value: impl ToString) {
    if let Ok(value) = HeaderValue::try_from(value.to_string()) {
        headers.insert(name, value);
    }
}

/// `GET` of a signed URL.
pub(crate) async fn download(state: &Arc<State>, link: &Arc<Link>, request: &Parts, id: &str) -> Response<Body> {
    let query: HashMap<_, _> =
        url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    if request.headers.contains_key(AUTHORIZATION) {
        state.tally.count(|counters| counters.leaked_auth += 1);
        let message = "Only one authentication mechanism is allowed; the signed URL already is one";
        return xml_error(StatusCode::BAD_REQUEST, "InvalidArgument", message);
    }
    let expires = query.get(EXPIRES).and_then(|text| text.parse().ok()).map(Timestamp::from_micros);
    let signed = expires.filter(|expires| query.get(SIGNATURE) == Some(&state.sign(id, *expires)));
    let Some(expires) = signed else {
        return xml_error(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "The signature does not match");
    };
    if expires <= state.clock.now() {
        return xml_error(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired");
    }
    let gone = || xml_error(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.");
    let Some((job, part)) = find(state, id) else { return gone() };
    let table = Some(job.table());
    if state.faults.strikes(table, &Fault::GoneAtDownload) {
        return gone();
    }
    if !query.contains_key(HOP) && state.faults.strikes(table, &Fault::Redirect) {
        let mut target = state.url.clone();
        target.set_path(request.uri.path());
        target.set_query(request.uri.query());
        target.query_pairs_mut().append_pair(HOP, "1");
        let mut found = response(StatusCode::FOUND, "text/plain", "Found".into());
        set(found.headers_mut(), LOCATION, target);
        return found;
    }
    deliver(state, link, request, id, &job, part).await
}

async fn deliver(state: &Arc<State>, link: &Arc<Link>, request: &Parts, id: &str, job: &Job, part: Part) -> Response<Body> {
    let table = Some(job.table());
    let headers = &request.headers;
    if headers.get(IF_MATCH).is_some_and(|tags| !names_tag(tags, &part.etag)) {
        return xml_error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", "The object has changed");
    }
    let wants_other = headers.get(IF_RANGE).is_some_and(|tag| !names_tag(tag, &part.etag));
    let mut range = headers.get(RANGE).filter(|_| !wants_other);
    if range.is_some() && state.faults.strikes(table, &Fault::NoRanges) {
        range = None;
    }
    let mut total = part.bytes;
    // Faults of the body withhold at least its last byte, so that they have an effect on short bodies.
    let short = state.faults.take(table, |fault| match fault {
        Fault::ShortLength { after } => Some(*after),
        _ => None,
    });
    if let Some(after) = short {
        total = after.min(total.saturating_sub(1));
    }
    let (status, from, length) = match extent(range, total) {
        Extent::Whole => (StatusCode::OK, 0, total),
        Extent::Range(from, length) => (StatusCode::PARTIAL_CONTENT, from, length),
        Extent::Unsatisfiable => {
            let mut refused = xml_error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", "The range is outside the object");
            set(refused.headers_mut(), CONTENT_RANGE, format!("bytes */{total}"));
            return refused;
        }
    };

    let opened = async {
        let mut file = tokio::fs::File::open(&part.path).await?;
        file.seek(SeekFrom::Start(from)).await?;
        std::io::Result::Ok(file)
    };
    let file = match opened.await {
        Ok(file) => file,
        Err(error) => {
            tracing::error!(object = id, %error, "the demo server cannot read an object file");
            return xml_error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "We encountered an internal error.");
        }
    };
    let last_kept = |after: &u64| (*after).min(length.saturating_sub(1));
    let end = state.faults.take(table, |fault| match fault {
        Fault::Cut { after } => Some((last_kept(after), Ending::Close)),
        Fault::Reset { after } => Some((last_kept(after), Ending::Reset)),
        _ => None,
    });
    let stall = state.faults.take(table, |fault| match fault {
        Fault::Stall { pause, after } => Some((last_kept(after), *pause)),
        _ => None,
    });
    let bytes_per_second = state.faults.take(table, |fault| match fault {
        Fault::Drip { bytes_per_second } => Some(*bytes_per_second),
        _ => None,
    });
    let etag = part.etag.clone();
    let delivery = Delivery {
        state: state.clone(),
        link: link.clone(),
        object: id.to_owned(),
        file,
        length,
        sent: 0,
        end,
        stall,
        bytes_per_second,
        _part: part,
    };

    let mut response = Response::new(delivery.into_body());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("binary/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, CONTENT_LENGTH, length);
    set(headers, ETAG, etag);
    if status == StatusCode::PARTIAL_CONTENT {
        set(headers, CONTENT_RANGE, format!("bytes {from}-{}/{total}", from + length - 1));
    }
    if state.faults.strikes(table, &Fault::ContentEncoding) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let of = |text: &'static str, length| extent(Some(&HeaderValue::from_static(text)), length);
        assert_eq!(extent(None, 10), Extent::Whole);
        assert_eq!(of("bytes=0-", 10), Extent::Range(0, 10));
        assert_eq!(of("bytes=3-5", 10), Extent::Range(3, 3));
        assert_eq!(of("bytes=3-99", 10), Extent::Range(3, 7));
        assert_eq!(of("bytes=-4", 10), Extent::Range(6, 4));
        assert_eq!(of("bytes=-40", 10), Extent::Range(0, 10));
        for refused in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(of(refused, 10), Extent::Unsatisfiable, "{refused}");
        }
        assert_eq!(of("bytes=0-", 0), Extent::Unsatisfiable);
        for ignored in ["lines=1-2", "bytes=5-3", "bytes=a-b", "bytes=0-1,3-4", "bytes=-", "bytes"] {
            assert_eq!(of(ignored, 10), Extent::Whole, "{ignored}");
        }
    }
}
