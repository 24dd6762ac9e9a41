//! Responses: JSON with the service's errors, XML of object stores, HTML of proxies.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::model::Timestamp;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A JSON response before serialization.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// The result of a handler; the error is a response as well.
pub(crate) type Answered<T = Answer> = Result<T, Box<Answer>>;

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, body)
    }

    pub(crate) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, headers: Vec::new() }
    }

    /// An error response with the three members that all errors have.
    pub(crate) fn error(status: StatusCode, error_type: &str, message: impl Into<String>) -> Self {
        let body = json!({"error": {"type": error_type, "uuid": Uuid::new_v4().to_string(), "message": message.into()}});
        Self::new(status, body)
    }

    /// Adds a member to the error.
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body["error"][name] = value.into();
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn unauthenticated(message: &str) -> Self {
        Self::error(StatusCode::UNAUTHORIZED, "AuthenticationError", message).header("www-authenticate", "Bearer")
    }

    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        let message = format!("The {kind} does not exist or is not available any more");
        Self::error(StatusCode::NOT_FOUND, "NotFound", message).with("id", id).with("kind", kind)
    }

    /// A validation error. `offset` is the position in the request body, in bytes.
    pub(crate) fn invalid(message: impl Into<String>, body: &str, offset: usize) -> Self {
        let before = body.get(..offset).unwrap_or(body);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let location = json!({"line": line, "column": column, "character": before.chars().count()});
        Self::error(StatusCode::BAD_REQUEST, "ValidationError", message).with("location", location)
    }

    pub(crate) fn out_of_range(since: Timestamp, until: Timestamp) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "OutOfRange", "There is no data for this range")
            .with("since", since.to_string())
            .with("until", until.to_string())
    }

    pub(crate) fn snapshot_required(since: Timestamp, until: Timestamp) -> Self {
        let message = "The table was reloaded; only a new snapshot restores consistency";
        Self::error(StatusCode::BAD_REQUEST, "SnapshotRequired", message)
            .with("since", since.to_string())
            .with("until", until.to_string())
    }

    pub(crate) fn throttled() -> Self {
        Self::error(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "Too many requests")
    }

    /// Adds unknown members to all objects of the API. The schema of a table and the map of URLs are data, not API.
    pub(crate) fn with_extra_members(mut self) -> Self {
        fn grow(value: &mut Value) {
            match value {
                Value::Object(members) => {
                    for (name, member) in members.iter_mut().filter(|(name, _)| *name != "schema") {
                        match member {
                            Value::Object(urls) if name == "urls" => urls.values_mut().for_each(grow),
                            member => grow(member),
                        }
                    }
                    members.insert("x_new_member".into(), json!({"depth": [1, null, {"note": "not known yet"}]}));
                }
                Value::Array(items) => items.iter_mut().for_each(grow),
                _ => {}
            }
        }
        grow(&mut self.body);
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let text = self.body.to_string();
        self.into_response_of(text.into())
    }

    /// The response with half of its body.
    pub(crate) fn into_broken_response(self) -> Response<Body> {
        let mut text = self.body.to_string().into_bytes();
        text.truncate(text.len() / 2);
        self.into_response_of(text.into())
    }

    fn into_response_of(self, body: Bytes) -> Response<Body> {
        let mut response = response(self.status, "application/json", body);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// A response with a complete body.
pub(crate) fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error in the XML of object stores.
pub(crate) fn xml_error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let request = Uuid::new_v4().simple();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>{request}</RequestId></Error>"
    );
    response(status, "application/xml", body.into())
}

/// An HTML page, as gateways and captive portals return it.
pub(crate) fn html_page(status: StatusCode) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n");
    response(status, "text/html; charset=utf-8", body.into())
}

/// An object without its null members.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.into_iter().filter(|(_, member)| !member.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}
