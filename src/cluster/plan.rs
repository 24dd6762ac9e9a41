//! The one node of ours in a cluster's plan: a step of work on each part of its input.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::failure::{pack, packed};
use super::scan::ScanOrder;
use crate::error::{Error, Kind};
use crate::sink::{Worker, delta};

/// What a step does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Task {
    /// Numbers of objects become the changes in them.
    Scan(Box<ScanOrder>),
    /// A step of a load.
    Load(String),
}

/// Does its task with each partition of its input. It can be planned anywhere, and runs where there is a [`Worker`].
#[derive(Debug, Clone)]
pub(super) struct StepExec {
    pub(super) task: Task,
    input: Arc<dyn ExecutionPlan>,
    worker: Option<Worker>,
    properties: Arc<PlanProperties>,
}

impl StepExec {
    /// `schema` is that of what comes out.
    pub(super) fn new(task: Task, schema: SchemaRef, input: Arc<dyn ExecutionPlan>, worker: Option<Worker>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { task, input, worker, properties: Arc::new(properties) }
    }

    fn with_child(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            // The number of partitions is that of the new input.
            Ok([input]) => Ok(Arc::new(Self::new(self.task.clone(), self.schema(), input, self.worker.clone()))),
            Err(_) => internal_err!("StepExec has one child"),
        }
    }

    fn stream(&self, input: SendableRecordBatchStream) -> crate::Result<SendableRecordBatchStream> {
        let Some(worker) = &self.worker else {
            return Err(Error::new(Kind::Bug, "Work of a cluster was begun outside of an executor"));
        };
        match &self.task {
            Task::Scan(order) => order.run(input, worker),
            Task::Load(order) => delta::run_step(order, input, worker),
        }
    }
}

impl DisplayAs for StepExec {
    /// Names only: the text goes to logs of the scheduler.
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.task {
            Task::Scan(order) => write!(f, "DaplakeStepExec: scan of {}", order.table()),
            Task::Load(_) => f.write_str("DaplakeStepExec: load"),
        }
    }
}

impl ExecutionPlan for StepExec {
    fn name(&self) -> &'static str {
        "DaplakeStepExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// Parts are what they are.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_child(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_child(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let stream = self.stream(input).map_err(|error| packed(&error))?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream.map_err(pack))))
    }
}
