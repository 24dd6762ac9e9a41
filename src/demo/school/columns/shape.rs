//! Reads from the service's JSON Schema what the generation of rows needs. Deliberately separate from `crate::schema`: with shared code, tests
//! against the demo could not find a misreading of schemas.

use std::collections::HashSet;

use parking_lot::Mutex;
use serde_json::Value;

use crate::demo::record::{Field, Layout};

/// Columns of a table at one version.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) key: Vec<Column>,
    pub(crate) value: Vec<Column>,
}

/// A column, or a member of an object.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// The column may contain the placeholder for oversized text.
    pub(crate) oversize: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Bool,
    Int { bits: u32 },
    IntEnum(Vec<i64>),
    Float,
    Decimal { precision: u8, scale: u8 },
    Text { max: Option<usize> },
    Enum { members: Vec<&'static str>, open: bool },
    Time,
    Date,
    Uuid,
    Ip,
    Object(Vec<Column>),
    List(Box<Column>),
}

impl Shape {
    pub(crate) fn read(schema: &Value) -> Self {
        let part = |name: &str| members(&schema["properties"][name]);
        Self { key: part("key"), value: part("value") }
    }

    pub(crate) fn layout(&self) -> Layout {
        fn fields(columns: &[Column]) -> Vec<Field> {
            columns
                .iter()
                .map(|column| Field {
                    name: column.name.to_owned(),
                    members: match &column.kind {
                        Kind::Object(members) => fields(members),
                        _ => Vec::new(),
                    },
                })
                .collect()
        }
        Layout { key: self.key.iter().map(|column| column.name.to_owned()).collect(), value: fields(&self.value) }
    }
}

fn members(node: &Value) -> Vec<Column> {
    let required = |name: &str| node["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name));
    let properties = node["properties"].as_object();
    properties.into_iter().flatten().map(|(name, node)| column(name, node, required(name))).collect()
}

fn column(name: &str, node: &Value, required: bool) -> Column {
    let mut oversize = false;
    let kind = match node["oneOf"].as_array().map(Vec::as_slice) {
        Some([first, second]) if first.get("const").is_some() => {
            oversize = true;
            kind(second)
        }
        Some([first, _]) if first.get("enum").is_some() => Kind::Enum { members: words(first), open: true },
        Some(_) => Kind::Ip,
        None => kind(node),
    };
    Column { name: keep(name), kind, required, oversize }
}

fn kind(node: &Value) -> Kind {
    let word = |keyword: &str| node[keyword].as_str().unwrap_or_default();
    match word("type") {
        "boolean" => Kind::Bool,
        "integer" => match node["enum"].as_array() {
            Some(members) => Kind::IntEnum(members.iter().filter_map(Value::as_i64).collect()),
            None => Kind::Int { bits: word("format").strip_prefix("int").and_then(|bits| bits.parse().ok()).unwrap_or(64) },
        },
        "number" => match (node["multipleOf"].as_f64(), node["exclusiveMaximum"].as_f64()) {
            (Some(step), Some(bound)) => {
                let scale = -step.log10().round() as u8;
                Kind::Decimal { precision: bound.log10().round() as u8 + scale, scale }
            }
            _ => Kind::Float,
        },
        "array" => Kind::List(Box::new(column("item", &node["items"], true))),
        "object" => Kind::Object(members(node)),
        _ if node["enum"].is_array() => Kind::Enum { members: words(node), open: false },
        _ => match word("format") {
            "date-time" => Kind::Time,
            "date" => Kind::Date,
            "uuid" => Kind::Uuid,
            "ipv4" | "ipv6" => Kind::Ip,
            _ => Kind::Text { max: node["maxLength"].as_u64().map(|max| max as usize) },
        },
    }
}

fn words(node: &Value) -> Vec<&'static str> {
    node["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(keep).collect()
}

/// Interns a string for the life of the process, so that rows can borrow names and enum members. The catalogue bounds their number.
fn keep(word: &str) -> &'static str {
    static KEPT: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut kept = KEPT.lock();
    let kept = kept.get_or_insert_default();
    match kept.get(word) {
        Some(known) => known,
        None => {
            let word: &'static str = Box::leak(word.into());
            kept.insert(word);
            word
        }
    }
}
