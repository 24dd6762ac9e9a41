//! From words to typed values: the only reader of arguments and environment. Precedence: flag, environment, default.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::args::GlobalArgs;
use crate::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
#[cfg(feature = "lake")]
use crate::error::ResultExt;
use crate::error::{Error, Kind, Result};
#[cfg(feature = "lake")]
use crate::ops::Target;
#[cfg(feature = "lake")]
use crate::redact::Secret;
#[cfg(feature = "lake")]
use crate::schema::HashKey;
#[cfg(feature = "lake")]
use crate::store::StoreOptions;

/// The client that the global options describe. No network yet.
pub(super) fn client(global: &GlobalArgs, pacing: Pacing) -> Result<Client> {
    Client::new(client_options(global, pacing)?)
}

fn client_options(global: &GlobalArgs, pacing: Pacing) -> Result<ClientOptions> {
    let base_url = base_url(&global.base_url)?;
    Ok(ClientOptions {
        base_url,
        credentials: credentials(global)?,
        pacing,
        retry: RetryPolicy::default(),
        ca_bundle: global.ca_bundle.clone(),
        poll: (Duration::from_millis(300), Duration::from_secs(10)),
        idle_timeout: Duration::from_secs(60),
    })
}

fn base_url(text: &str) -> Result<Url> {
    let trimmed = text.trim_end_matches('/');
    let url = Url::parse(trimmed).map_err(|error| {
        Error::new(Kind::Usage, "The address of the service is not a URL")
            .caused_by(error)
            .hint("set --base-url or DAP_API_URL to something like https://api-gateway.instructure.com")
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(Error::new(
            Kind::Usage,
            "The address of the service must begin with https:// (or http:// for a local server)",
        ));
    }
    Ok(url)
}

fn credentials(global: &GlobalArgs) -> Result<Credentials> {
    let missing = |what: &'static str, flag: &'static str, variable: &'static str| {
        Error::new(Kind::Usage, format!("No {what} was given"))
            .hint(format!("set {variable} (or {flag}); try `daplake demo` to see everything work without an account"))
            .of_kind(Kind::Auth)
    };
    let client_id = global
        .client_id
        .clone()
        .filter(|id| !id.is_empty())
        .ok_or_else(|| missing("client id", "--client-id", "DAP_CLIENT_ID"))?;
    let client_secret = global
        .client_secret
        .clone()
        .filter(|secret| !secret.is_empty())
        .ok_or_else(|| missing("client secret", "--client-secret", "DAP_CLIENT_SECRET"))?;
    Ok(Credentials { client_id, client_secret })
}

/// The target that was named, with all that an object store may want to know.
#[cfg(feature = "lake")]
pub(super) fn target(global: &GlobalArgs, args: &super::args::TargetArgs) -> Result<Target> {
    let target = database(&args.target)?;
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut options = StoreOptions::default().with_variables(variables);
    options.ca_bundle = global.ca_bundle.clone().or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from));
    options.home = std::env::home_dir();
    for option in &args.store_option {
        options = options.tell(option)?;
    }
    target.with_store_options(options).in_format(match args.format {
        super::args::LakeFormatArg::Delta => crate::ops::LakeFormat::Delta,
        super::args::LakeFormatArg::Parquet => crate::ops::LakeFormat::Parquet,
    })
}

/// The key for hashed columns: from the file that was named, else from the variable. It cannot be given as an argument, which
/// others on the machine could see.
#[cfg(feature = "lake")]
pub(super) fn hash_key(args: &super::args::HashKeyArgs) -> Result<Option<HashKey>> {
    let secret = match &args.hash_key_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text
                .or_fail(Kind::Usage, format!("The file with the key for hashed columns cannot be read: {}", path.display()))?;
            Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
        }
        None => variable("DAPLAKE_HASH_KEY").map(Secret::new),
    };
    secret.as_ref().map(HashKey::new).transpose()
}

/// The variable of the official client that switches its usage tracking off or on. It changes nothing here, but a wrong value is
/// refused as there.
pub(super) fn check_tracking(global: &GlobalArgs) -> Result<()> {
    if global.no_tracking {
        return Ok(());
    }
    let Some(value) = variable("DAP_TRACKING") else { return Ok(()) };
    match ["false", "0", "no", "off", "true", "1", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()) {
        true => Ok(()),
        false => Err(Error::new(Kind::Usage, "The variable DAP_TRACKING is neither true nor false")
            .hint("unset it: daplake tracks nothing in any case")),
    }
}

/// The place that a text names, with what the environment knows of a database's server.
#[cfg(feature = "lake")]
pub(super) fn database(text: &str) -> Result<Target> {
    text.parse::<Target>()?.completed(&variable)
}

/// A variable with something in it.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where runs note what they have reached: as told, or by the conventions of the system. `None`: there is no home.
pub(super) fn state_dir(told: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    told.or_else(|| {
        if cfg!(windows) {
            return Some(absolute("LOCALAPPDATA")?.join("daplake"));
        }
        let home = || std::env::home_dir().filter(|home| home.is_absolute());
        if cfg!(target_os = "macos") {
            return Some(home()?.join("Library/Application Support/daplake"));
        }
        Some(absolute("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")))?.join("daplake"))
    })
}

/// Keeps the journals of accounts apart.
pub(super) fn account(global: &GlobalArgs) -> String {
    format!("{} {}", global.base_url.trim_end_matches('/'), global.client_id.as_deref().unwrap_or_default())
}

/// Our pace, with the number of job starts per minute that was asked for.
pub(super) fn pacing(jobs_per_minute: u32) -> Pacing {
    Pacing { job_starts: jobs_per_minute, ..Pacing::default() }
}

#[cfg_attr(not(feature = "lake"), cfg_attr(not(test), expect(dead_code, reason = "only the engine of lakes takes sizes")))]
/// `512`, `64KiB`, `256MiB`, `2GiB`, and the decimal `kB`, `MB`, `GB`; a bare `K`, `M`, `G` is binary.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a size; write it as 256MiB or 2GB"))?;
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("unknown unit `{other}`; use KiB, MiB, GiB or kB, MB, GB")),
    };
    Ok((number * unit as f64) as u64)
}

/// `30s`, `10m`, `4h`, `250ms`, `1d`.
#[cfg_attr(not(feature = "demo"), expect(dead_code, reason = "only the demo server takes times so far"))]
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a time; write it as 30s, 10m or 4h"))?;
    let millis = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` has no unit; write it as 30s, 10m or 4h")),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

/// A quarter of the machine's memory, at least 256 MiB.
#[cfg(feature = "lake")]
pub(super) fn default_memory_limit() -> u64 {
    const LEAST: u64 = 256 << 20;
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    total.map_or(LEAST, |kib| (kib * 1024 / 4).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
        assert_eq!(parse_bytes("1.5G"), Ok(3 << 29));
        assert_eq!(parse_bytes("2GB"), Ok(2_000_000_000));
        assert!(parse_bytes("many").is_err());
        assert!(parse_bytes("1 parsec").is_err());
        assert_eq!(parse_duration("4h"), Ok(Duration::from_secs(4 * 3600)));
        assert!(parse_duration("4").is_err());
    }
}
