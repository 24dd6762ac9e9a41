//! The driver: sends plans to the scheduler and collects their results. It does not know the target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::StreamExt;
use tokio::net::{TcpStream, UdpSocket};
use url::Url;

use super::broker::{Broker, RegisteredLoad, http_address};
use super::codec::TaskCodec;
use super::failure::unpack;
use super::plan::{NodeTask, TaskExec};
use super::scan::{ScanSpec, share_schema};
use crate::api::{Client, FinishedJob};
use crate::decode::DecodeCounts;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::{ExecutorProvider, ScanExecutor};
use crate::progress;
use crate::scan::ScanOptions;
use crate::schema::ColumnChoice;
use crate::sink::{Executor, TaskChain, TaskInput, TaskOutput};

/// Default port of a scheduler.
const SCHEDULER_PORT: u16 = 50050;
/// Size limit of messages to and from a scheduler, bytes. Plans and results describe the files of a table.
pub(super) const MAX_MESSAGE_BYTES: u32 = 256 << 20;
/// Timeout of a connection to the scheduler.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a load waits for a scheduler that restarts.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of progress updates.
const TICK: Duration = Duration::from_millis(500);
/// Ticks without a report after which a warning is logged.
const QUIET_TICKS: u32 = 120;

/// Options of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The scheduler, `df://host:port`.
    pub scheduler: Url,
    /// Maximum number of parts of a load: about twice the cores of all executors.
    pub parts: usize,
    /// Address at which the driver listens for executors; `None`: the local address of its connection to the scheduler, and a free port.
    pub listen: Option<SocketAddr>,
    /// Host name of the driver for executors, if it differs.
    pub advertise: Option<String>,
}

/// A cluster that runs loads.
#[derive(Debug)]
pub struct Cluster {
    /// Host and port.
    scheduler: (String, u16),
    parts: usize,
    broker: Broker,
}

impl Cluster {
    /// Connects to the scheduler and starts to listen for executors.
    ///
    /// # Errors
    /// Kind `Usage` for an invalid URL, `Unavailable` if the scheduler cannot be reached.
    pub async fn connect(options: &ClusterOptions) -> Result<Self> {
        let url = &options.scheduler;
        let wrong = || Error::new(Kind::Usage, "The URL of the cluster is invalid").hint("write it as df://host:50050");
        let host = url.host_str().filter(|_| url.scheme() == "df").ok_or_else(wrong)?;
        let port = url.port().unwrap_or(SCHEDULER_PORT);
        let scheduler = (host.trim_matches(['[', ']']).to_owned(), port);
        let peer = reach(&scheduler, Duration::ZERO).await?;
        let listen = match options.listen {
            Some(listen) => listen,
            None => SocketAddr::new(own_address(peer).await.context(Kind::Io, "Cannot find the address of this machine")?, 0),
        };
        let broker = Broker::start(listen, options.advertise.as_deref()).await?;
        Ok(Self { scheduler, parts: options.parts.max(1), broker })
    }
}

/// Connects to the scheduler, for at most `timeout`, and returns its address. Kind `Unavailable` if it cannot be reached.
async fn reach((host, port): &(String, u16), timeout: Duration) -> Result<SocketAddr> {
    let begun = Instant::now();
    loop {
        let unreachable = "The cluster's scheduler cannot be reached";
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)));
        let connected = connecting.await.context(Kind::Unavailable, unreachable);
        let reached =
            connected.and_then(|stream| stream.and_then(|stream| stream.peer_addr()).context(Kind::Unavailable, unreachable));
        match reached {
            Ok(peer) => return Ok(peer),
            Err(_) if begun.elapsed() < timeout => tokio::time::sleep(TICK).await,
            Err(error) => {
                return Err(error
                    .with_field("scheduler", format_args!("{host}:{port}"))
                    .hint("check that `daplake scheduler` runs there and that the port is open"));
            }
        }
    }
}

/// The local address for connections to `peer`; nothing is sent.
async fn own_address(peer: SocketAddr) -> std::io::Result<std::net::IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(peer).await?;
    Ok(socket.local_addr()?.ip())
}

impl ExecutorProvider for Cluster {
    fn executor_for(
        &self,
        client: &Client,
        job: &FinishedJob,
        choice: &ColumnChoice,
        options: &ScanOptions,
    ) -> Option<Box<dyn ScanExecutor>> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let registered = self.broker.register(&name, client, &job.objects);
        let spec = ScanSpec::of(job, choice, options, registered.lease.clone())?;
        Some(Box::new(LoadExecutor { scheduler: self.scheduler.clone(), parts: self.parts, spec, registered }))
    }
}

/// The executors of the cluster, for one load.
#[derive(Debug)]
struct LoadExecutor {
    scheduler: (String, u16),
    parts: usize,
    spec: ScanSpec,
    registered: RegisteredLoad,
}

impl ScanExecutor for LoadExecutor {
    fn counts(&self) -> DecodeCounts {
        self.registered.counts()
    }

    fn finished(&self) -> Vec<usize> {
        self.registered.finished()
    }
}

#[async_trait]
impl Executor for LoadExecutor {
    fn parallelism(&self) -> usize {
        self.parts
    }

    async fn run(&self, chain: TaskChain) -> Result<TaskOutput> {
        let reads = matches!(chain.input, TaskInput::Changes);
        if reads {
            self.registered.restart();
        }
        // The scheduler may be restarting.
        reach(&self.scheduler, RECONNECT_TIMEOUT).await?;
        let plan = self.plan(chain)?;
        let config = SessionConfig::new_with_ballista()
            .with_ballista_job_name(&format!("daplake {}", self.spec.table()))
            // The plan must run as it is.
            .with_ballista_adaptive_query_planner(false)
            .with_ballista_grpc_client_max_message_size(MAX_MESSAGE_BYTES as usize);
        let session = uuid::Uuid::new_v4().to_string();
        let scheduler = http_address(&self.scheduler.0, self.scheduler.1);
        let settings = config.ballista_config();
        let codec = TaskCodec::default();
        let running = execute_physical_plan::<PhysicalPlanNode>(scheduler, &settings, plan, &codec, session, config);
        let failed = |error: DataFusionError| unpack(&error.to_string());
        let gathering = Box::pin(async {
            let mut batches = Vec::new();
            let mut stream = running.await.map_err(failed)?;
            while let Some(batch) = stream.next().await {
                batches.push(batch.map_err(failed)?);
            }
            Ok(batches)
        });
        let batches = self.watched(gathering, reads).await?;
        if !reads {
            return Ok(TaskOutput { batches, changes: 0 });
        }
        let (objects, changes) = self.registered.read();
        if objects != self.spec.object_count() as u64 {
            return Err(Error::new(Kind::Unavailable, "The cluster did not read all objects of the job")
                .with_field("objects", self.spec.object_count())
                .with_field("read", objects)
                .hint("an executor was probably lost; run the command again"));
        }
        Ok(TaskOutput { batches, changes })
    }
}

impl LoadExecutor {
    /// Parts of a scan: at most one per object, so that small jobs do not become many small files.
    fn parts_of_job(&self) -> usize {
        self.parts.min(self.spec.object_count()).max(1)
    }

    fn plan(&self, chain: TaskChain) -> Result<Arc<dyn ExecutionPlan>> {
        let unplanned = "Cannot plan the tasks";
        let memory = |parts: Vec<RecordBatch>, schema| {
            let parts: Vec<Vec<RecordBatch>> = parts.into_iter().map(|batch| vec![batch]).collect();
            MemorySourceConfig::try_new_exec(&parts, schema, None).context(Kind::Bug, unplanned)
        };
        let mut plan: Arc<dyn ExecutionPlan> = match chain.input {
            TaskInput::Changes => {
                let shares = memory(self.spec.shares(self.parts_of_job())?, share_schema())?;
                Arc::new(TaskExec::new(NodeTask::Scan(Box::new(self.spec.clone())), self.spec.schema()?, shares, None))
            }
            TaskInput::Batches(batches) => {
                let schema = batches.first().map(RecordBatch::schema);
                memory(batches, schema.ok_or_else(|| Error::new(Kind::Bug, "The tasks have no input"))?)?
            }
        };
        for task in chain.tasks {
            if !task.shuffle_by.is_empty() {
                let column = |name: &String| -> std::result::Result<Arc<dyn PhysicalExpr>, DataFusionError> {
                    Ok(Arc::new(Column::new_with_schema(name, &plan.schema())?))
                };
                let by =
                    task.shuffle_by.iter().map(column).collect::<std::result::Result<_, _>>().context(Kind::Bug, unplanned)?;
                let together = RepartitionExec::try_new(plan, Partitioning::Hash(by, self.parts_of_job()));
                plan = Arc::new(together.context(Kind::Bug, unplanned)?);
            }
            plan = Arc::new(TaskExec::new(NodeTask::Load(task.spec), task.output, plan, None));
        }
        Ok(plan)
    }

    /// Waits for the result and shows the progress that executors report.
    async fn watched<T>(&self, work: impl Future<Output = Result<T>>, reads: bool) -> Result<T> {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(TICK);
        let (mut shown_objects, mut shown_rows, mut quiet) = (0, 0, 0);
        loop {
            let done = tokio::select! {
                biased;
                done = &mut work => Some(done),
                _ = ticks.tick() => None,
            };
            if reads {
                let (objects, rows) = self.registered.read();
                (shown_objects..objects).for_each(|_| progress::part_done());
                progress::moved_rows(rows.saturating_sub(shown_rows));
                quiet = if objects > shown_objects { 0 } else { quiet + 1 };
                (shown_objects, shown_rows) = (objects.max(shown_objects), rows.max(shown_rows));
                if quiet == QUIET_TICKS && objects == 0 {
                    tracing::warn!(table = %self.spec.table(), "No executor has reported yet: check that executors run and can reach this machine");
                }
            }
            if let Some(done) = done {
                return done;
            }
        }
    }
}
