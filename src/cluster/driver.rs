//! The driver's side: hands plans to the scheduler and gathers what comes back. It knows no target.

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

use super::broker::{Broker, Registered, http_address};
use super::codec::StepCodec;
use super::failure::unpack;
use super::plan::{StepExec, Task};
use super::scan::{ScanOrder, share_schema};
use crate::api::{Client, FinishedJob};
use crate::decode::DecodeCounts;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::{Helpers, ScanWorkers};
use crate::progress;
use crate::scan::ScanOptions;
use crate::schema::ColumnChoice;
use crate::sink::{Done, Source, Work, Workers};

/// Port of a scheduler that says none.
const SCHEDULER_PORT: u16 = 50050;
/// Largest message to and from a scheduler: plans describe the files of a table, and what was done with them.
pub(super) const MAX_MESSAGE_BYTES: u32 = 256 << 20;
/// How long a scheduler may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long work waits for a scheduler that is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a run looks for what executors reported.
const TICK: Duration = Duration::from_millis(500);
/// After so many looks without any report, people are told that nothing happens.
const QUIET_TICKS: u32 = 120;

/// How a cluster is used.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The scheduler, `df://host:port`.
    pub scheduler: Url,
    /// Into how many parts the work of a table is cut at most: about twice the cores of all executors.
    pub parts: usize,
    /// Where the driver listens for its executors; `None`: at the address by which it reaches the scheduler, at any free port.
    pub listen: Option<SocketAddr>,
    /// Name or address by which executors reach the driver, if that is another one.
    pub advertise: Option<String>,
}

/// A cluster that does the work of loads.
#[derive(Debug)]
pub struct Cluster {
    /// Host and port.
    scheduler: (String, u16),
    parts: usize,
    broker: Broker,
}

impl Cluster {
    /// Sees that the scheduler can be reached, and begins to listen. Kind `Usage` for an address that cannot be one, `Unavailable`
    /// if nobody is there.
    pub async fn connect(options: &ClusterOptions) -> Result<Self> {
        let url = &options.scheduler;
        let wrong = || Error::new(Kind::Usage, "The cluster's address cannot be used").hint("write it as df://host:50050");
        let host = url.host_str().filter(|_| url.scheme() == "df").ok_or_else(wrong)?;
        let port = url.port().unwrap_or(SCHEDULER_PORT);
        let scheduler = (host.trim_matches(['[', ']']).to_owned(), port);
        let peer = reach(&scheduler, Duration::ZERO).await?;
        let listen = match options.listen {
            Some(listen) => listen,
            None => SocketAddr::new(own_address(peer).await.context(Kind::Io, "This machine's address is not known")?, 0),
        };
        let broker = Broker::start(listen, options.advertise.as_deref()).await?;
        Ok(Self { scheduler, parts: options.parts.max(1), broker })
    }
}

/// The scheduler's address. Kind `Unavailable` if nobody is there, for so long.
async fn reach((host, port): &(String, u16), patience: Duration) -> Result<SocketAddr> {
    let begun = Instant::now();
    loop {
        let unreachable = "The cluster's scheduler cannot be reached";
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)));
        let connected = connecting.await.context(Kind::Unavailable, unreachable);
        let reached =
            connected.and_then(|stream| stream.and_then(|stream| stream.peer_addr()).context(Kind::Unavailable, unreachable));
        match reached {
            Ok(peer) => return Ok(peer),
            Err(_) if begun.elapsed() < patience => tokio::time::sleep(TICK).await,
            Err(error) => {
                return Err(error
                    .with_field("scheduler", format_args!("{host}:{port}"))
                    .hint("is `daplake scheduler` running there, and is the port open?"));
            }
        }
    }
}

/// The address by which this machine reaches another; nothing is sent.
async fn own_address(peer: SocketAddr) -> std::io::Result<std::net::IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(peer).await?;
    Ok(socket.local_addr()?.ip())
}

impl Helpers for Cluster {
    fn for_scan(
        &self,
        client: &Client,
        job: &FinishedJob,
        choice: &ColumnChoice,
        options: &ScanOptions,
    ) -> Option<Box<dyn ScanWorkers>> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let registered = self.broker.register(&name, client, &job.objects);
        let order = ScanOrder::of(job, choice, options, registered.pass.clone())?;
        Some(Box::new(Crew { scheduler: self.scheduler.clone(), parts: self.parts, order, registered }))
    }
}

/// The executors, at work on one load.
#[derive(Debug)]
struct Crew {
    scheduler: (String, u16),
    parts: usize,
    order: ScanOrder,
    registered: Registered,
}

impl ScanWorkers for Crew {
    fn counts(&self) -> DecodeCounts {
        self.registered.counts()
    }

    fn finished(&self) -> Vec<usize> {
        self.registered.finished()
    }
}

#[async_trait]
impl Workers for Crew {
    fn parts(&self) -> usize {
        self.parts
    }

    async fn run(&self, work: Work) -> Result<Done> {
        let reads = matches!(work.source, Source::Changes);
        if reads {
            self.registered.begin();
        }
        // One that was killed may be on its way back.
        reach(&self.scheduler, PATIENCE).await?;
        let plan = self.plan(work)?;
        let config = SessionConfig::new_with_ballista()
            .with_ballista_job_name(&format!("daplake {}", self.order.table()))
            // What is planned here is what runs.
            .with_ballista_adaptive_query_planner(false)
            .with_ballista_grpc_client_max_message_size(MAX_MESSAGE_BYTES as usize);
        let session = uuid::Uuid::new_v4().to_string();
        let scheduler = http_address(&self.scheduler.0, self.scheduler.1);
        let settings = config.ballista_config();
        let codec = StepCodec::default();
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
            return Ok(Done { batches, changes: 0 });
        }
        let (objects, changes) = self.registered.read();
        if objects != self.order.object_count() as u64 {
            return Err(Error::new(Kind::Unavailable, "The cluster did not read all objects of the job")
                .with_field("objects", self.order.object_count())
                .with_field("read", objects)
                .hint("a process was probably lost in the middle; run it again"));
        }
        Ok(Done { batches, changes })
    }
}

impl Crew {
    /// Parts of the job: no more than it has objects, so that small changes do not become many small files.
    fn parts_of_job(&self) -> usize {
        self.parts.min(self.order.object_count()).max(1)
    }

    fn plan(&self, work: Work) -> Result<Arc<dyn ExecutionPlan>> {
        let unplanned = "The work cannot be planned";
        let memory = |parts: Vec<RecordBatch>, schema| {
            let parts: Vec<Vec<RecordBatch>> = parts.into_iter().map(|batch| vec![batch]).collect();
            MemorySourceConfig::try_new_exec(&parts, schema, None).context(Kind::Bug, unplanned)
        };
        let mut plan: Arc<dyn ExecutionPlan> = match work.source {
            Source::Changes => {
                let shares = memory(self.order.shares(self.parts_of_job())?, share_schema())?;
                Arc::new(StepExec::new(Task::Scan(Box::new(self.order.clone())), self.order.schema()?, shares, None))
            }
            Source::Rows(batches) => {
                let schema = batches.first().map(RecordBatch::schema);
                memory(batches, schema.ok_or_else(|| Error::new(Kind::Bug, "There is no work"))?)?
            }
        };
        for step in work.steps {
            if !step.by.is_empty() {
                let column = |name: &String| -> std::result::Result<Arc<dyn PhysicalExpr>, DataFusionError> {
                    Ok(Arc::new(Column::new_with_schema(name, &plan.schema())?))
                };
                let by = step.by.iter().map(column).collect::<std::result::Result<_, _>>().context(Kind::Bug, unplanned)?;
                let together = RepartitionExec::try_new(plan, Partitioning::Hash(by, self.parts_of_job()));
                plan = Arc::new(together.context(Kind::Bug, unplanned)?);
            }
            plan = Arc::new(StepExec::new(Task::Load(step.order), step.output, plan, None));
        }
        Ok(plan)
    }

    /// Waits for work, and shows meanwhile what is reported.
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
                    tracing::warn!(table = %self.order.table(), "The cluster has not told of anything yet; do executors run, and do they reach this machine?");
                }
            }
            if let Some(done) = done {
                return done;
            }
        }
    }
}
