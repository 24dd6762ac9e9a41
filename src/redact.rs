//! Types whose values are never printed in clear: [`Secret`] and [`SafeUrl`]. Also escapes the control characters in text from outside
//! before it reaches a terminal or a log.

use std::borrow::Cow;
use std::fmt;

use url::Url;

/// Escapes control characters, including line ends, and characters that change the direction of text. The form is that of JSON:
/// `\u001b`. Names and messages of the service may contain such characters.
pub fn visible(text: &str) -> Cow<'_, str> {
    visible_but(text, &[])
}

/// Like [`visible`], but keeps line ends and tabs.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    visible_but(text, &['\n', '\t'])
}

/// Like [`visible`], but keeps the characters in `kept`.
pub fn visible_but<'t>(text: &'t str, kept: &[char]) -> Cow<'t, str> {
    let is_escaped = |letter: char| {
        let changes_direction = matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        (letter.is_control() || changes_direction) && !kept.contains(&letter)
    };
    if !text.chars().any(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_escaped(letter) {
            // All of these are in the basic plane, so four digits suffice.
            shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// The first `characters` characters of a longer text, followed by `...`.
pub fn shortened(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => Cow::Owned(format!("{}...", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// A secret such as a client secret or a bearer token. `Debug` and `Display` print asterisks.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value in clear, for the place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL that is printed without password, query string and fragment. Pre-signed URLs carry credentials in the query, connection strings in
/// the user information.
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl(Url);

impl SafeUrl {
    /// Wraps `url`.
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole URL, for the place that uses it.
    pub fn reveal(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_fragment(None);
        let had_query = shown.query().is_some();
        shown.set_query(None);
        // An encoded colon in the user name is a common mistake for `user:password`. Setting a password cannot fail here: the URL has one.
        let user = shown.username().to_owned();
        if let Some((user, _)) = user.split_once("%3A").or_else(|| user.split_once("%3a")) {
            let _ = (shown.set_username(user), shown.set_password(Some("***")));
        } else if shown.password().is_some() {
            let _ = shown.set_password(Some("***"));
        }
        write!(f, "{shown}")?;
        if had_query { f.write_str("?***") } else { Ok(()) }
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(visible("plain \u{e4} \u{1f468}\u{200d}\u{1f373}"), "plain \u{e4} \u{1f468}\u{200d}\u{1f373}");
        assert_eq!(visible("a\u{1b}[31mb\r\nc\u{9b}2J"), "a\\u001b[31mb\\u000d\\u000ac\\u009b2J");
        assert_eq!(visible("x\u{202e}y\u{2066}z\u{feff}"), "x\\u202ey\\u2066z\\ufeff");
        assert_eq!(visible_lines("a\tb\nc\u{7f}"), "a\tb\nc\\u007f");
        // Escaping twice changes nothing.
        assert_eq!(visible(&visible("\u{1b}")), "\\u001b");
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn urls_are_printed_without_credentials() {
        let url = SafeUrl::new(Url::parse("https://me:pw@host/a/b?X-Signature=abc#frag").unwrap());
        assert_eq!(format!("{url} {url:?}"), "https://me:***@host/a/b?*** https://me:***@host/a/b?***");
        assert_eq!(SafeUrl::new(Url::parse("mysql://me%3Apw@host/db").unwrap()).to_string(), "mysql://me:***@host/db");
    }
}
