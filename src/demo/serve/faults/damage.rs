//! Damages copies of result files (or makes them unusual), each time in the same place. The files of the store are never changed.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{WriterProperties, WriterVersion};
use serde_json::Value;

use crate::demo::serve::encode;
use crate::demo::serve::encode::{Object, Style, Sum};
use crate::demo::serve::faults::fault::{Damage, Spot};
use crate::demo::serve::jobs::store::{Part, Store, part_name};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Format;

const WRONG_VALUE: &str = "not a number";
const NEW_COLUMN: &str = "x_surprise";
const NEW_VALUE: &str = "surprise";
/// Number of members of a multi-member gzip.
const MEMBERS: usize = 3;
/// Rows per row group of an object with a broken page.
const ROWS_PER_BROKEN_GROUP: usize = 20;
/// Number of bytes that are overwritten in that page.
const BROKEN_BYTES: usize = 10;

/// Applies damages in order.
pub(crate) fn apply(store: &Store, style: &Style, mut parts: Vec<Part>, damages: &[(Damage, Spot)]) -> Result<Vec<Part>> {
    for &(damage, spot) in damages {
        let folder = Arc::new(store.temporary()?);
        match damage {
            Damage::EmptyFile | Damage::EmptyGzip | Damage::HeaderOnly => {
                let name = part_name(parts.len(), style);
                let path = folder.path().join(&name);
                let sum = match damage {
                    Damage::EmptyFile => save(&path, &[])?,
                    Damage::EmptyGzip if style.format.is_gzip() => save(&path, &pack(&[])?)?,
                    _ => Object::create(&path, style)?.finish()?,
                };
                parts.push(Part::new(folder.path(), name, sum, Some(folder.clone())));
            }
            _ => {
                let last = parts.len().saturating_sub(1);
                let chosen = (spot.object as usize).min(last);
                for (_, part) in
                    parts.iter_mut().enumerate().filter(|(place, _)| damage == Damage::MultiMember || *place == chosen)
                {
                    let whole = fs::read(&part.path).context(Kind::Io, "An object file cannot be read")?;
                    let wrong = rewrite(whole, style, damage, spot.row as usize)?;
                    let sum = save(&folder.path().join(&part.name), &wrong)?;
                    *part = Part::new(folder.path(), part.name.clone(), sum, Some(folder.clone()));
                }
            }
        }
    }
    Ok(parts)
}

fn save(path: &std::path::Path, bytes: &[u8]) -> Result<Sum> {
    fs::write(path, bytes).context(Kind::Io, "An object file cannot be written")?;
    Ok(Sum { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
}

fn pack(text: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).context(Kind::Bug, "Text cannot be compressed")
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut text).context(Kind::Bug, "An object cannot be decompressed")?;
    Ok(text)
}

fn rewrite(mut bytes: Vec<u8>, style: &Style, damage: Damage, row: usize) -> Result<Vec<u8>> {
    let is_gzip = style.format.is_gzip();
    match damage {
        Damage::Corrupt => {
            let middle = bytes.len() / 2;
            flip(&mut bytes, middle);
        }
        Damage::BrokenPage if is_gzip => {
            let middle = bytes.len() / 2;
            flip(&mut bytes, middle);
        }
        Damage::WrongCrc => {
            // A gzip ends with four bytes of checksum and four of length, a Parquet file with its magic number.
            let place = bytes.len().saturating_sub(if is_gzip { 8 } else { 1 });
            flip(&mut bytes, place);
        }
        Damage::TrailingGarbage => bytes.extend_from_slice(b"this is not gzip, and it goes on for a while"),
        Damage::MultiMember if is_gzip => {
            let text = unpack(&bytes)?;
            let piece = text.len().div_ceil(MEMBERS).max(1);
            bytes = text.chunks(piece).map(pack).collect::<Result<Vec<_>>>()?.concat();
        }
        Damage::MalformedLine if !is_gzip => {
            let middle = bytes.len() / 2;
            flip(&mut bytes, middle);
        }
        Damage::MalformedLine | Damage::EmptyLine | Damage::RepeatedRow | Damage::NoFinalNewline if is_gzip => {
            let text = unpack(&bytes)?;
            bytes = pack(&rewrite_lines(&text, style.format, damage, row))?;
        }
        Damage::WrongType | Damage::ExtraColumn if is_gzip => {
            let text = unpack(&bytes)?;
            let text = match style.format {
                Format::Jsonl => rewrite_json(&text, style, damage, row)?,
                _ => rewrite_fields(&text, style, damage, row),
            };
            bytes = pack(&text)?;
        }
        Damage::WrongType | Damage::ExtraColumn => bytes = rewrite_parquet(bytes, style, damage, None)?,
        Damage::BrokenPage => {
            let properties = WriterProperties::builder()
                // Only version 2 writes dictionaries for fixed-length byte arrays.
                .set_writer_version(WriterVersion::PARQUET_2_0)
                .set_max_row_group_row_count(Some(ROWS_PER_BROKEN_GROUP));
            bytes = rewrite_parquet(bytes, style, damage, Some(properties.build()))?;
            break_page(&mut bytes, row / ROWS_PER_BROKEN_GROUP)?;
        }
        Damage::MultiMember
        | Damage::EmptyLine
        | Damage::RepeatedRow
        | Damage::NoFinalNewline
        | Damage::MalformedLine
        | Damage::EmptyFile
        | Damage::EmptyGzip
        | Damage::HeaderOnly => {}
    }
    Ok(bytes)
}

fn flip(bytes: &mut [u8], place: usize) {
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 0b0000_0100;
    }
}

/// Splits at an unquoted byte; each piece includes its separator.
fn split(text: &[u8], separator: u8, quotes: bool) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    let mut quoted = false;
    for (place, &byte) in text.iter().enumerate() {
        if quotes && byte == b'"' {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            pieces.push(&text[begin..=place]);
            begin = place + 1;
        }
    }
    if begin < text.len() {
        pieces.push(&text[begin..]);
    }
    pieces
}

fn lines(text: &[u8], format: Format) -> Vec<&[u8]> {
    split(text, b'\n', format == Format::Csv)
}

fn header_lines(format: Format) -> usize {
    usize::from(format != Format::Jsonl)
}

/// Index of the line of data row `row`, or of the last one.
fn line_of_row(lines: &[&[u8]], format: Format, row: usize) -> usize {
    (row + header_lines(format)).min(lines.len().saturating_sub(1))
}

fn rewrite_lines(text: &[u8], format: Format, damage: Damage, row: usize) -> Vec<u8> {
    let lines = lines(text, format);
    let chosen = line_of_row(&lines, format, row);
    let mut out = Vec::with_capacity(text.len() + 1);
    for (place, line) in lines.iter().enumerate() {
        match damage {
            Damage::EmptyLine if place == chosen => {
                out.push(b'\n');
                out.extend_from_slice(line);
            }
            Damage::RepeatedRow if place == chosen => {
                out.extend_from_slice(line);
                out.extend_from_slice(line);
            }
            Damage::MalformedLine if place == chosen => {
                out.extend_from_slice(broken_line(line, format));
                out.push(b'\n');
            }
            _ => out.extend_from_slice(line),
        }
    }
    if damage == Damage::NoFinalNewline && out.last() == Some(&b'\n') {
        out.pop();
    }
    out
}

/// Half of a JSON line, or a row without its last field.
fn broken_line(line: &[u8], format: Format) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let separator = match format {
        Format::Csv => b',',
        Format::Tsv => b'\t',
        Format::Jsonl | Format::Parquet => return &line[..line.len() / 2],
    };
    let last_field = split(line, separator, format == Format::Csv).last().map_or(0, |field| field.len());
    // An empty last field has no bytes, so the line ends with the separator before it.
    let kept = if line.ends_with(&[separator]) { line.len() - 1 } else { (line.len() - last_field).saturating_sub(1) };
    &line[..kept]
}

fn rewrite_json(text: &[u8], style: &Style, damage: Damage, row: usize) -> Result<Vec<u8>> {
    let lines = lines(text, style.format);
    // The first row with values, starting at the chosen one.
    let has_value = |line: &&[u8]| line.windows(8).any(|part| part == b"\"value\":");
    let first = line_of_row(&lines, style.format, row);
    let chosen = (first..lines.len()).find(|&place| has_value(&lines[place])).unwrap_or(first);
    let mut out = Vec::with_capacity(text.len() + 64);
    for (place, line) in lines.iter().enumerate() {
        if place != chosen {
            out.extend_from_slice(line);
            continue;
        }
        let mut record: Value = serde_json::from_slice(line).context(Kind::Bug, "A line is not JSON")?;
        let (group, column, value) = match damage {
            Damage::ExtraColumn => ("value", NEW_COLUMN.to_owned(), NEW_VALUE),
            _ => match encode::integer_column(style) {
                Some(column) => ("value", column, WRONG_VALUE),
                None => ("key", style.layout.key.first().cloned().unwrap_or_default(), WRONG_VALUE),
            },
        };
        record[group][column] = value.into();
        out.extend_from_slice(record.to_string().as_bytes());
        out.push(b'\n');
    }
    Ok(out)
}

fn rewrite_fields(text: &[u8], style: &Style, damage: Damage, row: usize) -> Vec<u8> {
    let (separator, quotes) = if style.format == Format::Csv { (b',', true) } else { (b'\t', false) };
    let fields = |line: &[u8]| -> Vec<Vec<u8>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields: Vec<_> = split(line, separator, quotes)
            .into_iter()
            .map(|field| field.strip_suffix(&[separator]).unwrap_or(field).to_vec())
            .collect();
        if line.ends_with(&[separator]) {
            fields.push(Vec::new());
        }
        fields
    };
    let lines = lines(text, style.format);
    let header = lines.first().map(|line| fields(line)).unwrap_or_default();
    let wrong = encode::integer_column(style).map(|column| format!("value.{column}"));
    let wrong_place = wrong.and_then(|name| header.iter().position(|field| field == name.as_bytes()));
    let wrong_place = wrong_place.or_else(|| header.iter().position(|field| field.starts_with(b"key."))).unwrap_or(0);
    let is_delete = |fields: &[Vec<u8>]| style.incremental && fields.get(1).is_some_and(|action| action == b"D");
    let first = line_of_row(&lines, style.format, row);
    let chosen = (first..lines.len()).find(|&place| !is_delete(&fields(lines[place]))).unwrap_or(first);

    let mut out = Vec::with_capacity(text.len() + lines.len() * (NEW_VALUE.len() + 1));
    for (place, line) in lines.iter().enumerate() {
        if damage == Damage::WrongType && place != chosen {
            out.extend_from_slice(line);
            continue;
        }
        let mut fields = fields(line);
        match damage {
            Damage::WrongType => fields[wrong_place] = WRONG_VALUE.into(),
            _ if place == 0 => fields.push(format!("value.{NEW_COLUMN}").into()),
            _ if is_delete(&fields) => fields.push(if quotes { Vec::new() } else { b"\\N".to_vec() }),
            _ => fields.push(NEW_VALUE.into()),
        }
        out.extend_from_slice(&fields.join(&separator));
        out.push(b'\n');
    }
    out
}

fn bad_parquet(source: impl Into<crate::error::BoxError>) -> Error {
    Error::new(Kind::Bug, "A Parquet object cannot be rewritten").caused_by(source)
}

/// Rewrites an object with an additional column, with text in place of the first integer column, or with decimal keys.
fn rewrite_parquet(bytes: Vec<u8>, style: &Style, damage: Damage, properties: Option<WriterProperties>) -> Result<Vec<u8>> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(bad_parquet)?.build().map_err(bad_parquet)?;
    let wrong = encode::integer_column(style);
    let mut writer = None;
    for batch in reader {
        let batch = batch.map_err(bad_parquet)?;
        let columns: Vec<_> = batch.schema().fields().iter().cloned().zip(batch.columns().iter().cloned()).collect();
        let columns = if damage == Damage::BrokenPage {
            columns.into_iter().map(with_decimal_keys).collect::<Result<_>>()?
        } else if style.flat {
            change_columns(columns, damage, "value.", wrong.as_deref())
        } else {
            let change_group = |(field, array): (Arc<Field>, ArrayRef)| match array.as_struct_opt() {
                Some(group) if field.name() == "value" => {
                    let members = group.fields().iter().cloned().zip(group.columns().iter().cloned()).collect();
                    let (fields, arrays): (Vec<_>, Vec<_>) =
                        change_columns(members, damage, "", wrong.as_deref()).into_iter().unzip();
                    let group = StructArray::new(fields.into(), arrays, group.nulls().cloned());
                    (Arc::new(Field::new("value", group.data_type().clone(), true)), Arc::new(group) as ArrayRef)
                }
                _ => (field, array),
            };
            columns.into_iter().map(change_group).collect()
        };
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(bad_parquet)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(ArrowWriter::try_new(Vec::new(), batch.schema(), properties.clone()).map_err(bad_parquet)?),
        };
        writer.write(&batch).map_err(bad_parquet)?;
    }
    match writer {
        Some(writer) => writer.into_inner().map_err(bad_parquet),
        None => Ok(Vec::new()),
    }
}

type NamedColumn = (Arc<Field>, ArrayRef);

/// Casts integer keys to decimals, which Parquet stores as fixed-length byte arrays.
fn with_decimal_keys((field, array): NamedColumn) -> Result<NamedColumn> {
    const WIDE: DataType = DataType::Decimal128(20, 0);
    let is_key = |name: &str| name == "key" || name.starts_with("key.");
    match array.as_struct_opt() {
        Some(group) if is_key(field.name()) => {
            let members = group.fields().iter().cloned().zip(group.columns().iter().cloned());
            let members = members.map(|(field, array)| {
                let cast = if field.data_type().is_integer() {
                    arrow::compute::cast(&array, &WIDE).map_err(bad_parquet)?
                } else {
                    array
                };
                Ok((Arc::new(Field::new(field.name(), cast.data_type().clone(), true)), cast))
            });
            let (fields, arrays): (Vec<_>, Vec<_>) = members.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            let group = StructArray::new(fields.into(), arrays, group.nulls().cloned());
            Ok((Arc::new(Field::new(field.name(), group.data_type().clone(), true)), Arc::new(group)))
        }
        _ if is_key(field.name()) && field.data_type().is_integer() => {
            let cast = arrow::compute::cast(&array, &WIDE).map_err(bad_parquet)?;
            Ok((Arc::new(Field::new(field.name(), WIDE, true)), cast))
        }
        _ => Ok((field, array)),
    }
}

/// Overwrites the end of the key's data page in a row group (the last one if there are fewer).
fn break_page(bytes: &mut [u8], group: usize) -> Result<()> {
    let mut metadata = ParquetMetaDataReader::new();
    metadata.try_parse(&Bytes::copy_from_slice(bytes)).map_err(bad_parquet)?;
    let metadata = metadata.finish().map_err(bad_parquet)?;
    let group = group.min(metadata.num_row_groups().saturating_sub(1));
    let Some(group) = metadata.row_groups().get(group) else { return Ok(()) };
    if let Some(key) = group.columns().iter().find(|column| column.column_type() == PhysicalType::FIXED_LEN_BYTE_ARRAY) {
        let (start, length) = key.byte_range();
        let end = (start + length) as usize;
        let from = end.saturating_sub(BROKEN_BYTES).max(key.data_page_offset() as usize);
        bytes[from..end].fill(0xff);
    }
    Ok(())
}

fn change_columns(mut columns: Vec<NamedColumn>, damage: Damage, prefix: &str, wrong: Option<&str>) -> Vec<NamedColumn> {
    let rows = columns.first().map_or(0, |(_, array)| array.len());
    let text = |name: String, value: &str| -> NamedColumn {
        (Arc::new(Field::new(name, DataType::Utf8, true)), Arc::new(StringArray::from(vec![value; rows])))
    };
    match (damage, wrong) {
        (Damage::ExtraColumn, _) => columns.push(text(format!("{prefix}{NEW_COLUMN}"), NEW_VALUE)),
        (_, Some(wrong)) => {
            let name = format!("{prefix}{wrong}");
            if let Some(column) = columns.iter_mut().find(|(field, _)| *field.name() == name) {
                *column = text(name, WRONG_VALUE);
            }
        }
        _ => {}
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_fields_are_split_outside_quotes() {
        assert_eq!(lines(b"a,\"b\n\"\"c\"\nd", Format::Csv), [&b"a,\"b\n\"\"c\"\n"[..], b"d"]);
        assert_eq!(lines(b"\"a\nb", Format::Tsv), [&b"\"a\n"[..], b"b"]);
        assert_eq!(broken_line(b"1,\"a,b\"\n", Format::Csv), b"1");
        assert_eq!(broken_line(b"1,2,\n", Format::Csv), b"1,2");
        assert_eq!(broken_line(b"1\t\\N\n", Format::Tsv), b"1");
        assert_eq!(broken_line(b"{\"a\":1}\n", Format::Jsonl), b"{\"a");
    }
}
