//! Options of object stores from `--store-option` and from environment variables. Options take precedence. Both are passed in by the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};

use crate::error::{Error, Kind, Result};
use crate::redact::Secret;

/// Options that are refused on the command line, where other users of the machine can see them.
const SECRETS: [&str; 18] = [
    "secret_access_key",
    "access_key_id",
    "session_token",
    "token",
    "account_key",
    "access_key",
    "master_key",
    "storage_account_key",
    "storage_access_key",
    "storage_master_key",
    "sas_key",
    "sas_token",
    "storage_sas_key",
    "storage_sas_token",
    "client_secret",
    "bearer_token",
    "service_account_key",
    "sse_customer_key_base64",
];

/// Options of object stores. `Debug` shows names and no values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreOptions {
    options: BTreeMap<String, String>,
    variables: BTreeMap<String, Secret>,
    /// Additional root certificates (PEM).
    pub ca_bundle: Option<PathBuf>,
    /// The user's home folder, which contains `.aws`.
    pub home: Option<PathBuf>,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<&String> = self.variables.keys().collect();
        let names: Vec<&String> = self.options.keys().collect();
        f.debug_struct("StoreOptions").field("options", &names).field("variables", &variables).finish_non_exhaustive()
    }
}

impl StoreOptions {
    /// Whether an environment variable is one that object stores may use.
    pub fn wants_variable(name: &str) -> bool {
        ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix)) || name == "IDENTITY_ENDPOINT"
    }

    /// Adds environment variables. Those that no store uses are ignored, and empty ones count as unset.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let wanted = variables.into_iter().filter(|(name, value)| Self::wants_variable(name) && !value.is_empty());
        self.variables.extend(wanted.map(|(name, value)| (name, Secret::new(value))));
        self
    }

    /// Adds an option in the form `name=value`, which takes precedence over the environment. Fails with kind `Usage` if it has no value or
    /// is a secret. Unknown names are rejected when a store is opened.
    pub fn with_option(mut self, option: &str) -> Result<Self> {
        let Some((name, value)) = option.split_once('=') else {
            return Err(Error::new(Kind::Usage, "An option of the object store has no value")
                .hint("write --store-option NAME=VALUE, such as region=eu-central-1"));
        };
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        let bare = ["aws_", "azure_", "google_"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
        if SECRETS.contains(&bare) {
            return Err(Error::new(
                Kind::Usage,
                "Credentials cannot be set as an option, since other users of the machine could see them",
            )
            .with_field("option", bare)
            .hint("use the environment (AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_ACCOUNT_KEY, ...), a profile or a role"));
        }
        self.options.insert(bare.to_owned(), value.to_owned());
        Ok(self)
    }

    /// The value of an option.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// All options except those in `known`, which the caller handles itself.
    pub(super) fn options_except(&self, known: &'static [&'static str]) -> impl Iterator<Item = (&str, &str)> {
        let common = |name: &str| ["allow_http", "max_retries", "retry_timeout"].contains(&name);
        let others = self.options.iter().filter(move |(name, _)| !known.contains(&name.as_str()) && !common(name));
        others.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of an environment variable.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(Secret::reveal)
    }

    /// All environment variables with this prefix.
    pub(super) fn variables(&self, prefix: &'static str) -> impl Iterator<Item = (&str, &str)> {
        let ours = self.variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        ours.map(|(name, value)| (name.as_str(), value.reveal()))
    }

    /// Whether plain HTTP is allowed.
    pub(super) fn allow_http(&self, variable: &str) -> bool {
        self.option("allow_http").or(self.variable(variable)).is_some_and(|value| ["true", "1", "yes"].contains(&value))
    }

    /// The retry settings of `object_store`.
    pub(super) fn retry(&self) -> Result<RetryConfig> {
        let number = |name: &str, usual: u64| match self.option(name) {
            Some(text) => text.trim_end_matches('s').parse().map_err(|_| {
                Error::new(Kind::Usage, "An option of the object store is not a number").with_field("option", name.to_owned())
            }),
            None => Ok(usual),
        };
        Ok(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: number("max_retries", 10)? as usize,
            retry_timeout: Duration::from_secs(number("retry_timeout", 180)?),
        })
    }
}

/// The error of an option that this kind of store does not have.
pub(super) fn unknown(name: &str, known: &str) -> Error {
    Error::new(Kind::Usage, "The object store has no such option")
        .with_field("option", name)
        .hint(format!("its options are {known}"))
}
