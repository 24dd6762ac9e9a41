//! Records of CSV and TSV, whose fields are mapped to columns by the header. Expanded and condensed columns may be mixed.
//!
//! In CSV, null is an empty field or `NULL` without quotes; with quotes they are text, and so is `\N`. In TSV, null is `\N`.

use std::collections::HashSet;

use super::column::{Builder, Cell, timestamp};
use super::fault::{Fault, Read};
use super::rows::Rows;
use super::scan::{find, find2};
use super::target::{self, Target};
use crate::error::{Error, Result};
use crate::model::Op;

/// CSV or TSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Csv,
    Tsv,
}

/// Reads CSV or TSV records.
#[derive(Debug)]
pub(super) struct Delimited {
    dialect: Dialect,
    /// The destination of each field; `None` before the header.
    targets: Option<Vec<Target>>,
    /// Whether the header has a column of the group `value`, known or not.
    has_values: bool,
}

/// The maximum length of reported names of unknown columns.
const MAX_NAME_LENGTH: usize = 128;

impl Delimited {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, targets: None, has_values: false }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn has_header(&self) -> bool {
        self.targets.is_some()
    }

    /// Reads the header.
    pub(super) fn header(&mut self, record: &[u8], rows: &mut Rows) -> Result<()> {
        let unreadable = |error: Error, fault: Fault| error.with_field("reason", fault.reason());
        let mut names = Vec::new();
        let mut name = Vec::new();
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        let fields = self.dialect.fields(record, |cell| {
            name.clear();
            cell.map_or(Ok(()), |cell| cell.append_to(&mut name))?;
            let name = String::from_utf8(name.clone()).map_err(|_| Fault::new("a column name is not UTF-8"))?;
            // If lines ended with carriage returns alone, the header would take in all rows.
            if name.contains(['\r', '\n']) {
                return Err(Fault::new("a column name has a line break; lines must end with a line feed"));
            }
            names.push(name);
            Ok(())
        });
        fields.map_err(|fault| unreadable(rows.broken("The header cannot be read"), fault))?;

        let targets: Vec<Target> = names.iter().map(|name| Target::of(name, rows)).collect();
        let mut seen = HashSet::new();
        for (name, target) in names.iter().zip(&targets) {
            if *target == Target::Ignore {
                rows.tally.unknown_column(name.chars().take(MAX_NAME_LENGTH).collect());
            } else if !seen.insert(name) {
                return Err(rows.broken("The header has a column twice").with_field("column", name));
            }
        }
        target::check(&targets, rows)?;
        self.has_values = names.iter().any(|name| target::is_value(name));
        self.targets = Some(targets);
        Ok(())
    }

    /// Reads a record after the header. Returns `false` if it is a blank line.
    pub(super) fn read(&mut self, record: &[u8], rows: &mut Rows) -> Read<bool> {
        let targets = self.targets.as_deref().unwrap_or_default();
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        // A blank line is a row only if rows have one field.
        if record.is_empty() && targets.len() != 1 {
            return Ok(false);
        }
        match self.dialect {
            Dialect::Csv => read_fields::<b','>(record, targets, self.has_values, rows, csv_field)?,
            Dialect::Tsv => read_fields::<b'\t'>(record, targets, self.has_values, rows, tsv_field)?,
        }
        Ok(true)
    }
}

/// A field, which is `None` for null, and its end.
type Field<'a> = (Option<Cell<'a>>, usize);

/// The group `meta` of a record.
#[derive(Debug)]
struct Meta {
    ts: Option<i64>,
    op: Op,
}

#[inline(always)]
fn read_fields<'a, const SEPARATOR: u8>(
    record: &'a [u8],
    targets: &[Target],
    has_values: bool,
    rows: &mut Rows,
    field: impl Fn(&'a [u8], usize) -> Read<Field<'a>>,
) -> Read<()> {
    let row = rows.begin();
    let mut meta = Meta { ts: None, op: Op::Upsert };
    let mut at = 0;
    let mut number = 0;
    loop {
        let Some(target) = targets.get(number) else { return Err(Fault::new("more fields than the header has")) };
        let direct = match target {
            Target::Value(column, way) if way.is_empty() && meta.op == Op::Upsert => {
                rows.value.columns[*column].direct(record, at, SEPARATOR, row, &mut rows.tally)
            }
            Target::Key(column, way) if way.is_empty() => {
                rows.key.columns[*column].direct(record, at, SEPARATOR, row, &mut rows.tally)
            }
            _ => None,
        };
        let end = match direct {
            Some(end) => end,
            None => {
                let (cell, end) = field(record, at)?;
                if let Some(cell) = cell
                    && let Err(fault) = store(target, cell, row, rows, &mut meta)
                {
                    let (group, name) = target.label(rows);
                    return Err(fault.inside(name).inside(group));
                }
                end
            }
        };
        number += 1;
        if end >= record.len() {
            break;
        }
        at = end + 1;
    }
    if number < targets.len() {
        return Err(Fault::new("fewer fields than the header has"));
    }
    let ts = meta.ts.ok_or_else(|| Fault::new("the commit time is null").inside("ts").inside("meta"))?;
    rows.commit(meta.op, ts, has_values)
}

fn store(target: &Target, cell: Cell<'_>, row: usize, rows: &mut Rows, meta: &mut Meta) -> Read<()> {
    match target {
        Target::Value(..) if meta.op == Op::Delete => {}
        Target::Value(column, way) => {
            rows.value.columns[*column].leaf(way, cell, row, &mut rows.tally)?;
        }
        Target::Key(column, way) => {
            rows.key.columns[*column].leaf(way, cell, row, &mut rows.tally)?;
        }
        Target::Ts => {
            let (moment, cut) = timestamp(&text(cell)?)?;
            rows.tally.cut_fractions += u64::from(cut);
            meta.ts = Some(moment);
        }
        Target::Action => meta.op = Op::from_letter(&text(cell)?).ok_or_else(|| Fault::new("neither U nor D"))?,
        Target::Ignore => {}
    }
    Ok(())
}

fn text(cell: Cell<'_>) -> Read<std::borrow::Cow<'_, [u8]>> {
    match cell {
        Cell::Plain(text) => Ok(text.into()),
        Cell::Escaped(..) => {
            let mut text = Vec::new();
            cell.append_to(&mut text)?;
            Ok(text.into())
        }
    }
}

impl Dialect {
    /// Calls `take` with each field of the header.
    fn fields<'a>(self, record: &'a [u8], mut take: impl FnMut(Option<Cell<'a>>) -> Read<()>) -> Read<()> {
        let mut at = 0;
        loop {
            let (cell, end) = match self {
                Dialect::Csv => csv_field(record, at)?,
                Dialect::Tsv => tsv_field(record, at)?,
            };
            take(cell)?;
            if end >= record.len() {
                return Ok(());
            }
            at = end + 1;
        }
    }
}

#[inline(always)]
fn tsv_field(record: &[u8], at: usize) -> Read<Field<'_>> {
    let end = find2::<b'\t', b'\\'>(record, at);
    if record.get(end) != Some(&b'\\') {
        return Ok((Some(Cell::Plain(&record[at..end])), end));
    }
    let end = find::<b'\t'>(record, end + 1);
    Ok(match &record[at..end] {
        b"\\N" => (None, end),
        text => (Some(Cell::Escaped(text, unescape_tsv)), end),
    })
}

fn unescape_tsv(text: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let mut at = 0;
    loop {
        let end = find::<b'\\'>(text, at);
        out.extend_from_slice(&text[at..end]);
        if end == text.len() {
            return Ok(());
        }
        out.push(match text.get(end + 1) {
            Some(b'\\') => b'\\',
            Some(b'0') => 0,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            _ => return Err(Fault::new("an unknown escape")),
        });
        at = end + 2;
    }
}

#[inline(always)]
fn csv_field(record: &[u8], at: usize) -> Read<Field<'_>> {
    if record.get(at) != Some(&b'"') {
        let end = find::<b','>(record, at);
        return Ok(match &record[at..end] {
            b"" | b"NULL" => (None, end),
            text => (Some(Cell::Plain(text)), end),
        });
    }
    let start = at + 1;
    let mut end = find::<b'"'>(record, start);
    let mut doubled = false;
    while record.get(end + 1) == Some(&b'"') {
        doubled = true;
        end = find::<b'"'>(record, end + 2);
    }
    if end >= record.len() {
        return Err(Fault::new("a quote is never closed"));
    }
    if !matches!(record.get(end + 1), None | Some(b',')) {
        return Err(Fault::new("text after a closing quote"));
    }
    let text = &record[start..end];
    Ok((Some(if doubled { Cell::Escaped(text, unescape_csv) } else { Cell::Plain(text) }), end + 1))
}

fn unescape_csv(text: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let mut at = 0;
    loop {
        let end = find::<b'"'>(text, at);
        out.extend_from_slice(&text[at..end]);
        if end == text.len() {
            return Ok(());
        }
        // A doubled quote, as the split has verified.
        out.push(b'"');
        at = end + 2;
    }
}
