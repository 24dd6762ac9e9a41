//! Login and bearer tokens. A token has the form of a JWT because clients read its `exp`; the server only looks it up in a table.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::demo::serve::clock::later;
use crate::demo::serve::http::answer::{Answer, Answered};
use crate::demo::serve::state::State;

fn header(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The value of an `Authorization` header with this scheme.
fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (found, value) = header(headers, AUTHORIZATION)?.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then_some(value.trim())
}

/// `POST /ids/auth/login`.
pub(crate) fn login(state: &State, headers: &HeaderMap, body: &str) -> Answered {
    let (client_id, client_secret) = &state.options.credentials;
    let given = authorization(headers, "basic").and_then(|value| BASE64_STANDARD.decode(value).ok());
    let given = given.and_then(|bytes| String::from_utf8(bytes).ok());
    if given.as_ref().and_then(|text| text.split_once(':')) != Some((client_id, client_secret)) {
        state.tally.count(|counters| counters.refused_logins += 1);
        let error = Answer::error(StatusCode::UNAUTHORIZED, "AuthenticationError", "The client id or secret is not valid");
        return Err(error.header("www-authenticate", "Basic").into());
    }
    let is_form = header(headers, CONTENT_TYPE).is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
    let mut members = url::form_urlencoded::parse(body.as_bytes());
    if !is_form || !members.any(|(name, value)| name == "grant_type" && value == "client_credentials") {
        return Err(Answer::invalid("`grant_type` must be `client_credentials`, in a form", body, 0).into());
    }

    let now = state.clock.now();
    let life = state.options.token_life;
    let expires = later(now, life);
    let encode = |part: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
    let head = encode(&json!({"alg": "HS256", "typ": "JWT"}));
    let payload = encode(&json!({
        "iss": "daplake-demo",
        "sub": client_id,
        "jti": Uuid::new_v4().to_string(),
        "iat": now.micros().div_euclid(1_000_000),
        "exp": expires.micros().div_euclid(1_000_000),
    }));
    let mut signature = Uuid::new_v4().into_bytes().to_vec();
    signature.extend(Uuid::new_v4().into_bytes());
    let token = format!("{head}.{payload}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));

    state.tokens.add(token.clone(), expires, now);
    state.tally.count(|counters| counters.logins += 1);
    Ok(Answer::ok(json!({
        "access_token": token,
        "expires_in": life.as_secs(),
        "scope": "SERVICE principal:demo partner:demo region:demo",
        "token_type": "Bearer",
    })))
}

/// Checks that an API call has a valid token.
pub(crate) fn check_bearer(state: &State, headers: &HeaderMap) -> Answered<()> {
    let refuse = |message: &str| {
        state.tally.count(|counters| counters.wrong_auth += 1);
        Err(Answer::unauthenticated(message).into())
    };
    let Some(token) = authorization(headers, "bearer") else { return refuse("A bearer token is required") };
    match state.tokens.expiry(token) {
        Some(expires) if expires > state.clock.now() => Ok(()),
        Some(_) => refuse("The token has expired"),
        None => refuse("The token is not valid"),
    }
}
