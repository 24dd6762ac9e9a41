//! Errors across a cluster, which transports only strings: packed into the message where they occur, unpacked by the driver.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use crate::engine::engine_error;
use crate::error::{Error, Kind};
use crate::redact::shortened;

/// Prefix and suffix of a packed error. Messages are quoted and escaped on their way; these characters are not affected.
const DELIMITERS: (&str, &str) = ("daplake-error(", ")");
/// Characters shown of a message without a packed error.
const MAX_TEXT: usize = 400;

#[derive(Serialize, Deserialize)]
struct Packed {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

/// Packs the error of a plan.
pub(super) fn pack(error: DataFusionError) -> DataFusionError {
    packed(&engine_error(error))
}

/// As [`pack`].
pub(super) fn packed(error: &Error) -> DataFusionError {
    let packed = Packed { kind: error.kind(), message: error.to_string(), hint: error.hint_text().map(str::to_owned) };
    // Strings cannot fail to serialise.
    let bytes = serde_json::to_vec(&packed).unwrap_or_default();
    DataFusionError::Execution(format!("{} {}{}{}", error.message(), DELIMITERS.0, STANDARD.encode(bytes), DELIMITERS.1))
}

/// The packed error in a message, or a failure of the cluster itself.
pub(super) fn unpack(text: &str) -> Error {
    let found = text.split_once(DELIMITERS.0).and_then(|(_, rest)| rest.split_once(DELIMITERS.1)).and_then(|(packed, _)| {
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
            let line = text.replace(char::is_control, " ");
            Error::new(Kind::Unavailable, "The cluster failed")
                .with_field("cluster", shortened(&line, MAX_TEXT))
                .hint("check the logs of scheduler and executors, and run the command again; nothing was committed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_error_survives_quotes_and_escapes() {
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
