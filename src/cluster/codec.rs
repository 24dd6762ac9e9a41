//! Serialisation of plan nodes. All nodes of a cluster must have the same version of this program, which is part of every message.

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
use super::plan::{NodeTask, TaskExec};
use crate::error::{Error, Kind};
use crate::sink::TaskResources;

/// Prefix of serialised nodes. No Protocol Buffers message starts with it.
const MAGIC: &[u8] = b"daplake\n";

/// Version of this program, part of every message.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serialises [`TaskExec`]; all other nodes go to the codec of Ballista.
#[derive(Debug, Default)]
pub(super) struct TaskCodec {
    others: BallistaPhysicalExtensionCodec,
    /// Resources of an executor; `None` in drivers and schedulers.
    resources: Option<TaskResources>,
}

/// A serialised node.
#[derive(Serialize, Deserialize)]
struct Sent {
    task: NodeTask,
    /// Schema of the output: an empty Arrow IPC stream in base64.
    schema: String,
}

/// The version, which is read first: in another version the rest may have another form.
#[derive(Serialize, Deserialize)]
struct Version {
    version: String,
}

impl TaskCodec {
    /// The codec of an executor.
    pub(super) fn with_resources(resources: TaskResources) -> Self {
        Self { resources: Some(resources), ..Self::default() }
    }

    fn encode(node: &TaskExec) -> Result<Vec<u8>> {
        let mut schema = Vec::new();
        StreamWriter::try_new(&mut schema, &node.schema())?.finish()?;
        let sent = Sent { task: node.task.clone(), schema: STANDARD.encode(schema) };
        let failed = |error: serde_json::Error| DataFusionError::External(Box::new(error));
        let mut bytes = MAGIC.to_vec();
        serde_json::to_writer(&mut bytes, &Version { version: VERSION.to_owned() }).map_err(failed)?;
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, &sent).map_err(failed)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8], inputs: &[Arc<dyn ExecutionPlan>]) -> crate::Result<TaskExec> {
        let unknown = || Error::new(Kind::Bug, "Cannot read a node of the plan");
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(unknown)?;
        let Version { version } = serde_json::from_slice(&bytes[..end]).map_err(|error| unknown().caused_by(error))?;
        if version != VERSION {
            return Err(Error::new(Kind::Usage, "The nodes of the cluster run different versions of daplake")
                .with_field("driver", version)
                .with_field("node", VERSION)
                .hint("run the same version on driver, scheduler and executors"));
        }
        let Sent { task, schema } = serde_json::from_slice(&bytes[end + 1..]).map_err(|error| unknown().caused_by(error))?;
        let schema = STANDARD.decode(schema).map_err(|error| unknown().caused_by(error))?;
        let schema: SchemaRef =
            StreamReader::try_new(schema.as_slice(), None).map_err(|error| unknown().caused_by(error))?.schema();
        let [input] = inputs else { return Err(unknown()) };
        Ok(TaskExec::new(task, schema, Arc::clone(input), self.resources.clone()))
    }
}

impl PhysicalExtensionCodec for TaskCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match bytes.strip_prefix(MAGIC) {
            Some(message) => Ok(Arc::new(self.decode(message, inputs).map_err(|error| packed(&error))?)),
            None => self.others.try_decode(bytes, inputs, context, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        match node.downcast_ref::<TaskExec>() {
            Some(node) => {
                bytes.extend(Self::encode(node)?);
                Ok(())
            }
            None => self.others.try_encode(node, bytes, converter),
        }
    }
}
