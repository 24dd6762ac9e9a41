//! `scheduler` and `executor`, and the options with which `sync` uses them.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use url::Url;

use crate::cli::args::headings::CLUSTER;
use crate::cli::args::target::EngineArgs;

/// The cluster of `sync`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ClusterArgs {
    /// Read and write tables of object stores on the cluster of this scheduler, such as df://scheduler:50050.
    ///
    /// Jobs, bookmarks and commits stay with this process.
    #[arg(long, env = "DAPLAKE_CLUSTER", value_name = "URL", hide_short_help = true, help_heading = CLUSTER)]
    pub(in crate::cli) cluster: Option<Url>,
    /// Maximum number of tasks per table; about twice the cores of all executors.
    #[arg(
        long,
        default_value_t = 16,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        hide_short_help = true,
        help_heading = CLUSTER
    )]
    pub(in crate::cli) cluster_parts: u32,
    /// Address on which executors ask this process for the URLs of objects.
    ///
    /// Default: the address from which it reaches the scheduler, and any free port.
    #[arg(long, env = "DAPLAKE_CLUSTER_LISTEN", value_name = "ADDRESS", hide_short_help = true, help_heading = CLUSTER)]
    pub(in crate::cli) cluster_listen: Option<SocketAddr>,
    /// Host name or address at which executors reach this process [default: that of --cluster-listen].
    #[arg(long, env = "DAPLAKE_CLUSTER_ADVERTISE", value_name = "HOST", hide_short_help = true, help_heading = CLUSTER)]
    pub(in crate::cli) cluster_advertise: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The scheduler distributes tasks and stores no secrets. Every client that reaches its port can run tasks on the executors: keep it in a private network.\n\nExample:\n  daplake scheduler --listen 0.0.0.0:50050 --advertise scheduler.internal"
)]
pub(in crate::cli) struct SchedulerArgs {
    /// Address for executors and drivers.
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "ADDRESS")]
    pub(in crate::cli) listen: SocketAddr,
    /// Host name or address at which they reach the scheduler [default: that of --listen].
    #[arg(long, value_name = "HOST")]
    pub(in crate::cli) advertise: Option<String>,
    /// Seconds without a heartbeat after which an executor counts as lost.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..))]
    pub(in crate::cli) executor_timeout: u64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "An executor needs the same version of daplake as the driver, its own credentials for the object store (AWS_*, AZURE_*, GOOGLE_*, profiles, roles), and none for the service. Keep its ports in a private network.\n\nExample:\n  daplake executor --scheduler scheduler.internal:50050 --listen 0.0.0.0 --advertise \"$(hostname -i)\" --cores 4 --memory-limit 4GiB"
)]
pub(in crate::cli) struct ExecutorArgs {
    /// Host and port of the scheduler.
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "HOST:PORT", value_parser = parse_scheduler)]
    pub(in crate::cli) scheduler: (String, u16),
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(in crate::cli) listen: IpAddr,
    /// Host name or address at which scheduler, driver and other executors reach it [default: that of --listen].
    #[arg(long, value_name = "HOST")]
    pub(in crate::cli) advertise: Option<String>,
    /// Port from which others fetch rows.
    #[arg(long, default_value_t = 50051, value_name = "PORT")]
    pub(in crate::cli) port: u16,
    /// Port for the scheduler.
    #[arg(long, default_value_t = 50052, value_name = "PORT")]
    pub(in crate::cli) control_port: u16,
    /// Number of tasks to run at the same time [default: the number of cores].
    #[arg(long, value_name = "N")]
    pub(in crate::cli) cores: Option<usize>,
    /// Option of the object store, as with `sync`; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) store_option: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
}

fn parse_scheduler(text: &str) -> Result<(String, u16), String> {
    let text = text.strip_prefix("df://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = text.rsplit_once(':').ok_or("write it as host:50050")?;
    let port = port.parse().map_err(|_| "the port is not a number".to_owned())?;
    if host.is_empty() { Err("write it as host:50050".to_owned()) } else { Ok((host.to_owned(), port)) }
}
