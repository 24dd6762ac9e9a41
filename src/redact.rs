//! Values that cannot be printed in clear, by type. It does not decide what is secret: the caller wraps it. And text of others without
//! what a terminal acts on.

use std::borrow::Cow;
use std::fmt;

use url::Url;

/// `text` with control characters, line ends among them, and characters that change the direction of text written as `\u001b`. Names and
/// messages of the service may hold them. The form is that of JSON.
pub fn visible(text: &str) -> Cow<'_, str> {
    visible_but(text, &[])
}

/// As [`visible`], of text of several lines: line ends and tabs stay.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    visible_but(text, &['\n', '\t'])
}

/// As [`visible`], without changing the characters in `kept`.
pub fn visible_but<'t>(text: &'t str, kept: &[char]) -> Cow<'t, str> {
    let acts = |letter: char| {
        let turns = matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        (letter.is_control() || turns) && !kept.contains(&letter)
    };
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match acts(letter) {
            // All of them have four digits at most.
            true => shown.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// A secret such as a client secret or a bearer token. `Debug` and `Display` print asterisks.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The clear text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether nothing is inside.
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

/// A URL that prints without password, query string and fragment: pre-signed URLs carry credentials in the query,
/// connection strings in the user information.
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl(Url);

impl SafeUrl {
    /// Wraps `url`.
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole URL, for the one place that uses it.
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
        // Fails only for URLs that cannot have a password, and this one has. An encoded colon in the user is a slip of the pen.
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
    fn what_a_terminal_acts_on_is_made_visible() {
        assert_eq!(visible("plain \u{e4} \u{1f468}\u{200d}\u{1f373}"), "plain \u{e4} \u{1f468}\u{200d}\u{1f373}");
        assert_eq!(visible("a\u{1b}[31mb\r\nc\u{9b}2J"), "a\\u001b[31mb\\u000d\\u000ac\\u009b2J");
        assert_eq!(visible("x\u{202e}y\u{2066}z\u{feff}"), "x\\u202ey\\u2066z\\ufeff");
        assert_eq!(visible_lines("a\tb\nc\u{7f}"), "a\tb\nc\\u007f");
        // What is escaped already stays as it is.
        assert_eq!(visible(&visible("\u{1b}")), "\\u001b");
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn urls_print_without_credentials() {
        let url = SafeUrl::new(Url::parse("https://me:pw@host/a/b?X-Signature=abc#frag").unwrap());
        assert_eq!(format!("{url} {url:?}"), "https://me:***@host/a/b?*** https://me:***@host/a/b?***");
        assert_eq!(SafeUrl::new(Url::parse("mysql://me%3Apw@host/db").unwrap()).to_string(), "mysql://me:***@host/db");
    }
}
