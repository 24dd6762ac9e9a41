//! CSV (RFC 4180 and the service's rules for null) and TSV (PostgreSQL COPY text), in expanded and condensed mode.

use super::text::{is_null, push_date, push_decimal, push_float, push_int, push_json, push_time};
use crate::demo::record::{Cell, Field, Layout, Record};
use crate::model::{Mode, Op};

/// CSV or TSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Csv,
    Tsv,
}

/// The columns of a value column in the file.
enum Column {
    /// One column.
    Whole,
    /// One column per leaf of an object of fixed shape.
    Spread(Vec<Column>),
}

/// Writes the header and rows.
pub(super) struct Delimited {
    dialect: Dialect,
    incremental: bool,
    header: Vec<u8>,
    value: Vec<Column>,
    json: Vec<u8>,
}

impl Delimited {
    pub(super) fn new(layout: &Layout, dialect: Dialect, mode: Mode, incremental: bool) -> Self {
        let mut names = vec!["meta.ts".to_owned()];
        if incremental {
            names.push("meta.action".to_owned());
        }
        names.extend(layout.key.iter().map(|name| format!("key.{name}")));
        let value = layout.value.iter().map(|field| Column::new(field, "value", mode, &mut names)).collect();

        let mut header = Vec::new();
        for (place, name) in names.iter().enumerate() {
            if place > 0 {
                header.push(dialect.separator());
            }
            dialect.push_text(&mut header, name.as_bytes());
        }
        header.push(b'\n');
        Self { dialect, incremental, header, value, json: Vec::new() }
    }

    pub(super) fn header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header);
    }

    pub(super) fn row(&mut self, record: &Record, out: &mut Vec<u8>) {
        let dialect = self.dialect;
        push_time(out, record.ts);
        if self.incremental {
            out.push(dialect.separator());
            out.push(match record.op {
                Op::Upsert => b'U',
                Op::Delete => b'D',
            });
        }
        for cell in &record.key {
            out.push(dialect.separator());
            dialect.push_cell(out, cell, &mut self.json);
        }
        match &record.value {
            Some(cells) => {
                debug_assert_eq!(cells.len(), self.value.len());
                for (column, cell) in self.value.iter().zip(cells) {
                    column.push(out, cell, dialect, &mut self.json);
                }
            }
            None => self.value.iter().for_each(|column| column.push(out, &Cell::Null, dialect, &mut self.json)),
        }
        out.push(b'\n');
    }
}

impl Column {
    /// Plans a column and adds its names to the header.
    fn new(field: &Field, prefix: &str, mode: Mode, names: &mut Vec<String>) -> Self {
        let name = format!("{prefix}.{}", field.name);
        if mode == Mode::Expanded && !field.members.is_empty() {
            return Column::Spread(field.members.iter().map(|member| Column::new(member, &name, mode, names)).collect());
        }
        names.push(name);
        Column::Whole
    }

    fn push(&self, out: &mut Vec<u8>, cell: &Cell, dialect: Dialect, json: &mut Vec<u8>) {
        match self {
            Column::Whole => {
                out.push(dialect.separator());
                dialect.push_cell(out, cell, json);
            }
            Column::Spread(columns) => {
                let members: &[_] = if let Cell::Object(members) = cell { members } else { &[] };
                for (place, column) in columns.iter().enumerate() {
                    column.push(out, members.get(place).map_or(&Cell::Null, |(_, member)| member), dialect, json);
                }
            }
        }
    }
}

impl Dialect {
    fn separator(self) -> u8 {
        match self {
            Dialect::Csv => b',',
            Dialect::Tsv => b'\t',
        }
    }

    fn push_cell(self, out: &mut Vec<u8>, cell: &Cell, json: &mut Vec<u8>) {
        if is_null(cell) {
            if self == Dialect::Tsv {
                out.extend_from_slice(b"\\N");
            }
            return;
        }
        match cell {
            Cell::Null => {}
            Cell::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Cell::Int(value) => push_int(out, *value),
            Cell::Float(value) => push_float(out, *value),
            Cell::Decimal(unscaled, scale) => push_decimal(out, *unscaled, *scale),
            Cell::Time(time) => push_time(out, *time),
            Cell::Date(days) => push_date(out, *days),
            Cell::Text(text) => self.push_text(out, text.as_bytes()),
            Cell::Object(_) | Cell::List(_) => {
                json.clear();
                push_json(json, cell);
                self.push_text(out, json);
            }
        }
    }

    fn push_text(self, out: &mut Vec<u8>, text: &[u8]) {
        match self {
            Dialect::Csv => push_csv_text(out, text),
            Dialect::Tsv => push_tsv_text(out, text),
        }
    }
}

/// Quotes a field that contains a separator, a quote or a line end, or that would be read as null: empty, `NULL` or `\N`.
fn push_csv_text(out: &mut Vec<u8>, text: &[u8]) {
    let special = text.is_empty() || text == b"NULL" || text == b"\\N";
    if !special && !text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n' | b'\t')) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// The escapes that the official client reads.
fn push_tsv_text(out: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (place, &byte) in text.iter().enumerate() {
        let letter = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            0x08 => b'b',
            0x0c => b'f',
            0x0b => b'v',
            0 => b'0',
            _ => continue,
        };
        out.extend_from_slice(&text[copied..place]);
        out.extend_from_slice(&[b'\\', letter]);
        copied = place + 1;
    }
    out.extend_from_slice(&text[copied..]);
}
