//! `scheduler` and `executor`, and the options by which `sync` has its work done by them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use url::Url;

use crate::cli::args::{EngineArgs, GlobalArgs};
use crate::cli::commands::sync;
use crate::cli::settings::resolve;
use crate::cluster::{self, Cluster, ClusterOptions, ExecutorOptions, SchedulerOptions};
use crate::error::Result;
use crate::ops::Helpers;
use crate::sink::Worker;

const HEADING: &str = "Options for a cluster";

/// Who does the work.
#[derive(Debug, Args)]
pub(in crate::cli) struct ClusterArgs {
    /// Has tables of object stores read and written by a cluster, whose scheduler (`daplake scheduler`) is there, such as
    /// df://scheduler:50050. Jobs, bookmarks and commits stay with this process.
    #[arg(long, env = "DAPLAKE_CLUSTER", value_name = "URL", help_heading = HEADING)]
    cluster: Option<Url>,
    /// Into how many parts the work of a table is cut at most; about twice the cores of all executors.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = HEADING)]
    cluster_parts: u32,
    /// Where executors ask this process for addresses of objects [default: the address by which it reaches the scheduler, any free
    /// port].
    #[arg(long, env = "DAPLAKE_CLUSTER_LISTEN", value_name = "ADDRESS", help_heading = HEADING)]
    cluster_listen: Option<SocketAddr>,
    /// The name or address by which executors reach this process, if it is another one.
    #[arg(long, env = "DAPLAKE_CLUSTER_ADVERTISE", value_name = "HOST", help_heading = HEADING)]
    cluster_advertise: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It hands out work and holds no secrets. Whoever reaches its port can have work done on the executors: keep it in a private network.\n\nExample:\n  daplake scheduler --listen 0.0.0.0:50050 --advertise scheduler.internal"
)]
pub(in crate::cli) struct SchedulerArgs {
    /// Where executors and drivers reach it.
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The name or address by which they know it [default: that of --listen].
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Seconds without a sign of life after which an executor counts as lost.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..))]
    executor_timeout: u64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It needs the same version of daplake as the driver, its own credentials for the object store (AWS_*, AZURE_*, GOOGLE_*, profiles, roles), and none for the service. Keep its ports in a private network.\n\nExample:\n  daplake executor --scheduler scheduler.internal:50050 --listen 0.0.0.0 --advertise \"$(hostname -i)\" --cores 4 --memory-limit 4GiB"
)]
pub(in crate::cli) struct ExecutorArgs {
    /// Host and port of the scheduler.
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "HOST:PORT", value_parser = parse_scheduler)]
    scheduler: (String, u16),
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    listen: IpAddr,
    /// The name or address by which the scheduler, the driver and other executors reach it.
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Port from which others fetch rows.
    #[arg(long, default_value_t = 50051, value_name = "PORT")]
    port: u16,
    /// Port for the scheduler.
    #[arg(long, default_value_t = 50052, value_name = "PORT")]
    control_port: u16,
    /// Parts to work on at once [default: the cores of the machine].
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Option of the object store, as with `sync`; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    store_option: Vec<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

fn parse_scheduler(text: &str) -> Result<(String, u16), String> {
    let text = text.strip_prefix("df://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = text.rsplit_once(':').ok_or("write it as host:50050")?;
    let port = port.parse().map_err(|_| "the port is not a number".to_owned())?;
    if host.is_empty() { Err("write it as host:50050".to_owned()) } else { Ok((host.to_owned(), port)) }
}

/// The cluster of the options, if they name one.
pub(in crate::cli) async fn connect(args: &ClusterArgs) -> Result<Option<Arc<dyn Helpers>>> {
    let Some(scheduler) = &args.cluster else { return Ok(None) };
    let options = ClusterOptions {
        scheduler: scheduler.clone(),
        parts: args.cluster_parts as usize,
        listen: args.cluster_listen,
        advertise: args.cluster_advertise.clone(),
    };
    Ok(Some(Arc::new(Cluster::connect(&options).await?)))
}

pub(in crate::cli) async fn scheduler(args: &SchedulerArgs) -> Result<()> {
    let SchedulerArgs { listen, advertise, executor_timeout } = args;
    tracing::info!(%listen, "The scheduler begins");
    let options = SchedulerOptions { listen: *listen, advertise: advertise.clone(), executor_timeout: *executor_timeout };
    cluster::schedule(&options).await
}

pub(in crate::cli) async fn executor(global: &GlobalArgs, args: &ExecutorArgs) -> Result<()> {
    let cores = args.cores.unwrap_or_else(sync::cores);
    let engine = sync::engine_of_parts(&args.engine, cores)?;
    let store = resolve::store_options(global, &args.store_option)?;
    let options = ExecutorOptions {
        scheduler: args.scheduler.clone(),
        listen: args.listen,
        advertise: args.advertise.clone(),
        port: args.port,
        control_port: args.control_port,
        cores,
    };
    tracing::info!(scheduler = %format_args!("{}:{}", options.scheduler.0, options.scheduler.1), cores, "The executor begins");
    cluster::execute(&options, Worker { engine, store }).await
}
