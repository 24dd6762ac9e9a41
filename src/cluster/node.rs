//! The processes of a cluster: the scheduler and executor of Ballista with the plan nodes of this program.

use std::net::SocketAddr;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;

use super::codec::TaskCodec;
use super::driver::MAX_MESSAGE_BYTES;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::TaskResources;

/// Seconds that an executor waits for its scheduler.
const CONNECT_SECONDS: u16 = 120;
/// Seconds after which the files of a finished job are removed.
const CLEAN_UP_SECONDS: u64 = 60;
/// The part of an executor's memory limit for the shuffles of Ballista, as a divisor.
const SHUFFLE_SHARE: usize = 4;

/// Options of a scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Address to listen at.
    pub listen: SocketAddr,
    /// Host name for executors and drivers.
    pub advertise: Option<String>,
    /// Seconds without a heartbeat after which an executor counts as lost.
    pub executor_timeout: u64,
}

/// Options of an executor.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// Host and port of the scheduler.
    pub scheduler: (String, u16),
    /// Address to listen at.
    pub listen: std::net::IpAddr,
    /// Host name for other nodes.
    pub advertise: Option<String>,
    /// Port for shuffles.
    pub port: u16,
    /// Port for the scheduler's calls.
    pub control_port: u16,
    /// Tasks that run at the same time.
    pub cores: usize,
}

/// Runs a scheduler until it is stopped. It has no secrets and commits nothing.
///
/// # Errors
/// Kind `Usage` if it cannot listen.
pub async fn schedule(options: &SchedulerOptions) -> Result<()> {
    let config = SchedulerConfig {
        bind_host: options.listen.ip().to_string(),
        bind_port: options.listen.port(),
        external_host: options.advertise.clone().unwrap_or_else(|| options.listen.ip().to_string()),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        finished_job_data_clean_up_interval_seconds: CLEAN_UP_SECONDS,
        // Results are small, so drivers fetch them through the scheduler.
        enable_embedded_flight_proxy: true,
        executor_timeout_seconds: options.executor_timeout,
        no_executors_grace_period_seconds: options.executor_timeout,
        expire_dead_executor_interval_seconds: (options.executor_timeout / 3).clamp(1, 15),
        grpc_server_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MAX_MESSAGE_BYTES,
        grpc_client_max_message_size: MAX_MESSAGE_BYTES,
        override_physical_codec: Some(Arc::new(TaskCodec::default())),
        ..SchedulerConfig::default()
    };
    let failed = "The scheduler failed";
    let cluster = BallistaCluster::new_from_config(&config).await.context(Kind::Usage, failed)?;
    let ended = start_server(cluster, options.listen, Arc::new(config)).await;
    ended.context(Kind::Usage, failed).with_field("listen", options.listen)
}

/// Runs an executor until it is stopped.
///
/// # Errors
/// Kind `Unavailable` if the scheduler cannot be reached, `Usage` if the executor cannot listen.
pub async fn execute(options: &ExecutorOptions, resources: TaskResources) -> Result<()> {
    let shuffle_memory = (resources.engine.memory_limit() / SHUFFLE_SHARE) as u64;
    let (scheduler_host, scheduler_port) = options.scheduler.clone();
    // Shuffle files are as private as spill files, and removed with them.
    let work_dir = resources.engine.folder().join("work");
    let unusable = "Cannot use the folder for temporary files";
    std::fs::create_dir_all(&work_dir).context(Kind::Io, unusable).with_field("folder", work_dir.display())?;
    let work_dir =
        work_dir.to_str().ok_or_else(|| Error::new(Kind::Usage, unusable).with_field("folder", work_dir.display()))?;
    let config = ExecutorProcessConfig {
        bind_host: options.listen.to_string(),
        external_host: options.advertise.clone(),
        port: options.port,
        grpc_port: options.control_port,
        scheduler_host,
        scheduler_port,
        scheduler_connect_timeout_seconds: CONNECT_SECONDS,
        vcores: options.cores.max(1),
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(work_dir.to_owned()),
        job_data_ttl_seconds: 24 * 60 * 60,
        job_data_clean_up_interval_seconds: 60 * 60,
        grpc_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_max_encoding_message_size: MAX_MESSAGE_BYTES,
        memory_pool_size: Some(shuffle_memory),
        override_physical_codec: Some(Arc::new(TaskCodec::with_resources(resources))),
        ..ExecutorProcessConfig::default()
    };
    let scheduler = format!("{}:{}", options.scheduler.0, options.scheduler.1);
    let ended = start_executor_process(Arc::new(config)).await;
    ended.context(Kind::Unavailable, "The executor failed").with_field("scheduler", scheduler)
}
