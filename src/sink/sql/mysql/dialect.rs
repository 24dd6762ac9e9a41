//! SQL of MySQL and MariaDB. Both accept all of it, and none depends on modes such as `ANSI_QUOTES`.
//!
//! Schema statements commit, so that all of them can be repeated. A lock belongs to the session.

use super::grants::{self, Grant};
use super::names::{
    NAME_CHARS, STAGE, alter, cut_name, define, foreign_key, full_name, is_beyond_names, listed, literal, quote, quoted,
    table_name,
};
use super::types::{EXACT, MAX_LOOKUP, SqlType};
use super::{change, errors, kept_rows, types};
use crate::error::{Error, Kind, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::{ACTION, TableSchema};
use crate::sink::sql::dialect::{
    Change, ChangeRules, Ddl, DependentObjects, Enumerations, Introspection, LiveColumn, MergeStatements, MetaTables, Names,
    Privileges, Row, SqlColumn, SqlTable, Statement, Transactions, ValueLimits,
};
use crate::sink::{KeptRows, LoadKind};

/// Bookmarks with microseconds; `table_sync` has whole seconds.
const EXACT_BOOKMARKS: &str = "`daplake__bookmark`";
const SYNC: &str = "`instructure_dap__table_sync`";
/// Seconds to wait for a lock; the two servers have no common way to wait without a limit.
const LOCK_SECONDS: u32 = 31_536_000;

/// Data tables of official clients before 1.0, which had no prefix.
const LEGACY_TABLES: &str = "access_tokens account_users accounts assessment_question_banks assessment_questions assignment_groups \
    assignment_override_students assignment_overrides assignments attachment_associations attachments calendar_events \
    canvadocs_annotation_contexts comment_bank_items communication_channels content_migrations content_participation_counts \
    content_participations content_shares content_tags context_external_tools context_module_progressions context_modules \
    conversation_message_participants conversation_messages conversation_participants conversations \
    course_account_associations course_sections courses custom_gradebook_column_data custom_gradebook_columns \
    developer_key_account_bindings developer_keys discussion_entries discussion_entry_participants \
    discussion_topic_participants discussion_topics enrollment_dates_overrides enrollment_states enrollment_terms enrollments \
    favorites folders grading_period_groups grading_periods grading_standards group_categories group_memberships groups \
    late_policies learning_outcome_groups learning_outcome_question_results learning_outcome_results learning_outcomes \
    lti_line_items lti_resource_links lti_results master_courses_child_content_tags master_courses_child_subscriptions \
    master_courses_master_content_tags master_courses_master_migrations master_courses_master_templates \
    master_courses_migration_results originality_reports outcome_proficiencies outcome_proficiency_ratings post_policies \
    pseudonyms quiz_groups quiz_questions quiz_submissions quizzes role_overrides roles rubric_assessments \
    rubric_associations rubrics score_statistics scores submission_comments submission_versions submissions \
    user_account_associations user_notes users web_conference_participants web_conferences wiki_pages wikis web_logs";

/// See [`Dialect`](crate::sink::sql::dialect::Dialect).
#[derive(Debug)]
pub(super) struct MysqlDialect;

/// Why the server does not accept a name for a column.
fn unusable(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.chars().count() > NAME_CHARS {
        Some("it has more than 64 characters")
    } else if name.ends_with(' ') {
        Some("it ends with a space")
    } else if name.chars().any(is_beyond_names) {
        Some("it has a character that takes four bytes in UTF-8, or NUL")
    } else {
        None
    }
}

fn select_staged(table: &SqlTable) -> String {
    let columns = table.columns.iter().map(|column| {
        let staged = format!("s.{}", quote(&column.name));
        match &column.convert {
            Some(convert) => convert.replace("{}", &staged),
            None => staged,
        }
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("SELECT {columns} FROM {STAGE} AS s WHERE s.`_action` = 'U'")
}

/// MariaDB prints a display width behind integer types.
fn without_width(sql_type: &str) -> String {
    for base in ["tinyint", "smallint", "int", "bigint"] {
        if let Some(rest) = sql_type.strip_prefix(base).and_then(|rest| rest.strip_prefix('('))
            && let Some((_, rest)) = rest.split_once(')')
        {
            return format!("{base}{rest}");
        }
    }
    sql_type.to_owned()
}

impl Names for MysqlDialect {
    fn quote(&self, name: &str) -> String {
        quote(name)
    }

    fn table_name(&self, table: &TableRef) -> String {
        table_name(table)
    }

    fn meta_table(&self, name: &str) -> String {
        quote(&format!("instructure_dap__{name}"))
    }

    fn placeholder(&self, _number: usize) -> String {
        "?".to_owned()
    }

    /// Without the fraction, which MySQL would round up.
    fn timestamp(&self, placeholder: &str) -> String {
        format!("LEFT({placeholder}, 19)")
    }

    fn micros_of(&self, name: &str) -> String {
        format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {})", quote(name))
    }

    fn plain_type(&self, sql_type: &str) -> String {
        change::plain(sql_type)
    }
}

impl Ddl for MysqlDialect {
    fn table_of(&self, schema: &TableSchema) -> Result<SqlTable> {
        let name = full_name(&schema.table);
        if name.chars().count() > NAME_CHARS {
            return Err(Error::new(Kind::Schema, "The table's name is too long for MySQL")
                .with_field("name", name)
                .with_field("longest", NAME_CHARS)
                .hint("leave the table out with --exclude"));
        }
        let columns = types::columns(schema);
        for (index, column) in columns.iter().enumerate() {
            if let Some(reason) = unusable(&column.name) {
                return Err(Error::new(Kind::Schema, "MySQL does not accept the name of a column")
                    .with_field("column", &column.name)
                    .with_field("reason", reason)
                    .hint("leave the column out with --drop-column, or list those that you need with --column"));
            }
            let folded = column.name.to_lowercase();
            if columns[..index].iter().any(|other| other.name.to_lowercase() == folded) {
                return Err(Error::new(Kind::Schema, "Two column names differ only in case, which MySQL ignores")
                    .with_field("column", &column.name)
                    .hint(format!("leave one of them out: daplake sync --drop-column {}.{}", schema.table, column.name)));
            }
        }
        let comment = schema.description.as_deref().and_then(types::table_comment);
        Ok(SqlTable { table: schema.table.clone(), columns, comment, kept: KeptRows::default() })
    }

    /// A namespace is a prefix.
    fn create_namespace(&self, _namespace: &Namespace) -> Vec<Statement> {
        Vec::new()
    }

    fn create_lookups(&self, table: &SqlTable) -> Vec<Statement> {
        table.lookups()
            .flat_map(|(column, lookup)| {
                let name = format!("{}__{}", full_name(&table.table), column.name);
                let value = format!("`value` varchar({MAX_LOOKUP}) {EXACT} NOT NULL");
                let create = Statement::new(format!(
                    "CREATE TABLE IF NOT EXISTS {lookup} (\n`id` int NOT NULL AUTO_INCREMENT,\n{value},\n\
                     CONSTRAINT {} PRIMARY KEY (`id`),\nCONSTRAINT {} UNIQUE (`value`)\n)",
                    quote(&cut_name(&format!("pk_{name}"))),
                    quote(&cut_name(&format!("uq_{}__{}", table.table.table, column.name))),
                ));
                // In lookup tables of the official client, most collations treat `a` and `A` as equal.
                let exact = Statement::new(format!(
                    "SET @daplake = (SELECT IF(COLLATION_NAME LIKE '%nopad!_bin' ESCAPE '!' OR COLLATION_NAME LIKE '%0900!_bin' \
                     ESCAPE '!', 'DO 0', {}) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} \
                     AND COLUMN_NAME = 'value'); PREPARE daplake FROM @daplake; EXECUTE daplake; DEALLOCATE PREPARE daplake",
                    literal(&format!("ALTER TABLE {lookup} MODIFY COLUMN {value}")),
                    literal(&lookup.trim_matches('`').replace("``", "`")),
                ));
                [create, exact]
            })
            .collect()
    }

    fn create_table(&self, table: &SqlTable) -> Vec<Statement> {
        let name = full_name(&table.table);
        let mut parts: Vec<String> =
            table.columns.iter().map(|column| define(column, &column.sql_type, column.required)).collect();
        // The server stores rows in key order, so the key is created first.
        parts.push(format!(
            "CONSTRAINT {} PRIMARY KEY ({})",
            quote(&cut_name(&format!("pk_{name}"))),
            quoted(table.primary_key())
        ));
        parts.extend(table.columns.iter().filter_map(foreign_key));
        parts.extend(kept_rows::guard(table));
        let comment = table.comment.as_ref().map(|text| format!("\nCOMMENT = {}", literal(text))).unwrap_or_default();
        vec![Statement::new(format!("CREATE TABLE {} (\n{}\n){comment}", quote(&name), parts.join(",\n")))]
    }

    fn add_key(&self, _table: &SqlTable) -> Vec<Statement> {
        Vec::new()
    }

    /// In another order, each row reads and writes a page anywhere in the table once the table exceeds the buffer pool.
    fn stores_in_key_order(&self) -> bool {
        true
    }

    fn drop_table(&self, table: &TableRef) -> Statement {
        Statement::new(format!("DROP TABLE IF EXISTS {}", table_name(table)))
    }

    fn change_table(&self, table: &SqlTable, live: &[LiveColumn], rules: ChangeRules<'_>) -> Result<Change> {
        change::change_table(table, live, rules)
    }

    fn settle(&self, column: &SqlColumn, live: &LiveColumn, _kind: LoadKind) -> SqlColumn {
        change::settle(column, live)
    }

    fn relax(&self, table: &SqlTable, column: &SqlColumn, live: Option<&LiveColumn>) -> Statement {
        let sql_type = live.map_or_else(|| column.sql_type.clone(), |live| live.sql_type.clone());
        alter(table, &format!("MODIFY COLUMN {}", define(column, &sql_type, false)))
    }

    fn unbounded(&self, column: &SqlColumn) -> SqlColumn {
        let default = column.default.as_ref().map(|default| format!("({})", default.trim_matches(['(', ')'])));
        SqlColumn {
            sql_type: SqlType::longtext().to_string(),
            stage_type: SqlType::longtext().to_string(),
            longest: None,
            enumeration: None,
            default,
            ..column.clone()
        }
    }

    fn retype(&self, table: &SqlTable, column: &SqlColumn, live: Option<&LiveColumn>) -> Statement {
        let required = column.required && live.is_none_or(|live| live.not_null);
        alter(table, &format!("MODIFY COLUMN {}", define(column, &column.sql_type, required)))
    }
}

impl Enumerations for MysqlDialect {
    fn can_be_enum_value(&self, value: &str) -> bool {
        types::can_be_enum_value(value)
    }

    fn add_enum_values(
        &self,
        table: &SqlTable,
        column: &SqlColumn,
        _values: &[String],
        live: Option<&LiveColumn>,
    ) -> Vec<Statement> {
        let wanted = column.enumeration.as_ref().map(|enumeration| enumeration.members.clone()).unwrap_or_default();
        let known = match live {
            // A string column holds every value.
            Some(live) => match change::members(&live.sql_type) {
                Some(members) => members,
                None => return Vec::new(),
            },
            None => Vec::new(),
        };
        let Some(all) = change::united(&known, &wanted) else { return Vec::new() };
        let required = live.map_or(column.required, |live| live.not_null && column.required);
        vec![alter(table, &format!("MODIFY COLUMN {}", define(column, &SqlType::enumeration(all).to_string(), required)))]
    }
}

impl Introspection for MysqlDialect {
    fn live_columns(&self, table: &TableRef) -> Statement {
        let name = full_name(table);
        Statement::new(
            "SELECT c.COLUMN_NAME, c.COLUMN_TYPE, c.CHARACTER_SET_NAME, c.COLLATION_NAME, c.IS_NULLABLE = 'NO', c.COLUMN_KEY = 'PRI', \
             (c.COLUMN_DEFAULT IS NOT NULL AND c.COLUMN_DEFAULT <> 'NULL') OR c.EXTRA LIKE '%auto_increment%' OR c.EXTRA LIKE '%GENERATED%', \
             c.COLUMN_COMMENT, k.name, k.words \
             FROM information_schema.COLUMNS AS c LEFT JOIN (SELECT COLUMN_NAME AS col, MIN(CONSTRAINT_NAME) AS name, MIN(REFERENCED_TABLE_NAME) AS words \
             FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? \
             AND REFERENCED_TABLE_NAME LIKE ? ESCAPE '!' GROUP BY COLUMN_NAME) AS k ON k.col = c.COLUMN_NAME \
             WHERE c.TABLE_SCHEMA = DATABASE() AND c.TABLE_NAME = ? ORDER BY c.ORDINAL_POSITION",
        )
        .bind(&name)
        .bind(format!("{}!_!_%", name.replace('!', "!!").replace('_', "!_").replace('%', "!%")))
        .bind(&name)
    }

    /// The type includes the character set, so that it can be written into a definition.
    fn read_live(&self, row: &Row) -> Option<LiveColumn> {
        let [name, sql_type, charset, collation, not_null, key, has_default, comment, constraint, lookup] = &row[..] else {
            return None;
        };
        let is_true = |cell: &Option<String>| cell.as_deref() == Some("1");
        let mut sql_type = without_width(sql_type.as_deref()?);
        if let (Some(charset), Some(collation)) = (charset, collation) {
            sql_type.push_str(&format!(" CHARACTER SET {charset} COLLATE {collation}"));
        }
        Some(LiveColumn {
            name: name.clone()?,
            sql_type,
            not_null: is_true(not_null),
            key: is_true(key),
            has_default: is_true(has_default),
            comment: comment.clone().filter(|comment| !comment.is_empty()),
            lookup: lookup.as_deref().map(quote),
            foreign_key: constraint.clone(),
        })
    }

    fn occupants(&self, tables: &[TableRef]) -> Statement {
        let names = listed(tables);
        Statement::new(format!(
            "SELECT FIELD(TABLE_NAME, {names}) - 1, \
             CASE WHEN TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') THEN 'table' ELSE LOWER(TABLE_TYPE) END \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({names})"
        ))
    }

    fn table_bytes(&self, table: &TableRef) -> Statement {
        Statement::new(
            "SELECT CAST(DATA_LENGTH + INDEX_LENGTH AS CHAR) FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
        )
        .bind(full_name(table))
    }

    fn charset(&self) -> Statement {
        Statement::new("SELECT @@character_set_database, @@collation_database")
    }

    fn judge_charset(&self, row: &Row) -> Option<String> {
        let word = |index: usize| row.get(index).and_then(Option::as_deref).unwrap_or_default();
        let (charset, collation) = (word(0), word(1));
        let is_whole = charset == "utf8mb4" && collation.starts_with("utf8mb4_");
        (!is_whole).then(|| {
            format!(
                "The database's character set is {charset} ({collation}), not utf8mb4: text with other characters is refused"
            )
        })
    }
}

impl DependentObjects for MysqlDialect {}

impl Privileges for MysqlDialect {
    /// Privileges on columns, as the server applies them, and the grants of the user and the active roles, for what columns do not have.
    fn table_privileges(&self, tables: &[TableRef]) -> Vec<Statement> {
        let names = listed(tables);
        let has = |privilege: &str| format!("MIN(FIND_IN_SET('{privilege}', PRIVILEGES) > 0)");
        vec![
            Statement::new(format!(
                "SELECT FIELD(TABLE_NAME, {names}) - 1, DATABASE(), {}, {}, {} FROM information_schema.COLUMNS \
                 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({names}) GROUP BY TABLE_NAME",
                has("select"),
                has("insert"),
                has("update")
            )),
            Statement::new("SHOW GRANTS"),
        ]
    }

    fn missing_privileges(&self, tables: &[TableRef], answers: &[Vec<Row>]) -> Vec<(usize, String)> {
        let [columns, grants] = answers else { return Vec::new() };
        let grants: Vec<Grant> = grants.iter().filter_map(|row| Grant::parse(row.first()?.as_deref()?)).collect();
        let mut missing = Vec::new();
        for row in columns {
            let [Some(index), Some(database), of_columns @ ..] = &row[..] else { continue };
            let Some((index, table)) = index.parse().ok().and_then(|index: usize| Some((index, tables.get(index)?))) else {
                continue;
            };
            let by_columns = ["SELECT", "INSERT", "UPDATE"].into_iter().zip(of_columns);
            let by_columns = by_columns.filter(|(_, has)| has.as_deref() == Some("0")).map(|(privilege, _)| privilege);
            let by_grants = ["DELETE", "ALTER"]
                .into_iter()
                .filter(|privilege| !grants::allows(&grants, privilege, database, &full_name(table)));
            missing.extend(by_columns.chain(by_grants).map(|privilege| (index, privilege.to_owned())));
        }
        missing
    }

    fn privilege_probe(&self, table: &TableRef, privilege: &str) -> Option<Statement> {
        (privilege == "DELETE").then(|| Statement::new(format!("EXPLAIN DELETE FROM {} WHERE 1 = 0", table_name(table))))
    }

    fn is_denied(&self, error: &Error) -> bool {
        ["1142", "1143"].iter().any(|code| error.get("code") == Some(code))
    }

    fn grantee(&self) -> Statement {
        let part = |number: i8| format!("QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', {number}))");
        Statement::new(format!("SELECT CONCAT({}, '@', {})", part(1), part(-1)))
    }
}

impl MetaTables for MysqlDialect {
    fn create_meta(&self) -> Vec<Statement> {
        let sync = format!(
            "CREATE TABLE IF NOT EXISTS {SYNC} (\n\
             `id` bigint NOT NULL AUTO_INCREMENT,\n\
             `source_namespace` varchar(64) NOT NULL,\n\
             `source_table` varchar(64) NOT NULL,\n\
             `timestamp` datetime NOT NULL,\n\
             `schema_version` bigint NOT NULL,\n\
             `target_schema` varchar(64),\n\
             `target_table` varchar(64) NOT NULL,\n\
             `schema_description_format` varchar(64) NOT NULL,\n\
             `schema_description` mediumtext NOT NULL,\n\
             CONSTRAINT `pk_instructure_dap__table_sync` PRIMARY KEY (`id`)\n)"
        );
        let version = "CREATE TABLE IF NOT EXISTS `instructure_dap__database_version` (\n\
             `version` bigint NOT NULL AUTO_INCREMENT,\n\
             CONSTRAINT `pk_instructure_dap__database_version` PRIMARY KEY (`version`)\n)";
        vec![Statement::new(sync), Statement::new(version)]
    }

    fn meta_columns(&self) -> Statement {
        Statement::new(
            "SELECT REPLACE(t.TABLE_NAME, 'instructure_dap__', ''), c.COLUMN_NAME, t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') \
             FROM information_schema.TABLES AS t LEFT JOIN information_schema.COLUMNS AS c \
             ON c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME WHERE t.TABLE_SCHEMA = DATABASE() \
             AND t.TABLE_NAME IN ('instructure_dap__table_sync', 'instructure_dap__database_version', 'daplake__bookmark')",
        )
    }

    fn entry_exists(&self) -> String {
        // As one uncorrelated subquery: the catalogue is slow.
        format!(
            "CONCAT({}, '__', `source_table`) IN (SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
             AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED'))",
            self.table_namespace()
        )
    }

    /// Of the tables without a prefix, only those that `dap_meta` lists: others with these names belong to the user.
    fn legacy_tables(&self) -> Statement {
        let names: Vec<String> = LEGACY_TABLES.split_whitespace().chain(["dap_meta"]).map(literal).collect();
        let known = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({}) \
             AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND (TABLE_NAME = 'dap_meta' OR CAST(TABLE_NAME AS BINARY) IN \
             (SELECT CAST(source_table AS BINARY) FROM dap_meta)) ORDER BY TABLE_NAME",
            names.join(", ")
        );
        Statement::new(format!(
            "SET @daplake = IF(EXISTS(SELECT * FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
             AND TABLE_NAME = 'dap_meta' AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')), {}, 'SELECT 1 FROM DUAL WHERE FALSE'); \
             PREPARE daplake FROM @daplake; EXECUTE daplake; DEALLOCATE PREPARE daplake",
            literal(&known)
        ))
    }

    /// The old sync state is dropped last, so that an interrupted run starts again.
    fn migrate(&self, legacy: &[String]) -> Vec<Statement> {
        if !legacy.iter().any(|name| name == "dap_meta") {
            return Vec::new();
        }
        let renames = legacy.iter().filter(|name| *name != "dap_meta").map(|name| {
            let prefix = if name == "web_logs" { "canvas_logs" } else { "canvas" };
            Statement::new(format!("RENAME TABLE {} TO {}", quote(name), quote(&format!("{prefix}__{name}"))))
        });
        let namespace = "CASE WHEN source_table LIKE 'catalog!_!_%' ESCAPE '!' THEN 'catalog' WHEN source_table = 'web_logs' \
                         THEN 'canvas_logs' ELSE 'canvas' END";
        let bare = |column: &str| {
            format!("CASE WHEN {column} LIKE 'catalog!_!_%' ESCAPE '!' THEN SUBSTRING({column}, 10) ELSE {column} END")
        };
        let rows = format!(
            "INSERT INTO {SYNC} (source_namespace, source_table, timestamp, schema_version, target_schema, target_table, \
             schema_description_format, schema_description) SELECT {namespace}, {}, timestamp, schema_version, {namespace}, {}, \
             schema_description_format, schema_description FROM `dap_meta`",
            bare("source_table"),
            bare("target_table")
        );
        let book = [format!("DELETE FROM {SYNC}"), rows, "RENAME TABLE `dap_meta` TO `dap_meta_backup`".to_owned()];
        renames.chain(book.into_iter().map(Statement::new)).collect()
    }

    /// The official client does not create it.
    fn create_exact_bookmarks(&self) -> Option<Statement> {
        Some(Statement::new(format!(
            "CREATE TABLE IF NOT EXISTS {EXACT_BOOKMARKS} (\n`sync_id` bigint NOT NULL,\n`micros` bigint NOT NULL,\n\
             PRIMARY KEY (`sync_id`)\n) COMMENT = 'Bookmarks of instructure_dap__table_sync with microseconds'"
        )))
    }

    fn exact_bookmarks(&self) -> Option<Statement> {
        // The official client does not create the table.
        Some(Statement::new(format!(
            "SET @daplake = IF(EXISTS(SELECT * FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}), \
             'SELECT sync_id, micros FROM {EXACT_BOOKMARKS}', 'SELECT 1 FROM DUAL WHERE FALSE'); \
             PREPARE daplake FROM @daplake; EXECUTE daplake; DEALLOCATE PREPARE daplake",
            literal(EXACT_BOOKMARKS.trim_matches('`'))
        )))
    }

    fn store_exact_bookmark(&self, table: &TableRef, micros: i64) -> Option<Statement> {
        let text = format!(
            "INSERT INTO {EXACT_BOOKMARKS} (sync_id, micros) SELECT id, {micros} FROM {SYNC} \
             WHERE {} = ? AND source_table = ? ON DUPLICATE KEY UPDATE micros = {micros}",
            self.table_namespace()
        );
        Some(Statement::new(text).bind(table.namespace.as_str()).bind(&table.table))
    }
}

impl MergeStatements for MysqlDialect {
    fn create_stage(&self, table: &SqlTable) -> Vec<Statement> {
        // With the key of the table, in whose order the rows are merged.
        let columns = table.staged_columns().map(|column| {
            let required = if column.key { " NOT NULL" } else { "" };
            format!(",\n{} {}{required}", quote(&column.name), column.stage_type)
        });
        let columns = columns.collect::<String>();
        // Some servers refuse tables without a primary key, also temporary ones.
        let key = match table.keys().next() {
            Some(_) => quoted(table.keys()),
            None => quote(ACTION),
        };
        vec![
            Statement::new(format!("DROP TEMPORARY TABLE IF EXISTS {STAGE}")),
            Statement::new(format!(
                "CREATE TEMPORARY TABLE {STAGE} (\n`_action` char(1) NOT NULL{columns},\nPRIMARY KEY ({key})\n)"
            )),
        ]
    }

    fn drop_stage(&self) -> Vec<Statement> {
        vec![Statement::new(format!("DROP TEMPORARY TABLE IF EXISTS {STAGE}"))]
    }

    fn stage(&self) -> String {
        STAGE.to_owned()
    }

    fn action_type(&self) -> String {
        "char(1)".to_owned()
    }

    fn fill_lookups(&self, table: &SqlTable) -> Vec<Statement> {
        table
            .lookups()
            .map(|(column, lookup)| {
                let name = quote(&column.name);
                Statement::new(format!(
                    "INSERT INTO {lookup} (`value`) SELECT DISTINCT s.{name} FROM {STAGE} AS s LEFT JOIN {lookup} AS l \
                     ON l.`value` = s.{name} WHERE s.`_action` = 'U' AND s.{name} IS NOT NULL AND l.`id` IS NULL"
                ))
            })
            .collect()
    }

    fn clear(&self, table: &SqlTable) -> Statement {
        // Unlike TRUNCATE, it can be rolled back and lets readers see the old rows until the commit.
        Statement::new(format!("DELETE FROM {}", table_name(&table.table)))
    }

    fn upsert(&self, table: &SqlTable) -> Vec<Statement> {
        // A unique index of the user could make the server update a row with another key. The null makes that an error.
        let target = table_name(&table.table);
        let guards = table.primary_key().map(|column| {
            let name = quote(&column.name);
            format!(
                "{target}.{name} = IF(CAST({target}.{name} AS BINARY) = CAST(VALUES({name}) AS BINARY), {target}.{name}, NULL)"
            )
        });
        let values = table.columns.iter().filter(|column| !column.is_in_primary_key()).map(|column| {
            let name = quote(&column.name);
            format!("{target}.{name} = VALUES({name})")
        });
        let updates: Vec<String> = guards.chain(values).collect();
        vec![Statement::new(format!("{} ON DUPLICATE KEY UPDATE {}", self.insert(table).text, updates.join(", ")))]
    }

    fn insert(&self, table: &SqlTable) -> Statement {
        let name = table_name(&table.table);
        Statement::new(format!("INSERT INTO {name} ({}) {}", quoted(table.columns.iter()), select_staged(table)))
    }

    fn delete(&self, table: &SqlTable) -> Statement {
        kept_rows::delete(table)
    }

    fn delete_missing(&self, table: &SqlTable, as_of: &str) -> Statement {
        kept_rows::delete_missing(table, as_of)
    }

    fn replace_versions(&self, table: &SqlTable, as_of: Option<&str>) -> Vec<Statement> {
        kept_rows::replace_versions(table, as_of)
    }
}

impl Transactions for MysqlDialect {
    fn ddl_is_transactional(&self) -> bool {
        false
    }

    fn lock(&self, name: &str) -> Statement {
        get_lock(name, LOCK_SECONDS)
    }

    /// The server answers 0 after the timeout and NULL when the wait was killed.
    fn is_lock_held(&self, answer: &[Row]) -> bool {
        answer.first().and_then(|row| row.first()?.as_deref()) == Some("1")
    }

    fn try_lock(&self, name: &str) -> Statement {
        get_lock(name, 0)
    }

    fn unlock(&self, name: &str) -> Option<Statement> {
        Some(Statement::new(format!("SELECT RELEASE_LOCK({LOCK_NAME})")).bind(name))
    }

    fn begin_definition(&self) -> Vec<Statement> {
        vec![Statement::new("SET SESSION lock_wait_timeout = 2")]
    }

    fn end_definition(&self) -> Vec<Statement> {
        vec![Statement::new("SET SESSION lock_wait_timeout = DEFAULT")]
    }

    /// Schema statements commit and can be repeated, so there is nothing to undo.
    fn undo_definition(&self) -> Option<Vec<Statement>> {
        Some(self.end_definition())
    }

    /// Most other statements commit implicitly.
    fn keeps_transaction(&self, keyword: &str) -> bool {
        ["CALL", "DELETE", "DO", "INSERT", "REPLACE", "SELECT", "UPDATE", "WITH"].contains(&keyword)
    }

    fn is_lock_timeout(&self, error: &Error) -> bool {
        errors::is_lock_timeout(error)
    }

    fn is_transient(&self, error: &Error) -> bool {
        errors::is_transient(error)
    }

    fn is_duplicate(&self, error: &Error) -> bool {
        errors::is_duplicate(error)
    }
}

impl ValueLimits for MysqlDialect {
    fn holds_non_finite(&self) -> bool {
        false
    }

    fn holds_nul(&self) -> bool {
        true
    }

    fn is_json(&self, sql_type: &str) -> bool {
        sql_type == "json"
    }

    fn most_bytes(&self, column: &SqlColumn) -> Option<usize> {
        SqlType::parse(&column.sql_type).kind.most_bytes()
    }

    /// Table and staging table have their primary key before their rows.
    fn refuses_duplicates(&self) -> bool {
        true
    }
}

/// Locks belong to the whole server, so the name contains the database. It is hashed because a name has at most 64 characters; MySQL 9.6
/// has no `SHA1`.
const LOCK_NAME: &str = "CONCAT('daplake ', LEFT(SHA2(CONCAT(DATABASE(), ' ', ?), 256), 40))";

fn get_lock(name: &str, seconds: u32) -> Statement {
    Statement::new(format!("SELECT GET_LOCK({LOCK_NAME}, {seconds})")).bind(name)
}
