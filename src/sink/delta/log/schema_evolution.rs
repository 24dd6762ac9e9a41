//! Schema evolution: which schema changes are applied to a table, which are refused, and which physical names columns get. No I/O.

use std::collections::HashSet;

use arrow::datatypes::DataType;

use crate::error::{Error, Kind, Result};
use crate::sink::LoadKind;
use crate::sink::delta::log::columns::{LakeColumn, LakeType, is_same_name, leaf_name, needs_mapping};

/// The columns of a table after a schema change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EvolvedSchema {
    /// The old columns in their order, then the new ones.
    pub(crate) columns: Vec<LakeColumn>,
    /// The changes, one sentence each.
    pub(crate) changes: Vec<String>,
    /// Old files must be rewritten: a type was widened, and readers need not support type widening.
    pub(crate) rewrites: bool,
}

/// Applies the schema `wanted` to the columns `old`. A merge keeps old rows, so every change must preserve their values; a
/// replacement may change any type. Columns that no longer exist at the source stay and get nulls. Kind `Schema` for a change that
/// is not possible.
pub(crate) fn evolve(old: &[LakeColumn], wanted: &[LakeColumn], kind: LoadKind) -> Result<EvolvedSchema> {
    let mut evolution = Evolution { kind, changes: Vec::new(), rewrites: false };
    let columns = evolution.columns(old, wanted, "", true)?;
    Ok(EvolvedSchema { columns, changes: evolution.changes, rewrites: evolution.rewrites })
}

/// The result of [`apply_case_changes`].
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct CaseChanges {
    /// Old and new name of each renamed top-level column.
    pub(crate) names: Vec<(String, String)>,
    /// One sentence per renamed column or member.
    pub(crate) changes: Vec<String>,
    /// Old files must be rewritten: they have the old names, and most readers compare case.
    pub(crate) rewrites: bool,
}

/// Renames columns whose names differ from `wanted` only in case, at any depth. To Delta they are the same columns, so their values
/// stay.
pub(crate) fn apply_case_changes(old: &mut [LakeColumn], wanted: &[LakeColumn]) -> CaseChanges {
    let mut renamed = CaseChanges::default();
    rename_members(old, wanted, "", &mut renamed);
    renamed
}

fn rename_members(old: &mut [LakeColumn], wanted: &[LakeColumn], above: &str, renamed: &mut CaseChanges) {
    let names: HashSet<String> = old.iter().map(|column| column.name.clone()).collect();
    for column in old {
        let exact = wanted.iter().find(|wanted| wanted.name == column.name);
        let alike = || wanted.iter().find(|wanted| is_same_name(&wanted.name, &column.name) && !names.contains(&wanted.name));
        let Some(wanted) = exact.or_else(alike) else { continue };
        if wanted.name != column.name {
            renamed.changes.push(format!("`{above}{}` was renamed to `{}`", column.name, wanted.name));
            if above.is_empty() {
                renamed.names.push((column.name.clone(), wanted.name.clone()));
            }
            column.name.clone_from(&wanted.name);
            // A mapped column keeps its name in the files.
            if column.id.is_none() {
                column.physical.clone_from(&wanted.name);
                renamed.rewrites = true;
            }
        }
        let path = format!("{above}{}", column.name);
        rename_in_type(&mut column.kind, &wanted.kind, &path, renamed);
    }
}

fn rename_in_type(old: &mut LakeType, wanted: &LakeType, path: &str, renamed: &mut CaseChanges) {
    match (old, wanted) {
        (LakeType::Struct(old), LakeType::Struct(wanted)) => rename_members(old, wanted, &format!("{path}."), renamed),
        (LakeType::List(old), LakeType::List(wanted)) => rename_in_type(old, wanted, &format!("{path}[]"), renamed),
        _ => {}
    }
}

struct Evolution {
    kind: LoadKind,
    changes: Vec<String>,
    rewrites: bool,
}

impl Evolution {
    fn columns(&mut self, old: &[LakeColumn], wanted: &[LakeColumn], above: &str, top: bool) -> Result<Vec<LakeColumn>> {
        let mut columns = Vec::with_capacity(wanted.len().max(old.len()));
        for column in old {
            let path = format!("{above}{}", column.name);
            let mut column = column.clone();
            match wanted.iter().find(|wanted| wanted.name == column.name) {
                None => {
                    if !column.nullable {
                        column.nullable = true;
                        self.changes.push(format!("`{path}` no longer exists at the source and is null in new rows"));
                    }
                }
                Some(wanted) => {
                    if wanted.nullable && !column.nullable {
                        column.nullable = true;
                        self.changes.push(format!("`{path}` became nullable"));
                    }
                    column.kind = self.kind(&column.kind, &wanted.kind, &path)?;
                    column.set_comment(wanted.comment());
                }
            }
            columns.push(column);
        }
        for wanted in wanted {
            if old.iter().any(|column| column.name == wanted.name) {
                continue;
            }
            let mut column = wanted.clone();
            // The column is null in old rows.
            column.nullable |= !top || self.kind == LoadKind::Merge;
            self.changes.push(format!("`{above}{}` was added", column.name));
            columns.push(column);
        }
        Ok(columns)
    }

    fn kind(&mut self, old: &LakeType, wanted: &LakeType, path: &str) -> Result<LakeType> {
        match (old, wanted) {
            (LakeType::Struct(old), LakeType::Struct(wanted)) => {
                Ok(LakeType::Struct(self.columns(old, wanted, &format!("{path}."), false)?))
            }
            (LakeType::List(old), LakeType::List(wanted)) => {
                Ok(LakeType::List(Box::new(self.kind(old, wanted, &format!("{path}[]"))?)))
            }
            (LakeType::Leaf(from), LakeType::Leaf(to)) if from == to => Ok(old.clone()),
            (LakeType::Leaf(from), LakeType::Leaf(to)) if widens(from, to) => {
                self.changes.push(format!("`{path}` was widened from {} to {}", leaf_name(from), leaf_name(to)));
                self.rewrites = true;
                Ok(wanted.clone())
            }
            _ if self.kind == LoadKind::Replace => {
                self.changes.push(format!("`{path}` was changed from {} to {}", type_name(old), type_name(wanted)));
                Ok(wanted.clone())
            }
            _ => Err(Error::new(Kind::Schema, "The new type of a column cannot hold the values of existing rows")
                .with_field("column", path)
                .with_field("from", type_name(old))
                .with_field("to", type_name(wanted))
                .hint("reload the table with --resnapshot, or load it into a new target")),
        }
    }
}

/// Whether every value of a type can be converted to another type without loss.
pub(crate) fn is_convertible(from: &LakeType, to: &LakeType) -> bool {
    Evolution { kind: LoadKind::Merge, changes: Vec::new(), rewrites: false }.kind(from, to, "").is_ok()
}

fn type_name(kind: &LakeType) -> String {
    match kind {
        LakeType::Leaf(leaf) => leaf_name(leaf),
        LakeType::Struct(_) => "struct".into(),
        LakeType::List(_) => "array".into(),
    }
}

/// Whether every value of `from` is exactly a value of `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let digits = |data_type: &DataType| match data_type {
        Int16 => Some(5),
        Int32 => Some(10),
        Int64 => Some(19),
        _ => None,
    };
    match (from, to) {
        (Int16, Int32 | Int64 | Float32 | Float64) | (Int32, Int64 | Float64) | (Float32, Float64) => true,
        (Decimal128(p1, s1), Decimal128(p2, s2)) => {
            let (whole1, whole2) = (*p1 as i16 - *s1 as i16, *p2 as i16 - *s2 as i16);
            s2 >= s1 && whole2 >= whole1
        }
        (_, Decimal128(precision, scale)) => digits(from).is_some_and(|digits| *precision as i16 - *scale as i16 >= digits),
        _ => false,
    }
}

/// Checks that the key has not changed, unless all rows are replaced: rows of another key cannot be matched. Kind `Schema`.
pub(crate) fn check_key(old: &[String], wanted: &[String], kind: LoadKind) -> Result<()> {
    let is_same = old.len() == wanted.len() && old.iter().zip(wanted).all(|(old, wanted)| is_same_name(old, wanted));
    if is_same || kind == LoadKind::Replace {
        return Ok(());
    }
    Err(Error::new(Kind::Schema, "The primary key of the table has changed")
        .with_field("from", old.join(", "))
        .with_field("to", wanted.join(", "))
        .hint("reload the table with --resnapshot, or load it into a new target"))
}

/// Checks that no two names differ only in case, because Delta readers ignore case. Kind `Schema`.
pub(crate) fn check_names(columns: &[LakeColumn]) -> Result<()> {
    let mut seen = HashSet::new();
    for column in columns {
        if !seen.insert(column.name.to_lowercase()) {
            return Err(Error::new(
                Kind::Schema,
                "The names of two columns differ only in case, which Delta tables do not allow",
            )
            .with_field("column", &column.name)
            .hint("leave one of them out with --drop-column, or load this table into PostgreSQL"));
        }
        check_members(&column.kind).map_err(|error| error.with_field("inside", &column.name))?;
    }
    Ok(())
}

fn check_members(kind: &LakeType) -> Result<()> {
    match kind {
        LakeType::Leaf(_) => Ok(()),
        LakeType::Struct(members) => check_names(members),
        LakeType::List(item) => check_members(item),
    }
}

/// Assigns physical names and ids to columns if column mapping is needed. `mapped` indicates whether the table already maps columns,
/// `max_id` is the highest id in use. Returns both values after the assignment. Names in existing files do not change.
pub(crate) fn map_columns(columns: &mut [LakeColumn], mapped: bool, max_id: i64) -> (bool, i64) {
    let mut needed = mapped;
    columns.iter_mut().for_each(|column| column.visit_mut(&mut |column| needed |= needs_mapping(&column.physical)));
    if !needed {
        return (false, max_id);
    }
    let mut highest = max_id;
    columns.iter_mut().for_each(|column| column.visit_mut(&mut |column| highest = highest.max(column.id.unwrap_or(0))));
    for column in columns {
        column.visit_mut(&mut |column| {
            if column.id.is_some() {
                return;
            }
            highest += 1;
            column.id = Some(highest);
            // Old files may hold a removed column with the same name.
            if mapped || needs_mapping(&column.physical) {
                column.physical = format!("col-{}", uuid::Uuid::new_v4());
            }
        });
    }
    (true, highest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    fn column(name: &str, kind: LakeType, nullable: bool) -> LakeColumn {
        LakeColumn { name: name.into(), physical: name.into(), id: None, kind, nullable, metadata: Map::new() }
    }

    fn leaf(name: &str, data_type: DataType, nullable: bool) -> LakeColumn {
        column(name, LakeType::Leaf(data_type), nullable)
    }

    #[test]
    fn a_merge_adds_relaxes_and_widens_columns_and_keeps_removed_ones() {
        let old = [
            leaf("id", DataType::Int32, false),
            leaf("gone", DataType::Utf8, false),
            leaf("text", DataType::Utf8, false),
            column("s", LakeType::Struct(vec![leaf("a", DataType::Float32, true)]), true),
        ];
        let wanted = [
            leaf("id", DataType::Int64, false),
            leaf("text", DataType::Utf8, true),
            leaf("new", DataType::Boolean, false),
            column("s", LakeType::Struct(vec![leaf("b", DataType::Utf8, true), leaf("a", DataType::Float64, true)]), true),
        ];
        let evolved = evolve(&old, &wanted, LoadKind::Merge).unwrap();
        assert!(evolved.rewrites);
        assert_eq!(
            evolved.changes,
            [
                "`id` was widened from integer to long",
                "`gone` no longer exists at the source and is null in new rows",
                "`text` became nullable",
                "`s.a` was widened from float to double",
                "`s.b` was added",
                "`new` was added",
            ]
        );
        let shape: Vec<_> = evolved.columns.iter().map(|column| (column.name.as_str(), column.nullable)).collect();
        assert_eq!(shape, [("id", false), ("gone", true), ("text", true), ("s", true), ("new", true)]);
        // The same schema again changes nothing; relaxed columns stay nullable.
        let again = evolve(&evolved.columns, &wanted, LoadKind::Merge).unwrap();
        assert_eq!((again.columns, again.changes.len(), again.rewrites), (evolved.columns, 0, false));
    }

    #[test]
    fn a_name_that_changes_only_in_case_is_a_rename_at_any_depth() {
        let member = |name: &str| column("s", LakeType::Struct(vec![leaf(name, DataType::Utf8, true)]), true);
        let mut old = [leaf("Name", DataType::Utf8, true), member("Inner"), leaf("other", DataType::Utf8, true)];
        old[2].id = Some(3);
        old[2].physical = "col-3".into();
        let wanted = [leaf("name", DataType::Utf8, true), member("inner"), leaf("Other", DataType::Utf8, true)];
        let renamed = apply_case_changes(&mut old, &wanted);
        let names = [("Name", "name"), ("other", "Other")].map(|(from, to)| (from.to_owned(), to.to_owned()));
        assert_eq!((renamed.names, renamed.rewrites), (names.to_vec(), true));
        let changes = ["`Name` was renamed to `name`", "`s.Inner` was renamed to `inner`", "`other` was renamed to `Other`"];
        assert_eq!(renamed.changes, changes);
        assert_eq!((old[0].physical.as_str(), old[2].physical.as_str()), ("name", "col-3"), "mapped names stay");
        assert_eq!(evolve(&old, &wanted, LoadKind::Merge).unwrap().changes, [] as [&str; 0]);
        // If both names exist, they are two columns; see `check_names`.
        let mut old = [leaf("a", DataType::Utf8, true), leaf("b", DataType::Utf8, true)];
        let wanted = [leaf("a", DataType::Utf8, true), leaf("A", DataType::Utf8, true)];
        assert_eq!(apply_case_changes(&mut old, &wanted), CaseChanges::default());
    }

    #[test]
    fn narrowing_a_type_is_refused_by_a_merge_but_not_by_a_replacement() {
        for (from, to) in [
            (DataType::Int64, DataType::Int32),
            (DataType::Int64, DataType::Float64),
            (DataType::Decimal128(5, 2), DataType::Decimal128(5, 3)),
            (DataType::Utf8, DataType::Int64),
            (DataType::Int64, DataType::Decimal128(20, 2)),
        ] {
            let (old, wanted) = ([leaf("x", from, true)], [leaf("x", to, true)]);
            let error = evolve(&old, &wanted, LoadKind::Merge).unwrap_err();
            assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some("x")));
            assert!(error.hint_text().unwrap().contains("--resnapshot"));
            assert_eq!(evolve(&old, &wanted, LoadKind::Replace).unwrap().columns, wanted);
        }
        assert!(widens(&DataType::Int64, &DataType::Decimal128(21, 2)));
        assert!(widens(&DataType::Decimal128(5, 2), &DataType::Decimal128(6, 3)));
    }

    #[test]
    fn a_new_key_is_refused_unless_all_rows_are_replaced() {
        let (old, new) = (vec!["id".to_owned()], vec!["uuid".to_owned()]);
        assert_eq!(check_key(&old, &new, LoadKind::Merge).unwrap_err().kind(), Kind::Schema);
        check_key(&old, &new, LoadKind::Replace).unwrap();
    }

    #[test]
    fn names_that_differ_only_in_case_are_refused_at_any_depth() {
        let twice = vec![leaf("Name", DataType::Utf8, true), leaf("name", DataType::Utf8, true)];
        assert_eq!(check_names(&twice).unwrap_err().kind(), Kind::Schema);
        let nested = [column("l", LakeType::List(Box::new(LakeType::Struct(twice))), true)];
        assert_eq!(check_names(&nested).unwrap_err().get("inside"), Some("l"));
    }

    #[test]
    fn mapping_starts_when_a_name_needs_it_and_keeps_names_in_old_files() {
        let mut columns = vec![leaf("id", DataType::Int64, false), leaf("order", DataType::Utf8, true)];
        assert_eq!(map_columns(&mut columns, false, 0), (false, 0));
        columns.push(column("o", LakeType::Struct(vec![leaf("in ner", DataType::Utf8, true)]), true));
        assert_eq!(map_columns(&mut columns, false, 0), (true, 4));
        assert_eq!((columns[0].physical.as_str(), columns[0].id), ("id", Some(1)));
        let LakeType::Struct(members) = &columns[2].kind else { panic!() };
        assert!(members[0].physical.starts_with("col-") && members[0].id == Some(4));
        columns.push(leaf("late", DataType::Utf8, true));
        assert_eq!(map_columns(&mut columns, true, 9), (true, 10));
        assert!(columns[3].physical.starts_with("col-"));
    }
}
