//! The plan node of a cluster: runs a task on each partition of its input.

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
use super::scan::ScanSpec;
use crate::error::{Error, Kind};
use crate::sink::{TaskResources, delta};

/// The task of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum NodeTask {
    /// Reads the objects whose numbers are the input.
    Scan(Box<ScanSpec>),
    /// A task of a load, see [`crate::sink::Task::spec`].
    Load(String),
}

/// Runs its task on each partition of its input. It can be planned anywhere; to run, it needs [`TaskResources`].
#[derive(Debug, Clone)]
pub(super) struct TaskExec {
    pub(super) task: NodeTask,
    input: Arc<dyn ExecutionPlan>,
    resources: Option<TaskResources>,
    properties: Arc<PlanProperties>,
}

impl TaskExec {
    /// `schema` is the schema of the output.
    pub(super) fn new(
        task: NodeTask,
        schema: SchemaRef,
        input: Arc<dyn ExecutionPlan>,
        resources: Option<TaskResources>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { task, input, resources, properties: Arc::new(properties) }
    }

    fn with_child(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            // Recomputes the number of partitions.
            Ok([input]) => Ok(Arc::new(Self::new(self.task.clone(), self.schema(), input, self.resources.clone()))),
            Err(_) => internal_err!("TaskExec has one child"),
        }
    }

    fn stream(&self, input: SendableRecordBatchStream) -> crate::Result<SendableRecordBatchStream> {
        let Some(resources) = &self.resources else {
            return Err(Error::new(Kind::Bug, "A task of a cluster was started outside of an executor"));
        };
        match &self.task {
            NodeTask::Scan(spec) => spec.run(input, resources),
            NodeTask::Load(spec) => delta::run_task(spec, input, resources),
        }
    }
}

impl DisplayAs for TaskExec {
    /// Names only: the scheduler logs this text.
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.task {
            NodeTask::Scan(spec) => write!(f, "DaplakeTaskExec: scan of {}", spec.table()),
            NodeTask::Load(_) => f.write_str("DaplakeTaskExec: load"),
        }
    }
}

impl ExecutionPlan for TaskExec {
    fn name(&self) -> &'static str {
        "DaplakeTaskExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// The parts must stay as they are.
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
