//! Columns of a lake table as the Delta log describes them: logical and physical names, types, comments. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::ColumnStatus;

const COMMENT: &str = "comment";
const MAPPING_ID: &str = "delta.columnMapping.id";
const MAPPING_NAME: &str = "delta.columnMapping.physicalName";
/// Name of the items of a list, as the Parquet format requires it.
const ELEMENT: &str = "element";

/// A column of the table, or a member of a nested one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LakeColumn {
    /// Name that users see.
    pub(crate) name: String,
    /// Name in data files and statistics; equals `name` unless the table maps columns.
    pub(crate) physical: String,
    /// Field id in data files, if the table maps columns.
    pub(crate) id: Option<i64>,
    /// Type.
    pub(crate) kind: LakeType,
    /// Whether nulls are allowed. Members of nested columns are always nullable.
    pub(crate) nullable: bool,
    /// Comment and metadata of other programs.
    pub(crate) metadata: Map<String, Value>,
}

/// Type of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LakeType {
    /// A type without members.
    Leaf(DataType),
    /// Members with names.
    Struct(Vec<LakeColumn>),
    /// Items of one type.
    List(Box<LakeType>),
}

/// The type of all timestamps: microseconds in UTC.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Whether Delta does not allow a name in Parquet files, so that the table must map its columns.
pub(crate) fn needs_mapping(name: &str) -> bool {
    name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='])
}

/// Whether two names are the same to Delta, which ignores case.
pub(crate) fn is_same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || !one.is_ascii() && one.to_lowercase() == other.to_lowercase()
}

/// The position of a name: an exact match, otherwise one that ignores case.
pub(crate) fn position_of_name<'n>(mut names: impl Iterator<Item = &'n str> + Clone, name: &str) -> Option<usize> {
    names.clone().position(|known| known == name).or_else(|| names.position(|known| is_same_name(known, name)))
}

impl LakeColumn {
    /// The columns of [`crate::schema::lake_schema`], not yet mapped.
    pub(crate) fn from_fields(fields: &Fields) -> Result<Vec<Self>> {
        fields.iter().map(|field| Self::from_field(field, field.is_nullable())).collect()
    }

    fn from_field(field: &FieldRef, nullable: bool) -> Result<Self> {
        let mut metadata = Map::new();
        if let Some(comment) = field.metadata().get(COMMENT) {
            metadata.insert(COMMENT.into(), Value::String(comment.clone()));
        }
        Ok(Self {
            name: field.name().clone(),
            physical: field.name().clone(),
            id: None,
            kind: LakeType::from_arrow(field.data_type())?,
            nullable,
            metadata,
        })
    }

    /// The columns with these names, in the order of the names.
    pub(crate) fn named(columns: &[Self], names: &[String]) -> Vec<Self> {
        names.iter().filter_map(|name| columns.iter().find(|column| column.name == *name).cloned()).collect()
    }

    /// The types of columns in data files.
    pub(crate) fn file_types(columns: &[Self]) -> Vec<DataType> {
        columns.iter().map(|column| column.kind.file_type()).collect()
    }

    /// Parses the `schemaString` of a table. Kind `Target` if it is invalid or has a type that daplake does not write.
    pub(crate) fn from_schema_string(text: &str) -> Result<Vec<Self>> {
        let value: Value = serde_json::from_str(text).context(Kind::Target, "The table's schema cannot be read")?;
        columns_of_struct(&value)
    }

    /// The `schemaString` of these columns.
    pub(crate) fn schema_string(columns: &[Self]) -> String {
        struct_json(columns).to_string()
    }

    fn to_json(&self) -> Value {
        let mut metadata = self.metadata.clone();
        if let Some(id) = self.id {
            metadata.insert(MAPPING_ID.into(), id.into());
            metadata.insert(MAPPING_NAME.into(), self.physical.clone().into());
        }
        json!({"name": self.name, "type": self.kind.to_json(), "nullable": self.nullable, "metadata": metadata})
    }

    fn from_json(value: &Value) -> Result<Self> {
        let unreadable = || Error::new(Kind::Target, "The table's schema cannot be read");
        let name = value["name"].as_str().ok_or_else(unreadable)?.to_owned();
        let mut metadata = value["metadata"].as_object().cloned().unwrap_or_default();
        let id = metadata.remove(MAPPING_ID).and_then(|id| id.as_i64());
        let physical = metadata.remove(MAPPING_NAME).and_then(|name| name.as_str().map(str::to_owned));
        let kind = LakeType::from_json(&value["type"]).map_err(|error| error.with_field("column", &name))?;
        Ok(Self {
            physical: physical.unwrap_or_else(|| name.clone()),
            id,
            kind,
            nullable: value["nullable"].as_bool().unwrap_or(true),
            metadata,
            name,
        })
    }

    /// The comment of the column.
    pub(crate) fn comment(&self) -> Option<&str> {
        self.metadata.get(COMMENT).and_then(Value::as_str)
    }

    /// The column for people.
    pub(crate) fn status(&self, is_key: bool) -> ColumnStatus {
        ColumnStatus {
            name: self.name.clone(),
            column_type: self.kind.describe(),
            is_key,
            nullable: self.nullable && !is_key,
            description: self.comment().map(str::to_owned),
        }
    }

    /// Sets or removes the comment of the column.
    pub(crate) fn set_comment(&mut self, comment: Option<&str>) {
        match comment {
            Some(comment) => self.metadata.insert(COMMENT.into(), comment.into()),
            None => self.metadata.remove(COMMENT),
        };
    }

    /// Visits this column and all members below it, depth first.
    pub(crate) fn visit_mut(&mut self, visit: &mut impl FnMut(&mut Self)) {
        visit(self);
        self.kind.visit_mut(visit);
    }

    /// The field in data files. The caller decides whether it is nullable: all columns except keys are, so that a column can
    /// become nullable without a rewrite of files.
    fn file_field(&self, nullable: bool) -> Field {
        let field = Field::new(&self.physical, self.kind.file_type(), nullable);
        match self.id {
            Some(id) => field.with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())])),
            None => field,
        }
    }
}

impl LakeType {
    fn from_arrow(data_type: &DataType) -> Result<Self> {
        Ok(match data_type {
            DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Utf8
            | DataType::Date32 => Self::Leaf(data_type.clone()),
            DataType::Decimal128(precision, scale) if *scale >= 0 && *scale <= *precision as i8 => {
                Self::Leaf(data_type.clone())
            }
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Self::Leaf(timestamp_type()),
            DataType::Struct(fields) => {
                Self::Struct(fields.iter().map(|field| LakeColumn::from_field(field, true)).collect::<Result<_>>()?)
            }
            DataType::List(item) => Self::List(Box::new(Self::from_arrow(item.data_type())?)),
            _ => return Err(Error::new(Kind::Bug, "Lake tables do not support this column type").with_field("type", data_type)),
        })
    }

    fn from_json(value: &Value) -> Result<Self> {
        let foreign = || {
            Error::new(Kind::Target, "The table has a column of a type that daplake does not support")
                .hint("another program changed the table; load into a new target")
        };
        if let Some(name) = value.as_str() {
            let leaf = match name {
                "boolean" => DataType::Boolean,
                "short" => DataType::Int16,
                "integer" => DataType::Int32,
                "long" => DataType::Int64,
                "float" => DataType::Float32,
                "double" => DataType::Float64,
                "string" => DataType::Utf8,
                "date" => DataType::Date32,
                "timestamp" => timestamp_type(),
                _ => {
                    let (precision, scale) = name
                        .strip_prefix("decimal(")
                        .and_then(|rest| rest.strip_suffix(')'))
                        .and_then(|inner| inner.split_once(','))
                        .ok_or_else(foreign)?;
                    let precision = precision.trim().parse().map_err(|_| foreign())?;
                    DataType::Decimal128(precision, scale.trim().parse().map_err(|_| foreign())?)
                }
            };
            return Ok(Self::Leaf(leaf));
        }
        match value["type"].as_str() {
            Some("struct") => Ok(Self::Struct(columns_of_struct(value)?)),
            Some("array") => Ok(Self::List(Box::new(Self::from_json(&value["elementType"])?))),
            _ => Err(foreign()),
        }
    }

    /// The type for people, such as `long` or `array<struct<id: long>>`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Leaf(leaf) => leaf_name(leaf),
            Self::Struct(members) => {
                let members: Vec<String> =
                    members.iter().map(|member| format!("{}: {}", member.name, member.kind.describe())).collect();
                format!("struct<{}>", members.join(", "))
            }
            Self::List(item) => format!("array<{}>", item.describe()),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Leaf(leaf) => Value::String(leaf_name(leaf)),
            Self::Struct(members) => struct_json(members),
            Self::List(item) => json!({"type": "array", "elementType": item.to_json(), "containsNull": true}),
        }
    }

    fn visit_mut(&mut self, visit: &mut impl FnMut(&mut LakeColumn)) {
        match self {
            Self::Leaf(_) => {}
            Self::Struct(members) => members.iter_mut().for_each(|member| member.visit_mut(visit)),
            Self::List(item) => item.visit_mut(visit),
        }
    }

    /// The Arrow type in data files.
    pub(crate) fn file_type(&self) -> DataType {
        match self {
            Self::Leaf(leaf) => leaf.clone(),
            Self::Struct(members) => DataType::Struct(members.iter().map(|member| member.file_field(true)).collect()),
            Self::List(item) => DataType::List(Arc::new(Field::new(ELEMENT, item.file_type(), true))),
        }
    }
}

/// The name of a leaf type in the log.
pub(crate) fn leaf_name(leaf: &DataType) -> String {
    match leaf {
        DataType::Boolean => "boolean".into(),
        DataType::Int16 => "short".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "long".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        _ => "string".into(),
    }
}

fn struct_json(columns: &[LakeColumn]) -> Value {
    json!({"type": "struct", "fields": columns.iter().map(LakeColumn::to_json).collect::<Vec<_>>()})
}

fn columns_of_struct(value: &Value) -> Result<Vec<LakeColumn>> {
    let fields = value["fields"].as_array().ok_or_else(|| Error::new(Kind::Target, "The table's schema cannot be read"))?;
    fields.iter().map(LakeColumn::from_json).collect()
}

/// The schema of data files: physical names; all columns except `keys` (logical names) are nullable.
pub(crate) fn file_schema(columns: &[LakeColumn], keys: &[String]) -> SchemaRef {
    let fields: Fields = columns.iter().map(|column| column.file_field(!keys.contains(&column.name))).collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_string_survives_a_round_trip() {
        let inner = Fields::from(vec![Field::new("a", DataType::Utf8, false), Field::new("b", timestamp_type(), true)]);
        let comment = HashMap::from([("comment".to_owned(), "say \"what\"".to_owned()), ("other".to_owned(), "x".to_owned())]);
        let fields = Fields::from(vec![
            Field::new("id", DataType::Int64, false).with_metadata(comment),
            Field::new("s", DataType::Struct(inner.clone()), true),
            Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Struct(inner), false))), true),
            Field::new("d", DataType::Decimal128(38, 10), true),
            Field::new("ein Name", DataType::Int16, true),
        ]);
        let mut columns = LakeColumn::from_fields(&fields).unwrap();
        columns[4].physical = "col-1".into();
        columns[4].id = Some(7);
        let text = LakeColumn::schema_string(&columns);
        assert_eq!(LakeColumn::from_schema_string(&text).unwrap(), columns);
        assert_eq!(columns[0].comment(), Some("say \"what\""));
        // The kernel of the Delta crate can read it.
        let kernel: deltalake::kernel::StructType = serde_json::from_str(&text).unwrap();
        assert_eq!(kernel.fields().count(), 5);
        let file = file_schema(&columns, &["id".into()]);
        assert!(!file.field(0).is_nullable() && file.field(4).is_nullable());
        assert_eq!(file.field(4).name(), "col-1");
        assert_eq!(file.field(4).metadata()[PARQUET_FIELD_ID_META_KEY], "7");
    }

    #[test]
    fn types_that_daplake_does_not_write_are_refused() {
        for foreign in ["\"binary\"", "\"timestamp_ntz\"", r#"{"type":"map","keyType":"string","valueType":"string"}"#] {
            let text =
                format!(r#"{{"type":"struct","fields":[{{"name":"x","type":{foreign},"nullable":true,"metadata":{{}}}}]}}"#);
            let error = LakeColumn::from_schema_string(&text).unwrap_err();
            assert_eq!((error.kind(), error.get("column")), (Kind::Target, Some("x")));
        }
    }
}
