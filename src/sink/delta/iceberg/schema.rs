//! The Iceberg schema of a table: types, stable field ids, and the name mapping for data files without ids. No I/O.
//!
//! A Delta table that maps columns has ids in its schema and in its data files; these become the field ids. Other tables have none, so
//! ids are assigned here and kept in the Iceberg metadata. Data files are then read by the names in `schema.name-mapping.default`.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result, ResultExt};

/// Members of Delta columns.
const MAPPING_ID: &str = "delta.columnMapping.id";
const MAPPING_NAME: &str = "delta.columnMapping.physicalName";
/// Name of the items of a list, in Iceberg and in Parquet.
const ELEMENT: &str = "element";

/// A column or a member of a struct.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) id: i32,
    pub(super) name: String,
    /// Names in data files and statistics; the last one is that in new files.
    pub(super) names: Vec<String>,
    pub(super) required: bool,
    pub(super) kind: Type,
    doc: Option<String>,
}

/// The type of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    /// Name of the type in Iceberg.
    Primitive(String),
    Struct(Vec<Field>),
    List {
        id: i32,
        item: Box<Type>,
    },
}

/// The schema of a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Schema {
    pub(super) fields: Vec<Field>,
    /// Ids of the key columns.
    pub(super) key: Vec<i32>,
    /// The highest id that was ever assigned.
    pub(super) last_id: i32,
}

/// A schema that follows another one.
pub(super) struct Evolved {
    pub(super) schema: Schema,
    /// Whether older snapshots can no longer be read, because the same names or ids mean something else now.
    pub(super) breaks_history: bool,
}

impl Schema {
    /// The schema of a Delta table after `previous`, whose name mapping is `mapping`. `schema_string` is that of the table's metadata,
    /// `key` are the names of the key columns, or none if a key may occur more than once. Kind `Unsupported` for a type that Iceberg
    /// does not have.
    pub(super) fn evolve(previous: &Self, mapping: &Value, schema_string: &str, key: &[String]) -> Result<Evolved> {
        let delta: Value = serde_json::from_str(schema_string).context(Kind::Target, "The table's schema cannot be read")?;
        let mut assignment = Assignment { last_id: previous.last_id, is_mapped: is_mapped(&delta), breaks_history: false };
        let fields = assignment.fields(&delta, &previous.fields)?;
        let key = fields.iter().filter(|field| field.required && key.contains(&field.name)).map(|field| field.id).collect();
        let schema = Self { fields, key, last_id: assignment.last_id };
        // A column with the name of one that was removed.
        let breaks_history = assignment.breaks_history || has_repeated_name(&schema.name_mapping(mapping));
        Ok(Evolved { schema, breaks_history })
    }

    /// The schema of table metadata, with the names of its name mapping.
    pub(super) fn from_json(schema: &Value, mapping: &Value, last_id: i32) -> Result<Self> {
        let fields = schema["fields"].as_array().ok_or_else(unreadable)?;
        let fields = fields.iter().map(|field| Field::from_json(field, mapping)).collect::<Result<_>>()?;
        let key = schema["identifier-field-ids"].as_array().into_iter().flatten();
        let key = key.filter_map(|id| i32::try_from(id.as_i64()?).ok()).collect();
        Ok(Self { fields, key, last_id })
    }

    /// The schema for table metadata.
    pub(super) fn to_json(&self, schema_id: i32) -> Value {
        let mut schema = json!({"type": "struct", "schema-id": schema_id});
        if !self.key.is_empty() {
            schema["identifier-field-ids"] = json!(self.key);
        }
        schema["fields"] = self.fields.iter().map(Field::to_json).collect();
        schema
    }

    /// The name mapping: this schema's fields, and those of `older` mappings that it does not have, for older snapshots.
    pub(super) fn name_mapping(&self, older: &Value) -> Value {
        mapping_of(&self.fields, older)
    }
}

fn unreadable() -> Error {
    Error::new(Kind::Target, "The schema in the Iceberg metadata cannot be read")
}

/// Whether a Delta schema has column ids.
fn is_mapped(delta: &Value) -> bool {
    delta["fields"].as_array().into_iter().flatten().any(|field| field["metadata"][MAPPING_ID].is_i64())
}

struct Assignment {
    last_id: i32,
    is_mapped: bool,
    breaks_history: bool,
}

impl Assignment {
    fn next_id(&mut self) -> i32 {
        self.last_id += 1;
        self.last_id
    }

    fn fields(&mut self, delta: &Value, previous: &[Field]) -> Result<Vec<Field>> {
        let columns = delta["fields"].as_array().ok_or_else(unreadable)?;
        columns.iter().map(|column| self.field(column, previous)).collect()
    }

    fn field(&mut self, column: &Value, previous: &[Field]) -> Result<Field> {
        let name = column["name"].as_str().ok_or_else(unreadable)?.to_owned();
        let metadata = &column["metadata"];
        let physical = metadata[MAPPING_NAME].as_str().unwrap_or(&name).to_owned();
        let known = previous.iter().find(|field| field.names.contains(&physical)).or_else(|| {
            // Names that differ only in case are the same to Delta.
            let same = |field: &&Field| field.names.iter().any(|known| known.to_lowercase() == physical.to_lowercase());
            previous.iter().find(same)
        });
        let mut names = known.map(|field| field.names.clone()).unwrap_or_default();
        names.retain(|known| *known != physical);
        names.push(physical);
        let mapped = metadata[MAPPING_ID].as_i64().and_then(|id| i32::try_from(id).ok());
        let id = match (mapped, known) {
            (Some(id), known) => {
                self.breaks_history |= known.is_some_and(|known| known.id != id);
                self.last_id = self.last_id.max(id);
                id
            }
            (None, Some(known)) => known.id,
            (None, None) => self.next_id(),
        };
        let (kind, id) = match self.kind(&column["type"], known.map(|known| &known.kind)) {
            Ok(Some(kind)) => (kind, id),
            // Values of the old type cannot be read as the new one: the field is another one under the same name.
            Ok(None) => {
                self.breaks_history = true;
                let id = if mapped.is_some() { id } else { self.next_id() };
                let kind = self.kind(&column["type"], None)?;
                (kind.ok_or_else(unreadable)?, id)
            }
            Err(error) => return Err(error.with_field("column", &name)),
        };
        let required = column["nullable"] == false;
        Ok(Field { id, names, required, kind, doc: metadata["comment"].as_str().map(str::to_owned), name })
    }

    /// `None` if values of the type `known` cannot be read as the new type.
    fn kind(&mut self, delta: &Value, known: Option<&Type>) -> Result<Option<Type>> {
        if let Some(name) = delta.as_str() {
            let name = primitive(name)?;
            let fits = match known {
                None => true,
                Some(Type::Primitive(known)) => is_promotion(known, &name),
                Some(_) => false,
            };
            return Ok(fits.then_some(Type::Primitive(name)));
        }
        Ok(match (delta["type"].as_str(), known) {
            (Some("struct"), None) => Some(Type::Struct(self.fields(delta, &[])?)),
            (Some("struct"), Some(Type::Struct(members))) => Some(Type::Struct(self.fields(delta, members)?)),
            // Its data files have ids for columns, but not for list items, and some readers then see null.
            (Some("array"), _) if self.is_mapped => {
                return Err(Error::new(
                    Kind::Unsupported,
                    "A table that maps its columns and has lists cannot have an Iceberg view",
                ));
            }
            (Some("array"), None) => {
                let id = self.next_id();
                self.kind(&delta["elementType"], None)?.map(|item| Type::List { id, item: Box::new(item) })
            }
            (Some("array"), Some(Type::List { id, item })) => {
                self.kind(&delta["elementType"], Some(item))?.map(|item| Type::List { id: *id, item: Box::new(item) })
            }
            (Some("struct" | "array"), Some(_)) => None,
            _ => return Err(unsupported()),
        })
    }
}

fn unsupported() -> Error {
    Error::new(Kind::Unsupported, "Iceberg metadata cannot describe this column type")
}

/// The Iceberg name of a Delta type.
fn primitive(delta: &str) -> Result<String> {
    Ok(match delta {
        "boolean" | "float" | "double" | "string" | "date" | "long" => delta.to_owned(),
        "short" | "integer" => "int".to_owned(),
        "timestamp" => "timestamptz".to_owned(),
        _ => match decimal(delta) {
            Some((precision, scale)) => format!("decimal({precision}, {scale})"),
            None => return Err(unsupported()),
        },
    })
}

/// Precision and scale of a decimal type, in the spelling of Delta or Iceberg.
pub(super) fn decimal(name: &str) -> Option<(u32, u32)> {
    let inner = name.strip_prefix("decimal(")?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',')?;
    Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
}

/// Whether Iceberg reads values of the type `from` as `to`.
fn is_promotion(from: &str, to: &str) -> bool {
    if from == to || matches!((from, to), ("int", "long") | ("float", "double")) {
        return true;
    }
    match (decimal(from), decimal(to)) {
        (Some((precision, scale)), Some((wider, same))) => scale == same && wider >= precision,
        _ => false,
    }
}

impl Field {
    fn from_json(field: &Value, mapping: &Value) -> Result<Self> {
        let id = field["id"].as_i64().and_then(|id| i32::try_from(id).ok()).ok_or_else(unreadable)?;
        let mapped = mapped(mapping, id);
        let names = mapped["names"].as_array().into_iter().flatten();
        Ok(Self {
            id,
            name: field["name"].as_str().ok_or_else(unreadable)?.to_owned(),
            names: names.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
            required: field["required"] == true,
            kind: Type::from_json(&field["type"], &mapped["fields"])?,
            doc: field["doc"].as_str().map(str::to_owned),
        })
    }

    fn to_json(&self) -> Value {
        let mut field = json!({"id": self.id, "name": self.name, "required": self.required, "type": self.kind.to_json()});
        if let Some(doc) = &self.doc {
            field["doc"] = doc.as_str().into();
        }
        field
    }

    /// The name in new data files and in statistics.
    pub(super) fn physical(&self) -> &str {
        self.names.last().unwrap_or(&self.name)
    }
}

impl Type {
    fn from_json(kind: &Value, mapping: &Value) -> Result<Self> {
        if let Some(name) = kind.as_str() {
            return Ok(Self::Primitive(name.to_owned()));
        }
        match kind["type"].as_str() {
            Some("struct") => {
                let members = kind["fields"].as_array().ok_or_else(unreadable)?;
                Ok(Self::Struct(members.iter().map(|member| Field::from_json(member, mapping)).collect::<Result<_>>()?))
            }
            Some("list") => {
                let id = kind["element-id"].as_i64().and_then(|id| i32::try_from(id).ok()).ok_or_else(unreadable)?;
                let item = Self::from_json(&kind["element"], &mapped(mapping, id)["fields"])?;
                Ok(Self::List { id, item: Box::new(item) })
            }
            _ => Err(unreadable()),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Primitive(name) => name.as_str().into(),
            Self::Struct(members) => {
                json!({"type": "struct", "fields": members.iter().map(Field::to_json).collect::<Vec<_>>()})
            }
            Self::List { id, item } => {
                json!({"type": "list", "element-id": id, "element": item.to_json(), "element-required": false})
            }
        }
    }

    /// The name mapping of what is inside.
    fn mapping(&self, older: &Value) -> Value {
        match self {
            Self::Primitive(_) => Value::Null,
            Self::Struct(members) => mapping_of(members, older),
            Self::List { id, item } => {
                let mut entry = json!({"field-id": id, "names": [ELEMENT]});
                let inner = item.mapping(&mapped(older, *id)["fields"]);
                if !inner.is_null() {
                    entry["fields"] = inner;
                }
                json!([entry])
            }
        }
    }
}

/// The entry of a field in a list of a name mapping.
fn mapped(mapping: &Value, id: i32) -> &Value {
    let entries = mapping.as_array().into_iter().flatten();
    entries.into_iter().find(|entry| entry["field-id"] == id).unwrap_or(&Value::Null)
}

/// Whether two fields of a name mapping have the same name.
fn has_repeated_name(mapping: &Value) -> bool {
    let mut seen = HashSet::new();
    mapping.as_array().into_iter().flatten().any(|entry| {
        let mut names = entry["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.any(|name| !seen.insert(name)) || has_repeated_name(&entry["fields"])
    })
}

fn mapping_of(fields: &[Field], older: &Value) -> Value {
    let entry = |field: &Field| {
        let mut entry = json!({"field-id": field.id, "names": field.names});
        let inner = field.kind.mapping(&mapped(older, field.id)["fields"]);
        if !inner.is_null() {
            entry["fields"] = inner;
        }
        entry
    };
    let is_gone = |entry: &&Value| !fields.iter().any(|field| entry["field-id"] == field.id);
    let gone = older.as_array().into_iter().flatten().filter(is_gone).cloned();
    fields.iter().map(entry).chain(gone).collect()
}
