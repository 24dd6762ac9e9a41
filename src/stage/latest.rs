//! The latest change per key: newest `_ts` wins, then the greatest `_seq`; a delete is a change like another.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::{ChangeSet, Engine};
use crate::error::Result;

/// Plans the reduction of `source` (schema of [`crate::schema::change_schema`]) by `keys` within the engine's memory limit.
/// Nothing runs until the streams are pulled.
pub async fn latest_per_key(_engine: &Engine, _source: Arc<dyn TableProvider>, _keys: &[String]) -> Result<ChangeSet> {
    unimplemented!()
}
