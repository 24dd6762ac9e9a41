//! What several commands need: the client, the target and its sink, engines, rules for tables. It runs no command.

#[cfg(feature = "lake")]
use std::path::PathBuf;
#[cfg(feature = "lake")]
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
#[cfg(feature = "sql")]
use crate::cli::args::database::{DatabaseArgs, NonFiniteArg};
use crate::cli::args::global::GlobalArgs;
#[cfg(feature = "lake")]
use crate::cli::args::lake::{DeletionVectorsArg, ForeignChangesArg, LakeArgs, SwitchArg};
#[cfg(feature = "lake")]
use crate::cli::args::selection::{HashKeyArgs, TableArgs};
#[cfg(feature = "lake")]
use crate::cli::args::target::{EngineArgs, LakeFormatArg, TargetArgs};
#[cfg(feature = "lake")]
use crate::cli::settings::paths::at_home;
use crate::cli::settings::paths::variable;
#[cfg(feature = "lake")]
use crate::cli::settings::resolve;
#[cfg(feature = "lake")]
use crate::cli::values::memory;
use crate::cli::values::pacing::{Pace, PaceKind};
#[cfg(feature = "lake")]
use crate::engine::{Engine, EngineOptions};
#[cfg(feature = "lake")]
use crate::error::ResultExt;
use crate::error::{Error, Kind, Result};
#[cfg(feature = "lake")]
use crate::ops::{self, Target};
#[cfg(feature = "lake")]
use crate::redact::Secret;
#[cfg(feature = "lake")]
use crate::schema::{HashKey, TableOptions, TableRules};
#[cfg(feature = "lake")]
use crate::sink::Sink;
#[cfg(feature = "lake")]
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, DeltaOptions, OnForeignChanges};
#[cfg(feature = "sql")]
use crate::sink::sql::{NonFinite, SqlOptions};
#[cfg(feature = "lake")]
use crate::store::StoreOptions;

/// The client that the global options describe. No network yet.
pub(in crate::cli) fn client(global: &GlobalArgs, pacing: Pacing) -> Result<Client> {
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
            .with_kind(Kind::Auth)
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

/// The target that was named, with all that an object store may want to know, and in the form that its tables have.
#[cfg(feature = "lake")]
pub(in crate::cli) async fn target(global: &GlobalArgs, args: &TargetArgs) -> Result<Target> {
    let text = args.target.as_deref().ok_or_else(|| {
        Error::new(Kind::Usage, "No target was given")
            .hint("give --target, or write it in a settings file (see `daplake init`)")
    })?;
    let target = database(text)?;
    let options = store_options(global, &args.store_option)?;
    let wanted = args.format.map(|format| match format {
        LakeFormatArg::Delta => ops::LakeFormat::Delta,
        LakeFormatArg::Parquet => ops::LakeFormat::Parquet,
    });
    target.with_store_options(options).recognised(wanted).await
}

/// The way to object stores: what was told, and what the environment knows.
#[cfg(feature = "lake")]
pub(in crate::cli) fn store_options(global: &GlobalArgs, told: &[String]) -> Result<StoreOptions> {
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut options = StoreOptions::default().with_variables(variables);
    options.ca_bundle = global.ca_bundle.clone().or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from));
    options.home = std::env::home_dir();
    for option in told {
        options = options.with_option(option)?;
    }
    Ok(options)
}

/// The key for hashed columns: from the file that was named, else from the variable. It cannot be given as an argument, which
/// others on the machine could see.
#[cfg(feature = "lake")]
pub(in crate::cli) fn hash_key(args: &HashKeyArgs) -> Result<Option<HashKey>> {
    let secret = match &args.hash_key_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text
                .context(Kind::Usage, format!("The file with the key for hashed columns cannot be read: {}", path.display()))?;
            Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
        }
        None => variable("DAPLAKE_HASH_KEY").map(Secret::new),
    };
    secret.as_ref().map(HashKey::new).transpose()
}

/// The variable of the official client that switches its usage tracking off or on. It changes nothing here, but a wrong value is
/// refused as there.
pub(in crate::cli) fn check_tracking(global: &GlobalArgs) -> Result<()> {
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

/// The place that a text names, with what the environment knows of the home folder and of a database's server.
#[cfg(feature = "lake")]
pub(in crate::cli) fn database(text: &str) -> Result<Target> {
    at_home(text)?.parse::<Target>()?.completed(&variable)
}

/// Keeps the journals of accounts apart.
pub(in crate::cli) fn account(global: &GlobalArgs) -> String {
    format!("{} {}", global.base_url.trim_end_matches('/'), global.client_id.as_deref().unwrap_or_default())
}

/// Our pace, with the number of job starts per minute that was asked for.
pub(in crate::cli) fn pacing(global: &GlobalArgs, jobs_per_minute: u32) -> Pacing {
    let mut pacing = Pacing { job_starts: jobs_per_minute, ..Pacing::default() };
    for Pace { kind, per_minute } in &global.pacing {
        match kind {
            PaceKind::JobStatus => pacing.job_status = *per_minute,
            PaceKind::TableLists => pacing.table_lists = *per_minute,
            PaceKind::Schemas => pacing.schemas = *per_minute,
            PaceKind::ObjectUrls => pacing.object_urls = *per_minute,
        }
    }
    pacing
}

/// What a load into a database may hold by default: all that it keeps are rows on their way and, of sets that may hold a key
/// twice, what waits to be reduced. With it a run stays below 128 MiB.
#[cfg(feature = "sql")]
pub(in crate::cli) const DATABASE_MEMORY_LIMIT: u64 = 24 << 20;

/// The API key of the settings as they are now.
#[cfg(feature = "lake")]
pub(in crate::cli) fn credentials_again() -> Result<Credentials> {
    let resolved = resolve::resolve_again()?;
    let first = resolved.runs.into_iter().next();
    credentials(&first.ok_or_else(|| Error::new(Kind::Bug, "The command line was lost"))?.global)
}

/// The options of a database target.
#[cfg(feature = "sql")]
pub(in crate::cli) fn database_options(args: &DatabaseArgs) -> SqlOptions {
    SqlOptions {
        non_finite: match args.non_finite {
            NonFiniteArg::Fail => NonFinite::Fail,
            NonFiniteArg::Null => NonFinite::Null,
        },
        drop_removed_columns: args.drop_removed_columns,
        adopt: args.adopt.clone(),
    }
}

#[cfg(feature = "lake")]
/// The sink of a target, with the choices of its kind.
pub(in crate::cli) fn open_sink(
    target: &Target,
    engine: &Engine,
    lake: &LakeArgs,
    #[cfg(feature = "sql")] database: &DatabaseArgs,
) -> Result<Arc<dyn Sink>> {
    match target {
        #[cfg(feature = "sql")]
        Target::Database(_) => ops::open_sink_with(target, engine, database_options(database)),
        _ => ops::open_lake(target, delta_options(engine, lake)),
    }
}

#[cfg(feature = "lake")]
/// `table=word`, or a word for all tables.
fn of_tables(rule: &str) -> (&str, &str) {
    rule.split_once('=').map_or(("all", rule), |(tables, word)| (tables.trim(), word.trim()))
}

#[cfg(feature = "lake")]
/// What the options say of single tables.
pub(in crate::cli) fn table_rules(args: &TableArgs) -> Result<TableRules> {
    let mut rules = TableRules::default();
    for rule in &args.deletes {
        let (tables, word) = of_tables(rule);
        rules.add(tables, TableOptions { deletes: Some(word.parse()?), ..TableOptions::default() });
    }
    for rule in &args.mode {
        let (tables, word) = of_tables(rule);
        rules.add(tables, TableOptions { mode: Some(word.parse()?), ..TableOptions::default() });
    }
    for rule in &args.partition_by {
        let (tables, by) = rule.split_once('=').ok_or_else(|| {
            Error::new(Kind::Usage, "--partition-by names no table").hint("write it as 'submissions=month(submitted_at)'")
        })?;
        let partition_by = Some(by.trim().parse()?);
        rules.add(tables.trim(), TableOptions { partition_by, ..TableOptions::default() });
    }
    for rule in &args.column {
        rules.add_column(rule, |columns| &mut columns.keep)?;
    }
    for rule in &args.drop_column {
        rules.add_column(rule, |columns| &mut columns.drop)?;
    }
    for rule in &args.hash_column {
        rules.add_column(rule, |columns| &mut columns.hash)?;
    }
    if let Some(key) = hash_key(&args.key)? {
        rules.set_hash_key(key);
    }
    Ok(rules)
}

#[cfg(feature = "lake")]
#[cfg(feature = "lake")]
pub(in crate::cli) fn engine_for(target: &Target, args: &EngineArgs) -> Result<Engine> {
    match target {
        #[cfg(feature = "sql")]
        Target::Database(_) => database_engine(args),
        _ => engine(args),
    }
}

/// For loads into databases, which need little memory.
#[cfg(feature = "sql")]
pub(in crate::cli) fn database_engine(args: &EngineArgs) -> Result<Engine> {
    engine_of(args, args.memory_limit.unwrap_or(DATABASE_MEMORY_LIMIT), cores())
}

#[cfg(feature = "lake")]
pub(in crate::cli) fn engine(args: &EngineArgs) -> Result<Engine> {
    engine_of_parts(args, cores())
}

#[cfg(feature = "lake")]
/// For so many parts at once.
pub(in crate::cli) fn engine_of_parts(args: &EngineArgs, partitions: usize) -> Result<Engine> {
    engine_of(args, args.memory_limit.unwrap_or_else(memory::default_limit), partitions)
}

#[cfg(feature = "lake")]
fn engine_of(args: &EngineArgs, limit: u64, partitions: usize) -> Result<Engine> {
    let memory_limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Engine::new(EngineOptions { memory_limit, temp_dir: args.temp_dir.clone(), partitions })
}

#[cfg(feature = "lake")]
pub(in crate::cli) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(feature = "lake")]
pub(in crate::cli) fn temp_dir(args: &EngineArgs) -> PathBuf {
    args.temp_dir.clone().unwrap_or_else(std::env::temp_dir)
}

#[cfg(feature = "lake")]
/// How lake tables are written, as the options say.
pub(in crate::cli) fn delta_options(engine: &Engine, args: &LakeArgs) -> DeltaOptions {
    DeltaOptions {
        deletion_vectors: match args.deletion_vectors {
            DeletionVectorsArg::Auto => DeletionVectors::Auto,
            DeletionVectorsArg::On => DeletionVectors::On,
            DeletionVectorsArg::Off => DeletionVectors::Off,
        },
        change_data_feed: match args.change_data_feed {
            None => ChangeDataFeed::Unchanged,
            Some(SwitchArg::On) => ChangeDataFeed::On,
            Some(SwitchArg::Off) => ChangeDataFeed::Off,
        },
        on_foreign_changes: match args.foreign_changes {
            ForeignChangesArg::Fail => OnForeignChanges::Fail,
            ForeignChangesArg::Warn => OnForeignChanges::Warn,
        },
        compact_after: args.compact_after,
        ..DeltaOptions::new(engine.clone())
    }
}

#[cfg(feature = "lake")]
pub(in crate::cli) fn small_engine() -> Result<Engine> {
    engine(&EngineArgs { memory_limit: None, temp_dir: None })
}
