//! Plans of ours as bytes. Both sides say which version they are: work that is described by one is done by the same.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use serde::{Deserialize, Serialize};

use super::failure::packed;
use super::plan::{StepExec, Task};
use crate::error::{Error, Kind};
use crate::sink::Worker;

/// Before what is ours. No message of Protocol Buffers begins so.
const MAGIC: &[u8] = b"daplake\n";

/// Version of this program, as it goes with every step.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reads and writes steps, and leaves all others to Ballista's own codec.
#[derive(Debug, Default)]
pub(super) struct StepCodec {
    others: BallistaPhysicalExtensionCodec,
    /// Where the steps can be done; none in a driver and a scheduler.
    worker: Option<Worker>,
}

/// A step on its way.
#[derive(Serialize, Deserialize)]
struct Sent {
    task: Task,
    /// Of what comes out: an empty stream of Arrow's, in base64.
    schema: String,
}

/// The version alone, which is read first: the rest may have another form.
#[derive(Serialize, Deserialize)]
struct Version {
    version: String,
}

impl StepCodec {
    /// For an executor.
    pub(super) fn of_worker(worker: Worker) -> Self {
        Self { worker: Some(worker), ..Self::default() }
    }

    fn encode(step: &StepExec) -> Result<Vec<u8>> {
        let mut schema = Vec::new();
        StreamWriter::try_new(&mut schema, &step.schema())?.finish()?;
        let sent = Sent { task: step.task.clone(), schema: STANDARD.encode(schema) };
        let failed = |error: serde_json::Error| DataFusionError::External(Box::new(error));
        let mut bytes = MAGIC.to_vec();
        serde_json::to_writer(&mut bytes, &Version { version: VERSION.to_owned() }).map_err(failed)?;
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, &sent).map_err(failed)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8], inputs: &[Arc<dyn ExecutionPlan>]) -> crate::Result<StepExec> {
        let unknown = || Error::new(Kind::Bug, "A step of a plan cannot be read");
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(unknown)?;
        let Version { version } = serde_json::from_slice(&bytes[..end]).map_err(|error| unknown().caused_by(error))?;
        if version != VERSION {
            return Err(Error::new(Kind::Usage, "The nodes of the cluster are of different versions of daplake")
                .with_field("driver", version)
                .with_field("node", VERSION)
                .hint("run the same version as driver, scheduler and executors"));
        }
        let Sent { task, schema } = serde_json::from_slice(&bytes[end + 1..]).map_err(|error| unknown().caused_by(error))?;
        let schema = STANDARD.decode(schema).map_err(|error| unknown().caused_by(error))?;
        let schema: SchemaRef =
            StreamReader::try_new(schema.as_slice(), None).map_err(|error| unknown().caused_by(error))?.schema();
        let [input] = inputs else { return Err(unknown()) };
        Ok(StepExec::new(task, schema, Arc::clone(input), self.worker.clone()))
    }
}

impl PhysicalExtensionCodec for StepCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match bytes.strip_prefix(MAGIC) {
            Some(ours) => Ok(Arc::new(self.decode(ours, inputs).map_err(|error| packed(&error))?)),
            None => self.others.try_decode(bytes, inputs, context, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        match node.downcast_ref::<StepExec>() {
            Some(step) => {
                bytes.extend(Self::encode(step)?);
                Ok(())
            }
            None => self.others.try_encode(node, bytes, converter),
        }
    }
}
