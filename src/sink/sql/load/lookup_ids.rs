//! Enum values of lookup tables as their ids, for rows that are copied into a new table. For staged rows, the server finds the ids.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, Int32Array, RecordBatch};

use super::state::{Ids, SqlLoad};
use crate::error::{Error, Kind, Result};
use crate::sink::WriteError;
use crate::sink::sql::dialect::SqlColumn;
use crate::sink::sql::encoding::replace_column;

/// Maximum number of values to keep in memory. A column with more values is not an enumeration.
const MAX_VALUES: usize = 20_000;
/// Values per statement.
const VALUES_AT_ONCE: usize = 500;

impl SqlLoad {
    /// The batch with ids in place of the values of lookup tables; missing values are added to those. Where that is impossible, the load
    /// starts again with the staging table.
    pub(super) async fn with_ids(&mut self, mut batch: RecordBatch) -> Result<RecordBatch, WriteError> {
        let referring = self.table.columns.iter().filter(|column| column.lookup.is_some());
        for column in referring.cloned().collect::<Vec<SqlColumn>>() {
            let Ok(place) = batch.schema().index_of(&column.source) else { continue };
            let array = Arc::clone(batch.column(place));
            let Some(values) = array.as_string_opt::<i32>() else { return Err(self.restart_staged()) };
            let mut ids = self.ids.remove(&column.name).unwrap_or_default();
            let unknown: HashSet<&str> = values.iter().flatten().filter(|value| !ids.contains_key(*value)).collect();
            if !unknown.is_empty() {
                self.add_ids(&column, &mut ids, unknown).await?;
            }
            let found: Int32Array = values.iter().map(|value| ids.get(value?).copied()).collect();
            batch = replace_column(&batch, place, Arc::new(found))?;
            self.ids.insert(column.name, ids);
        }
        Ok(batch)
    }

    /// Reads the ids of the lookup table, and adds the values that it lacks.
    async fn add_ids(&mut self, column: &SqlColumn, ids: &mut Ids, unknown: HashSet<&str>) -> Result<(), WriteError> {
        let Some((lookup, _)) = &column.lookup else { return Ok(()) };
        // The server would change or refuse such a value.
        let is_unusual =
            |value: &&str| value.contains('\0') || column.longest.is_some_and(|longest| value.chars().count() > longest);
        if ids.len() + unknown.len() > MAX_VALUES || unknown.iter().any(is_unusual) {
            return Err(self.restart_staged());
        }
        if ids.is_empty() {
            self.read_ids(lookup, ids).await?;
        }
        let mut missing: Vec<&str> = unknown.iter().copied().filter(|value| !ids.contains_key(*value)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        let database = Arc::clone(&self.database);
        for values in missing.chunks(VALUES_AT_ONCE) {
            match self.session.execute(&database.dialect().add_lookup_values(lookup, values)).await {
                Err(error) if error.kind() == Kind::Data => return Err(self.restart_staged()),
                added => _ = added?,
            }
        }
        self.read_ids(lookup, ids).await?;
        // If not, the server treats two of the values as equal.
        if unknown.iter().all(|value| ids.contains_key(*value)) { Ok(()) } else { Err(self.restart_staged()) }
    }

    async fn read_ids(&mut self, lookup: &str, ids: &mut Ids) -> Result<()> {
        let rows = self.session.rows(&self.database.dialect().lookup_values(lookup)).await?;
        for row in rows {
            let [Some(id), Some(value)] = &row[..] else { continue };
            let id = id.parse().map_err(|_| Error::new(Kind::Data, "A lookup table has an id that is not a number"))?;
            ids.insert(value.clone(), id);
        }
        Ok(())
    }
}
