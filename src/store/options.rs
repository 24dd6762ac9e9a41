//! Settings of object stores: what was told by flag, what the environment says, and which of the two counts. It reads neither:
//! both are handed in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};

use crate::error::{Error, Kind, Result};
use crate::redact::Secret;

/// Names that are not told by flag, because arguments can be seen by other users of the machine.
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
    told: BTreeMap<String, String>,
    variables: BTreeMap<String, Secret>,
    /// Extra root certificates (PEM).
    pub ca_bundle: Option<PathBuf>,
    /// The user's home, where `.aws` is.
    pub home: Option<PathBuf>,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<&String> = self.variables.keys().collect();
        let told: Vec<&String> = self.told.keys().collect();
        f.debug_struct("StoreOptions").field("told", &told).field("variables", &variables).finish_non_exhaustive()
    }
}

impl StoreOptions {
    /// Whether an object store may be interested in an environment variable.
    pub fn wants_variable(name: &str) -> bool {
        ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix)) || name == "IDENTITY_ENDPOINT"
    }

    /// Takes the variables of the environment that some store wants; empty ones count as unset.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let wanted = variables.into_iter().filter(|(name, value)| Self::wants_variable(name) && !value.is_empty());
        self.variables.extend(wanted.map(|(name, value)| (name, Secret::new(value))));
        self
    }

    /// Takes an option as `name=value`, which counts more than the environment. Kind `Usage` if it cannot be one; unknown names are
    /// refused when a store is opened.
    pub fn tell(mut self, option: &str) -> Result<Self> {
        let Some((name, value)) = option.split_once('=') else {
            return Err(Error::new(Kind::Usage, "An option of the object store has no value")
                .hint("write it as --store-option region=eu-central-1"));
        };
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        let bare = ["aws_", "azure_", "google_"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
        if SECRETS.contains(&bare) {
            return Err(Error::new(
                Kind::Usage,
                "Credentials are not given as an option, where other users of the machine see them",
            )
            .with_field("option", bare)
            .hint("use the environment (AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_ACCOUNT_KEY, ...), a profile or a role"));
        }
        self.told.insert(bare.to_owned(), value.to_owned());
        Ok(self)
    }

    /// A told option.
    pub(super) fn told(&self, name: &str) -> Option<&str> {
        self.told.get(name).map(String::as_str)
    }

    /// All told options but those named, which the caller knows itself.
    pub(super) fn told_but(&self, known: &'static [&'static str]) -> impl Iterator<Item = (&str, &str)> {
        let common = |name: &str| ["allow_http", "max_retries", "retry_timeout"].contains(&name);
        let others = self.told.iter().filter(move |(name, _)| !known.contains(&name.as_str()) && !common(name));
        others.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(Secret::reveal)
    }

    /// All variables whose names begin so.
    pub(super) fn variables(&self, prefix: &'static str) -> impl Iterator<Item = (&str, &str)> {
        let ours = self.variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        ours.map(|(name, value)| (name.as_str(), value.reveal()))
    }

    /// Whether clear text is allowed.
    pub(super) fn allow_http(&self, variable: &str) -> bool {
        self.told("allow_http").or(self.variable(variable)).is_some_and(|value| ["true", "1", "yes"].contains(&value))
    }

    /// How long `object_store` goes on after passing faults.
    pub(super) fn retry(&self) -> Result<RetryConfig> {
        let number = |name: &str, usual: u64| match self.told(name) {
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

/// An option that no store of this kind knows.
pub(super) fn unknown(name: &str, known: &str) -> Error {
    Error::new(Kind::Usage, "The object store has no such option").with_field("option", name).hint(format!("it has {known}"))
}
