//! Relations between tables: which columns refer to which tables. The service's schemas do not contain them. They are taken from the
//! service's documentation, or else derived from column names and from the values of `*_type` columns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::{Column, ColumnType, TableSchema};
use crate::model::TableRef;

/// A table, its column, and the referenced columns as `namespace.table.column`.
type Documented = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// The relations in the service's documentation.
static DOCUMENTED: LazyLock<Documented> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../schemas/relations.json")).unwrap_or_default());

/// The source of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// The service's documentation.
    Documented,
    /// The names of column and table.
    Named,
}

/// A column that refers to the keys of another table, or of one of several tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The referring table.
    pub from: TableRef,
    /// The referring column.
    pub column: String,
    /// Whether the column is required, so that every row has a reference.
    pub required: bool,
    /// The referenced columns. If there are several, a `*_type` column tells which one a row refers to. Some of the tables may not be in
    /// the diagram.
    pub targets: Vec<TableRef>,
    /// The source of the relation.
    pub evidence: Evidence,
}

/// A set of tables with their relations.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagram {
    /// The tables, in the given order.
    pub tables: Vec<TableSchema>,
    /// The relations, by table and in column order.
    pub relations: Vec<Relation>,
}

impl Diagram {
    /// The diagram of these tables. Relations that are derived from names are limited to these tables.
    pub fn of(tables: Vec<TableSchema>) -> Self {
        let known: BTreeSet<&TableRef> = tables.iter().map(|schema| &schema.table).collect();
        let relations = tables.iter().flat_map(|schema| relations_of(schema, &known)).collect();
        Self { tables, relations }
    }

    /// The relations of other tables, and of the table itself, that refer to a table.
    pub(crate) fn referring(&self, table: &TableRef) -> Vec<&Relation> {
        self.relations.iter().filter(|relation| relation.targets.contains(table)).collect()
    }

    /// The index of a table.
    pub fn place_of(&self, table: &TableRef) -> Option<usize> {
        self.tables.iter().position(|schema| schema.table == *table)
    }
}

fn relations_of(schema: &TableSchema, known: &BTreeSet<&TableRef>) -> Vec<Relation> {
    let documented = DOCUMENTED.get(&schema.table.to_string());
    let mut relations = Vec::new();
    for column in schema.columns() {
        let told = documented.and_then(|columns| columns.get(&column.name));
        let (targets, evidence) = match told {
            Some(targets) => (targets.iter().filter_map(|name| target(name)).collect(), Evidence::Documented),
            None => (guessed(schema, column, known), Evidence::Named),
        };
        if !targets.is_empty() {
            let (from, column, required) = (schema.table.clone(), column.name.clone(), column.required);
            relations.push(Relation { from, column, required, targets, evidence });
        }
    }
    relations
}

/// `namespace.table.column`.
fn target(name: &str) -> Option<TableRef> {
    let mut words = name.split('.');
    Some(TableRef::new(words.next()?, words.next()?))
}

/// Finds the tables that `<stem>_id` may refer to: by the values of `<stem>_type`, else by the stem itself, with or without its leading
/// words, in the table's own namespace or the one that the stem starts with.
fn guessed(schema: &TableSchema, column: &Column, known: &BTreeSet<&TableRef>) -> Vec<TableRef> {
    let can_be_key = matches!(
        column.column_type,
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 | ColumnType::Uuid | ColumnType::Text { .. }
    );
    let Some(stem) = column.name.strip_suffix("_id").filter(|stem| can_be_key && !stem.is_empty()) else { return Vec::new() };
    let namespace = schema.table.namespace.as_str();
    let find = |namespace: &str, word: &str| {
        plurals(word).into_iter().map(|table| TableRef::new(namespace, table)).find(|table| known.contains(table))
    };
    let type_name = format!("{stem}_type");
    let kind = schema.columns().find(|column| column.name == type_name);
    if let Some(Column { column_type: ColumnType::Enum { members, .. }, .. }) = kind {
        let mut targets: Vec<TableRef> = Vec::new();
        for table in members.iter().filter_map(|member| find(namespace, &snake_case(member))) {
            if !targets.contains(&table) {
                targets.push(table);
            }
        }
        if !targets.is_empty() {
            return targets;
        }
    }
    let mut rest = Some(stem);
    while let Some(word) = rest {
        let (head, tail) = word.split_once('_').map_or((word, None), |(head, tail)| (head, Some(tail)));
        if let Some(table) = find(namespace, word).or_else(|| find(head, tail?)) {
            return vec![table];
        }
        rest = tail;
    }
    Vec::new()
}

/// Converts `Quizzes::QuizSubmission` to `quiz_submission`.
fn snake_case(word: &str) -> String {
    let word = word.rsplit("::").next().unwrap_or(word);
    let mut snake = String::new();
    for c in word.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The possible table names for a singular noun.
fn plurals(word: &str) -> Vec<String> {
    let mut words = vec![format!("{word}s"), word.to_owned(), format!("{word}es"), format!("{word}zes")];
    words.extend(word.strip_suffix('y').map(|stem| format!("{stem}ies")));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn table(name: &str, columns: Value) -> TableSchema {
        let id = json!({"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]});
        let source = json!({"properties": {"key": id, "value": {"properties": columns}}});
        TableSchema::read(&TableRef::new("new", name), 1, source).unwrap()
    }

    fn targets(diagram: &Diagram, column: &str) -> Vec<String> {
        let found = diagram.relations.iter().find(|relation| relation.column == column);
        found.map_or(Vec::new(), |relation| relation.targets.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_and_types_suggest_undocumented_references() {
        let number = json!({"type": "integer", "format": "int64"});
        let item = table(
            "items",
            json!({
                "user_id": number, "parent_item_id": number, "quiz_id": number, "category_id": number, "other_id": number,
                "canvas_course_id": number, "sis_id": {"type": "string"}, "flag_id": {"type": "boolean"},
                "context_id": number, "context_type": {"type": "string", "enum": ["User", "Quizzes::Quiz", "Group"]}
            }),
        );
        let mut tables = vec![item];
        tables.extend(["users", "quizzes", "categories", "flags"].map(|name| table(name, json!({}))));
        let mut course = table("courses", json!({}));
        course.table = TableRef::new("canvas", "courses");
        tables.push(course);
        let diagram = Diagram::of(tables);
        for (column, expected) in [
            ("user_id", vec!["new.users"]),
            ("parent_item_id", vec!["new.items"]),
            ("quiz_id", vec!["new.quizzes"]),
            ("category_id", vec!["new.categories"]),
            ("canvas_course_id", vec!["canvas.courses"]),
            ("context_id", vec!["new.users", "new.quizzes"]),
            ("other_id", vec![]),
            ("sis_id", vec![]),
            ("flag_id", vec![]),
        ] {
            assert_eq!(targets(&diagram, column), expected, "{column}");
        }
        assert!(diagram.relations.iter().all(|relation| relation.evidence == Evidence::Named));
    }

    #[test]
    fn the_documentation_comes_first() {
        let mut favorites = table("favorites", json!({"context_id": {"type": "integer", "format": "int64"}}));
        favorites.table = TableRef::new("canvas", "favorites");
        let diagram = Diagram::of(vec![favorites]);
        assert_eq!(targets(&diagram, "context_id"), ["canvas.courses", "canvas.groups"]);
        assert_eq!(diagram.relations[0].evidence, Evidence::Documented);
    }
}
