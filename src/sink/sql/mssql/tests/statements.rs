//! Every statement for every schema of the catalogue: as snapshots, and as other parsers read it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use datafusion::sql::sqlparser::dialect::MsSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use serde_json::json;

use super::super::dialect::{MssqlDialect, SESSION, TRANSACTIONS_OPEN};
use super::{odd, served, table_of};
use crate::demo::school::catalogue as school;
use crate::model::{Bookmark, Namespace, TableRef, Timestamp};
use crate::schema::{ColumnType, TableSchema};
use crate::sink::conformance::{TEXT, column, schema};
use crate::sink::sql::dialect::{
    Change, ChangeRules, Ddl, Introspection, LiveColumn, MergeStatements, MetaTables, Privileges, SqlTable, Statement,
    Transactions,
};
use crate::sink::sql::sync_state;
use crate::sink::{KeptRows, LoadKind};

fn catalogue() -> Vec<TableSchema> {
    school::tables()
        .map(|(namespace, name)| {
            let table = TableRef::new(namespace, name);
            TableSchema::read(&table, 1, school::schema(&table).unwrap()).unwrap()
        })
        .chain([odd(), awkward_keys()])
        .collect()
}

/// Strings, enum values and UUIDs as keys.
fn awkward_keys() -> TableSchema {
    let words = ColumnType::Enum { members: vec!["x".into()], open: true };
    let key = vec![
        column("name", TEXT, true),
        column("short", ColumnType::Text { max_length: Some(20) }, true),
        column("word", words, true),
        column("uuid", ColumnType::Uuid, true),
    ];
    schema(&TableRef::new("canvas", "awkward"), 1, key, vec![column("at", ColumnType::Timestamp, false)])
}

/// Tables whose statements are recorded in full.
const IN_FULL: [&str; 4] = ["canvas.odd", "canvas.awkward", "canvas.enrollments", "canvas_logs.web_logs"];

type Kinds = Vec<(&'static str, Vec<Statement>)>;

/// Statements about one table, by kind.
fn of_table(table: &SqlTable) -> Kinds {
    let dialect = &MssqlDialect;
    vec![
        ("lookups", dialect.create_lookups(table)),
        ("table", dialect.create_table(table).into_iter().chain(dialect.add_key(table)).collect()),
        ("stage", dialect.create_stage(table).into_iter().chain(dialect.unique_stage(table)).collect()),
        ("fill_lookups", dialect.fill_lookups(table)),
        ("insert", vec![dialect.insert(table)]),
        ("upsert", dialect.upsert(table)),
        ("delete", vec![dialect.delete(table)]),
        ("relax", table.columns.iter().map(|column| dialect.relax(table, column, None)).collect()),
        ("retype", table.columns.iter().map(|column| dialect.retype(table, &dialect.unbounded(column), None)).collect()),
        ("others", vec![dialect.live_columns(&table.table), dialect.clear(table), dialect.drop_table(&table.table)]),
    ]
}

/// Statements that differ only in names and values.
fn fixed() -> Kinds {
    let dialect = &MssqlDialect;
    let (table, schema) = (TableRef::new("canvas", "users"), odd());
    let reached = Bookmark { at: Timestamp::from_micros(1_706_745_600_000_001), schema_version: 7 };
    let entry = sync_state::Entry {
        id: "5".into(),
        bookmark: reached,
        exists: true,
        description: String::new(),
        kept: KeptRows::default(),
    };
    vec![
        ("session", vec![Statement::new(SESSION), Statement::new(TRANSACTIONS_OPEN)]),
        ("transaction", vec![dialect.begin(), dialect.commit(), dialect.rollback()]),
        ("lock", vec![dialect.lock("canvas.users"), dialect.try_lock("canvas.users")]),
        ("charset", vec![dialect.charset()]),
        ("namespace", dialect.create_namespace(&Namespace::new("canvas"))),
        ("meta_columns", vec![dialect.meta_columns()]),
        ("create_meta", dialect.create_meta()),
        ("legacy", vec![dialect.legacy_tables()]),
        ("version", dialect.set_version(1)),
        (
            "store_bookmark",
            vec![
                sync_state::store_bookmark(dialect, &schema, KeptRows::default(), None, reached),
                sync_state::store_bookmark(dialect, &schema, KeptRows::default(), Some(&entry), reached),
            ],
        ),
        ("occupants", vec![dialect.occupants(std::slice::from_ref(&table))]),
        ("table_privileges", dialect.table_privileges(std::slice::from_ref(&table))),
        ("remove_entry", vec![sync_state::remove_entry(dialect, &table)]),
        ("entries", vec![Statement::new(sync_state::select_entries(dialect))]),
        ("drop_stage", dialect.drop_stage()),
    ]
}

fn texts(statements: &[Statement]) -> String {
    statements.iter().map(|statement| format!("{};\n", statement.text)).collect()
}

#[test]
fn statements_are_as_reviewed() {
    let mut fixed_text = String::new();
    for (kind, statements) in fixed() {
        fixed_text.push_str(&format!("-- {kind}\n"));
        for statement in statements {
            let parameters =
                statement.parameters.iter().map(|value| value.as_deref().unwrap_or("null").chars().take(60).collect());
            let parameters: Vec<String> = parameters.collect();
            fixed_text.push_str(&format!(
                "{};{}\n",
                statement.text,
                if parameters.is_empty() { String::new() } else { format!(" -- {parameters:?}") }
            ));
        }
    }
    insta::assert_snapshot!("mssql_fixed", fixed_text);

    // Tables in full; statements about a table in full for a few tables, and as checksums for all.
    let mut kinds: BTreeMap<&str, String> = BTreeMap::new();
    for schema in catalogue() {
        let table = table_of(&schema);
        for (kind, statements) in of_table(&table) {
            let text = texts(&statements);
            let whole = kind == "table" || IN_FULL.contains(&table.table.to_string().as_str());
            let out = kinds.entry(kind).or_default();
            match whole {
                true => out.push_str(&format!("-- {}\n{text}", table.table)),
                false => out.push_str(&format!(
                    "-- {}: {} statements, {:08x}\n",
                    table.table,
                    statements.len(),
                    crc32fast::hash(text.as_bytes())
                )),
            }
        }
    }
    for (kind, text) in kinds {
        insta::assert_snapshot!(format!("mssql_{kind}"), text);
    }
}

fn live(name: &str, sql_type: &str) -> LiveColumn {
    LiveColumn {
        name: name.into(),
        sql_type: sql_type.into(),
        not_null: false,
        key: false,
        has_default: false,
        comment: None,
        lookup: None,
        foreign_key: None,
    }
}

fn live_of(table: &SqlTable) -> Vec<LiveColumn> {
    let columns = table.columns.iter().map(|column| LiveColumn {
        not_null: column.required || column.key,
        key: column.key,
        has_default: column.default.is_some(),
        lookup: column.lookup.as_ref().map(|(lookup, _)| lookup.clone()),
        ..live(&column.name, &column.sql_type)
    });
    columns.collect()
}

/// Changes between versions of a table.
fn changes() -> Vec<(&'static str, Change)> {
    let table = TableRef::new("canvas", "grown");
    let before = table_of(&served(
        &table,
        1,
        json!({
            "name": {"type": "string", "maxLength": 100, "default": "x"},
            "count": {"type": "integer", "format": "int32", "default": 0},
            "state": {"type": "string", "enum": ["a", "b"]},
            "state_gone": {"type": "string", "enum": ["a", "b"]},
            "gone": {"type": "string", "default": "d"},
            "needed": {"type": "string", "format": "date"},
            "day": {"type": "string", "format": "date"},
            "kept": {"type": "string"},
            "to_state": {"type": "string"},
            "to_flag": {"type": "string"},
            "to_moment": {"type": "integer", "format": "int64"},
            "from_moment": {"type": "string", "format": "date-time"},
            "from_clock": {"type": "string", "format": "time"},
            "moment_to_number": {"type": "string", "format": "date-time"},
        }),
        &["gone", "needed", "state_gone", "name"],
    ));
    let after = table_of(&served(
        &table,
        2,
        json!({
            "name": {"type": "string", "maxLength": 300, "default": "y"},
            "count": {"type": "integer", "format": "int64", "default": 0},
            "state": {"type": "string"},
            "needed": {"type": "string", "format": "date"},
            "day": {"type": "string", "format": "date", "default": "2020-01-01"},
            "kept": {"type": "string"},
            "to_state": {"type": "string", "enum": ["a"]},
            "to_flag": {"type": "boolean"},
            "to_moment": {"type": "string", "format": "date-time"},
            "from_moment": {"type": "string"},
            "from_clock": {"type": "string", "maxLength": 12},
            "moment_to_number": {"type": "integer", "format": "int64"},
            "new": {"type": "string"},
            "new_state": {"type": "string", "enum": ["a"]},
            "new_flag": {"type": "boolean", "default": true},
            "new_needed": {"type": "boolean"},
        }),
        &["new_flag", "new_needed", "kept"],
    ));
    let mut found = live_of(&before);
    found.push(LiveColumn { not_null: true, has_default: true, ..live("mine", "nvarchar(50)") });
    let rules = |kind, drop_removed| ChangeRules { before: Some(&before), kind, drop_removed };
    let changed = |table: &SqlTable, live: &[LiveColumn], rules| MssqlDialect.change_table(table, live, rules).unwrap();
    let mut wide_key = before.clone();
    wide_key.columns[0].sql_type = "decimal(20,0)".into();
    let mut other = after.clone();
    other.columns[1].sql_type = "bigint".into();
    other.columns[2].sql_type = "binary(16)".into();
    let mut rekeyed = before.clone();
    rekeyed.columns[1].key = true;
    vec![
        ("nothing", changed(&before, &live_of(&before), rules(LoadKind::Merge, true))),
        ("a_version_later", changed(&after, &found, rules(LoadKind::Merge, false))),
        ("a_version_later_and_dropped", changed(&after, &found, rules(LoadKind::Merge, true))),
        ("without_a_stored_schema", changed(&after, &found, ChangeRules { before: None, ..rules(LoadKind::Merge, true) })),
        ("a_wider_key", changed(&wide_key, &live_of(&before), rules(LoadKind::Merge, false))),
        ("anything_for_a_replacement", changed(&other, &found, rules(LoadKind::Replace, false))),
        ("another_key", changed(&rekeyed, &found, rules(LoadKind::Replace, false))),
    ]
}

#[test]
fn schema_changes_are_as_reviewed() {
    let text: String = changes()
        .into_iter()
        .map(|(name, change)| format!("-- {name}\n{}notes: {:#?}\n", texts(&change.statements), change.notes))
        .collect();
    insta::assert_snapshot!("mssql_changes", text);
    // Columns of the user, which the stored schema does not have, are in no statement.
    let known = changes().into_iter().filter(|(name, _)| *name != "without_a_stored_schema");
    assert!(!known.map(|(_, change)| texts(&change.statements)).collect::<String>().contains("mine"));
}

#[test]
fn changes_that_a_merge_cannot_make_are_refused_with_a_hint() {
    let table = TableRef::new("canvas", "t");
    let wanted = table_of(&served(&table, 2, json!({"a": {"type": "string", "format": "uuid"}}), &[]));
    let found = [LiveColumn { key: true, not_null: true, ..live("id", "bigint") }, live("a", "varchar(max)")];
    let rules = ChangeRules { before: None, kind: LoadKind::Merge, drop_removed: false };
    let error = MssqlDialect.change_table(&wanted, &found, rules).unwrap_err();
    assert!(error.kind() == crate::Kind::Schema && error.hint_text().is_some() && error.get("column") == Some("a"));
    let mine = [found[0].clone(), LiveColumn { not_null: true, ..live("mine", "int") }];
    let known = ChangeRules { before: Some(&wanted), ..rules };
    assert_eq!(MssqlDialect.change_table(&wanted, &mine, known).unwrap_err().get("column"), Some("mine"));
    let error = MssqlDialect.change_table(&wanted, &found[1..], rules).unwrap_err();
    assert_eq!((error.kind(), error.get("key")), (crate::Kind::Schema, Some("id")));
}

#[test]
fn rows_are_converted_for_columns_that_kept_their_type() {
    let table = TableRef::new("canvas", "kept");
    let value = json!({
        "words": {"type": "string"}, "text": {"type": "string", "enum": ["a"]}, "flag": {"type": "boolean"},
        "number": {"type": "number"}, "at": {"type": "string", "format": "date-time"}, "short": {"type": "string", "maxLength": 3},
    });
    let wanted = table_of(&served(&table, 2, value, &[]));
    let found = [
        LiveColumn { lookup: Some("[canvas].[kept__words]".into()), ..live("words", "int") },
        live("text", "varchar(max)"),
        live("flag", "varchar(40)"),
        live("number", "varchar(max)"),
        live("at", "varchar(max)"),
        live("short", "varchar(max)"),
    ];
    let columns = wanted.columns.iter().map(|column| match found.iter().find(|live| live.name == column.name) {
        Some(live) => MssqlDialect.settle(column, live, LoadKind::Merge),
        None => column.clone(),
    });
    let settled = SqlTable { columns: columns.collect(), ..wanted.clone() };
    let statements = [MssqlDialect.fill_lookups(&settled), MssqlDialect.upsert(&settled)].concat();
    insta::assert_snapshot!("mssql_settled", texts(&statements));
    assert_eq!(settled.columns[6].longest, None, "a string without a limit is not widened");
}

/// A new snapshot has no old values, so that columns get the type of the schema, with the lookup table that it needs.
#[test]
fn a_snapshot_settles_for_the_type_of_the_schema() {
    let value = json!({"state": {"type": "string", "enum": ["a"]}, "text": {"type": "string"}});
    let wanted = table_of(&served(&TableRef::new("canvas", "t"), 2, value, &[]));
    let found =
        [live("state", "varchar(max)"), LiveColumn { lookup: Some("[canvas].[t__text]".into()), ..live("text", "int") }];
    for (column, live) in wanted.columns[1..].iter().zip(&found) {
        assert_eq!(MssqlDialect.settle(column, live, LoadKind::Replace), *column);
        let merged = MssqlDialect.settle(column, live, LoadKind::Merge);
        assert_eq!((merged.sql_type, merged.lookup.map(|(table, _)| table)), (live.sql_type.clone(), live.lookup.clone()));
    }
}

/// SQL Server ignores zero bytes at the end of `varbinary` when it compares: each text has one more character.
#[test]
fn a_trailing_nul_distinguishes_two_strings() {
    let table = table_of(&awkward_keys());
    let statements =
        [MssqlDialect.fill_lookups(&table), MssqlDialect.upsert(&table), vec![MssqlDialect.delete(&table)]].concat();
    for statement in statements {
        let casts = statement.text.split(" AS varbinary(").collect::<Vec<_>>();
        assert!(casts[..casts.len() - 1].iter().all(|before| before.ends_with("+ N'.'")), "{}", statement.text);
    }
}

/// All statements, each text once, under its kind.
fn all() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let tables = catalogue().into_iter().flat_map(|schema| {
        let table = table_of(&schema);
        let mut kinds = of_table(&table);
        // They differ only in names.
        kinds.retain(|(kind, _)| !["relax", "retype"].contains(kind) || IN_FULL.contains(&table.table.to_string().as_str()));
        kinds
    });
    let changes = changes().into_iter().map(|(_, change)| ("change", change.statements));
    for (kind, statements) in fixed().into_iter().chain(tables).chain(changes) {
        for statement in statements {
            all.entry(statement.text).or_insert_with(|| kind.to_owned());
        }
    }
    all
}

/// How many statements a parser refuses, by kind and first words.
fn digest(refused: Vec<(&str, &str)>, total: usize) -> String {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for (kind, text) in refused {
        let words: Vec<&str> = text.split_whitespace().take(3).collect();
        *counted.entry(format!("{kind}: {}", words.join(" "))).or_default() += 1;
    }
    let lines: String = counted.iter().map(|(line, count)| format!("{count} x {line}\n")).collect();
    format!("of {total} statements are not read:\n{lines}")
}

/// It does not know `ALTER COLUMN` with whether the column may be null, `ADD CONSTRAINT ... DEFAULT ... FOR`, and `EXEC` of a
/// procedure into a variable.
#[test]
fn another_parser_reads_the_statements_as_t_sql() {
    let all = all();
    let refused: Vec<(&str, &str)> = all
        .iter()
        .filter(|(text, _)| Parser::parse_sql(&MsSqlDialect {}, text).is_err())
        .map(|(text, kind)| (kind.as_str(), text.as_str()))
        .collect();
    insta::assert_snapshot!("mssql_sqlparser", digest(refused, all.len()));
}

/// Reads statements from its input as JSON lines; prints the numbers of those that it cannot parse, or only as an unknown command.
const SQLGLOT: &str = r#"
import json, logging, sys
import sqlglot
from sqlglot import exp
logging.disable(logging.CRITICAL)
for number, line in enumerate(sys.stdin):
    try:
        trees = sqlglot.parse(json.loads(line), read="tsql", error_level=sqlglot.ErrorLevel.RAISE)
        if any(tree is None or isinstance(tree, exp.Command) for tree in trees):
            print(number)
    except sqlglot.errors.SqlglotError:
        print(number)
"#;

/// It does not know `ADD CONSTRAINT ... DEFAULT ... FOR`, and takes `SET IDENTITY_INSERT` as a command.
#[test]
#[allow(clippy::print_stderr, reason = "a test says what it did not run")]
fn a_third_parser_reads_the_statements_as_t_sql() {
    let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "python"));
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        assert!(!required, "DAPLAKE_TEST_PYTHON is not set");
        eprintln!("not run: sqlglot (set DAPLAKE_TEST_PYTHON, or use tests/run)");
        return;
    };
    let all = all();
    let mut child = Command::new(python).args(["-c", SQLGLOT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = all.keys().map(|text| format!("{}\n", serde_json::to_string(text).unwrap())).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let texts: Vec<(&String, &String)> = all.iter().collect();
    let refused: Vec<(&str, &str)> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|number| {
            let (text, kind) = texts[number.parse::<usize>().unwrap()];
            (kind.as_str(), text.as_str())
        })
        .collect();
    insta::assert_snapshot!("mssql_sqlglot", digest(refused, all.len()));
}
