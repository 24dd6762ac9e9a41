//! Partitions by a time or date: the value of each row, and one writer for each partition. The value stands in the log and not in
//! the files; a column of the table tells of what it is made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Date32Type, TimestampMicrosecondType};
use chrono::{Datelike, NaiveDate};
use serde_json::Value;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::schema::{PartitionBy, PartitionUnit};
use crate::sink::delta::log::columns::{LakeColumn, LakeType, place_of_name};
use crate::sink::delta::log::file_names::Names;
use crate::sink::delta::write::parquet_writer::{FileFormat, FileWriter, NewFile, Placed};
use crate::worker_thread::WorkerThread;

/// Metadata of a partition column: the column that it is made of.
const OF: &str = "daplake.of";
/// Metadata of a partition column: how long a partition is.
const UNIT: &str = "daplake.unit";
/// Partitions that one writer has open at once; more would need more memory, fewer would make more files.
const MOST_OPEN: usize = 32;
/// Days from the beginning of chrono's count to 1970.
const EPOCH_DAYS: i32 = 719_163;

/// Name of the column by which tables are partitioned so.
fn name_of(unit: PartitionUnit) -> &'static str {
    match unit {
        PartitionUnit::Day => "_day",
        PartitionUnit::Month => "_month",
        PartitionUnit::Year => "_year",
    }
}

/// The column that a partitioned table has besides those of the service.
pub(in crate::sink::delta) fn column_of(by: &PartitionBy) -> LakeColumn {
    let (name, leaf, what) = match by.unit {
        PartitionUnit::Day => (name_of(by.unit), DataType::Date32, "Day"),
        PartitionUnit::Month => (name_of(by.unit), DataType::Date32, "First day of the month"),
        PartitionUnit::Year => (name_of(by.unit), DataType::Int32, "Year"),
    };
    let mut column = LakeColumn {
        name: name.to_owned(),
        physical: name.to_owned(),
        id: None,
        kind: LakeType::Leaf(leaf),
        nullable: true,
        metadata: serde_json::Map::from_iter([
            (OF.to_owned(), Value::from(by.column.as_str())),
            (UNIT.to_owned(), Value::from(by.unit.as_str())),
        ]),
    };
    column.set_comment(Some(&format!("{what} of `{}` in UTC; partitions the table.", by.column)));
    column
}

/// Whether a column is the one that partitions its table.
pub(in crate::sink::delta) fn is_partition(column: &LakeColumn) -> bool {
    column.metadata.contains_key(OF)
}

/// Whether rows can be partitioned by a column.
pub(in crate::sink::delta) fn can_be_source(column: &LakeColumn) -> bool {
    matches!(&column.kind, LakeType::Leaf(DataType::Timestamp(..) | DataType::Date32))
}

/// How the rows of a file format are partitioned.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct Partition {
    /// Name of the partition column in the log.
    physical: String,
    unit: PartitionUnit,
    /// Place of the column that it is made of.
    source: usize,
}

/// Days since 1970, months or years since the year 0; `None` for rows without a value.
pub(in crate::sink::delta) type Number = Option<i32>;

impl Partition {
    /// Of a table with `all` columns, whose files have `written` ones.
    pub(in crate::sink::delta) fn of(all: &[LakeColumn], written: &[LakeColumn]) -> Option<Self> {
        let column = all.iter().find(|column| is_partition(column))?;
        let source = column.metadata.get(OF)?.as_str()?;
        Some(Self {
            physical: column.physical.clone(),
            unit: column.metadata.get(UNIT)?.as_str()?.parse().ok()?,
            source: place_of_name(written.iter().map(|column| column.name.as_str()), source)?,
        })
    }

    #[cfg(test)]
    pub(in crate::sink::delta) fn new(physical: &str, unit: PartitionUnit) -> Self {
        Self { physical: physical.into(), unit, source: 0 }
    }

    /// The place in the files of the column that it is made of.
    pub(in crate::sink::delta) fn source(&self) -> usize {
        self.source
    }

    /// To which partition each row belongs, by the values of the column that it is made of.
    pub(in crate::sink::delta) fn numbers(&self, array: &ArrayRef) -> Result<Vec<Number>> {
        let days: Vec<Number> = match array.data_type() {
            DataType::Date32 => array.as_primitive::<Date32Type>().iter().collect(),
            DataType::Timestamp(..) => {
                const DAY: i64 = 86_400_000_000;
                let day = |micros: i64| i32::try_from(micros.div_euclid(DAY)).ok();
                array.as_primitive::<TimestampMicrosecondType>().iter().map(|micros| micros.and_then(day)).collect()
            }
            other => {
                return Err(Error::new(Kind::Bug, "Rows are partitioned by a column without dates").with_field("type", other));
            }
        };
        if self.unit == PartitionUnit::Day {
            return Ok(days);
        }
        // Few days occur in a batch, and calendars take time.
        let mut known: HashMap<i32, Number> = HashMap::new();
        let number = |day: i32| {
            let date = NaiveDate::from_num_days_from_ce_opt(day.checked_add(EPOCH_DAYS)?)?;
            Some(match self.unit {
                PartitionUnit::Year => date.year(),
                _ => date.year() * 12 + date.month0() as i32,
            })
        };
        Ok(days.into_iter().map(|day| *known.entry(day?).or_insert_with_key(|day| number(*day))).collect())
    }

    /// The value as the log has it.
    fn text(&self, number: Number) -> Option<String> {
        let number = number?;
        let date = match self.unit {
            PartitionUnit::Year => return Some(number.to_string()),
            PartitionUnit::Day => NaiveDate::from_num_days_from_ce_opt(number.checked_add(EPOCH_DAYS)?)?,
            PartitionUnit::Month => NaiveDate::from_ymd_opt(number.div_euclid(12), number.rem_euclid(12) as u32 + 1, 1)?,
        };
        Some(date.format("%Y-%m-%d").to_string())
    }
}

/// Writes rows (of the file schema), those of each partition to files of their own.
///
/// Of more partitions than it can have open at once, it closes the file that was not written to for longest.
#[derive(Debug)]
pub(in crate::sink::delta) struct TableWriter {
    format: Arc<FileFormat>,
    names: Names,
    /// On which all partitions are encoded; started with the first rows.
    thread: Option<Arc<WorkerThread>>,
    open: BTreeMap<Number, (FileWriter, u64)>,
    finished: Vec<NewFile>,
    batches: u64,
}

impl TableWriter {
    /// A writer without files yet; files are registered with `names` before they are made.
    pub(in crate::sink::delta) fn new(format: Arc<FileFormat>, names: Names) -> Self {
        Self { format, names, thread: None, open: BTreeMap::new(), finished: Vec::new(), batches: 0 }
    }

    /// Adds rows, and says where they went.
    pub(in crate::sink::delta) async fn write(&mut self, batch: RecordBatch) -> Result<Vec<Placed>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        self.batches += 1;
        let Some(partition) = self.format.partition.clone() else {
            return Ok(vec![self.write_to(None, None, batch, None).await?]);
        };
        let mut rows: BTreeMap<Number, Vec<u32>> = BTreeMap::new();
        for (row, number) in partition.numbers(batch.column(partition.source))?.into_iter().enumerate() {
            rows.entry(number).or_default().push(row as u32);
        }
        if rows.len() == 1 {
            let number = rows.into_keys().next().flatten();
            let value = Some((partition.physical.clone(), partition.text(number)));
            return Ok(vec![self.write_to(number, value, batch, None).await?]);
        }
        let mut placed = Vec::with_capacity(rows.len());
        for (number, rows) in rows {
            let rows = UInt32Array::from(rows);
            let part = take_record_batch(&batch, &rows).context(Kind::Bug, "Rows cannot be parted")?;
            let value = Some((partition.physical.clone(), partition.text(number)));
            placed.push(self.write_to(number, value, part, Some(rows)).await?);
        }
        Ok(placed)
    }

    async fn write_to(
        &mut self,
        number: Number,
        value: Option<(String, Option<String>)>,
        batch: RecordBatch,
        rows: Option<UInt32Array>,
    ) -> Result<Placed> {
        if !self.open.contains_key(&number) && self.open.len() >= MOST_OPEN {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
            if let Some((writer, _)) = oldest.and_then(|oldest| self.open.remove(&oldest)) {
                self.finished.extend(writer.finish().await?);
            }
        }
        let thread = match &self.thread {
            Some(thread) => Arc::clone(thread),
            None => Arc::clone(self.thread.insert(Arc::new(WorkerThread::start("encode")?))),
        };
        let (format, names) = (&self.format, &self.names);
        let slot =
            self.open.entry(number).or_insert_with(|| (FileWriter::new(Arc::clone(format), names.clone(), thread, value), 0));
        slot.1 = self.batches;
        let (file, first) = slot.0.write(batch).await?;
        Ok(Placed { file, first, rows })
    }

    /// Ends the row group of a partition, and with it what it needs of memory.
    pub(in crate::sink::delta) async fn end_row_group(&mut self, number: Number) -> Result<()> {
        match self.open.get_mut(&number) {
            Some((writer, _)) => writer.end_row_group().await,
            None => Ok(()),
        }
    }

    /// Closes the last files and gives all.
    pub(in crate::sink::delta) async fn finish(mut self) -> Result<Vec<NewFile>> {
        for (_, (writer, _)) in std::mem::take(&mut self.open) {
            self.finished.extend(writer.finish().await?);
        }
        Ok(self.finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, TimestampMicrosecondArray};

    #[test]
    fn every_moment_is_in_the_partition_of_its_calendar() {
        let at = |text: &str| text.parse::<crate::model::Timestamp>().unwrap().micros();
        let moments = [at("1969-12-31T23:59:59.999999Z"), at("1970-01-01T00:00:00Z"), at("2024-02-29T12:00:00Z")];
        let array: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from_iter(moments.map(Some).into_iter().chain([None])).with_timezone("UTC"));
        let batch = RecordBatch::try_from_iter_with_nullable([("t", array, true)]).unwrap();
        let texts = |unit| {
            let partition = Partition::new("p", unit);
            let numbers = partition.numbers(batch.column(0)).unwrap();
            numbers.into_iter().map(|number| partition.text(number).unwrap_or("-".into())).collect::<Vec<_>>()
        };
        assert_eq!(texts(PartitionUnit::Day), ["1969-12-31", "1970-01-01", "2024-02-29", "-"]);
        assert_eq!(texts(PartitionUnit::Month), ["1969-12-01", "1970-01-01", "2024-02-01", "-"]);
        assert_eq!(texts(PartitionUnit::Year), ["1969", "1970", "2024", "-"]);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![-1, 0, i32::MAX]));
        let batch = RecordBatch::try_from_iter([("t", days)]).unwrap();
        let partition = Partition::new("p", PartitionUnit::Month);
        assert_eq!(partition.numbers(batch.column(0)).unwrap()[2], None, "beyond any calendar");
    }

    #[test]
    fn the_partition_column_tells_of_what_it_is_made() {
        let by: PartitionBy = "month(created_at)".parse().unwrap();
        let text = LakeColumn::schema_string(&[column_of(&by)]);
        let columns = LakeColumn::of_schema_string(&text).unwrap();
        assert!(is_partition(&columns[0]));
        let leaf = |name: &str| LakeColumn { name: name.into(), metadata: serde_json::Map::new(), ..columns[0].clone() };
        let written = [leaf("id"), leaf("created_at")];
        assert_eq!(Partition::of(&columns, &written).unwrap().source, 1);
        assert!(Partition::of(&columns, &written[..1]).is_none());
    }
}
