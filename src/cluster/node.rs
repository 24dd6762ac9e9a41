//! The processes of a cluster: Ballista's own scheduler and executor, with our steps in them.

use std::net::SocketAddr;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;

use super::codec::StepCodec;
use super::driver::MAX_MESSAGE_BYTES;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::Worker;

/// Seconds that an executor waits for its scheduler to be there.
const CONNECT_SECONDS: u16 = 120;
/// Seconds after which what a finished job left on disk goes.
const CLEAN_UP_SECONDS: u64 = 60;
/// What of its memory limit an executor gives to Ballista's own nodes, which hand rows from one to another.
const SHUFFLE_SHARE: usize = 4;

/// How a scheduler runs.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Name by which executors and drivers reach it.
    pub advertise: Option<String>,
    /// Seconds without a sign of life after which an executor counts as lost.
    pub executor_timeout: u64,
}

/// How an executor runs.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The scheduler: host and port.
    pub scheduler: (String, u16),
    /// Address that it listens at.
    pub listen: std::net::IpAddr,
    /// Name by which others reach it.
    pub advertise: Option<String>,
    /// Port from which rows are fetched.
    pub port: u16,
    /// Port for the scheduler.
    pub control_port: u16,
    /// Parts that it works on at once.
    pub cores: usize,
}

/// Runs a scheduler until it is stopped. It knows no secrets, and commits nothing. Kind `Usage` if it cannot listen.
pub async fn schedule(options: &SchedulerOptions) -> Result<()> {
    let config = SchedulerConfig {
        bind_host: options.listen.ip().to_string(),
        bind_port: options.listen.port(),
        external_host: options.advertise.clone().unwrap_or_else(|| options.listen.ip().to_string()),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        finished_job_data_clean_up_interval_seconds: CLEAN_UP_SECONDS,
        // What drivers fetch are names of files; so they need no way to the executors.
        enable_embedded_flight_proxy: true,
        executor_timeout_seconds: options.executor_timeout,
        no_executors_grace_period_seconds: options.executor_timeout,
        expire_dead_executor_interval_seconds: (options.executor_timeout / 3).clamp(1, 15),
        grpc_server_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MAX_MESSAGE_BYTES,
        grpc_client_max_message_size: MAX_MESSAGE_BYTES,
        override_physical_codec: Some(Arc::new(StepCodec::default())),
        ..SchedulerConfig::default()
    };
    let failed = "The scheduler cannot run";
    let cluster = BallistaCluster::new_from_config(&config).await.context(Kind::Usage, failed)?;
    let ended = start_server(cluster, options.listen, Arc::new(config)).await;
    ended.context(Kind::Usage, failed).with_field("listen", options.listen)
}

/// Runs an executor until it is stopped. Kind `Unavailable` if there is no scheduler, `Usage` if it cannot listen.
pub async fn execute(options: &ExecutorOptions, worker: Worker) -> Result<()> {
    let shuffle_memory = (worker.engine.memory_limit() / SHUFFLE_SHARE) as u64;
    let (scheduler_host, scheduler_port) = options.scheduler.clone();
    // Rows on their way from one step to the next are as private as those that spill, and go as surely.
    let work_dir = worker.engine.folder().join("work");
    let unusable = "The folder for temporary files cannot be used";
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
        override_physical_codec: Some(Arc::new(StepCodec::of_worker(worker))),
        ..ExecutorProcessConfig::default()
    };
    let scheduler = format!("{}:{}", options.scheduler.0, options.scheduler.1);
    let ended = start_executor_process(Arc::new(config)).await;
    ended.context(Kind::Unavailable, "The executor cannot run").with_field("scheduler", scheduler)
}
