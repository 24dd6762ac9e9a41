//! Serialised plans, and the URL broker of the driver.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;

use super::broker::{Broker, Lease, Report, report};
use super::codec::{TaskCodec, VERSION};
use super::failure::unpack;
use super::plan::{NodeTask, TaskExec};
use super::scan::client_of;
use crate::api::ObjectId;
use crate::api::testing::{CLIENT_SECRET, Reply, Server};
use crate::error::Kind;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn plan() -> Arc<dyn ExecutionPlan> {
    let batch = |n: i64| RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![n]))]).unwrap();
    let parts = [vec![batch(1)], vec![batch(2)], vec![batch(3)]];
    let memory = MemorySourceConfig::try_new_exec(&parts, schema(), None).unwrap();
    let first = Arc::new(TaskExec::new(NodeTask::Load("first".into()), schema(), memory, None));
    let by = Partitioning::Hash(vec![Arc::new(Column::new("n", 0))], 2);
    let together = Arc::new(RepartitionExec::try_new(first, by).unwrap());
    Arc::new(TaskExec::new(NodeTask::Load("second".into()), schema(), together, None))
}

fn sent(plan: Arc<dyn ExecutionPlan>) -> Vec<u8> {
    let mut bytes = Vec::new();
    PhysicalPlanNode::try_from_physical_plan(plan, &TaskCodec::default()).unwrap().try_encode(&mut bytes).unwrap();
    bytes
}

fn received(bytes: &[u8]) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    PhysicalPlanNode::try_decode(bytes)?.try_into_physical_plan(&TaskContext::default(), &TaskCodec::default())
}

#[test]
fn a_plan_survives_serialisation() {
    let back = received(&sent(plan())).unwrap();
    assert_eq!((back.schema(), back.output_partitioning().partition_count()), (schema(), 2));
    let second = back.downcast_ref::<TaskExec>().unwrap();
    assert!(matches!(&second.task, NodeTask::Load(spec) if spec == "second"));
    let first = Arc::clone(back.children()[0].children()[0]);
    assert_eq!(first.output_partitioning().partition_count(), 3);
    // It was planned without resources, and cannot run here.
    let error = back.execute(0, Arc::default()).err().unwrap();
    assert_eq!(unpack(&error.to_string()).kind(), Kind::Bug);
}

#[test]
fn another_version_is_refused_with_both_names() {
    let bytes = sent(plan());
    let other = "9".repeat(VERSION.len());
    let place = |bytes: &[u8]| bytes.windows(VERSION.len()).position(|window| window == VERSION.as_bytes()).unwrap();
    let mut changed = bytes.clone();
    let at = place(&bytes);
    changed[at..at + other.len()].copy_from_slice(other.as_bytes());
    let error = unpack(&received(&changed).unwrap_err().to_string());
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.message().contains(&other) && error.message().contains(VERSION), "{error:?}");
}

/// A service that returns a URL for each object.
async fn service() -> Server {
    Server::dap(|request| {
        let ids: Vec<serde_json::Value> = serde_json::from_str(&request.body).unwrap();
        if ids.iter().any(|id| id["id"] == "gone") {
            return Reply::error(404, "NotFound", "");
        }
        let url = |id: &serde_json::Value| {
            let id = id["id"].as_str().unwrap().to_owned();
            let url = format!("https://store/{id}?sig=planted");
            (id, serde_json::json!({"url": url}))
        };
        let urls: serde_json::Map<String, serde_json::Value> = ids.iter().map(url).collect();
        Reply::json(200, serde_json::json!({"urls": urls}).to_string())
    })
    .await
}

fn ids(names: &[&str]) -> Vec<ObjectId> {
    names.iter().map(|name| ObjectId((*name).to_owned())).collect()
}

#[tokio::test]
async fn a_lease_is_valid_for_the_objects_of_an_open_load_only() {
    let service = service().await;
    let broker = Broker::start(([127, 0, 0, 1], 0).into(), None).await.unwrap();
    let load = broker.register("load-1", &service.client(), &ids(&["a", "b", "gone"]));
    let executor = client_of(&load.lease).unwrap();
    let urls = executor.object_urls(&ids(&["b", "a"])).await.unwrap();
    let urls: Vec<&str> = urls.iter().map(|url| url.reveal().as_str()).collect();
    assert_eq!(urls, ["https://store/b?sig=planted", "https://store/a?sig=planted"]);
    // An executor fails with the same kind as the driver.
    assert_eq!(executor.object_urls(&ids(&["gone"])).await.unwrap_err().kind(), Kind::Expired);
    let before = service.calls().len();
    assert_eq!(executor.object_urls(&ids(&["of another load"])).await.unwrap_err().kind(), Kind::Expired);
    assert_eq!(service.calls().len(), before, "no request to the service");

    for wrong in
        [Lease { token: "guessed".into(), ..load.lease.clone() }, Lease { load: "load-2".into(), ..load.lease.clone() }]
    {
        let stranger = client_of(&wrong).unwrap();
        assert_eq!(stranger.object_urls(&ids(&["a"])).await.unwrap_err().kind(), Kind::Auth);
    }
    let shown = format!("{:?} {:?} {broker:?}", load.lease, executor);
    assert!(!shown.contains(&load.lease.token) && !shown.contains(CLIENT_SECRET), "{shown}");

    // A part that is reported twice counts once.
    let part = Report { part: 0, objects: vec![0, 1], changes: 7, ..Report::default() };
    for _ in 0..2 {
        report(&executor, &load.lease, &part).await.unwrap();
    }
    assert_eq!(load.read(), (2, 7));
    let lease = load.lease.clone();
    drop(load);
    assert_eq!(report(&executor, &lease, &part).await.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(client_of(&lease).unwrap().object_urls(&ids(&["a"])).await.unwrap_err().kind(), Kind::Auth);
}
