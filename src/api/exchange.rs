//! Sends one request and reads its whole response, and classifies network errors. Never retries.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::error::{Error, Kind};

/// The limit of a response's size. Responses of the API are small.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A complete response of any status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The error of a request without a response.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// Whether a retry may succeed.
    pub(crate) is_temporary: bool,
}

/// Sends a request and reads the response. `idle` limits the time without progress, not the total time.
pub(crate) async fn exchange(request: RequestBuilder, idle: Duration) -> Result<Answer, Fault> {
    let mut response = match tokio::time::timeout(idle, request.send()).await {
        Ok(sent) => sent.map_err(network_fault)?,
        Err(_) => return Err(silence(idle)),
    };
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let body = read_to_end(response, idle).await?;
    Ok(Answer { status, headers, body })
}

async fn read_to_end(mut response: Response, idle: Duration) -> Result<Bytes, Fault> {
    let mut body = BytesMut::new();
    loop {
        match tokio::time::timeout(idle, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                    let error =
                        Error::new(Kind::Data, "The service's response is too long").with_field("limit", MAX_ANSWER_BYTES);
                    return Err(Fault { error, is_temporary: false });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(error)) => return Err(network_fault(error)),
            Err(_) => return Err(silence(idle)),
        }
    }
}

fn silence(idle: Duration) -> Fault {
    let error =
        Error::new(Kind::Unavailable, "The service does not respond").with_field("idle_timeout", format_args!("{idle:?}"));
    Fault { error, is_temporary: true }
}

/// Classifies an error of the HTTP library. Its URL is removed, since pre-signed URLs are credentials.
pub(crate) fn network_fault(error: reqwest::Error) -> Fault {
    let error = error.without_url();
    let (connect, timeout, redirect) = (error.is_connect(), error.is_timeout(), error.is_redirect());
    let malformed = error.is_builder();
    let certificate = mentions(&error, "certificate");
    let message = match () {
        () if certificate => "The server's certificate is not trusted",
        () if redirect => "Too many redirects",
        () if malformed => "The request is invalid",
        () if connect && timeout => "The connection timed out",
        () if connect => "The host cannot be reached",
        () if timeout => "The response timed out",
        () => "The connection was interrupted",
    };
    let error = Error::new(Kind::Unavailable, message).caused_by(error);
    let error = match () {
        () if certificate => error.hint(crate::tls_roots::hint()),
        () if connect => error.hint("check the network, `HTTPS_PROXY` and `NO_PROXY`, and the base URL"),
        () => error,
    };
    Fault { error, is_temporary: !(certificate || redirect || malformed) }
}

fn mentions(error: &(dyn StdError + 'static), word: &str) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.to_string().contains(word) {
            return true;
        }
        next = cause.source();
    }
    false
}
