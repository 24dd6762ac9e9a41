//! Values that cannot be printed in clear, by type. It does not decide what is secret: the caller wraps it.

use std::fmt;

use url::Url;

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
        if shown.password().is_some() {
            // Fails only for URLs that cannot have a password, and this one has.
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
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn urls_print_without_credentials() {
        let url = SafeUrl::new(Url::parse("https://me:pw@host/a/b?X-Signature=abc#frag").unwrap());
        assert_eq!(format!("{url} {url:?}"), "https://me:***@host/a/b?*** https://me:***@host/a/b?***");
    }
}
