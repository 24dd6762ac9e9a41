//! Column rules: which columns of a table are loaded, and which of them as keyed hashes. Rules with names and patterns are resolved against
//! one schema, and batches are hashed accordingly. No I/O.
//!
//! A hash is the HMAC-SHA256 of the value's text under the user's secret, written as 64 hexadecimal digits. The text does not depend on the
//! width of the type, so that equal keys have equal hashes: `42` for any integer type, the text itself for text,
//! `2026-01-31T09:30:00Z` for a timestamp. A null stays null.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Column, ColumnType, Nested, TableSchema, change_schema};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Timestamp, is_pattern, name_matches};
use crate::redact::Secret;

/// Minimum length of a secret in bytes.
const LEAST_SECRET: usize = 16;
/// Length of a hash in characters.
const HASH_LENGTH: usize = 64;
/// The text whose hash is the fingerprint of a key.
const FINGERPRINT_OF: &[u8] = b"daplake: which key made these hashes?";
/// Length of a fingerprint in characters.
const FINGERPRINT_LENGTH: usize = 16;
/// The member of a schema's source in which the record of the column rules is stored.
const RECORD: &str = "daplake";

/// The key for hashed columns.
#[derive(Clone)]
pub struct HashKey {
    key: hmac::Key,
    fingerprint: String,
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashKey").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl HashKey {
    /// The key made from a secret. Fails with kind `Usage` if the secret is shorter than 16 bytes and could be guessed.
    pub fn new(secret: &Secret) -> Result<Self> {
        let bytes = secret.reveal().as_bytes();
        if bytes.len() < LEAST_SECRET {
            return Err(Error::new(Kind::Usage, "The key for hashed columns is shorter than 16 bytes")
                .hint("use at least 16 random bytes, such as the output of `openssl rand -hex 32`"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let mut fingerprint = String::new();
        push_hex(hmac::sign(&key, FINGERPRINT_OF).as_ref(), &mut fingerprint);
        fingerprint.truncate(FINGERPRINT_LENGTH);
        Ok(Self { key, fingerprint })
    }

    /// A fingerprint that identifies the key without revealing it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Appends the hash of a text to `out`, as 64 hexadecimal digits.
    fn hash(&self, text: &[u8], out: &mut String) {
        push_hex(hmac::sign(&self.key, text).as_ref(), out);
    }
}

fn push_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

/// Column rules of one table, as names or patterns with `*` and `?`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnRules {
    /// Load only these columns and the key. Empty: all columns.
    pub keep: Vec<String>,
    /// Drop these columns. Takes precedence over the other two lists.
    pub drop: Vec<String>,
    /// Load these columns as keyed hashes. Key columns may be hashed.
    pub hash: Vec<String>,
}

impl ColumnRules {
    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.keep.is_empty() && self.drop.is_empty() && self.hash.is_empty()
    }
}

pub(super) fn no_key() -> Error {
    Error::new(Kind::Usage, "Hashed columns need a key")
        .hint("set DAPLAKE_HASH_KEY to a secret of at least 16 bytes, or name a file with --hash-key-file")
}

/// The column rules that a target stores, to decide whether new rows fit the existing ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRecord {
    /// Dropped columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// Hashed columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashed: Vec<String>,
    /// The fingerprint of the key of these hashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// The result of a change of the column rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// The new record.
    pub record: ColumnRecord,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
}

impl ColumnRecord {
    /// Whether no column is dropped or hashed.
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.hashed.is_empty()
    }

    /// The record in a schema that a target stores, see [`ColumnChoice::kept`].
    pub(crate) fn of_source(source: &Value) -> Self {
        serde_json::from_value(source[RECORD].clone()).unwrap_or_default()
    }

    /// The schema with this record in it.
    pub(crate) fn stored_in(&self, source: &Value) -> Value {
        let mut source = source.clone();
        if let (Value::Object(members), Ok(record)) = (&mut source, serde_json::to_value(self)) {
            members.insert(RECORD.to_owned(), record);
        }
        source
    }

    /// The record with renamed columns.
    #[must_use]
    pub(crate) fn renamed(mut self, names: &[(String, String)]) -> Self {
        for column in self.dropped.iter_mut().chain(&mut self.hashed) {
            if let Some((_, new)) = names.iter().find(|(old, _)| old == column) {
                column.clone_from(new);
            }
        }
        self
    }

    /// Checks whether rows with the record `next` can be added to a table with this record. `has` indicates whether the table has a column,
    /// `comes` whether the new rows have it. Fails with kind `Schema` if a column would mix values and hashes, or hashes of two keys.
    pub(crate) fn follow(&self, next: &Self, has: impl Fn(&str) -> bool, comes: impl Fn(&str) -> bool) -> Result<Followed> {
        let way_out = "keep the column rules as they were, or reload the table with --resnapshot";
        let is_kept = |column: &str| !next.dropped.iter().any(|dropped| dropped == column);
        // A hashed column that is no longer loaded still holds hashes. They must be remembered in case the column comes back.
        let is_idle = |column: &&String| !next.hashed.contains(column) && !comes(column) && has(column);
        let mut of_old_key = self.hashed.iter().filter(|column| next.hashed.contains(column) || is_idle(column));
        if let (Some(column), true) = (of_old_key.next(), next.fingerprint.is_some() && self.fingerprint != next.fingerprint) {
            return Err(Error::new(Kind::Schema, "The table has hashes of another key")
                .with_field("column", column)
                .with_field("key of the table", self.fingerprint.as_deref().unwrap_or("unknown"))
                .with_field("key given", next.fingerprint.as_deref().unwrap_or("none"))
                .hint(way_out));
        }
        for (column, was, is) in self
            .hashed
            .iter()
            .map(|column| (column, true, next.hashed.contains(column)))
            .chain(next.hashed.iter().map(|column| (column, self.hashed.contains(column), true)))
        {
            if was != is && has(column) && comes(column) {
                let message = if is {
                    "The column is hashed from now on, but the table already has its values"
                } else {
                    "The column is no longer hashed, but the table already has its hashes"
                };
                return Err(Error::new(Kind::Schema, message).with_field("column", column).hint(way_out));
            }
        }
        let mut notes = Vec::new();
        for column in next.dropped.iter().filter(|column| !self.dropped.contains(column) && has(column)) {
            notes.push(format!(
                "`{column}` is left out from now on; values already in the table stay until it is reloaded with --resnapshot"
            ));
        }
        for column in self.dropped.iter().filter(|column| is_kept(column) && comes(column) && !next.hashed.contains(column)) {
            notes.push(format!(
                "`{column}` is no longer left out; it is null in existing rows until the table is reloaded with --resnapshot"
            ));
        }
        let mut record = next.clone();
        record.hashed.extend(self.hashed.iter().filter(is_idle).cloned());
        // A dropped column that the service removed stays dropped in case it comes back.
        let is_gone = |column: &&String| is_kept(column) && !comes(column);
        record.dropped.extend(self.dropped.iter().filter(is_gone).cloned());
        if record.fingerprint.is_none() && !record.hashed.is_empty() {
            record.fingerprint.clone_from(&self.fingerprint);
        }
        Ok(Followed { record, notes })
    }
}

/// Column rules resolved against one schema.
#[derive(Debug, Clone)]
pub struct ColumnChoice {
    read: Arc<TableSchema>,
    kept: Arc<TableSchema>,
    record: ColumnRecord,
    key: Option<HashKey>,
    unknown: Vec<String>,
}

impl ColumnChoice {
    /// All columns of a schema, unchanged.
    pub fn all(schema: Arc<TableSchema>) -> Self {
        Self { read: Arc::clone(&schema), kept: schema, record: ColumnRecord::default(), key: None, unknown: Vec::new() }
    }

    /// Resolves `rules` against `schema`. Fails with kind `Usage` if columns are hashed but there is no key, and with kind `Schema` if a key
    /// column would be dropped or a nested column hashed.
    pub fn of(schema: &Arc<TableSchema>, rules: &ColumnRules, key: Option<&HashKey>) -> Result<Self> {
        if rules.is_empty() {
            schema.check_names()?;
            return Ok(Self::all(Arc::clone(schema)));
        }
        let hits = |patterns: &[String], name: &str| patterns.iter().any(|pattern| name_matches(pattern, name));
        let refuse = |message: &'static str, column: &Column, hint: &'static str| {
            Err(Error::new(Kind::Schema, message)
                .with_field("table", &schema.table)
                .with_field("column", &column.name)
                .hint(hint))
        };
        let (mut read, mut kept, mut record) =
            (TableSchema::clone(schema), TableSchema::clone(schema), ColumnRecord::default());
        if let Some(column) = schema.key.iter().find(|column| hits(&rules.drop, &column.name)) {
            return refuse("A key column cannot be left out", column, "hash it with --hash-column, or leave the table out");
        }
        let is_kept =
            |column: &Column| !hits(&rules.drop, &column.name) && (rules.keep.is_empty() || hits(&rules.keep, &column.name));
        record.dropped.extend(schema.value.iter().filter(|column| !is_kept(column)).map(|column| column.name.clone()));
        read.value.retain(is_kept);
        kept.value.retain(is_kept);
        kept.check_names()?;
        for column in kept.key.iter_mut().chain(&mut kept.value).filter(|column| hits(&rules.hash, &column.name)) {
            if matches!(column.column_type, ColumnType::Struct(_) | ColumnType::List(_)) {
                return refuse("A nested column cannot be hashed", column, "leave it out with --drop-column");
            }
            column.column_type = ColumnType::Text { max_length: Some(HASH_LENGTH as u64) };
            column.oversizeable = false;
            column.default = None;
            let text = column.description.take().map_or(String::new(), |text| format!("{text} "));
            column.description = Some(format!("{text}(keyed hash of the value)"));
            record.hashed.push(column.name.clone());
        }
        let key = key.filter(|_| !record.hashed.is_empty()).cloned();
        if key.is_none() && !record.hashed.is_empty() {
            return Err(no_key().with_field("table", &schema.table));
        }
        record.fingerprint = key.as_ref().map(|key| key.fingerprint.clone());
        kept.source = Arc::new(chosen_source(&schema.source, &record));
        let named = rules.keep.iter().chain(&rules.drop).chain(&rules.hash);
        let unknown = named.filter(|name| !is_pattern(name) && !schema.columns().any(|column| column.name == **name));
        let unknown = unknown.cloned().collect();
        Ok(Self { read: Arc::new(read), kept: Arc::new(kept), record, key, unknown })
    }

    /// Takes over from the record of an existing table: columns that the rules name and the schema no longer has stay in the record.
    #[must_use]
    pub fn remembering(mut self, existing: &ColumnRecord) -> Self {
        let missing = |names: &[String]| names.iter().filter(|name| self.unknown.contains(name)).cloned().collect::<Vec<_>>();
        let (dropped, hashed) = (missing(&existing.dropped), missing(&existing.hashed));
        if dropped.is_empty() && hashed.is_empty() {
            return self;
        }
        self.record.dropped.extend(dropped);
        self.record.hashed.extend(hashed);
        if self.record.fingerprint.is_none() && !self.record.hashed.is_empty() {
            self.record.fingerprint.clone_from(&existing.fingerprint);
        }
        self.kept = Arc::new(TableSchema {
            source: Arc::new(self.record.stored_in(&self.kept.source)),
            ..TableSchema::clone(&self.kept)
        });
        self
    }

    /// The schema for the decoder: without the dropped columns.
    pub fn read(&self) -> &Arc<TableSchema> {
        &self.read
    }

    /// The schema for the target. Its `source` is the service's without dropped columns, with hashed columns as text, and with the record.
    pub fn kept(&self) -> &Arc<TableSchema> {
        &self.kept
    }

    /// The record for the target.
    pub fn record(&self) -> &ColumnRecord {
        &self.record
    }

    /// Exact names in the rules that are not columns of the schema.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The schema of batches after [`Self::apply`].
    pub fn change_schema(&self, nested: Nested) -> SchemaRef {
        change_schema(&self.kept, nested)
    }

    /// Replaces the values of hashed columns in a batch of changes by hashes. `schema` is [`Self::change_schema`].
    pub fn apply(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let Some(key) = &self.key else { return Ok(batch.clone()) };
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            columns.push(if self.record.hashed.contains(field.name()) { hashed(array, key)? } else { Arc::clone(array) });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .context(Kind::Bug, "Hashed columns do not fit the schema")
    }
}

/// A column of hashes under construction.
struct Hashes<'k> {
    key: &'k HashKey,
    hex: String,
    out: StringBuilder,
}

impl Hashes<'_> {
    fn push(&mut self, text: Option<&[u8]>) {
        let Some(text) = text else { return self.out.append_null() };
        self.hex.clear();
        self.key.hash(text, &mut self.hex);
        self.out.append_value(&self.hex);
    }
}

/// The hashes of the values of an array.
fn hashed(array: &ArrayRef, key: &HashKey) -> Result<ArrayRef> {
    let out = StringBuilder::with_capacity(array.len(), (array.len() - array.null_count()) * HASH_LENGTH);
    let mut hashes = Hashes { key, hex: String::with_capacity(HASH_LENGTH), out };
    match array.data_type() {
        DataType::Utf8 => {
            let texts: &StringArray = array.as_string();
            texts.iter().for_each(|text| hashes.push(text.map(str::as_bytes)));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let timestamps = array.as_primitive::<TimestampMicrosecondType>();
            for timestamp in timestamps {
                let text = timestamp.map(|timestamp| Timestamp::from_micros(timestamp).to_string());
                hashes.push(text.as_deref().map(str::as_bytes));
            }
        }
        _ => {
            let options = FormatOptions::default();
            let texts = ArrayFormatter::try_new(array.as_ref(), &options).context(Kind::Bug, "A column cannot be hashed")?;
            let mut text = String::new();
            for row in 0..array.len() {
                text.clear();
                // Without the cause, which would quote the value.
                write!(text, "{}", texts.value(row)).map_err(|_| Error::new(Kind::Data, "A value cannot be hashed"))?;
                hashes.push(array.is_valid(row).then_some(text.as_bytes()));
            }
        }
    }
    Ok(Arc::new(hashes.out.finish()))
}

/// The service's JSON Schema as a target should store it.
fn chosen_source(source: &Value, record: &ColumnRecord) -> Value {
    let mut source = source.clone();
    for group in ["key", "value"] {
        let Some(node) = source.pointer_mut(&format!("/properties/{group}")) else { continue };
        if let Some(required) = node.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| !record.dropped.iter().any(|dropped| name == dropped.as_str()));
        }
        let Some(columns) = node.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        columns.retain(|name, _| group == "key" || !record.dropped.contains(name));
        for (_, column) in columns.iter_mut().filter(|(name, _)| record.hashed.contains(name)) {
            *column =
                serde_json::json!({"type": "string", "maxLength": HASH_LENGTH, "description": "Keyed hash of the value."});
        }
    }
    record.stored_in(&source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableRef;
    use crate::schema::{ACTION, SEQ, TS};
    use arrow::array::{Decimal128Array, Int32Array, Int64Array, TimestampMicrosecondArray, UInt64Array};
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn key() -> HashKey {
        HashKey::new(&Secret::new(SECRET)).unwrap()
    }

    fn people() -> Arc<TableSchema> {
        let source = json!({"properties": {
            "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
            "value": {
                "properties": {
                    "name": {"type": "string", "maxLength": 255},
                    "sis_id": {"type": "string"},
                    "born": {"type": "string", "format": "date-time"},
                    "settings": {"type": "object", "properties": {"theme": {"type": "string"}}}
                },
                "required": ["name", "sis_id"]
            }
        }});
        Arc::new(TableSchema::read(&TableRef::new("canvas", "users"), 3, source).unwrap())
    }

    fn rules(keep: &[&str], drop: &[&str], hash: &[&str]) -> ColumnRules {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ColumnRules { keep: owned(keep), drop: owned(drop), hash: owned(hash) }
    }

    fn names(schema: &TableSchema) -> Vec<&str> {
        schema.columns().map(|column| column.name.as_str()).collect()
    }

    #[test]
    fn rules_choose_columns_and_the_stored_schema_follows() {
        let choice =
            ColumnChoice::of(&people(), &rules(&["*s*", "name"], &["settings"], &["name", "id"]), Some(&key())).unwrap();
        assert_eq!(names(choice.kept()), ["id", "name", "sis_id"]);
        assert_eq!(choice.record().dropped, ["born", "settings"]);
        assert_eq!(choice.record().hashed, ["id", "name"]);
        assert!(choice.kept().key[0].required, "a hashed key is a key");
        let again = TableSchema::read(&choice.kept().table, 3, Value::clone(&choice.kept().source)).unwrap();
        assert_eq!(names(&again), ["id", "name", "sis_id"]);
        assert_eq!(again.key[0].column_type, ColumnType::Text { max_length: Some(64) });
        assert_eq!(&ColumnRecord::of_source(&choice.kept().source), choice.record());
        assert!(ColumnRecord::of_source(&people().source).is_empty());
        let typed = ColumnChoice::of(&people(), &rules(&[], &["nmae", "x*"], &[]), None).unwrap();
        assert_eq!(typed.unknown(), ["nmae"]);
    }

    #[test]
    fn impossible_choices_are_refused() {
        let refused = |rules: ColumnRules, key: Option<&HashKey>| ColumnChoice::of(&people(), &rules, key).unwrap_err();
        assert_eq!(refused(rules(&[], &["*"], &[]), None).get("column"), Some("id"));
        assert_eq!(refused(rules(&[], &[], &["name"]), None).kind(), Kind::Usage);
        assert_eq!(refused(rules(&[], &[], &["settings"]), Some(&key())).kind(), Kind::Schema);
        assert_eq!(HashKey::new(&Secret::new("short")).unwrap_err().kind(), Kind::Usage);
        assert!(!format!("{:?}", key()).contains(SECRET));
    }

    #[test]
    fn hashes_are_those_of_hmac_sha256_over_the_text_of_a_value() {
        // Made with Python: hmac.new(key, text, 'sha256').hexdigest().
        let of_42 = "3b12d0412db185c98ff58825ed4c81cf";
        let ids: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![Some(42), None])),
            Arc::new(Int32Array::from(vec![Some(42), None])),
            Arc::new(StringArray::from(vec![Some("42"), None])),
        ];
        for array in ids {
            let hashes = hashed(&array, &key()).unwrap();
            let hashes = hashes.as_string::<i32>();
            assert!(hashes.value(0).starts_with(of_42), "{}", hashes.value(0));
            assert_eq!(hashes.value(0).len(), 64);
            assert!(hashes.is_null(1));
        }
        let texts = |array: ArrayRef| hashed(&array, &key()).unwrap().as_string::<i32>().value(0).to_owned();
        let timestamp = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
        assert_eq!(texts(Arc::new(timestamp)), texts(Arc::new(StringArray::from(vec!["1970-01-01T00:00:00Z"]))));
        let decimal = Decimal128Array::from(vec![150]).with_precision_and_scale(5, 2).unwrap();
        assert_eq!(texts(Arc::new(decimal)), texts(Arc::new(StringArray::from(vec!["1.50"]))));
    }

    #[test]
    fn batches_get_hashes_and_keep_the_rest() {
        let choice = ColumnChoice::of(&people(), &rules(&["name"], &[], &["id"]), Some(&key())).unwrap();
        let read = change_schema(choice.read(), Nested::Typed);
        let timestamps = TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["D"])),
            Arc::new(timestamps),
            Arc::new(UInt64Array::from(vec![1])),
            Arc::new(Int64Array::from(vec![7])),
            Arc::new(StringArray::from(vec![None::<&str>])),
        ];
        let batch = RecordBatch::try_new(read, columns).unwrap();
        let out = choice.apply(&batch, &choice.change_schema(Nested::Typed)).unwrap();
        let names: Vec<String> = out.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, [ACTION, TS, SEQ, "id", "name"]);
        assert_eq!(out.column(3).as_string::<i32>().value(0).len(), 64);
        assert!(out.column(4).is_null(0));
    }

    #[test]
    fn a_table_never_mixes_values_and_hashes() {
        let record = |dropped: &[&str], hashed: &[&str], fingerprint: Option<&str>| ColumnRecord {
            dropped: dropped.iter().map(|name| (*name).to_owned()).collect(),
            hashed: hashed.iter().map(|name| (*name).to_owned()).collect(),
            fingerprint: fingerprint.map(str::to_owned),
        };
        let has = |_: &str| true;
        // The source has all columns; dropped ones are not loaded.
        let follow = |old: &ColumnRecord, next: &ColumnRecord, has: &dyn Fn(&str) -> bool| {
            old.follow(next, has, |name| !next.dropped.iter().any(|dropped| dropped == name))
        };
        let old = record(&[], &["a"], Some("one"));
        assert_eq!(follow(&old, &old, &has).unwrap(), Followed { record: old.clone(), notes: Vec::new() });
        for next in [record(&[], &["a"], Some("two")), record(&[], &[], None), record(&[], &["a", "b"], Some("one"))] {
            let error = follow(&old, &next, &has).unwrap_err();
            assert_eq!(error.kind(), Kind::Schema);
            assert!(error.hint_text().unwrap().contains("--resnapshot"));
        }
        // A column that is new to the table may be hashed; one that is left out stays known as hashes.
        assert!(follow(&old, &record(&[], &["a", "b"], Some("one")), &|column| column == "a").is_ok());
        let dropped = follow(&old, &record(&["a"], &[], None), &has).unwrap();
        assert_eq!(dropped.record, record(&["a"], &["a"], Some("one")));
        assert_eq!(dropped.notes.len(), 1);
        assert!(follow(&dropped.record, &record(&[], &[], None), &has).is_err());
        let back = follow(&dropped.record, &old, &has).unwrap();
        assert_eq!(back.record, old);
        let plain = record(&["x"], &[], None);
        let back = follow(&plain, &ColumnRecord::default(), &has).unwrap();
        assert!(back.record.is_empty() && back.notes[0].contains("--resnapshot"), "{back:?}");
    }

    #[test]
    fn a_hashed_column_that_is_gone_at_the_source_is_known_when_it_comes_back() {
        let hashed = |names: &[&str], key: &str| ColumnRecord {
            hashed: names.iter().map(|name| (*name).to_owned()).collect(),
            fingerprint: Some(key.to_owned()),
            ..ColumnRecord::default()
        };
        let (old, has) = (hashed(&["a", "b"], "one"), |_: &str| true);
        let without_a = old.follow(&hashed(&["b"], "one"), has, |name| name != "a").unwrap();
        assert_eq!((without_a.record.hashed.len(), without_a.notes.len()), (2, 0));
        let without_both = old.follow(&ColumnRecord::default(), has, |name| name == "c").unwrap();
        assert_eq!(without_both.record, old);
        // Back as values, or under another key: refused. Back as it was: fine.
        assert!(without_a.record.follow(&hashed(&["b"], "one"), has, |_| true).is_err());
        assert!(without_both.record.follow(&hashed(&["c"], "two"), |name| name != "c", |name| name == "c").is_err());
        assert_eq!(without_both.record.follow(&old, has, |_| true).unwrap().record, old);
        // A dropped column that the service has removed is not reported as coming back.
        let dropped = ColumnRecord { dropped: vec!["x".into()], ..ColumnRecord::default() };
        let gone = dropped.follow(&ColumnRecord::default(), has, |_| false).unwrap();
        assert_eq!((gone.record, gone.notes.len()), (dropped, 0));
    }
}
