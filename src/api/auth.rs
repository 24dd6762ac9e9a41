//! Logs in and keeps a valid token.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use url::Url;

use super::Credentials;
use super::exchange::{Answer, exchange};
use super::retry::{Retry, RetryPolicy, RetryReason, retry_after, server_date};
use super::wire::{self, Ask};
use crate::error::{Error, Kind, Result};
use crate::model::Timestamp;

/// A token is renewed this long before it expires, or after three quarters of its lifetime if that is later.
const RENEWAL_MARGIN: Duration = Duration::from_secs(5 * 60);
/// The assumed lifetime of a token if the service does not report one. An expired token leads to a 401.
const UNKNOWN_LIFE: Duration = Duration::from_secs(10 * 60);

/// A bearer token, ready to send.
pub(super) struct Token {
    /// `Bearer ...`, marked as sensitive so that no library prints it.
    header: HeaderValue,
    renew_at: Instant,
}

impl Token {
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// Reads the credentials again after they were rotated.
pub(super) type Source = Box<dyn Fn() -> Result<Credentials> + Send + Sync>;

/// The token of a client. There is one login at a time; concurrent calls wait for it and share its result, also if it fails.
pub(super) struct Tokens {
    http: reqwest::Client,
    url: Url,
    credentials: Mutex<Credentials>,
    source: OnceLock<Source>,
    retry: RetryPolicy,
    idle: Duration,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    failed: Option<(Instant, Arc<Error>)>,
}

impl Tokens {
    pub(super) fn new(http: reqwest::Client, url: Url, credentials: Credentials, retry: RetryPolicy, idle: Duration) -> Self {
        let (credentials, source) = (Mutex::new(credentials), OnceLock::new());
        Self { http, url, credentials, source, retry, idle, state: tokio::sync::Mutex::default() }
    }

    /// Sets the source of the credentials, unless one is set already.
    pub(super) fn set_source(&self, source: Source) {
        let _ = self.source.set(source);
    }

    /// Reads the credentials again and returns whether they have changed. The current token is kept until the service rejects it.
    pub(super) fn reload(&self) -> Result<bool> {
        let Some(source) = self.source.get() else { return Ok(false) };
        Ok(self.replace(source()?))
    }

    /// Sets the credentials and returns whether they have changed. The current token is kept until the service rejects it.
    pub(super) fn replace(&self, read: Credentials) -> bool {
        let mut known = self.known();
        let has_changed = known.client_id != read.client_id || known.client_secret.reveal() != read.client_secret.reveal();
        *known = read;
        has_changed
    }

    fn known(&self) -> parking_lot::MutexGuard<'_, Credentials> {
        self.credentials.lock()
    }

    /// A token that is not about to expire.
    pub(super) async fn fresh(&self) -> Result<Arc<Token>> {
        self.get(|token| Instant::now() < token.renew_at).await
    }

    /// A token other than `refused`, which the service rejected.
    pub(super) async fn instead_of(&self, refused: &Arc<Token>) -> Result<Arc<Token>> {
        self.get(|token| !Arc::ptr_eq(token, refused)).await
    }

    async fn get(&self, good: impl Fn(&Arc<Token>) -> bool) -> Result<Arc<Token>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(token) = state.token.as_ref().filter(|token| good(token)) {
            return Ok(token.clone());
        }
        if let Some((at, error)) = &state.failed
            && *at >= asked
        {
            // The login failed while this call waited for it. Another one would only lock the account sooner.
            return Err(Error::recover(error.clone(), |_| Error::new(Kind::Bug, "A login error was lost")));
        }
        state.token = None;
        match self.login().await {
            Ok(token) => {
                let token = Arc::new(token);
                *state = State { token: Some(token.clone()), failed: None };
                Ok(token)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.failed = Some((Instant::now(), error.clone()));
                Err(Error::recover(error, |_| Error::new(Kind::Bug, "A login error was lost")))
            }
        }
    }

    async fn login(&self) -> Result<Token> {
        let mut retry = Retry::new(&self.retry);
        let mut has_reloaded = false;
        loop {
            let attempt = retry.attempt();
            let sent_at = Instant::now();
            let request = self
                .http
                .post(self.url.clone())
                .header(AUTHORIZATION, self.basic()?)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body("grant_type=client_credentials");
            let (reason, error) = match exchange(request, self.idle).await {
                Ok(answer) if answer.status.is_success() => {
                    match read_token(&answer, sent_at) {
                        Ok(token) => {
                            let life_s = token.renew_at.saturating_duration_since(sent_at).as_secs();
                            tracing::debug!(attempt, renew_in_s = life_s, "Logged in");
                            return Ok(token);
                        }
                        // The page of a proxy or captive portal, or a truncated response.
                        Err(error) if serde_json::from_slice::<IgnoredAny>(&answer.body).is_err() => {
                            (RetryReason::Fault, error.with_field("call", Ask::Login))
                        }
                        Err(error) => return Err(retry.annotate(error.with_field("call", Ask::Login))),
                    }
                }
                Ok(answer) => {
                    let error = wire::refusal(Ask::Login, answer.status, &answer.headers, &answer.body);
                    match error.kind() {
                        Kind::Throttled => (RetryReason::Throttled(retry_after(&answer.headers)), error),
                        Kind::Unavailable => match retry_after(&answer.headers) {
                            Some(after) => (RetryReason::Throttled(Some(after)), error),
                            None => (RetryReason::Fault, error),
                        },
                        Kind::Auth if !has_reloaded => {
                            has_reloaded = true;
                            match self.reload() {
                                Ok(true) => {
                                    tracing::info!("The credentials have changed; logging in again");
                                    continue;
                                }
                                Ok(false) => {}
                                Err(cause) => tracing::warn!(error = %cause, "The credentials cannot be read again"),
                            }
                            return Err(retry.annotate(self.advice(error)));
                        }
                        Kind::Auth => return Err(retry.annotate(self.advice(error))),
                        _ => return Err(retry.annotate(error)),
                    }
                }
                Err(fault) if fault.is_temporary => (RetryReason::Fault, fault.error.with_field("call", Ask::Login)),
                Err(fault) => return Err(retry.annotate(fault.error.with_field("call", Ask::Login))),
            };
            retry.wait(reason, error.with_field("host", self.url.host_str().unwrap_or_default())).await?;
        }
    }

    fn basic(&self) -> Result<HeaderValue> {
        let known = self.known();
        let pair = format!("{}:{}", known.client_id, known.client_secret.reveal());
        drop(known);
        let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
            .map_err(|_| Error::new(Kind::Bug, "The credentials cannot be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn advice(&self, error: Error) -> Error {
        let known = self.known().clone();
        let Credentials { client_id, client_secret } = &known;
        let odd: Vec<String> = [("client id", client_id.as_str()), ("client secret", client_secret.reveal())]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("the {name} {}", oddities(value)?)))
            .collect();
        let copied = "check that client id and client secret were copied whole and belong to the same key; if so, the key has \
                      expired or was removed: create a new one and set both";
        error.hint(match (odd.is_empty(), looks_whole(client_id)) {
            (false, _) => format!("{}: remove these characters. Otherwise {copied}", odd.join("; ")),
            (true, true) => copied.to_owned(),
            (true, false) => format!(
                "the client id should look like `us-east-1#...`, but it has no region before a `#` or nothing after it; \
                 `#` begins a comment in shells, `.env` and YAML files: put the id in quotes. Otherwise {copied}"
            ),
        })
    }
}

/// Whether the client id has the form `region#id`.
fn looks_whole(client_id: &str) -> bool {
    client_id.split_once('#').is_some_and(|(region, id)| !region.trim().is_empty() && !id.trim().is_empty())
}

/// Describes suspicious characters in a credential without repeating it. Used only after the service has rejected the credentials, since any
/// text may be valid.
fn oddities(value: &str) -> Option<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inner = value;
    if let Some(name) = value.chars().next().and_then(odd_character) {
        found.push(format!("begins with {name}"));
        inner = &inner[value.chars().next().map_or(0, char::len_utf8)..];
    }
    if let Some(last) = inner.chars().next_back()
        && let Some(name) = odd_character(last)
    {
        // A Windows line end has two characters.
        let name = if inner.ends_with("\r\n") { "a carriage return and a line end" } else { name };
        found.push(format!("ends with {name}"));
        inner = &inner[..inner.len() - last.len_utf8()];
    }
    if let Some(name) = inner.trim_end_matches('\r').chars().find_map(odd_character) {
        found.push(format!("contains {name}"));
    }
    match found.pop() {
        None => None,
        Some(only) if found.is_empty() => Some(only),
        Some(last) => Some(format!("{} and {last}", found.join(", "))),
    }
}

/// The name of a character that is not part of any key but is easily copied along with one.
fn odd_character(c: char) -> Option<&'static str> {
    Some(match c {
        '"' | '\'' | '`' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}' => "a quote",
        '\n' => "a line end",
        '\r' => "a carriage return",
        '\t' => "a tab",
        ' ' => "a blank",
        '\u{a0}' | '\u{202f}' | '\u{2007}' => "a no-break space",
        '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => "an invisible character",
        c if c.is_whitespace() => "white space",
        c if c.is_control() => "a control character",
        c if !c.is_ascii() => "a character that is not ASCII",
        _ => return None,
    })
}

#[derive(Deserialize)]
struct LoginAnswer {
    access_token: String,
    expires_in: Option<serde_json::Value>,
}

fn read_token(answer: &Answer, sent_at: Instant) -> Result<Token> {
    let login: LoginAnswer = wire::parse(&answer.headers, &answer.body, "login")?;
    let mut header = HeaderValue::from_str(&format!("Bearer {}", login.access_token))
        .map_err(|_| Error::new(Kind::Data, "The service returned an invalid token"))?;
    header.set_sensitive(true);
    let expires_in = login.expires_in.as_ref().and_then(seconds);
    let life = life(expires_in, expiry(&login.access_token), &answer.headers);
    Ok(Token { header, renew_at: sent_at + life.saturating_sub(RENEWAL_MARGIN.min(life / 4)) })
}

/// The lifetime in the response or in the token, whichever is shorter. The token's expiry is compared with the server's clock: with the local clock,
/// a machine that is an hour ahead would log in before every call.
fn life(expires_in: Option<Duration>, expiry: Option<Timestamp>, headers: &HeaderMap) -> Duration {
    let until =
        |now: Timestamp| expiry.map(|expiry| Duration::from_micros(expiry.micros().saturating_sub(now.micros()).max(0) as u64));
    match (expires_in, server_date(headers)) {
        (Some(life), Some(now)) => until(now).map_or(life, |left| left.min(life)),
        (Some(life), None) => life,
        (None, now) => until(now.unwrap_or_else(Timestamp::now)).unwrap_or(UNKNOWN_LIFE),
    }
    // Longer durations would overflow the clock on some systems.
    .min(Duration::from_secs(365 * 86_400))
}

fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    Duration::try_from_secs_f64(number).ok()
}

/// The `exp` claim of a JWT. The signature is not verified.
fn expiry(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&bytes).ok()?;
    let micros = claims.exp * 1e6;
    (micros.is_finite() && micros.abs() < 9e18).then(|| Timestamp::from_micros(micros as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(date: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(reqwest::header::DATE, date.parse().unwrap());
        headers
    }

    #[test]
    fn client_ids_without_a_region_or_id_are_detected() {
        assert!(looks_whole("us-east-1#1234"));
        for cut in ["us-east-1", "us-east-1#", "#1234", "", "1234"] {
            assert!(!looks_whole(cut), "{cut}");
        }
    }

    #[test]
    fn suspicious_characters_are_named() {
        assert_eq!(oddities("us-east-1#0123-abc_DEF"), None);
        for (value, words) in [
            ("'us-east-1#x'", "begins with a quote and ends with a quote"),
            ("\"us-east-1#x", "begins with a quote"),
            ("us-east-1#x\n", "ends with a line end"),
            ("us-east-1#x\r\n", "ends with a carriage return and a line end"),
            ("us-east-1#x\r", "ends with a carriage return"),
            ("us-east-1#x ", "ends with a blank"),
            (" us-east-1#x", "begins with a blank"),
            ("us-east-1#x\u{a0}", "ends with a no-break space"),
            ("\u{feff}us-east-1#x", "begins with an invisible character"),
            ("us-east-1# x", "contains a blank"),
            ("us-east-1#x\u{2013}y", "contains a character that is not ASCII"),
            ("\u{201c}a\tb\u{201d}", "begins with a quote, ends with a quote and contains a tab"),
            ("\"", "begins with a quote"),
        ] {
            assert_eq!(oddities(value).as_deref(), Some(words), "{value:?}");
        }
    }

    #[test]
    fn the_life_of_a_token_does_not_depend_on_the_local_clock() {
        // exp = 1994-11-06T09:49:37Z: in the past locally, in one hour for the server.
        let exp = Some(Timestamp::from_micros(784_115_377_000_000));
        let headers = dated("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(life(None, exp, &headers), Duration::from_secs(3600));
        assert_eq!(life(Some(Duration::from_secs(60)), exp, &headers), Duration::from_secs(60));
        assert_eq!(life(Some(Duration::from_secs(9000)), exp, &headers), Duration::from_secs(3600));
        assert_eq!(life(Some(Duration::from_secs(3599)), exp, &HeaderMap::new()), Duration::from_secs(3599));
        assert_eq!(life(None, exp, &HeaderMap::new()), Duration::ZERO);
        assert_eq!(life(None, None, &HeaderMap::new()), UNKNOWN_LIFE);
    }

    #[test]
    fn the_expiry_is_read_if_there_is_one() {
        let token = |claims: &str| format!("eyJ.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry(&token(r#"{"exp":1700000000,"x":[]}"#)), Some(Timestamp::from_micros(1_700_000_000_000_000)));
        for odd in [token("{}"), token("not json"), "opaque".to_owned(), "a.%%%.b".to_owned(), token(r#"{"exp":1e300}"#)] {
            assert_eq!(expiry(&odd), None);
        }
    }
}
