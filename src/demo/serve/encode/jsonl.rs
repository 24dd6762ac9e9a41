//! One JSON object per line with `key`, `value` and `meta`. Null members are omitted; nested objects stay nested in both modes.

use super::text::{is_null, push_json, push_json_string, push_time};
use crate::demo::record::{Cell, Layout, Record};
use crate::model::Op;

/// Column names as JSON strings.
pub(super) struct Jsonl {
    key: Vec<Vec<u8>>,
    value: Vec<Vec<u8>>,
    incremental: bool,
}

impl Jsonl {
    pub(super) fn new(layout: &Layout, incremental: bool) -> Self {
        let quoted = |name: &String| {
            let mut text = Vec::with_capacity(name.len() + 3);
            push_json_string(&mut text, name);
            text.push(b':');
            text
        };
        Self {
            key: layout.key.iter().map(quoted).collect(),
            value: layout.value.iter().map(|field| quoted(&field.name)).collect(),
            incremental,
        }
    }

    pub(super) fn row(&self, record: &Record, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"key\":");
        push_members(out, &self.key, &record.key);
        if let Some(value) = &record.value {
            out.extend_from_slice(b",\"value\":");
            push_members(out, &self.value, value);
        }
        out.extend_from_slice(b",\"meta\":{\"ts\":\"");
        push_time(out, record.ts);
        out.push(b'"');
        if self.incremental {
            out.extend_from_slice(match record.op {
                Op::Upsert => b",\"action\":\"U\"",
                Op::Delete => b",\"action\":\"D\"",
            });
        }
        out.extend_from_slice(b"}}\n");
    }
}

fn push_members(out: &mut Vec<u8>, names: &[Vec<u8>], cells: &[Cell]) {
    debug_assert_eq!(names.len(), cells.len());
    out.push(b'{');
    let mut first = true;
    for (name, cell) in names.iter().zip(cells) {
        if is_null(cell) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(name);
        push_json(out, cell);
    }
    out.push(b'}');
}
