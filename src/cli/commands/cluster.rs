//! `scheduler` and `executor`, and the connection of `sync` to a cluster.

use std::sync::Arc;

use crate::cli::args::cluster::{ClusterArgs, ExecutorArgs, SchedulerArgs};
use crate::cli::args::global::GlobalArgs;
use crate::cli::commands::context;
use crate::cluster::{self, Cluster, ClusterOptions, ExecutorOptions, SchedulerOptions};
use crate::error::Result;
use crate::ops::ExecutorProvider;
use crate::sink::TaskResources;

/// Connects to the cluster of the options, if they name one.
pub(in crate::cli) async fn connect(args: &ClusterArgs) -> Result<Option<Arc<dyn ExecutorProvider>>> {
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
    tracing::info!(%listen, "Scheduler started");
    let options = SchedulerOptions { listen: *listen, advertise: advertise.clone(), executor_timeout: *executor_timeout };
    cluster::schedule(&options).await
}

pub(in crate::cli) async fn executor(global: &GlobalArgs, args: &ExecutorArgs) -> Result<()> {
    let cores = args.cores.unwrap_or_else(context::cores);
    let engine = context::engine_of_parts(&args.engine, cores)?;
    let store = context::store_options(global, &args.store_option)?;
    let options = ExecutorOptions {
        scheduler: args.scheduler.clone(),
        listen: args.listen,
        advertise: args.advertise.clone(),
        port: args.port,
        control_port: args.control_port,
        cores,
    };
    tracing::info!(scheduler = %format_args!("{}:{}", options.scheduler.0, options.scheduler.1), cores, "Executor started");
    cluster::execute(&options, TaskResources { engine, store }).await
}
