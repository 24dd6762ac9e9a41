//! Errors of object stores: their kind and hint, and the removal of secrets from their text. Responses of stores quote tokens, signatures
//! and headers, which must never reach a log.

use std::error::Error as StdError;
use std::fmt;

use object_store::Error as StoreError;

use crate::error::{Error, Kind};

/// Why a request to an object store failed, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    text: String,
    code: Option<String>,
    status: Option<u16>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Failure {}

impl Failure {
    /// Extracts status, code and message from the text of a chain of errors.
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut words: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if !words.last().is_some_and(|last| last.contains(&text)) {
                words.push(text);
            }
            next = error.source();
        }
        Self::from_text(&words.join(": "))
    }

    fn from_text(words: &str) -> Self {
        let status = words.split("status code: ").nth(1).and_then(|rest| rest.get(..3)?.parse().ok());
        let (head, code, message) = match words.find(['<', '{']) {
            Some(start) => {
                let (head, body) = words.split_at(start);
                let code = member(body, "Code").or_else(|| member(body, "error"));
                (head, code, member(body, "Message").or_else(|| member(body, "error_description")))
            }
            None => (words, None, None),
        };
        let head = without_queries(head.trim_end_matches([' ', ':', '-']));
        let parts = [Some(head), code.clone(), message.map(|text| without_queries(&text))];
        let text = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        Self { text, code, status }
    }

    fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    fn kind_and_hint(&self) -> Option<(Kind, &'static str)> {
        if self.is(&["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"]) {
            return Some((
                Kind::Target,
                "the credentials of the object store have expired: renew them (such as by `aws sso login`) and run the command again; nothing was changed",
            ));
        }
        if self.is(&["RequestTimeTooSkewed"]) {
            return Some((Kind::Target, "set the clock of this machine"));
        }
        if self.is(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthenticationFailed", "invalid_grant"]) {
            return Some((Kind::Target, "check the credentials of the object store"));
        }
        if self.is(&["NoSuchBucket", "ContainerNotFound"]) {
            return Some((Kind::Target, "check the name of the bucket, and create it if it does not exist"));
        }
        if self.is(&["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"])
            || self.text.contains("incorrectly configured region")
        {
            return Some((Kind::Target, "set the bucket's region with AWS_REGION or --store-option region=REGION"));
        }
        match self.status {
            Some(401 | 403) => Some((
                Kind::Target,
                "the credentials must allow reading, writing, listing and deleting objects below the target",
            )),
            Some(408 | 429 | 500..=599) => {
                Some((Kind::Unavailable, "the object store is overloaded or down; run the command again later"))
            }
            Some(_) => None,
            None if self.text.contains("169.254.169.254") || self.text.contains("169.254.170.2") => Some((
                Kind::Target,
                "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or run daplake where a role provides them",
            )),
            None if self.text.contains("invalid peer certificate") => Some((Kind::Unavailable, crate::tls_roots::hint())),
            None if self.text.contains("HTTP error") || self.text.contains("error sending request") => Some((
                Kind::Unavailable,
                "check the network and the endpoint; behind a proxy that inspects TLS, set `--ca-bundle`",
            )),
            None => None,
        }
    }
}

/// The content of `<name>…</name>` or of `"name": "…"`.
fn member(body: &str, name: &str) -> Option<String> {
    let (from, to) = (format!("<{name}>"), format!("</{name}>"));
    if let Some((_, rest)) = body.split_once(&from) {
        return Some(rest.split_once(&to)?.0.trim().lines().next().unwrap_or_default().to_owned());
    }
    let (_, rest) = body.split_once(&format!("\"{name}\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Removes the query strings of URLs, which contain signatures.
fn without_queries(text: &str) -> String {
    let word = |word: &str| match word.split_once('?') {
        Some((address, _)) if address.contains("://") => format!("{address}?***"),
        _ => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The same error without secrets in its text.
pub(super) fn cleaned(error: StoreError) -> StoreError {
    let source =
        |source: &(dyn StdError + Send + Sync + 'static)| -> Box<dyn StdError + Send + Sync> { Box::new(Failure::of(source)) };
    use StoreError::*;
    match error {
        Generic { store, source: cause } => Generic { store, source: source(&*cause) },
        NotFound { path, source: cause } => NotFound { path, source: source(&*cause) },
        NotSupported { source: cause } => NotSupported { source: source(&*cause) },
        AlreadyExists { path, source: cause } => AlreadyExists { path, source: source(&*cause) },
        Precondition { path, source: cause } => Precondition { path, source: source(&*cause) },
        NotModified { path, source: cause } => NotModified { path, source: source(&*cause) },
        PermissionDenied { path, source: cause } => PermissionDenied { path, source: source(&*cause) },
        Unauthenticated { path, source: cause } => Unauthenticated { path, source: source(&*cause) },
        // These contain no response of a server.
        InvalidPath { .. } | JoinError { .. } | NotImplemented { .. } | UnknownConfigurationKey { .. } => error,
        other => Generic { store: "store", source: Box::new(Failure::of(&other)) },
    }
}

/// Whether a request may succeed if it is repeated.
pub(super) fn may_pass(error: &StoreError) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return matches!(failure.kind_and_hint(), Some((Kind::Unavailable, _)));
        }
        next = cause.source();
    }
    false
}

/// Sets kind and hint of an error according to the object store's response among its causes, if there is one.
pub fn explained(error: Error) -> Error {
    let mut next: Option<&(dyn StdError + 'static)> = StdError::source(&error);
    let mut found = None;
    while let Some(cause) = next {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            found = failure.kind_and_hint();
            break;
        }
        next = cause.source();
    }
    match found {
        Some((kind, hint)) if error.kind() != Kind::Conflict => error.with_kind(kind).hint_instead(hint),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_and_the_message_is_kept() {
        let words = "Error performing PUT https://b.s3.amazonaws.com/k?sig=planted in 1.2s, after 2 retries, max_retries: 2, \
             retry_timeout: 180s  - Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error>\
             <Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Token-0>planted</Token-0></Error>";
        let failure = Failure::from_text(words);
        assert!(!failure.text.contains("planted"), "{failure}");
        assert!(
            failure.text.contains("after 2 retries")
                && failure.text.ends_with("403 Forbidden: ExpiredToken: The provided token has expired.")
        );
        assert_eq!((failure.status, failure.code.as_deref()), (Some(403), Some("ExpiredToken")));
        let json = "Error performing POST REDACTED in 1s - Server returned non-2xx status code: 400 Bad Request: \
             {\"error\": \"invalid_grant\", \"error_description\": \"expired\", \"token\": \"planted\"}";
        let failure = Failure::from_text(json);
        assert!(failure.text.ends_with("400 Bad Request: invalid_grant: expired"), "{failure}");
    }

    #[test]
    fn the_response_of_a_store_sets_kind_and_hint() {
        let refused = |words: &'static str| {
            let store = cleaned(StoreError::Generic { store: "S3", source: words.into() });
            explained(Error::new(Kind::Target, "The table's log cannot be read").caused_by(store).hint("other"))
        };
        let down = refused("non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code></Error>");
        assert_eq!(down.kind(), Kind::Unavailable);
        let region = refused("Received redirect without LOCATION, this normally indicates an incorrectly configured region");
        assert!(region.hint_text().is_some_and(|hint| hint.contains("AWS_REGION")));
        assert_eq!(refused("no idea").hint_text(), Some("other"));
    }
}
