//! Words of lookup tables as their ids, for rows that are copied straight into a new table. Rows that are staged get theirs from
//! the server.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int32Array, RecordBatch};

use super::dialect::SqlColumn;
use super::load::SqlLoad;
use super::values;
use crate::error::{Error, Kind, Result};
use crate::sink::WriteError;

/// Words that are remembered. What has more of them is no enumeration.
const MAX_WORDS: usize = 20_000;
/// Words of one statement.
const AT_ONCE: usize = 500;

/// Ids of the words of one lookup table.
pub(super) type Ids = HashMap<String, i32>;

impl SqlLoad {
    /// The batch with ids in place of the words of lookup tables; words that these lack are added to them. The load begins
    /// again by way of the stage where that cannot be done.
    pub(super) async fn with_ids(&mut self, mut batch: RecordBatch) -> Result<RecordBatch, WriteError> {
        let referring = self.table.columns.iter().filter(|column| column.lookup.is_some());
        for column in referring.cloned().collect::<Vec<SqlColumn>>() {
            let Ok(place) = batch.schema().index_of(&column.source) else { continue };
            let array = Arc::clone(batch.column(place));
            let Some(words) = array.as_string_opt::<i32>() else { return Err(self.begin_again()) };
            let mut ids = self.ids.remove(&column.name).unwrap_or_default();
            let unknown: HashSet<&str> = words.iter().flatten().filter(|word| !ids.contains_key(*word)).collect();
            if !unknown.is_empty() {
                self.learn(&column, &mut ids, unknown).await?;
            }
            let found: Int32Array = words.iter().map(|word| ids.get(word?).copied()).collect();
            batch = values::replaced(&batch, place, Arc::new(found))?;
            self.ids.insert(column.name, ids);
        }
        Ok(batch)
    }

    /// Takes the ids of the lookup table, and adds what it lacks.
    async fn learn(&mut self, column: &SqlColumn, ids: &mut Ids, unknown: HashSet<&str>) -> Result<(), WriteError> {
        let Some((lookup, _)) = &column.lookup else { return Ok(()) };
        // Other texts than the table's own, or too many of them: the server can do it.
        let is_odd = |word: &&str| word.contains('\0') || column.longest.is_some_and(|longest| word.chars().count() > longest);
        if ids.len() + unknown.len() > MAX_WORDS || unknown.iter().any(is_odd) {
            return Err(self.begin_again());
        }
        if ids.is_empty() {
            self.read_ids(lookup, ids).await?;
        }
        let mut missing: Vec<&str> = unknown.iter().copied().filter(|word| !ids.contains_key(*word)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        let shared = self.shared.clone();
        for words in missing.chunks(AT_ONCE) {
            match self.session.execute(&shared.dialect().add_words(lookup, words)).await {
                Err(error) if error.kind() == Kind::Data => return Err(self.begin_again()),
                added => _ = added?,
            }
        }
        self.read_ids(lookup, ids).await?;
        match unknown.iter().all(|word| ids.contains_key(*word)) {
            true => Ok(()),
            // The server takes two of the words for one.
            false => Err(self.begin_again()),
        }
    }

    async fn read_ids(&mut self, lookup: &str, ids: &mut Ids) -> Result<()> {
        let rows = self.session.rows(&self.shared.dialect().words(lookup)).await?;
        for row in rows {
            let [Some(id), Some(word)] = &row[..] else { continue };
            let id = id.parse().map_err(|_| Error::new(Kind::Data, "A lookup table has an id that is no number"))?;
            ids.insert(word.clone(), id);
        }
        Ok(())
    }
}
