//! Reads the service's JSON Schema: the dialect that the service uses today and a superset of it (references, type lists, bounds). A node
//! that is not supported becomes a column of JSON text, with a warning.

use serde_json::{Map, Number, Value};

use super::{Column, ColumnType, TableSchema};
use crate::error::{Error, Kind, Result};
use crate::model::TableRef;

/// Objects that are nested deeper than this are loaded as JSON text. Real schemas have two levels.
const MAX_DEPTH: usize = 16;
/// The largest precision of a 128-bit decimal.
const MAX_PRECISION: u32 = 38;

impl TableSchema {
    /// Reads the `schema` member of the service's response. Unknown nodes degrade to JSON text with a warning; only a schema
    /// without usable `properties.key` is an error (kind `Schema`).
    pub fn read(table: &TableRef, version: i64, schema: Value) -> Result<Self> {
        let mut reader = Reader { root: &schema, warnings: Vec::new() };
        let unusable = |what: &'static str| {
            Error::new(Kind::Schema, "The schema of the table is not usable")
                .with_field("table", table)
                .with_field("reason", what)
        };
        let groups = schema.get("properties").and_then(Value::as_object).ok_or_else(|| unusable("it has no `properties`"))?;
        let key_node =
            groups.get("key").and_then(|node| reader.group(node)).ok_or_else(|| unusable("it names no key columns"))?;
        let mut key = reader.columns(key_node, "", 0, &mut Vec::new());
        if key.is_empty() {
            return Err(unusable("it names no key columns"));
        }
        for column in &mut key {
            // A key is never null, whatever `required` says.
            column.required = true;
        }
        let mut value = match groups.get("value") {
            None => Vec::new(),
            Some(node) => match reader.group(node) {
                Some(node) => reader.columns(node, "", 0, &mut Vec::new()),
                None => {
                    reader.warnings.push("`value` has no columns; only the key is loaded".to_owned());
                    Vec::new()
                }
            },
        };
        value.retain(|column| {
            let twice = key.iter().any(|key| key.name == column.name);
            if twice {
                reader
                    .warnings
                    .push(format!("`{}` is both a key and a value column; the value column is ignored", column.name));
            }
            !twice
        });
        let names = key.iter().chain(&value).map(|column| column.name.as_str());
        reader.warnings.extend(letter_case_twins(names, ""));
        let warnings = reader.warnings;
        let description = table_text(&schema);
        Ok(TableSchema { table: table.clone(), version, description, key, value, source: schema.into(), warnings })
    }
}

/// Warnings for names that differ only in letter case: some targets, such as Delta Lake, treat them as one column.
fn letter_case_twins<'n>(names: impl Iterator<Item = &'n str>, path: &str) -> Vec<String> {
    let mut seen = std::collections::HashMap::new();
    let mut warnings = Vec::new();
    for name in names {
        match seen.entry(name.to_lowercase()) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(name);
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                warnings.push(format!("`{path}{}` and `{path}{name}` differ in letter case only", entry.get()));
            }
        }
    }
    warnings
}

/// The title, a blank line and the description, or whichever of the two exists.
fn table_text(node: &Value) -> Option<String> {
    match (text_of(node, "title"), text_of(node, "description")) {
        (Some(title), Some(description)) => Some(format!("{title}\n\n{description}")),
        (title, description) => title.or(description).map(str::to_owned),
    }
}

fn text_of<'v>(node: &'v Value, name: &str) -> Option<&'v str> {
    node.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Properties of a column that a node of the schema sets.
struct Node {
    column_type: ColumnType,
    /// `null` is one of its types.
    nullable: bool,
    oversizeable: bool,
}

impl Node {
    fn of(column_type: ColumnType) -> Self {
        Self { column_type, nullable: false, oversizeable: false }
    }
}

/// Why a node is loaded as JSON text.
type Unknown = &'static str;

struct Reader<'s> {
    root: &'s Value,
    warnings: Vec<String>,
}

impl<'s> Reader<'s> {
    /// A group (`key`, `value`) with its members, behind references if need be.
    fn group(&self, node: &'s Value) -> Option<&'s Map<String, Value>> {
        let mut node = node;
        for _ in 0..MAX_DEPTH {
            match node.get("$ref").and_then(Value::as_str) {
                Some(reference) => node = self.resolve(reference)?,
                None => break,
            }
        }
        let node = node.as_object()?;
        node.get("properties")?.as_object()?;
        Some(node)
    }

    fn resolve(&self, reference: &str) -> Option<&'s Value> {
        self.root.pointer(reference.strip_prefix('#')?)
    }

    /// The members of an object node, in order. `path` ends with a dot below the top.
    fn columns(
        &mut self,
        object: &'s Map<String, Value>,
        path: &str,
        depth: usize,
        references: &mut Vec<&'s str>,
    ) -> Vec<Column> {
        let required: Vec<&str> = object
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let members = object.get("properties").and_then(Value::as_object);
        let columns: Vec<Column> = members
            .into_iter()
            .flatten()
            .map(|(name, node)| {
                let path = format!("{path}{name}");
                let read = self.node(node, &path, depth, references).unwrap_or_else(|unknown| {
                    self.warnings.push(format!("`{path}` {unknown}; it is loaded as JSON text"));
                    // Even an unknown node may tell whether it is nullable.
                    Node { nullable: node.get("nullable") == Some(&Value::Bool(true)), ..Node::of(ColumnType::Json) }
                });
                let described = ["title", "description"].iter().find_map(|text| self.annotation(node, text)?.as_str());
                Column {
                    name: name.clone(),
                    column_type: read.column_type,
                    required: required.contains(&name.as_str()) && !read.nullable,
                    description: described.filter(|text| !text.is_empty()).map(str::to_owned),
                    oversizeable: read.oversizeable,
                    default: self.annotation(node, "default").cloned(),
                }
            })
            .collect();
        if depth > 0 {
            self.warnings.extend(letter_case_twins(columns.iter().map(|column| column.name.as_str()), path));
        }
        columns
    }

    /// A keyword of the node itself or of the node that it refers to.
    fn annotation(&self, node: &'s Value, name: &str) -> Option<&'s Value> {
        let mut node = node;
        for _ in 0..MAX_DEPTH {
            if let Some(value) = node.get(name) {
                return Some(value);
            }
            node = self.resolve(node.get("$ref")?.as_str()?)?;
        }
        None
    }

    fn node(
        &mut self,
        node: &'s Value,
        path: &str,
        depth: usize,
        references: &mut Vec<&'s str>,
    ) -> std::result::Result<Node, Unknown> {
        if depth > MAX_DEPTH {
            return Err("is nested too deeply");
        }
        let object = node.as_object().ok_or("may hold anything")?;
        let nullable = object.get("nullable") == Some(&Value::Bool(true));
        let mut read = if let Some(reference) = object.get("$ref") {
            let reference = reference.as_str().ok_or("has an unreadable reference")?;
            if references.contains(&reference) {
                return Err("refers to itself");
            }
            let target = self.resolve(reference).ok_or("refers to a definition that is not there")?;
            references.push(reference);
            let read = self.node(target, path, depth, references);
            references.pop();
            read?
        } else if let Some(choices) = ["oneOf", "anyOf"].iter().find_map(|name| object.get(*name)) {
            self.choice(choices.as_array().ok_or("has an unreadable choice")?, path, depth, references)?
        } else if let Some(parts) = object.get("allOf") {
            match parts.as_array().map(Vec::as_slice) {
                Some([only]) => self.node(only, path, depth, references)?,
                _ => return Err("combines several schemas"),
            }
        } else {
            self.plain(object, path, depth, references)?
        };
        read.nullable |= nullable;
        Ok(read)
    }

    /// `oneOf` and `anyOf`.
    fn choice(
        &mut self,
        choices: &'s [Value],
        path: &str,
        depth: usize,
        references: &mut Vec<&'s str>,
    ) -> std::result::Result<Node, Unknown> {
        let (nulls, rest): (Vec<&Value>, Vec<&Value>) =
            choices.iter().partition(|choice| choice.get("type").and_then(Value::as_str) == Some("null"));
        let mut read = match rest.as_slice() {
            [] => return Err("allows nothing but null"),
            [only] => self.node(only, path, depth, references)?,
            several => {
                let mut alternatives = Vec::with_capacity(several.len());
                for choice in several {
                    let is_const = choice.get("const").is_some_and(Value::is_string);
                    // The caller warns about the node as a whole.
                    let said = self.warnings.len();
                    let read = self.node(choice, path, depth, references);
                    self.warnings.truncate(said);
                    alternatives.push((read.map_err(|_| "has alternatives of different types")?, is_const));
                }
                one_of(alternatives)?
            }
        };
        read.nullable |= !nulls.is_empty();
        Ok(read)
    }

    /// A node with `type`, or one whose other keywords tell it.
    fn plain(
        &mut self,
        node: &'s Map<String, Value>,
        path: &str,
        depth: usize,
        references: &mut Vec<&'s str>,
    ) -> std::result::Result<Node, Unknown> {
        let mut nullable = false;
        let mut one_type = None;
        match node.get("type") {
            Some(Value::String(name)) => one_type = Some(name.as_str()),
            Some(Value::Array(names)) => {
                for name in names.iter().filter_map(Value::as_str) {
                    if name == "null" {
                        nullable = true;
                    } else if one_type.replace(name).is_some() {
                        return Err("has several types");
                    }
                }
            }
            _ => {}
        }
        let one_type = match one_type {
            Some(name) => name,
            None if node.contains_key("properties") => "object",
            None if node.contains_key("items") => "array",
            None if enum_values(node).is_some() => "string",
            None => return Err("has no type"),
        };
        let column_type = match one_type {
            "boolean" => ColumnType::Boolean,
            "integer" => integer(node),
            "number" => self.number(node, path),
            "string" => string(node),
            "array" => self.array(node, path, depth, references)?,
            "object" => self.object(node, path, depth, references)?,
            _ => return Err("has an unknown type"),
        };
        nullable |= node.get("enum").and_then(Value::as_array).is_some_and(|members| members.contains(&Value::Null));
        Ok(Node { nullable, ..Node::of(column_type) })
    }

    fn array(
        &mut self,
        node: &'s Map<String, Value>,
        path: &str,
        depth: usize,
        references: &mut Vec<&'s str>,
    ) -> std::result::Result<ColumnType, Unknown> {
        let items = node.get("items").ok_or("is an array of unknown items")?;
        let element = self.node(items, &format!("{path}.element"), depth + 1, references);
        match element {
            Ok(Node { column_type: ColumnType::Json, .. }) | Err(_) => Err("is an array of unknown items"),
            Ok(element) => Ok(ColumnType::List(Box::new(element.column_type))),
        }
    }

    fn object(
        &mut self,
        node: &'s Map<String, Value>,
        path: &str,
        depth: usize,
        references: &mut Vec<&'s str>,
    ) -> std::result::Result<ColumnType, Unknown> {
        let open = node.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
        let fixed = node.get("properties").and_then(Value::as_object).is_some_and(|members| !members.is_empty());
        if !fixed || open || node.contains_key("patternProperties") {
            return Err("is an object of unknown shape");
        }
        Ok(ColumnType::Struct(self.columns(node, &format!("{path}."), depth + 1, references)))
    }

    /// Decimal when bounds and `multipleOf` say so, else a float.
    fn number(&mut self, node: &Map<String, Value>, path: &str) -> ColumnType {
        match node.get("format").and_then(Value::as_str) {
            Some("float32") => return ColumnType::Float32,
            Some("float64") => return ColumnType::Float64,
            _ => {}
        }
        let number = |name: &str| node.get(name).and_then(Value::as_number).and_then(Digits::read);
        let Some(scale) = number("multipleOf").and_then(|step| step.scale_of_step()) else { return ColumnType::Float64 };
        let low = number("exclusiveMinimum").map(|b| b.places(true)).or(number("minimum").map(|b| b.places(false)));
        let high = number("exclusiveMaximum").map(|b| b.places(true)).or(number("maximum").map(|b| b.places(false)));
        let (Some(low), Some(high)) = (low, high) else { return ColumnType::Float64 };
        let precision = (low.max(high) + scale).max(1);
        if precision > MAX_PRECISION {
            self.warnings.push(format!("`{path}` is a decimal of {precision} digits; it is loaded as a float"));
            return ColumnType::Float64;
        }
        ColumnType::Decimal { precision: precision as u8, scale: scale as i8 }
    }
}

/// The narrowest type that holds all alternatives. The flag indicates whether the alternative is a constant text.
fn one_of(alternatives: Vec<(Node, bool)>) -> std::result::Result<Node, Unknown> {
    use ColumnType::*;
    let nullable = alternatives.iter().any(|(node, _)| node.nullable);
    let mut oversizeable = alternatives.iter().any(|(node, _)| node.oversizeable);
    // A constant beside other texts is the placeholder for oversized text.
    let (constants, mut rest): (Vec<_>, Vec<_>) = alternatives.into_iter().partition(|(_, is_const)| *is_const);
    if rest.is_empty() {
        rest = constants;
    } else if !constants.is_empty() {
        if !rest.iter().all(|(node, _)| is_text(&node.column_type)) {
            return Err("has alternatives of different types");
        }
        oversizeable = true;
    }
    let mut types = rest.into_iter().map(|(node, _)| node.column_type);
    let Some(first) = types.next() else { return Err("has an unreadable choice") };
    let column_type = types.try_fold(first, |one, other| {
        Ok(match (one, other) {
            (one, other) if one == other => one,
            (Int64, Int16 | Int32) | (Int16 | Int32, Int64) => Int64,
            (Int32, Int16) | (Int16, Int32) => Int32,
            (Float32, Float64) | (Float64, Float32) => Float64,
            (Ip { v4: a, v6: b }, Ip { v4: c, v6: d }) => Ip { v4: a || c, v6: b || d },
            (Enum { mut members, open: a }, Enum { members: more, open: b }) => {
                members.extend(more.into_iter().filter(|word| !members.contains(word)).collect::<Vec<_>>());
                Enum { members, open: a || b }
            }
            (Enum { members, .. }, Text { .. }) | (Text { .. }, Enum { members, .. }) => Enum { members, open: true },
            (Text { max_length: Some(a) }, Text { max_length: Some(b) }) => Text { max_length: Some(a.max(b)) },
            (one, other) if is_text(&one) && is_text(&other) => Text { max_length: None },
            _ => return Err("has alternatives of different types"),
        })
    })?;
    Ok(Node { column_type, nullable, oversizeable })
}

/// Types whose values are JSON strings of any form.
fn is_text(column_type: &ColumnType) -> bool {
    use ColumnType::*;
    matches!(column_type, Text { .. } | Enum { .. } | Time | Uuid | Ip { .. } | Timestamp | Date)
}

/// The values of an `enum` of strings, without nulls.
fn enum_values(node: &Map<String, Value>) -> Option<Vec<String>> {
    let members = node.get("enum")?.as_array()?;
    let values: Vec<String> = members.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let all = values.len() + members.iter().filter(|member| member.is_null()).count() == members.len();
    (all && !values.is_empty()).then_some(values)
}

fn string(node: &Map<String, Value>) -> ColumnType {
    if let Some(members) = enum_values(node) {
        return ColumnType::Enum { members, open: false };
    }
    if let Some(constant) = node.get("const").and_then(Value::as_str) {
        return ColumnType::Text { max_length: Some(constant.chars().count() as u64) };
    }
    match node.get("format").and_then(Value::as_str) {
        Some("date-time") => ColumnType::Timestamp,
        Some("date") => ColumnType::Date,
        Some("time") => ColumnType::Time,
        Some("uuid") => ColumnType::Uuid,
        Some("ipv4") => ColumnType::Ip { v4: true, v6: false },
        Some("ipv6") => ColumnType::Ip { v4: false, v6: true },
        _ => ColumnType::Text { max_length: node.get("maxLength").and_then(Value::as_u64) },
    }
}

/// The integer type by format, else by bounds or members, else 64 bits.
fn integer(node: &Map<String, Value>) -> ColumnType {
    match node.get("format").and_then(Value::as_str) {
        Some("int8" | "uint8" | "int16") => return ColumnType::Int16,
        Some("uint16" | "int32") => return ColumnType::Int32,
        Some("int64") => return ColumnType::Int64,
        _ => {}
    }
    let number = |name: &str| node.get(name).and_then(whole);
    let least = number("minimum").or_else(|| number("exclusiveMinimum").map(|bound| bound + 1));
    let most = number("maximum").or_else(|| number("exclusiveMaximum").map(|bound| bound - 1));
    let range = least.zip(most).or_else(|| {
        let members = match (node.get("enum").and_then(Value::as_array), node.get("const")) {
            (Some(members), _) => members.iter().filter(|member| !member.is_null()).map(whole).collect(),
            (None, Some(constant)) => Some(vec![whole(constant)?]),
            (None, None) => None,
        };
        let members: Vec<i128> = members?;
        members.iter().min().copied().zip(members.iter().max().copied())
    });
    let fits = |low: i128, high: i128| range.is_some_and(|(least, most)| low <= least && most <= high);
    if fits(i16::MIN.into(), i16::MAX.into()) {
        ColumnType::Int16
    } else if fits(i32::MIN.into(), i32::MAX.into()) {
        ColumnType::Int32
    } else {
        ColumnType::Int64
    }
}

/// An integer of a schema. Bounds may be written as `1e3` or `10.0`.
fn whole(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    number.as_i128().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 1e30).then_some(float as i128)
    })
}

/// A number of a schema as `digits * 10^exponent` without trailing zeros. A float cannot represent 0.01 exactly.
#[derive(Debug, PartialEq)]
struct Digits {
    digits: String,
    exponent: i32,
}

impl Digits {
    fn read(number: &Number) -> Option<Self> {
        let text = number.to_string();
        let text = text.trim_start_matches('-');
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let exponent = exponent - fraction.len() as i32 + (all.len() - digits.len()) as i32;
        Some(Self { digits: digits.trim_start_matches('0').to_owned(), exponent })
    }

    /// The number of digits after the decimal point if the number is 1, 0.1, 0.01 and so on.
    fn scale_of_step(&self) -> Option<u32> {
        (self.digits == "1" && self.exponent <= 0).then_some(self.exponent.unsigned_abs())
    }

    /// The largest number of digits before the decimal point within this bound.
    fn places(&self, exclusive: bool) -> u32 {
        if self.digits.is_empty() {
            return 0;
        }
        let places = self.digits.len() as i32 + self.exponent;
        // Below 1000 there are three digits at most, up to 1000 there are four.
        let round_bound = exclusive && self.digits == "1";
        (places - i32::from(round_bound)).max(0) as u32
    }
}
