//! The names that pre-signed URLs give to objects, accepted only if they are plain file names.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, Kind, Result};

/// File systems allow 255 bytes; the suffixes need some.
const MAX_NAME_BYTES: usize = 240;

/// The decoded last segment of the URL's path. Fails with kind `Data` if it is not a plain file name.
pub(super) fn file_name(url: &Url) -> Result<String> {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    let name = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Error::new(Kind::Data, "The service returned a file name that is not UTF-8"))?;
    check_name(&name)?;
    Ok(name.into_owned())
}

/// Fails unless `name` is a plain file name on every system. Names come from the service and must not lead to another folder.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_plain = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'))
        && !(cfg!(windows) && (name.contains([':', '<', '>', '"', '|', '?', '*']) || name.ends_with(['.', ' '])))
        // Would be mistaken for the unfinished part of another object.
        && !name.ends_with(".part")
        && !name.ends_with(".part.json");
    if is_plain {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(100).collect();
    Err(Error::new(Kind::Data, "The service returned a name that is not a plain file name").with_field("file", shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(url: &str) -> Result<String> {
        file_name(&Url::parse(url).unwrap())
    }

    #[test]
    fn the_name_is_the_last_segment_of_the_path() {
        assert_eq!(name_of("https://h/a/b/part-0.jsonl.gz?X=/y/z").unwrap(), "part-0.jsonl.gz");
        assert_eq!(name_of("https://h/part%20one%C3%A9.csv.gz#f/x").unwrap(), "part oneé.csv.gz");
    }

    #[test]
    fn names_that_lead_to_another_folder_are_refused() {
        for url in [
            "https://h/",
            "https://h/a/",
            "https://h/..%2f..%2fetc%2fpasswd",
            "https://h/a/%2e%2e",
            "https://h/%2fetc%2fpasswd",
            "https://h/a%5cb",
            "https://h/a%00b",
            "https://h/a%0ab",
            "https://h/%ff",
            "https://h/x.part",
            "https://h/x.part.json",
        ] {
            assert_eq!(name_of(url).unwrap_err().kind(), Kind::Data, "{url}");
        }
        assert!(name_of(&format!("https://h/{}", "a".repeat(300))).is_err());
    }
}
