//! libpq's password file: lines of `host:port:database:user:password`.

use std::path::Path;

use crate::redact::Secret;

/// The password of the first line that matches `wanted`: host, port, database and user. `None` also if the file cannot be used.
pub(super) fn read(file: &Path, wanted: [&str; 4]) -> Option<Secret> {
    if is_open_to_others(file) {
        tracing::warn!(file = %file.display(), "Ignoring the password file, because other users can read it; run chmod 600 on it");
        return None;
    }
    find(&std::fs::read_to_string(file).ok()?, wanted)
}

#[cfg(unix)]
fn is_open_to_others(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_file: &Path) -> bool {
    false
}

fn find(text: &str, wanted: [&str; 4]) -> Option<Secret> {
    let fits = |line: &&str| !line.starts_with('#');
    text.lines().filter(fits).find_map(|line| {
        let mut parts = split(line).into_iter();
        let fits = wanted.iter().all(|wanted| parts.next().is_some_and(|part| part == "*" || unescaped(part) == *wanted));
        parts.next().filter(|_| fits).map(|password| Secret::new(unescaped(password)))
    })
}

/// Splits at colons that are not escaped by a backslash.
fn split(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (place, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => {
                parts.push(&line[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&line[start..]);
    parts
}

fn unescaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    let mut characters = part.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    text
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use super::read;

    #[test]
    fn the_first_matching_line_has_the_password() {
        let file = "# h:1:d:u:comment\nh:1:d:other:no\n\nshort:line\nh:*:d:u:a\\:b\\\\c\n*:*:*:*:last\n";
        let find = |wanted| super::find(file, wanted).map(|secret| secret.reveal().to_owned());
        assert_eq!(find(["h", "1", "d", "u"]).as_deref(), Some("a:b\\c"));
        assert_eq!(find(["x", "1", "d", "u"]).as_deref(), Some("last"));
        assert_eq!(super::find("h:1:d:u\n", ["h", "1", "d", "u"]), None);
        assert_eq!(super::find("\\*:1:d:u:pw\n", ["h", "1", "d", "u"]), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pass");
        std::fs::write(&file, "*:*:*:*:pw\n").unwrap();
        for (mode, found) in [(0o644, false), (0o600, true)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&file, ["h", "1", "d", "u"]).is_some(), found);
        }
    }
}
