//! Plans as bytes, and the door of the driver.

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

use super::codec::{StepCodec, VERSION};
use super::failure::unpack;
use super::plan::{StepExec, Task};
use crate::error::Kind;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn plan() -> Arc<dyn ExecutionPlan> {
    let batch = |n: i64| RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![n]))]).unwrap();
    let parts = [vec![batch(1)], vec![batch(2)], vec![batch(3)]];
    let memory = MemorySourceConfig::try_new_exec(&parts, schema(), None).unwrap();
    let first = Arc::new(StepExec::new(Task::Load("first".into()), schema(), memory, None));
    let by = Partitioning::Hash(vec![Arc::new(Column::new("n", 0))], 2);
    let together = Arc::new(RepartitionExec::try_new(first, by).unwrap());
    Arc::new(StepExec::new(Task::Load("second".into()), schema(), together, None))
}

fn sent(plan: Arc<dyn ExecutionPlan>) -> Vec<u8> {
    let mut bytes = Vec::new();
    PhysicalPlanNode::try_from_physical_plan(plan, &StepCodec::default()).unwrap().try_encode(&mut bytes).unwrap();
    bytes
}

fn received(bytes: &[u8]) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    PhysicalPlanNode::try_decode(bytes)?.try_into_physical_plan(&TaskContext::default(), &StepCodec::default())
}

#[test]
fn a_plan_comes_through_as_it_was() {
    let back = received(&sent(plan())).unwrap();
    assert_eq!((back.schema(), back.output_partitioning().partition_count()), (schema(), 2));
    let second = back.downcast_ref::<StepExec>().unwrap();
    assert!(matches!(&second.task, Task::Load(order) if order == "second"));
    let first = Arc::clone(back.children()[0].children()[0]);
    assert_eq!(first.output_partitioning().partition_count(), 3);
    // It was planned, and may not run here.
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
