//! Our errors through a cluster that knows only texts: packed into the text where they arise, and found in it where they are met.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use crate::engine::engine_error;
use crate::error::{Error, Kind};

/// Before and behind a packed error. Texts are quoted and escaped on their way; these characters stay as they are.
const MARKS: (&str, &str) = ("daplake-error(", ")");
/// Of a text that is none of ours, no more is shown.
const MAX_TEXT: usize = 400;

#[derive(Serialize, Deserialize)]
struct Packed {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

/// An error as it can leave a process.
pub(super) fn pack(error: DataFusionError) -> DataFusionError {
    packed(&engine_error(error))
}

/// As [`pack`].
pub(super) fn packed(error: &Error) -> DataFusionError {
    let packed = Packed { kind: error.kind(), message: error.to_string(), hint: error.hint_text().map(str::to_owned) };
    // Strings cannot fail to serialise.
    let bytes = serde_json::to_vec(&packed).unwrap_or_default();
    DataFusionError::Execution(format!("{} {}{}{}", error.message(), MARKS.0, STANDARD.encode(bytes), MARKS.1))
}

/// What a cluster's error means: the one of ours in it, or that the cluster itself failed.
pub(super) fn unpack(text: &str) -> Error {
    let found = text.split_once(MARKS.0).and_then(|(_, rest)| rest.split_once(MARKS.1)).and_then(|(packed, _)| {
        let bytes = STANDARD.decode(packed).ok()?;
        serde_json::from_slice::<Packed>(&bytes).ok()
    });
    match found {
        Some(Packed { kind, message, hint }) => {
            let error = Error::new(kind, message);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
        None => {
            let mut shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
            if shown.len() < text.len() {
                shown.push_str("...");
            }
            Error::new(Kind::Unavailable, "The cluster did not do its work")
                .with_field("cluster", shown)
                .hint("look at the logs of the scheduler and the executors; nothing was committed, run it again")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_through_quotes_and_escapes() {
        let error = Error::new(Kind::Data, "A \"row\" is broken").with_field("line", 7).hint("look at it");
        let text = format!("{:?}", Some(format!("Job x failed: {:?}", packed(&error))));
        let back = unpack(&text);
        assert_eq!((back.kind(), back.hint_text()), (Kind::Data, Some("look at it")));
        assert!(back.message().contains("A \"row\" is broken") && back.message().contains('7'), "{back:?}");
        let other = unpack("Executor lost\nagain");
        assert_eq!(other.kind(), Kind::Unavailable);
        assert_eq!(other.get("cluster"), Some("Executor lost again"));
    }
}
