//! The partition of each row: days, months or years of a time or date column.

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, TimestampMicrosecondType};
use chrono::{Datelike, NaiveDate};

use crate::error::{Error, Kind, Result};
use crate::schema::PartitionUnit;
use crate::sink::delta::log::columns::{LakeColumn, position_of_name};
use crate::sink::delta::log::file_actions::PartitionValue;
use crate::sink::delta::log::partition_column::{is_partition, partition_source};

/// Days from the start of chrono's day count to 1970.
const EPOCH_DAYS: i32 = 719_163;

/// Days since 1970, or months or years since year 0; `None` for rows whose source column is null or out of range.
pub(crate) type PartitionNumber = Option<i32>;

/// How rows of the file schema are partitioned.
#[derive(Debug, Clone)]
pub(crate) struct Partitioning {
    /// Physical name of the partition column.
    physical: String,
    unit: PartitionUnit,
    /// Position of the source column in the files.
    source: usize,
}

impl Partitioning {
    /// For a table with the columns `all`, whose files have the columns `written`. `None` if it has no partitions.
    pub(crate) fn of(all: &[LakeColumn], written: &[LakeColumn]) -> Option<Self> {
        let column = all.iter().find(|column| is_partition(column))?;
        let (source, unit) = partition_source(column)?;
        let source = position_of_name(written.iter().map(|column| column.name.as_str()), source)?;
        Some(Self { physical: column.physical.clone(), unit, source })
    }

    #[cfg(test)]
    pub(crate) fn new(physical: &str, unit: PartitionUnit) -> Self {
        Self { physical: physical.into(), unit, source: 0 }
    }

    /// Position of the source column in the files.
    pub(crate) fn source(&self) -> usize {
        self.source
    }

    /// The partition of each row, from the values of the source column.
    pub(crate) fn numbers(&self, array: &ArrayRef) -> Result<Vec<PartitionNumber>> {
        let days: Vec<PartitionNumber> = match array.data_type() {
            DataType::Date32 => array.as_primitive::<Date32Type>().iter().collect(),
            DataType::Timestamp(..) => {
                const DAY: i64 = 86_400_000_000;
                let day = |micros: i64| i32::try_from(micros.div_euclid(DAY)).ok();
                array.as_primitive::<TimestampMicrosecondType>().iter().map(|micros| micros.and_then(day)).collect()
            }
            other => return Err(Error::new(Kind::Bug, "The partition source has no dates").with_field("type", other)),
        };
        if self.unit == PartitionUnit::Day {
            return Ok(days);
        }
        // A batch has few distinct days, and calendar arithmetic is slow.
        let mut known: HashMap<i32, PartitionNumber> = HashMap::new();
        let number = |day: i32| {
            let date = NaiveDate::from_num_days_from_ce_opt(day.checked_add(EPOCH_DAYS)?)?;
            Some(match self.unit {
                PartitionUnit::Year => date.year(),
                _ => date.year() * 12 + date.month0() as i32,
            })
        };
        Ok(days.into_iter().map(|day| *known.entry(day?).or_insert_with_key(|day| number(*day))).collect())
    }

    /// The partition value as the log has it.
    pub(crate) fn value(&self, number: PartitionNumber) -> PartitionValue {
        (self.physical.clone(), self.text(number))
    }

    fn text(&self, number: PartitionNumber) -> Option<String> {
        let number = number?;
        let date = match self.unit {
            PartitionUnit::Year => return Some(number.to_string()),
            PartitionUnit::Day => NaiveDate::from_num_days_from_ce_opt(number.checked_add(EPOCH_DAYS)?)?,
            PartitionUnit::Month => NaiveDate::from_ymd_opt(number.div_euclid(12), number.rem_euclid(12) as u32 + 1, 1)?,
        };
        Some(date.format("%Y-%m-%d").to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, RecordBatch, TimestampMicrosecondArray};

    use super::*;
    use crate::schema::PartitionBy;
    use crate::sink::delta::log::partition_column::partition_column;

    #[test]
    fn timestamps_are_in_the_partition_of_their_calendar_unit() {
        let at = |text: &str| text.parse::<crate::model::Timestamp>().unwrap().micros();
        let times = [at("1969-12-31T23:59:59.999999Z"), at("1970-01-01T00:00:00Z"), at("2024-02-29T12:00:00Z")];
        let array: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from_iter(times.map(Some).into_iter().chain([None])).with_timezone("UTC"));
        let batch = RecordBatch::try_from_iter_with_nullable([("t", array, true)]).unwrap();
        let values = |unit| {
            let partitioning = Partitioning::new("p", unit);
            let numbers = partitioning.numbers(batch.column(0)).unwrap();
            numbers.into_iter().map(|number| partitioning.text(number).unwrap_or("-".into())).collect::<Vec<_>>()
        };
        assert_eq!(values(PartitionUnit::Day), ["1969-12-31", "1970-01-01", "2024-02-29", "-"]);
        assert_eq!(values(PartitionUnit::Month), ["1969-12-01", "1970-01-01", "2024-02-01", "-"]);
        assert_eq!(values(PartitionUnit::Year), ["1969", "1970", "2024", "-"]);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![-1, 0, i32::MAX]));
        let partitioning = Partitioning::new("p", PartitionUnit::Month);
        assert_eq!(partitioning.numbers(&days).unwrap()[2], None, "beyond any calendar");
    }

    #[test]
    fn the_partition_column_names_its_source() {
        let by: PartitionBy = "month(created_at)".parse().unwrap();
        let text = LakeColumn::schema_string(&[partition_column(&by)]);
        let columns = LakeColumn::from_schema_string(&text).unwrap();
        assert!(is_partition(&columns[0]));
        let leaf = |name: &str| LakeColumn { name: name.into(), metadata: serde_json::Map::new(), ..columns[0].clone() };
        let written = [leaf("id"), leaf("created_at")];
        assert_eq!(Partitioning::of(&columns, &written).unwrap().source, 1);
        assert!(Partitioning::of(&columns, &written[..1]).is_none());
    }
}
