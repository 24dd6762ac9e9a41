//! One request, one whole answer, and what a network fault means. It knows no endpoint and never tries twice.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::error::{Error, Kind};

/// Answers of the API are small; more is not one of them.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A whole answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// No answer.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// Whether it may pass.
    pub(crate) passing: bool,
}

/// Sends and reads to the end. `idle` limits the time without any news, not the whole.
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
                        Error::new(Kind::Data, "The service's answer is far too long").with_field("limit", MAX_ANSWER_BYTES);
                    return Err(Fault { error, passing: false });
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
    let error = Error::new(Kind::Unavailable, "The service is silent").with_field("idle_timeout", format_args!("{idle:?}"));
    Fault { error, passing: true }
}

/// Reads what the HTTP library says. URLs are taken out: pre-signed ones are credentials.
pub(crate) fn network_fault(error: reqwest::Error) -> Fault {
    let error = error.without_url();
    let (connect, timeout, redirect) = (error.is_connect(), error.is_timeout(), error.is_redirect());
    let malformed = error.is_builder();
    let certificate = mentions(&error, "certificate");
    let message = match () {
        () if certificate => "The server's certificate is not trusted",
        () if redirect => "The redirects do not end",
        () if malformed => "The request cannot be made",
        () if connect && timeout => "The connection takes too long",
        () if connect => "The host cannot be reached",
        () if timeout => "The answer takes too long",
        () => "The connection broke",
    };
    let ours = Error::new(Kind::Unavailable, message).caused_by(error);
    let ours = match () {
        () if certificate => ours.hint(crate::tls_roots::hint()),
        () if connect => ours.hint("check the network, `HTTPS_PROXY` and `NO_PROXY`, and the base URL"),
        () => ours,
    };
    Fault { error: ours, passing: !(certificate || redirect || malformed) }
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
