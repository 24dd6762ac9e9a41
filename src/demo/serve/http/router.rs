//! Routes requests to their handlers: paths and methods, tokens, limits, and the faults that apply before or after every handler.

use std::fmt;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;

use crate::demo::serve::endpoints::{login, object, query};
use crate::demo::serve::faults::fault::{Endpoint, Fault, RetryAfter};
use crate::demo::serve::http::answer::{Answer, Answered, Body, html_page, xml_error};
use crate::demo::serve::http::connection::Link;
use crate::demo::serve::jobs::run;
use crate::demo::serve::state::State;
use crate::model::TableRef;

const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// The connection ends without a response, because of a fault or an unreadable request.
#[derive(Debug)]
pub(crate) struct HungUp;

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the demo server closed the connection")
    }
}

impl std::error::Error for HungUp {}

/// The route of a request.
#[derive(Debug)]
enum Route {
    Login,
    Tables(String),
    Schema(TableRef),
    Data(TableRef),
    Job(String),
    Urls,
    Object(String),
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(|text| text.into_owned()).ok();
        let parts: Option<Vec<String>> = path.strip_prefix('/')?.split('/').map(decoded).collect();
        let parts = parts?;
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        Some(match words.as_slice() {
            ["ids", "auth", "login"] => Route::Login,
            ["dap", "query", namespace, "table"] => Route::Tables((*namespace).to_owned()),
            ["dap", "query", namespace, "table", table, "schema"] => Route::Schema(TableRef::new(*namespace, *table)),
            ["dap", "query", namespace, "table", table, "data"] => Route::Data(TableRef::new(*namespace, *table)),
            ["dap", "job", id] => Route::Job((*id).to_owned()),
            ["dap", "object", "url"] => Route::Urls,
            ["objects", job, name] => Route::Object(format!("{job}/{name}")),
            _ => return None,
        })
    }

    fn endpoint(&self) -> Endpoint {
        match self {
            Route::Login => Endpoint::Login,
            Route::Tables(_) => Endpoint::Tables,
            Route::Schema(_) => Endpoint::Schema,
            Route::Data(_) => Endpoint::Data,
            Route::Job(_) => Endpoint::Job,
            Route::Urls => Endpoint::Urls,
            Route::Object(_) => Endpoint::Objects,
        }
    }

    fn method(&self) -> Method {
        match self {
            Route::Login | Route::Data(_) | Route::Urls => Method::POST,
            Route::Tables(_) | Route::Schema(_) | Route::Job(_) | Route::Object(_) => Method::GET,
        }
    }

    /// The table of a request, if it has one.
    fn table(&self, state: &State, body: &str) -> Option<TableRef> {
        match self {
            Route::Login | Route::Tables(_) => None,
            Route::Schema(table) | Route::Data(table) => Some(table.clone()),
            Route::Job(id) => Some(state.jobs.get(id, state.clock.now())?.table().clone()),
            Route::Urls => Some(object::job_of(state, &object::first_id(body)?)?.table().clone()),
            Route::Object(id) => Some(object::job_of(state, id)?.table().clone()),
        }
    }
}

/// Responds to one request.
pub(crate) async fn respond(state: Arc<State>, link: Arc<Link>, request: Request<Incoming>) -> Result<Response<Body>, HungUp> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await.map_err(|_| HungUp)?.to_bytes();
    let body = String::from_utf8_lossy(&body);
    let Some(route) = Route::of(parts.uri.path()) else {
        let error = Answer::error(StatusCode::NOT_FOUND, "NotFound", "The path does not exist");
        return Ok(error.into_response());
    };
    let endpoint = route.endpoint();
    state.tally.count(|counters| *counters.calls.entry(endpoint).or_default() += 1);
    let table = route.table(&state, &body);
    let table = table.as_ref();

    if state.faults.strikes(table, &Fault::HangUp { at: endpoint }) {
        link.reset_at_end();
        return Err(HungUp);
    }
    if let Route::Object(id) = &route {
        state.tally.count(|counters| counters.objects.entry(id.clone()).or_default().gets += 1);
        if parts.method != Method::GET {
            return Ok(xml_error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "The method is not allowed"));
        }
        if let Some(refusal) = gateway(&state, endpoint, table) {
            return Ok(refusal);
        }
        return Ok(object::download(&state, &link, &parts, id).await);
    }

    let answer = match admit(&state, &route, &parts, table) {
        Err(refused) => Err(refused),
        Ok(()) => match gateway(&state, endpoint, table) {
            Some(refusal) => return Ok(refusal),
            None => handle(&state, route, &parts, &body),
        },
    };
    let mut answer = answer.unwrap_or_else(|error| *error);
    if state.faults.strikes(table, &Fault::ExtraMembers) {
        answer = answer.with_extra_members();
    }
    Ok(match state.faults.strikes(table, &Fault::BrokenJson { at: endpoint }) {
        true => answer.into_broken_response(),
        false => answer.into_response(),
    })
}

/// Checks the method, the token and the rate limit of an API call.
fn admit(state: &State, route: &Route, request: &Parts, table: Option<&TableRef>) -> Answered<()> {
    let method = route.method();
    if request.method != method {
        let error = Answer::error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "The method is not allowed");
        return Err(error.header("allow", method).into());
    }
    if !matches!(route, Route::Login) {
        if state.faults.take(table, |fault| matches!(fault, Fault::TokenDies { .. }).then_some(())).is_some() {
            state.tokens.forget_all();
        }
        login::check_bearer(state, &request.headers)?;
    }
    let endpoint = route.endpoint();
    state.admit(endpoint).map_err(|seconds| {
        state.tally.count(|counters| *counters.throttled.entry(endpoint).or_default() += 1);
        Answer::throttled().header("retry-after", seconds).into()
    })
}

fn handle(state: &Arc<State>, route: Route, request: &Parts, body: &str) -> Answered {
    if matches!(route, Route::Data(_) | Route::Urls) {
        let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if content_type.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Answer::invalid("The content type is not application/json", body, 0).into());
        }
    }
    match route {
        Route::Login => login::login(state, &request.headers, body),
        Route::Tables(namespace) => query::tables(state, &namespace),
        Route::Schema(table) => query::schema(state, &table),
        Route::Data(table) => query::data(state, table, body),
        Route::Job(id) => run::status(state, &id),
        Route::Urls => object::urls(state, body),
        Route::Object(_) => unreachable!("downloads are answered before"),
    }
}

/// The response of a gateway in front of the service, if a fault requires one.
fn gateway(state: &State, endpoint: Endpoint, table: Option<&TableRef>) -> Option<Response<Body>> {
    let is_store = endpoint == Endpoint::Objects;
    let throttle = state.faults.take(table, |fault| match fault {
        Fault::Throttle { at, wait } if *at == endpoint => Some(*wait),
        _ => None,
    });
    if let Some(wait) = throttle {
        state.tally.count(|counters| *counters.throttled.entry(endpoint).or_default() += 1);
        let wait = match wait {
            RetryAfter::Missing => None,
            RetryAfter::Seconds(seconds) => Some(seconds.to_string()),
            RetryAfter::Date(seconds) => Some(http_date(seconds)),
        };
        let mut response = match is_store {
            true => xml_error(StatusCode::TOO_MANY_REQUESTS, "SlowDown", "Please reduce your request rate."),
            false => Answer::throttled().into_response(),
        };
        if let Some(value) = wait.and_then(|wait| HeaderValue::try_from(wait).ok()) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        return Some(response);
    }
    let status = state.faults.take(table, |fault| match fault {
        Fault::Status { at, status } if *at == endpoint => Some(*status),
        _ => None,
    });
    if let Some(status) = status {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Some(match is_store {
            true => xml_error(status, "InternalError", "We encountered an internal error. Please try again."),
            false => Answer::error(status, "ServerError", "Something went wrong").into_response(),
        });
    }
    if state.faults.strikes(table, &Fault::Html { at: endpoint }) {
        return Some(html_page(StatusCode::SERVICE_UNAVAILABLE));
    }
    let blocked = state.faults.take(table, |fault| match fault {
        Fault::Blocked { at, status } if *at == endpoint => Some(*status),
        _ => None,
    });
    if let Some(status) = blocked {
        return Some(html_page(StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN)));
    }
    if state.faults.strikes(table, &Fault::NotJson { at: endpoint }) {
        return Some(html_page(StatusCode::OK));
    }
    let refusal = state.faults.take(table, |fault| match fault {
        Fault::Account { at, refusal } if *at == endpoint => Some(*refusal),
        _ => None,
    });
    refusal.map(|refusal| {
        let message = "The account cannot make this request";
        Answer::error(StatusCode::FORBIDDEN, refusal.error_type(), message).into_response()
    })
}

/// An HTTP date this many seconds ahead by the real clock, rounded up because an HTTP date has whole seconds only.
fn http_date(seconds: u64) -> String {
    let ahead = i64::try_from(seconds).unwrap_or(i64::MAX / 2).saturating_add(1);
    let time = chrono::Utc::now().checked_add_signed(chrono::Duration::try_seconds(ahead).unwrap_or_default());
    time.unwrap_or_default().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
