//! Records of JSONL: `{"key":{..},"value":{..},"meta":{"ts":..,"action":..}}`, with members in any order.

use super::column::{Found, Names, Tally, timestamp};
use super::fault::{Fault, Read};
use super::json::Cursor;
use super::rows::Rows;
use crate::model::Op;

/// Reads JSONL records.
#[derive(Debug)]
pub(super) struct Jsonl {
    groups: Names,
    meta: Names,
}

/// Indices in `groups`.
const KEY: usize = 0;
const VALUE: usize = 1;
/// Index in `meta`.
const TS: usize = 0;

/// The group `meta` of a record.
#[derive(Debug, Default)]
struct Meta {
    ts: Option<i64>,
    op: Option<Op>,
}

impl Jsonl {
    pub(super) fn new() -> Self {
        Self { groups: Names::new(["key", "value", "meta"].into_iter()), meta: Names::new(["ts", "action"].into_iter()) }
    }

    /// Reads one line. Returns `false` if it is blank.
    pub(super) fn read(&mut self, line: &[u8], rows: &mut Rows) -> Read<bool> {
        let mut cursor = Cursor::new(line);
        if cursor.peek_after_blanks() == 0 && cursor.at == line.len() {
            return Ok(false);
        }
        let row = rows.begin();
        let mut meta = Meta::default();
        let mut seen = [false; 2];
        let mut skipped = false;
        let mut has_values = false;
        cursor.expect(b'{', "not a JSON object")?;
        self.groups.begin();
        if cursor.peek_after_blanks() == b'}' {
            cursor.at += 1;
        } else {
            loop {
                let found = self.groups.next(&mut cursor)?;
                let null = cursor.peek_after_blanks() == b'n';
                match found {
                    Found::Member(group @ (KEY | VALUE)) => {
                        let object = if group == KEY { &mut rows.key } else { &mut rows.value };
                        if std::mem::replace(&mut seen[group], true) {
                            if group == KEY {
                                return Err(Fault::new("the key is given twice").inside("key"));
                            }
                            // If a member is given twice, the last one counts.
                            object.unset(row);
                        }
                        if group == VALUE {
                            has_values = !null;
                        }
                        if null {
                            cursor.null()?;
                        } else if group == VALUE && meta.op == Some(Op::Delete) {
                            cursor.skip_value()?;
                            skipped = true;
                        } else if let Err(fault) = object.json(&mut cursor, row, &mut rows.tally) {
                            return Err(fault.inside(if group == KEY { "key" } else { "value" }));
                        }
                    }
                    Found::Member(_) => {
                        meta = Meta::default();
                        if null {
                            cursor.null()?;
                        } else {
                            meta = read_meta(&mut self.meta, &mut cursor, &mut rows.tally)
                                .map_err(|fault| fault.inside("meta"))?;
                        }
                    }
                    Found::Unknown(name) => {
                        if let Some(name) = name {
                            rows.tally.unknown_column(name);
                        }
                        cursor.skip_value()?;
                    }
                }
                if cursor.comma_or(b'}')? {
                    break;
                }
            }
        }
        cursor.end()?;
        let ts = meta.ts.ok_or_else(|| Fault::new("the commit time is missing or null").inside("ts").inside("meta"))?;
        let op = meta.op.unwrap_or(Op::Upsert);
        if skipped && op == Op::Upsert {
            return Err(Fault::new("given twice: first a delete, then an upsert").inside("meta"));
        }
        rows.commit(op, ts, has_values)?;
        Ok(true)
    }
}

fn read_meta(names: &mut Names, cursor: &mut Cursor<'_>, tally: &mut Tally) -> Read<Meta> {
    let mut meta = Meta::default();
    cursor.expect(b'{', "not an object")?;
    if cursor.peek_after_blanks() == b'}' {
        cursor.at += 1;
        return Ok(meta);
    }
    names.begin();
    loop {
        let found = names.next(cursor)?;
        match (found, cursor.peek_after_blanks()) {
            (Found::Member(TS), b'n') => {
                cursor.null()?;
                meta.ts = None;
            }
            (Found::Member(TS), _) => {
                let text = string(cursor, "ts")?;
                let (ts, cut) = timestamp(&text).map_err(|fault| fault.inside("ts"))?;
                tally.cut_fractions += u64::from(cut);
                meta.ts = Some(ts);
            }
            (Found::Member(_), b'n') => {
                cursor.null()?;
                meta.op = None;
            }
            (Found::Member(_), _) => {
                let text = string(cursor, "action")?;
                let op = Op::from_letter(&text).ok_or_else(|| Fault::new("neither U nor D").inside("action"))?;
                meta.op = Some(op);
            }
            (Found::Unknown(name), _) => {
                if let Some(name) = name {
                    tally.unknown_column(format!("meta.{name}"));
                }
                cursor.skip_value()?;
            }
        }
        if cursor.comma_or(b'}')? {
            return Ok(meta);
        }
    }
}

/// The content of the string at the cursor.
fn string<'a>(cursor: &mut Cursor<'a>, name: &'static str) -> Read<std::borrow::Cow<'a, [u8]>> {
    if cursor.peek() != b'"' {
        return Err(Fault::new("not a string").inside(name));
    }
    match cursor.plain_string()? {
        Some(text) => Ok(text.into()),
        None => {
            let mut text = Vec::new();
            cursor.string_into(&mut text)?;
            Ok(text.into())
        }
    }
}
