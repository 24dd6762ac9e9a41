//! Objects that several commands need: the client, the target and its sink, engines, rules for tables. Runs no command.

#[cfg(feature = "lake")]
use std::path::PathBuf;
#[cfg(feature = "lake")]
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
#[cfg(feature = "sql")]
use crate::cli::args::database::DatabaseArgs;
use crate::cli::args::global::GlobalArgs;
#[cfg(feature = "lake")]
use crate::cli::args::lake::{CatalogArgs, LakeArgs};
#[cfg(feature = "lake")]
use crate::cli::args::selection::{HashKeyArgs, TableArgs};
#[cfg(feature = "lake")]
use crate::cli::args::target::{EngineArgs, TargetArgs};
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
use crate::ops::{self, Catalog, CatalogOptions, LEAVE_OUT_HINT, Target};
#[cfg(feature = "lake")]
use crate::redact::Secret;
#[cfg(feature = "lake")]
use crate::schema::{HashKey, TableOptions, TableRules};
#[cfg(feature = "lake")]
use crate::sink::Sink;
#[cfg(feature = "lake")]
use crate::sink::delta::{ChangeDataFeed, DeltaOptions, IcebergView};
#[cfg(feature = "sql")]
use crate::sink::sql::SqlOptions;
#[cfg(feature = "lake")]
use crate::store::StoreOptions;

/// The client of the global options. Makes no call.
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
            .hint("set --base-url or DAP_API_URL to a URL such as https://api-gateway.instructure.com")
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(Error::new(
            Kind::Usage,
            "The address of the service does not start with https:// (or http:// for a local server)",
        ));
    }
    Ok(url)
}

pub(in crate::cli) fn credentials(global: &GlobalArgs) -> Result<Credentials> {
    let missing = |what: &'static str, flag: &'static str, variable: &'static str| {
        Error::new(Kind::Usage, format!("No {what} was given"))
            .hint(format!("set {variable} or {flag}; `daplake demo` works without an account"))
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

/// The target of the options, with the options of its object store and the format of its tables.
#[cfg(feature = "lake")]
pub(in crate::cli) async fn target(global: &GlobalArgs, args: &TargetArgs) -> Result<Target> {
    let text = args.target.as_deref().ok_or_else(|| {
        Error::new(Kind::Usage, "No target was given").hint("give --target, or name it in a settings file (see `daplake init`)")
    })?;
    let target = database(text)?;
    let options = store_options(global, &args.store_option)?;
    target.with_store_options(options).recognised(args.format).await
}

/// The options of object stores: those of the command line, and the variables of the environment.
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

/// The key of hashed columns: from the file of the option, else from the variable. It is not accepted as an argument, which other users
/// of the machine can see.
#[cfg(feature = "lake")]
pub(in crate::cli) fn hash_key(args: &HashKeyArgs) -> Result<Option<HashKey>> {
    let secret = match &args.hash_key_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text
                .context(Kind::Usage, format!("The file with the key of hashed columns cannot be read: {}", path.display()))?;
            Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
        }
        None => variable("DAPLAKE_HASH_KEY").map(Secret::new),
    };
    secret.as_ref().map(HashKey::new).transpose()
}

/// Checks the variable with which the official client enables its usage tracking. It has no effect, but an invalid value is an error, as
/// in the official client.
pub(in crate::cli) fn check_tracking(global: &GlobalArgs) -> Result<()> {
    if global.no_tracking {
        return Ok(());
    }
    let Some(value) = variable("DAP_TRACKING") else { return Ok(()) };
    if ["false", "0", "no", "off", "true", "1", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, "The variable DAP_TRACKING must be true or false").hint("unset it: daplake never tracks usage"))
}

/// The target of an address, completed by the home folder and the variables of the database.
#[cfg(feature = "lake")]
pub(in crate::cli) fn database(text: &str) -> Result<Target> {
    at_home(text)?.parse::<Target>()?.completed(&variable)
}

/// Identifies the account in the names of journals.
pub(in crate::cli) fn account(global: &GlobalArgs) -> String {
    format!("{} {}", global.base_url.trim_end_matches('/'), global.client_id.as_deref().unwrap_or_default())
}

/// The limits of calls per minute.
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

/// Default memory limit of loads into databases. They buffer only rows in transit, and change sets that may contain a key twice or are
/// sorted by key. A run then stays below 128 MiB.
#[cfg(feature = "sql")]
pub(in crate::cli) const DATABASE_MEMORY_LIMIT: u64 = 24 << 20;

/// The API key, from settings that are read again.
#[cfg(feature = "lake")]
pub(in crate::cli) fn credentials_again() -> Result<Credentials> {
    let resolved = resolve::resolve_again()?;
    let first = resolved.runs.into_iter().next();
    credentials(&first.ok_or_else(|| Error::new(Kind::Bug, "The command line has no run"))?.global)
}

/// The options of a database target.
#[cfg(feature = "sql")]
pub(in crate::cli) fn database_options(args: &DatabaseArgs) -> SqlOptions {
    SqlOptions {
        non_finite: args.non_finite,
        drop_removed_columns: args.drop_removed_columns,
        adopt: args.adopt.clone(),
        dependent_views: args.dependent_views,
        after_sql: args.after_sql.clone(),
    }
}

/// The sink of a target, with the options for its kind.
#[cfg(feature = "lake")]
pub(in crate::cli) fn open_sink(
    target: &Target,
    engine: &Engine,
    lake: &LakeArgs,
    #[cfg(feature = "sql")] database: &DatabaseArgs,
) -> Result<Arc<dyn Sink>> {
    match target {
        #[cfg(feature = "sql")]
        Target::Database(_) => {
            let vacuum = lake.vacuum_after.map(|_| "--vacuum-after");
            if let Some(option) = delta_features(lake).chain(vacuum).next() {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("{option} is for Delta tables, and the target is a database"),
                )
                .hint("leave the option out, or use a folder or an object store as --target"));
            }
            ops::open_sink_with(target, engine, database_options(database))
        }
        Target::Parquet(_) => {
            for option in delta_features(lake) {
                tracing::warn!("{option} is ignored: it is for Delta tables, and the target has plain Parquet folders");
            }
            Ok(ops::open_lake_with(target, delta_options(engine, lake))?.sink())
        }
        _ => Ok(ops::open_lake_with(target, delta_options(engine, lake))?.sink()),
    }
}

/// The chosen features of Delta tables that other targets do not have.
#[cfg(feature = "lake")]
fn delta_features(args: &LakeArgs) -> impl Iterator<Item = &'static str> {
    let feed = matches!(args.change_data_feed, Some(ChangeDataFeed::On)).then_some("--change-data-feed on");
    let view = matches!(args.iceberg, Some(IcebergView::On)).then_some("--iceberg on");
    feed.into_iter().chain(view)
}

/// Splits `table=value`; a value alone applies to all tables.
#[cfg(feature = "lake")]
fn table_and_value(rule: &str) -> (&str, &str) {
    rule.split_once('=').map_or(("all", rule), |(tables, value)| (tables.trim(), value.trim()))
}

/// The rules for single tables.
#[cfg(feature = "lake")]
pub(in crate::cli) fn table_rules(args: &TableArgs, #[cfg(feature = "sql")] database: &DatabaseArgs) -> Result<TableRules> {
    let mut rules = TableRules::default();
    // So that their tables are checked like those of other options.
    #[cfg(feature = "sql")]
    for (tables, _) in &database.after_sql {
        rules.add(tables.clone(), TableOptions::default());
    }
    for rule in &args.deletes {
        let (tables, value) = table_and_value(rule);
        rules.add(tables, TableOptions { deletes: Some(value.parse()?), ..TableOptions::default() });
    }
    for rule in &args.mode {
        let (tables, value) = table_and_value(rule);
        rules.add(tables, TableOptions { mode: Some(value.parse()?), ..TableOptions::default() });
    }
    for rule in &args.partition_by {
        let (tables, by) = rule.split_once('=').ok_or_else(|| {
            Error::new(Kind::Usage, "--partition-by does not name a table")
                .hint("write it as 'submissions=month(submitted_at)'")
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

/// The engine for loads into a target.
#[cfg(feature = "lake")]
pub(in crate::cli) fn engine_for(target: &Target, args: &EngineArgs) -> Result<Engine> {
    match target {
        #[cfg(feature = "sql")]
        Target::Database(_) => database_engine(args),
        _ => engine(args),
    }
}

/// The engine for loads into databases, which need little memory.
#[cfg(feature = "sql")]
pub(in crate::cli) fn database_engine(args: &EngineArgs) -> Result<Engine> {
    engine_of(args, args.memory_limit.unwrap_or(DATABASE_MEMORY_LIMIT), cores())
}

/// The engine of the options, with a partition per core.
#[cfg(feature = "lake")]
pub(in crate::cli) fn engine(args: &EngineArgs) -> Result<Engine> {
    engine_of_parts(args, cores())
}

/// An engine with this number of partitions.
#[cfg(feature = "lake")]
pub(in crate::cli) fn engine_of_parts(args: &EngineArgs, partitions: usize) -> Result<Engine> {
    engine_of(args, args.memory_limit.unwrap_or_else(memory::default_limit), partitions)
}

#[cfg(feature = "lake")]
fn engine_of(args: &EngineArgs, limit: u64, partitions: usize) -> Result<Engine> {
    let memory_limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Engine::new(EngineOptions { memory_limit, temp_dir: args.temp_dir.clone(), partitions })
}

/// The cores that this process can use.
#[cfg(feature = "lake")]
pub(in crate::cli) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// The folder for temporary files.
#[cfg(feature = "lake")]
pub(in crate::cli) fn temp_dir(args: &EngineArgs) -> PathBuf {
    args.temp_dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// The options of lake tables.
#[cfg(feature = "lake")]
pub(in crate::cli) fn delta_options(engine: &Engine, args: &LakeArgs) -> DeltaOptions {
    DeltaOptions {
        deletion_vectors: args.deletion_vectors,
        change_data_feed: args.change_data_feed.unwrap_or_default(),
        iceberg: args.iceberg.unwrap_or_default(),
        on_foreign_changes: args.foreign_changes,
        compact_after: args.compact_after,
        vacuum_after: args.vacuum_after,
        ..DeltaOptions::new(engine.clone())
    }
}

/// The catalog of the tables of a target. Does not connect.
#[cfg(feature = "lake")]
pub(in crate::cli) fn catalog(args: &CatalogArgs, target: &Target) -> Result<Option<Catalog>> {
    let Some(kind) = args.catalog else { return Ok(None) };
    let place = match target {
        Target::Parquet(inner) => inner.as_ref(),
        other => other,
    };
    let Target::Store(url, store) = place else {
        return Err(Error::new(Kind::Unsupported, "A catalog can list tables in an object store only").hint(LEAVE_OUT_HINT));
    };
    let options = CatalogOptions {
        kind,
        database: args.catalog_database.parse()?,
        table: args.catalog_table.parse()?,
        options: args.catalog_option.clone(),
    };
    Catalog::open(&options, url.reveal(), store).map(Some)
}

/// An engine with default options.
#[cfg(feature = "lake")]
pub(in crate::cli) fn default_engine() -> Result<Engine> {
    engine(&EngineArgs::default())
}
