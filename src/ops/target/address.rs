//! The address of a target as the user writes it: a folder, or a URL of a known kind.
//!
//! Other input may be a connection string of another program with a password anywhere in it. No part of rejected input is in an error, and
//! ambiguous input is rejected before a URL parser decides where the host begins.

use crate::error::{Error, Kind, Result};

/// A recognised address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'t> {
    /// A path of this machine, as it was written: absolute, relative, or starting with `~`.
    Folder(&'t str),
    /// A folder of this machine as a `file:` URL.
    File(&'t str),
    /// An object store.
    Store(&'t str),
    /// A database, even if this build does not support it.
    Database(&'t str),
}

const POSTGRESQL: &str = "postgresql://user:password@host:5432/database?ssl=require";
const MYSQL: &str = "mysql://user:password@host:3306/database?ssl=require";
const MSSQL: &str = "mssql://user:password@host:1433/database?ssl=verify-full";
const S3: &str = "s3://bucket/prefix";
const AZURE: &str = "az://container/prefix";
const GOOGLE: &str = "gs://bucket/prefix";
/// A folder of this system as a URL.
pub(super) const FILE: &str = if cfg!(windows) { "file:///C:/lake" } else { "file:///srv/lake" };

/// Known schemes with an example of each. Databases come first.
const SCHEMES: [(&str, &str); 14] = [
    ("postgresql", POSTGRESQL),
    ("postgres", POSTGRESQL),
    ("mysql", MYSQL),
    ("mariadb", MYSQL),
    ("mssql", MSSQL),
    ("sqlserver", MSSQL),
    ("s3", S3),
    ("s3a", S3),
    ("az", AZURE),
    ("azure", AZURE),
    ("abfs", AZURE),
    ("abfss", AZURE),
    ("gs", GOOGLE),
    ("file", FILE),
];
/// Number of databases in [`SCHEMES`].
const DATABASES: usize = 6;
/// Characters that occur in connection strings and rarely in paths.
const AMBIGUOUS: [char; 3] = ['=', '@', ';'];

const ENCODE: &str =
    "percent-encode these characters in user, password and database: %40 for @, %2F for /, %3A for :, %23 for #, %3F for ?";

fn is_database(form: &str) -> bool {
    SCHEMES[..DATABASES].iter().any(|(_, known)| *known == form)
}

fn form_of(scheme: &str) -> Option<&'static str> {
    SCHEMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(scheme)).map(|(_, form)| *form)
}

fn reject(message: &'static str) -> Error {
    Error::new(Kind::Usage, message)
}

fn neither() -> Error {
    reject("The target is neither a folder nor a URL").hint(format!(
        "write a database as {POSTGRESQL}, {MYSQL} or {MSSQL}; an object store as {S3}, {AZURE} or {GOOGLE}; start a folder with `:`, `=`, `@` or `;` in its name with ./ or /"
    ))
}

impl<'t> Address<'t> {
    /// Parses an address.
    ///
    /// # Errors
    /// Kind `Usage`; the error contains no part of `text`.
    pub fn parse(text: &'t str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(reject("The target is empty")
                .hint(format!("give a folder, such as ./lake, or a URL, such as {S3} or {POSTGRESQL}")));
        }
        if text.contains(char::is_control) {
            return Err(reject("The target contains a line break or another control character")
                .hint("check how the value was copied into its variable or file"));
        }
        if text.starts_with(['"', '\'']) {
            return Err(reject("The target starts with a quotation mark")
                .hint("remove the quotes: `docker --env-file` and other tools keep them as part of the value"));
        }
        if is_explicit_path(text) {
            return Self::path(text);
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Self::url(text, scheme, rest),
            None => Self::without_scheme(text),
        }
    }

    /// An address that starts like a path.
    fn path(text: &'t str) -> Result<Self> {
        // A URL without its scheme.
        if text.starts_with("//") && text.contains('@') {
            return Err(neither());
        }
        if text.starts_with('~') && text != "~" && !text.starts_with("~/") {
            return Err(reject("The target is in the home folder of another user").hint("write the absolute path"));
        }
        Ok(Self::Folder(text))
    }

    fn url(text: &'t str, scheme: &str, rest: &str) -> Result<Self> {
        let Some(form) = form_of(scheme) else { return Err(unknown_scheme(scheme)) };
        if form == FILE {
            return file_url(text, rest);
        }
        match is_database(form) {
            true => check_connection(rest).map_err(|error| error.hint(format!("write it as {form}; {ENCODE}")))?,
            false => check_store(rest).map_err(|error| {
                error.hint(format!(
                    "write it as {form}; set options with --store-option and credentials with environment variables"
                ))
            })?,
        }
        Ok(if is_database(form) { Self::Database(text) } else { Self::Store(text) })
    }

    /// An address without `://`.
    fn without_scheme(text: &'t str) -> Result<Self> {
        let end = text.find([':', '/', '\\']).unwrap_or(text.len());
        let (head, rest) = text.split_at(end);
        let known = form_of(head);
        if let Some(rest) = rest.strip_prefix(':') {
            let is_letter = head.len() == 1 && head.starts_with(|c: char| c.is_ascii_alphabetic());
            return match known {
                _ if cfg!(windows) && is_letter && !rest.contains(AMBIGUOUS) => Ok(Self::Folder(text)),
                Some(FILE) if rest.starts_with('/') => file_url(text, rest),
                Some(form) => {
                    Err(reject("The URL of the target needs `://` after its scheme").hint(format!("write it as {form}")))
                }
                None if is_letter && rest.starts_with(['/', '\\']) && !rest.contains(AMBIGUOUS) => {
                    Err(reject("The target is a Windows path, but this is another system")
                        .hint("write a path of this system, or start it with ./ if the name is correct"))
                }
                None => Err(unknown_scheme(head)),
            };
        }
        if let (Some(form), true) = (known, rest.starts_with("//")) {
            return Err(reject("The URL of the target needs `://` after its scheme").hint(format!("write it as {form}")));
        }
        if text.contains(AMBIGUOUS) || text.starts_with(char::is_whitespace) {
            return Err(neither());
        }
        Ok(Self::Folder(text))
    }

    /// Whether it is a database.
    pub fn is_database(&self) -> bool {
        matches!(self, Self::Database(_))
    }
}

/// Whether an address starts like a path.
fn is_explicit_path(text: &str) -> bool {
    let is_windows = || {
        let mut bytes = text.bytes();
        let drive = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic()) && bytes.next() == Some(b':');
        (drive && matches!(bytes.next(), Some(b'\\' | b'/')))
            || [".\\", "..\\", "\\"].iter().any(|start| text.starts_with(start))
    };
    ["/", "./", "../", "~"].iter().any(|start| text.starts_with(start))
        || matches!(text, "." | "..")
        || (cfg!(windows) && is_windows())
}

/// The error for an unknown scheme. The scheme is not part of it, because it may be a secret.
fn unknown_scheme(scheme: &str) -> Error {
    let scheme = scheme.to_ascii_lowercase();
    if let Some((base, _)) = scheme.split_once('+')
        && let Some(form) = form_of(base)
    {
        return reject("The scheme of the target contains the driver of another program")
            .hint(format!("remove `+` and the driver: {form}"));
    }
    if let Some(inner) = scheme.strip_prefix("jdbc") {
        let inner = form_of(inner.trim_start_matches(':'));
        return reject("The target is a JDBC URL").hint(match inner {
            Some(form) => format!("write it as {form}"),
            None => format!("write it as {POSTGRESQL}, {MYSQL} or {MSSQL}"),
        });
    }
    if matches!(scheme.as_str(), "http" | "https") {
        return reject("The target is the URL of a web page").hint(format!(
            "write an object store as {S3}, {AZURE} or {GOOGLE}; set your own endpoint with --store-option endpoint=https://host:9000"
        ));
    }
    let near = SCHEMES
        .iter()
        .map(|(known, form)| (strsim::levenshtein(&scheme, known), known, form))
        .min_by_key(|(distance, ..)| *distance);
    match near {
        Some((distance, known, form)) if distance <= 2 && distance < known.len() => {
            reject("The scheme of the target is unknown").hint(format!("did you mean `{known}`? Write it as {form}"))
        }
        _ => neither(),
    }
}

fn file_url<'t>(text: &'t str, rest: &str) -> Result<Address<'t>> {
    match rest.contains(['?', '#']) {
        true => {
            Err(reject("The file: URL contains `?` or `#`").hint("write the folder as a path, or encode ? as %3F and # as %23"))
        }
        false => Ok(Address::File(text)),
    }
}

/// Splits into authority and the rest.
fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// Rejects connection strings that parsers may split differently. `rest` is the part after `://`.
fn check_connection(rest: &str) -> Result<()> {
    let (authority, tail) = split_authority(rest);
    if tail.contains('@') {
        return Err(reject(
            "The connection string has an `@` after its first `/`, `?` or `#`, so it is not clear where its password ends",
        ));
    }
    if tail.contains('#') {
        return Err(reject("The connection string has a `#`, and the rest of it would be ignored"));
    }
    let path = tail.split('?').next().unwrap_or_default();
    if path.contains([';', '=', '&']) {
        return Err(reject("The connection string has `;`, `=` or `&` in place of `?` after the database"));
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '%' | ',' | ':');
    match host.starts_with('[') || host.chars().all(is_host) {
        true => Ok(()),
        false => Err(reject("The host of the connection string has invalid characters")),
    }
}

/// Rejects URLs of object stores that seem to contain credentials.
fn check_store(rest: &str) -> Result<()> {
    let (authority, tail) = split_authority(rest);
    match authority.contains(':') && (!authority.contains('@') || tail.contains('@')) {
        true => Err(reject("The URL of the object store has a `:` in its bucket, or contains credentials")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_urls_are_distinguished() {
        for folder in
            ["lake", "./a:b", "/a@b", "./user:p@host/db", "my lake", "ümlaut#1", "a%20b", "..", "../x/../y", "~/lake", "a/b:c"]
        {
            assert_eq!(Address::parse(folder).unwrap(), Address::Folder(folder));
        }
        for file in ["file:///srv/lake", "file:/srv/lake"] {
            assert_eq!(Address::parse(file).unwrap(), Address::File(file));
        }
        for store in ["s3://b/p", "S3://b", "abfss://c@account.dfs.core.windows.net/p", "gs://b/a@b"] {
            assert_eq!(Address::parse(store).unwrap(), Address::Store(store));
        }
        for database in [
            "postgresql://u:p@h/d",
            "postgresql://",
            "postgresql://u:p@/d?host=/run",
            "postgresql://%2Frun/d?user=u",
            "PostgreSQL://u@[::1]:5/d",
            "mysql://u:a@b:c@h:1/My%20DB?ssl=require",
        ] {
            assert!(Address::parse(database).unwrap().is_database(), "{database}");
        }
    }

    #[test]
    fn possible_secrets_are_rejected_and_not_repeated() {
        for (text, words) in [
            ("host=127.0.0.1 user=u password=SECRET dbname=d", "postgresql://"),
            ("u:SECRET@host/db", "postgresql://"),
            ("user:SECRET", "postgresql://"),
            ("postgresql:/u:SECRET@host/db", "postgresql://user"),
            ("postgresql:u:SECRET", "postgresql://user"),
            ("postgresql//u:SECRET@host/db", "postgresql://user"),
            ("mysql//host/SECRET", "mysql://user"),
            ("//u:SECRET@host/db", "postgresql://"),
            ("jdbc:postgresql://host/db?user=u&password=SECRET", "postgresql://user"),
            ("jdbc:sqlserver://host;user=u;password=SECRET", "mssql://user"),
            ("jdbc:oracle:thin:u/SECRET@host", "mysql://user"),
            ("Server=host;Database=d;User Id=u;Password=SECRET", "mssql://"),
            ("Server=tcp:host,1433;Password=SECRET", "mssql://"),
            ("u/SECRET@host", "postgresql://"),
            ("postgressql://u:SECRET@host/db", "`postgresql`"),
            ("postgresql+asyncpg://u:SECRET@host/db", "postgresql://user"),
            ("mysql+pymysql://u:SECRET@host/db", "mysql://user"),
            ("SECRET://host", "postgresql://"),
            ("'postgresql://u:SECRET@host/db'", "quotes"),
            ("postgresql://u:SECRET@host/db\n", "copied"),
            ("psql postgresql://u:SECRET@host/db", "postgresql://"),
            ("postgresql://u:ab@SECRET/xyz@host/db", "%2F"),
            ("mysql://u:ab@SECRET/xyz@host/db", "%40"),
            ("mssql://u:ab#SECRET@host/db", "%23"),
            ("mysql://u:p?SECRET@host/db", "%3F"),
            ("mysql://u:12/SECRET@host/db", "%2F"),
            ("postgresql://host/db?user=u&password=a#SECRET", "%23"),
            ("sqlserver://host;user=u;password=SECRET", "mssql://user"),
            ("mysql://host/db;password=SECRET", "mysql://user"),
            ("mysql://u@host/db&password=SECRET", "mysql://user"),
            ("s3://AKIA:SECRET/more@bucket/p", "s3://bucket"),
            ("s3:/SECRET", "s3://bucket"),
            ("s3:SECRET", "s3://bucket"),
            ("gs//SECRET", "gs://bucket"),
            ("https://u:SECRET@host/x", "endpoint="),
            ("file:SECRET", "file:///"),
            ("~SECRET/lake", "absolute path"),
        ] {
            let error = Address::parse(text).expect_err(text);
            assert_eq!(error.kind(), Kind::Usage);
            let said = format!("{error} {error:?} {}", error.hint_text().unwrap());
            assert!(said.contains(words) && !said.contains("SECRET"), "{text}: {said}");
        }
        #[cfg(not(windows))]
        assert!(Address::parse("C:\\lake").is_err() && Address::parse("./C:/lake").is_ok());
    }
}
