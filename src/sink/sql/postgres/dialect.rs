//! PostgreSQL's SQL.

use super::names::{
    EQUAL, STAGE, add_foreign_key, add_primary_key, alter, comment_on, cut_name, define, literal, quote, quoted, table_name,
};
use super::{change, dependents, errors, kept_rows, types};
use crate::error::{Error, Kind, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;
use crate::sink::sql::dialect::{
    Change, ChangeRules, ChangedColumn, Ddl, Dependent, DependentObjects, Enumeration, Enumerations, Introspection, LiveColumn,
    MergeStatements, MetaTables, Names, OWN_NAMESPACE, Privileges, Row, SqlColumn, SqlTable, Statement, Transactions,
    ValueLimits,
};
use crate::sink::{KeptRows, LoadKind};

/// Begins a transaction with the settings that the statements rely on. They end with it, because behind a pooler other clients use the
/// session before and after. The search path stays that of the session, as functions of users' indexes, triggers and checks may need
/// it; names in the statements are qualified. With `row_security` off, a policy that hides rows is an error instead of lost rows.
///
/// The last statement tries settings that some servers do not have.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; \
     SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL standard_conforming_strings = on; \
     SET LOCAL client_encoding = 'UTF8'; SET LOCAL client_min_messages = error; SET LOCAL row_security = off; \
     SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
     DO $do$ DECLARE wish text; BEGIN FOREACH wish IN ARRAY ARRAY['jit=off', 'client_connection_check_interval=10s', \
     'transaction_timeout=0'] LOOP BEGIN PERFORM pg_catalog.set_config(pg_catalog.split_part(wish, '=', 1), \
     pg_catalog.split_part(wish, '=', 2), true); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $do$";
/// Names of the columns that every table has.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
/// How long a schema change waits for transactions that use the table before it lets later ones pass.
const DEFINITION_WAIT: &str = "1500ms";

/// See [`Dialect`].
#[derive(Debug)]
pub(super) struct PostgresDialect;

fn enumerations(table: &SqlTable) -> Vec<&Enumeration> {
    let mut found: Vec<&Enumeration> = Vec::new();
    for enumeration in table.columns.iter().filter_map(|column| column.enumeration.as_ref()) {
        if !found.iter().any(|known| known.name == enumeration.name) {
            found.push(enumeration);
        }
    }
    found
}

/// The relation `w` of number, namespace and name of tables.
fn wanted(tables: &[TableRef]) -> String {
    let row = |(number, table): (usize, &TableRef)| {
        format!(
            "({number}, {}::pg_catalog.name, {}::pg_catalog.name)",
            literal(table.namespace.as_str()),
            literal(&cut_name(&table.table))
        )
    };
    let rows: Vec<String> = tables.iter().enumerate().map(row).collect();
    format!("(VALUES {}) AS w (number, namespace, name)", rows.join(", "))
}

/// Ids of lookup tables come from joins, which cost less than a subquery per row.
fn select_staged(table: &SqlTable) -> String {
    let (mut columns, mut joins) = (Vec::new(), String::new());
    for (number, column) in table.columns.iter().enumerate() {
        let staged = format!("s.{}", quote(&column.name));
        columns.push(match (&column.lookup, &column.convert) {
            (Some((lookup, _)), _) => {
                joins.push_str(&format!(" LEFT JOIN {lookup} AS l{number} ON l{number}.\"value\" {EQUAL} {staged}"));
                format!("l{number}.\"id\"")
            }
            (None, Some(convert)) => convert.replace("{}", &staged),
            (None, None) => staged,
        });
    }
    format!("SELECT {} FROM {STAGE} AS s{joins} WHERE s.\"_action\" {EQUAL} 'U'", columns.join(", "))
}

impl Names for PostgresDialect {
    fn quote(&self, name: &str) -> String {
        quote(name)
    }

    fn table_name(&self, table: &TableRef) -> String {
        table_name(table)
    }

    fn meta_table(&self, name: &str) -> String {
        format!("\"instructure_dap\".{}", quote(name))
    }

    fn equal(&self) -> &'static str {
        EQUAL
    }

    fn placeholder(&self, number: usize) -> String {
        format!("${number}")
    }

    fn timestamp(&self, placeholder: &str) -> String {
        format!("{placeholder}::timestamp")
    }

    fn boolean(&self, value: bool) -> &'static str {
        if value { "true" } else { "false" }
    }

    fn micros_of(&self, name: &str) -> String {
        format!("(EXTRACT(EPOCH FROM {}) * 1000000)::bigint", quote(name))
    }

    fn is_case_sensitive(&self) -> bool {
        true
    }
}

impl Ddl for PostgresDialect {
    fn table_of(&self, schema: &TableSchema) -> Result<SqlTable> {
        let columns = types::columns(schema);
        for (index, column) in columns.iter().enumerate() {
            if column.name.is_empty() {
                return Err(Error::new(Kind::Schema, "A column has an empty name, which PostgreSQL does not accept")
                    .hint("list the columns that you need with --column"));
            }
            if SYSTEM_COLUMNS.contains(&column.name.as_str()) {
                let error = Error::new(Kind::Schema, "A column has the name of a system column of PostgreSQL");
                return Err(error.with_field("column", &column.name).hint(if column.key {
                    "leave the table out with --exclude".to_owned()
                } else {
                    format!("leave the column out: daplake sync --drop-column {}.{}", schema.table, column.name)
                }));
            }
            if columns[..index].iter().any(|other| other.name == column.name) {
                return Err(Error::new(
                    Kind::Schema,
                    "Two columns have the same first 63 bytes in their names, which is all that PostgreSQL keeps",
                )
                .with_field("column", &column.name)
                .hint("leave one of them out with --drop-column and its full name"));
            }
        }
        Ok(SqlTable { table: schema.table.clone(), columns, comment: schema.description.clone(), kept: KeptRows::default() })
    }

    fn create_namespace(&self, namespace: &Namespace) -> Vec<Statement> {
        let name = namespace.as_str();
        // `IF NOT EXISTS` needs the privilege to create schemas even where the schema exists, and trusts a stale cache after a
        // wait for a lock. So the catalogue is asked.
        vec![Statement::new(format!(
            "DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {}) THEN CREATE SCHEMA {}; \
             END IF; END $do$",
            literal(name),
            quote(name)
        ))]
    }

    fn create_lookups(&self, table: &SqlTable) -> Vec<Statement> {
        table
            .lookups()
            .map(|(column, lookup)| {
                let name = cut_name(&format!("{}__{}", table.table.table, column.source));
                Statement::new(format!(
                    "CREATE TABLE IF NOT EXISTS {lookup} (\n\"id\" integer GENERATED BY DEFAULT AS IDENTITY,\n\
                     \"value\" character varying(64) NOT NULL,\nCONSTRAINT {} PRIMARY KEY (\"id\"),\n\
                     CONSTRAINT {} UNIQUE (\"value\")\n)",
                    quote(&cut_name(&format!("pk_{name}"))),
                    quote(&cut_name(&format!("uq_{name}"))),
                ))
            })
            .collect()
    }

    fn create_table(&self, table: &SqlTable) -> Vec<Statement> {
        let columns = table.columns.iter().map(|column| define(column, column.required)).collect::<Vec<_>>().join(",\n");
        let name = table_name(&table.table);
        let mut statements = vec![Statement::new(format!("CREATE TABLE {name} (\n{columns}\n)"))];
        if let Some(comment) = &table.comment {
            statements.push(Statement::new(format!("COMMENT ON TABLE {name} IS {}", literal(comment))));
        }
        statements.extend(table.columns.iter().filter_map(|column| comment_on(table, column)));
        statements
    }

    fn add_key(&self, table: &SqlTable) -> Vec<Statement> {
        // Checking the foreign keys of all rows at once is faster than checking each row as it arrives.
        let foreign_keys = table.columns.iter().filter_map(|column| add_foreign_key(table, column));
        std::iter::once(add_primary_key(table)).chain(foreign_keys).chain(kept_rows::guard(table)).collect()
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

    fn relax(&self, table: &SqlTable, column: &SqlColumn, _live: Option<&LiveColumn>) -> Statement {
        alter(table, &format!("ALTER COLUMN {} DROP NOT NULL", quote(&column.name)))
    }

    fn unbounded(&self, column: &SqlColumn) -> SqlColumn {
        if column.lookup.is_some() {
            return SqlColumn { longest: None, ..column.clone() };
        }
        let sql_type = if column.sql_type.ends_with("[]") { "text[]" } else { "text" }.to_owned();
        let stage_type = sql_type.clone();
        SqlColumn { sql_type, stage_type, convert: None, longest: None, enumeration: None, ..column.clone() }
    }

    fn retype(&self, table: &SqlTable, column: &SqlColumn, _live: Option<&LiveColumn>) -> Statement {
        if let Some((lookup, _)) = &column.lookup {
            return Statement::new(format!("ALTER TABLE {lookup} ALTER COLUMN \"value\" SET DATA TYPE text"));
        }
        let name = quote(&column.name);
        alter(table, &format!("ALTER COLUMN {name} SET DATA TYPE {to} USING {name}::{to}", to = column.sql_type))
    }
}

impl Enumerations for PostgresDialect {
    fn can_be_enum_value(&self, value: &str) -> bool {
        types::can_be_enum_value(value)
    }

    fn create_enumerations(&self, table: &SqlTable, live: &[(String, String)]) -> Vec<Statement> {
        let missing = enumerations(table).into_iter().filter(|wanted| !live.iter().any(|(name, _)| *name == wanted.name));
        missing
            .map(|wanted| {
                let values = wanted.members.iter().map(|member| literal(member)).collect::<Vec<_>>().join(", ");
                let name = format!("{}.{}", quote(table.table.namespace.as_str()), quote(&wanted.name));
                Statement::new(format!("CREATE TYPE {name} AS ENUM ({values})"))
            })
            .collect()
    }

    fn widen_enumerations(&self, table: &SqlTable, live: &[(String, String)]) -> Vec<(Statement, String)> {
        let mut statements = Vec::new();
        for wanted in enumerations(table) {
            if !live.iter().any(|(name, _)| *name == wanted.name) {
                continue;
            }
            let name = format!("{}.{}", quote(table.table.namespace.as_str()), quote(&wanted.name));
            for member in &wanted.members {
                if !live.iter().any(|(name, value)| *name == wanted.name && value == member) {
                    let text = format!("ALTER TYPE {name} ADD VALUE IF NOT EXISTS {}", literal(member));
                    statements.push((Statement::new(text), format!("type `{}` has a new value", wanted.name)));
                }
            }
        }
        statements
    }

    fn add_enum_values(
        &self,
        table: &SqlTable,
        column: &SqlColumn,
        values: &[String],
        _live: Option<&LiveColumn>,
    ) -> Vec<Statement> {
        let Some(enumeration) = &column.enumeration else { return Vec::new() };
        let name = format!("{}.{}", quote(table.table.namespace.as_str()), quote(&enumeration.name));
        let add = |value: &String| Statement::new(format!("ALTER TYPE {name} ADD VALUE IF NOT EXISTS {}", literal(value)));
        values.iter().map(add).collect()
    }

    fn recreate_enumeration(&self, table: &SqlTable, column: &SqlColumn) -> Vec<Statement> {
        let Some(enumeration) = &column.enumeration else { return Vec::new() };
        let (namespace, name, old) = (quote(table.table.namespace.as_str()), quote(&enumeration.name), quote("daplake_old"));
        let values = enumeration.members.iter().map(|member| literal(member)).collect::<Vec<_>>().join(", ");
        let (attribute, sql_type) = (quote(&column.name), &column.sql_type);
        let through = if sql_type.ends_with("[]") { "text[]" } else { "text" };
        let mut statements = vec![
            Statement::new(format!("ALTER TYPE {namespace}.{name} RENAME TO {old}")),
            Statement::new(format!("CREATE TYPE {namespace}.{name} AS ENUM ({values})")),
        ];
        if column.default.is_some() {
            statements.push(alter(table, &format!("ALTER COLUMN {attribute} DROP DEFAULT")));
        }
        statements.push(alter(
            table,
            &format!("ALTER COLUMN {attribute} SET DATA TYPE {sql_type} USING {attribute}::{through}::{sql_type}"),
        ));
        if let Some(default) = &column.default {
            statements.push(alter(table, &format!("ALTER COLUMN {attribute} SET DEFAULT {default}")));
        }
        statements.push(Statement::new(format!("DROP TYPE {namespace}.{old}")));
        statements
    }
}

impl Introspection for PostgresDialect {
    fn live_columns(&self, table: &TableRef) -> Statement {
        // Enumeration types by their quoted names, all others as the server spells them.
        Statement::new(
            "SELECT a.attname, CASE \
             WHEN t.typtype = 'e' THEN '\"' || pg_catalog.replace(tn.nspname, '\"', '\"\"') || '\".\"' \
             || pg_catalog.replace(t.typname, '\"', '\"\"') || '\"' \
             WHEN e.typtype = 'e' THEN '\"' || pg_catalog.replace(en.nspname, '\"', '\"\"') || '\".\"' \
             || pg_catalog.replace(e.typname, '\"', '\"\"') || '\"[]' \
             ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END, \
             a.attnotnull, COALESCE(a.attnum = ANY (i.indkey), false), a.atthasdef OR a.attidentity <> '', \
             pg_catalog.col_description(c.oid, a.attnum), \
             (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(r.relname) FROM pg_catalog.pg_constraint f \
             JOIN pg_catalog.pg_class r ON r.oid = f.confrelid WHERE f.conrelid = c.oid AND f.contype = 'f' \
             AND f.conkey = ARRAY[a.attnum] AND r.relnamespace = c.relnamespace \
             AND pg_catalog.lower(r.relname::pg_catalog.text) \
             = pg_catalog.lower((c.relname || '__' || a.attname)::pg_catalog.name::pg_catalog.text) LIMIT 1) \
             FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace \
             LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' \
             LEFT JOIN pg_catalog.pg_namespace en ON en.oid = e.typnamespace \
             LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary \
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') ORDER BY a.attnum",
        )
        .bind(table.namespace.as_str())
        .bind(cut_name(&table.table))
    }

    fn read_live(&self, row: &Row) -> Option<LiveColumn> {
        let [name, sql_type, not_null, key, has_default, comment, lookup] = &row[..] else { return None };
        let is_true = |cell: &Option<String>| cell.as_deref() == Some("t");
        Some(LiveColumn {
            name: name.clone()?,
            sql_type: sql_type.clone()?,
            not_null: is_true(not_null),
            key: is_true(key),
            has_default: is_true(has_default),
            comment: comment.clone(),
            lookup: lookup.clone(),
            foreign_key: None,
        })
    }

    fn live_enumerations(&self, namespace: &Namespace) -> Option<Statement> {
        let ask = Statement::new(
            "SELECT t.typname, e.enumlabel FROM pg_catalog.pg_type t \
             JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
             JOIN pg_catalog.pg_enum e ON e.enumtypid = t.oid \
             WHERE n.nspname = $1 ORDER BY t.typname, e.enumsortorder",
        );
        Some(ask.bind(namespace.as_str()))
    }

    fn occupants(&self, tables: &[TableRef]) -> Statement {
        // A table has a type of the same name, so another type of that name blocks the table.
        Statement::new(format!(
            "SELECT w.number, o.kind FROM {} JOIN (SELECT n.nspname, c.relname, \
             CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' \
             WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' \
             ELSE 'index' END FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             UNION ALL SELECT n.nspname, t.typname, CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END \
             FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace \
             WHERE t.typrelid = 0 AND t.typcategory <> 'A') AS o (namespace, name, kind) \
             ON o.namespace = w.namespace AND o.name = w.name",
            wanted(tables)
        ))
    }

    fn table_bytes(&self, table: &TableRef) -> Statement {
        Statement::new(
            "SELECT pg_catalog.pg_total_relation_size(c.oid)::text FROM pg_catalog.pg_class AS c \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
        )
        .bind(table.namespace.as_str())
        .bind(cut_name(&table.table))
    }

    fn occupied_types(&self, table: &SqlTable) -> Option<Statement> {
        let names: Vec<String> = enumerations(table).iter().map(|enumeration| literal(&enumeration.name)).collect();
        if names.is_empty() {
            return None;
        }
        let text = format!(
            "SELECT t.typname, CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' ELSE 'type' END, \
             (SELECT pg_catalog.quote_ident(m.nspname) || '.' || pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_attribute AS a \
             JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS m ON m.oid = c.relnamespace \
             WHERE a.atttypid IN (t.oid, t.typarray) AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'm', 'c') \
             AND NOT (m.nspname = $1 AND c.relname = $2) ORDER BY 1 LIMIT 1) \
             FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace \
             WHERE n.nspname = $1 AND t.typname IN ({}) AND t.typcategory <> 'A'",
            names.join(", ")
        );
        Some(Statement::new(text).bind(table.table.namespace.as_str()).bind(cut_name(&table.table.table)))
    }

    fn charset(&self) -> Statement {
        Statement::new(
            "SELECT pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype FROM pg_catalog.pg_database \
             WHERE datname = pg_catalog.current_database()",
        )
    }

    fn judge_charset(&self, row: &Row) -> Option<String> {
        let [encoding, collate, ctype] = &row[..] else { return None };
        let is_utf8 = |locale: &Option<String>| {
            let locale = locale.as_deref().unwrap_or_default().to_ascii_lowercase();
            locale.ends_with(".utf8") || locale.ends_with(".utf-8")
        };
        if encoding.as_deref() != Some("UTF8") {
            return Some("The database's encoding is not UTF-8; text with other characters will be refused".to_owned());
        }
        let odd = !is_utf8(collate) || !is_utf8(ctype);
        odd.then(|| {
            "The database's collation or character type is not UTF-8; text may be sorted in an unexpected order".to_owned()
        })
    }

    /// The statements of other users' sessions are hidden from most roles, and may contain values.
    fn lock_holders(&self, table: &SqlTable) -> Option<Statement> {
        let lookups = table.columns.iter().filter_map(|column| Some(column.lookup.as_ref()?.0.clone()));
        let relations: Vec<String> =
            std::iter::once(table_name(&table.table)).chain(lookups).map(|name| literal(&name)).collect();
        Some(Statement::new(format!(
            "SELECT DISTINCT 'session ' || l.pid || ' (user ' || COALESCE(a.usename::text, 'unknown') \
             || CASE WHEN a.application_name <> '' THEN ', ' || a.application_name ELSE '' END \
             || COALESCE(', ' || a.state, '') || ')' FROM pg_catalog.pg_locks AS l \
             JOIN pg_catalog.pg_database AS d ON d.oid = l.database AND d.datname = pg_catalog.current_database() \
             LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid \
             WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND l.relation IN (\
             SELECT pg_catalog.to_regclass(r.name)::pg_catalog.oid FROM (VALUES ({})) AS r (name)) ORDER BY 1",
            relations.join("), (")
        )))
    }

    fn dependent_views(&self, table: &TableRef, error: &Error) -> Option<Statement> {
        if !matches!(error.get("sqlstate"), Some("0A000" | "2BP01")) {
            return None;
        }
        let ask = Statement::new(
            "SELECT DISTINCT CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, \
             pg_catalog.quote_ident(m.nspname) || '.' || pg_catalog.quote_ident(v.relname), a.attname \
             FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_depend AS d ON d.refobjid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
             AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid \
             JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class \
             JOIN pg_catalog.pg_namespace AS m ON m.oid = v.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND v.oid <> c.oid ORDER BY 2, 3",
        );
        Some(ask.bind(table.namespace.as_str()).bind(cut_name(&table.table)))
    }
}

impl DependentObjects for PostgresDialect {
    fn find_dependents(&self, columns: &[ChangedColumn]) -> Option<Statement> {
        Some(dependents::find(columns))
    }

    fn read_dependent(&self, row: &Row) -> Option<Dependent> {
        dependents::read(row)
    }

    fn lock_dependents(&self, dependents: &[Dependent], columns: &[ChangedColumn]) -> Vec<Statement> {
        dependents::lock(dependents, columns)
    }

    fn begin_dependents(&self) -> Vec<Statement> {
        vec![dependents::begin(DEFINITION_WAIT)]
    }

    fn end_dependents(&self) -> Vec<Statement> {
        vec![dependents::end()]
    }

    fn definition_of(&self, dependent: &Dependent) -> Option<Statement> {
        Some(dependents::definition(dependent))
    }

    fn drop_dependent(&self, dependent: &Dependent) -> Vec<Statement> {
        vec![dependents::drop(dependent)]
    }

    fn recreate_dependent(&self, definition: &[(String, String)]) -> Vec<Statement> {
        dependents::recreate(definition)
    }

    fn populate(&self, dependent: &Dependent) -> Vec<Statement> {
        vec![dependents::populate(dependent)]
    }
}

impl Privileges for PostgresDialect {
    fn table_privileges(&self, tables: &[TableRef]) -> Vec<Statement> {
        vec![Statement::new(format!(
            "SELECT w.number, p.name FROM {} JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.namespace \
             JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name \
             CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('OWNER')) AS p (name) \
             WHERE NOT CASE p.name WHEN 'OWNER' THEN pg_catalog.pg_has_role(c.relowner, 'USAGE') \
             ELSE pg_catalog.has_table_privilege(c.oid, p.name) END ORDER BY 1",
            wanted(tables)
        ))]
    }

    fn grantee(&self) -> Statement {
        Statement::new("SELECT pg_catalog.quote_ident(CURRENT_USER::text)")
    }
}

impl MetaTables for PostgresDialect {
    fn create_meta(&self) -> Vec<Statement> {
        let mut statements = self.create_namespace(&Namespace::new("instructure_dap"));
        let tables = concat!(
            "CREATE TABLE IF NOT EXISTS \"instructure_dap\".\"table_sync\" (\n",
            "\"id\" bigint GENERATED BY DEFAULT AS IDENTITY,\n",
            "\"source_namespace\" character varying(64) NOT NULL,\n",
            "\"source_table\" character varying(64) NOT NULL,\n",
            "\"timestamp\" timestamp NOT NULL,\n",
            "\"schema_version\" bigint NOT NULL,\n",
            "\"target_schema\" character varying(64),\n",
            "\"target_table\" character varying(64) NOT NULL,\n",
            "\"schema_description_format\" character varying(64) NOT NULL,\n",
            "\"schema_description\" text NOT NULL,\n",
            "CONSTRAINT \"pk_table_sync\" PRIMARY KEY (\"id\")\n",
            ");\n",
            "CREATE TABLE IF NOT EXISTS \"instructure_dap\".\"database_version\" (\n",
            "\"version\" bigint GENERATED BY DEFAULT AS IDENTITY,\n",
            "CONSTRAINT \"pk_database_version\" PRIMARY KEY (\"version\")\n",
            ")",
        );
        statements.push(Statement::new(tables));
        statements
    }

    fn meta_columns(&self) -> Statement {
        Statement::new(
            "SELECT c.relname, a.attname, CASE WHEN c.relkind IN ('r', 'p') THEN 1 ELSE 0 END FROM pg_catalog.pg_class AS c \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE n.nspname = 'instructure_dap' AND c.relname IN ('table_sync', 'database_version')",
        )
    }

    fn table_namespace(&self) -> String {
        format!("pg_catalog.replace(\"source_namespace\"::text, '{OWN_NAMESPACE}', '')")
    }

    fn entry_exists(&self) -> String {
        format!(
            "EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE n.nspname = {}::pg_catalog.name AND c.relname = \"source_table\"::pg_catalog.name AND c.relkind IN ('r', 'p'))",
            self.table_namespace()
        )
    }

    fn legacy_tables(&self) -> Statement {
        Statement::new(
            "SELECT n.nspname FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid \
             WHERE n.nspname IN ('canvas', 'catalog', 'canvas_logs') AND c.relname = 'dap_meta' AND c.relkind IN ('r', 'p') \
             ORDER BY 1",
        )
    }

    fn migrate(&self, legacy: &[String]) -> Vec<Statement> {
        if legacy.is_empty() {
            return Vec::new();
        }
        let mut statements = vec![Statement::new("DELETE FROM \"instructure_dap\".\"table_sync\"")];
        for namespace in legacy {
            let old = format!("{}.\"dap_meta\"", quote(namespace));
            statements.push(Statement::new(format!(
                "INSERT INTO \"instructure_dap\".\"table_sync\" (\"source_namespace\", \"source_table\", \"timestamp\", \
                 \"schema_version\", \"target_schema\", \"target_table\", \"schema_description_format\", \"schema_description\") \
                 SELECT \"namespace\", \"source_table\", \"timestamp\", \"schema_version\", \"target_schema\", \"target_table\", \
                 \"schema_description_format\", \"schema_description\" FROM {old} ORDER BY \"id\""
            )));
            statements.push(Statement::new(format!("ALTER TABLE {old} RENAME TO \"dap_meta_backup\"")));
        }
        statements
    }
}

impl MergeStatements for PostgresDialect {
    fn create_stage(&self, table: &SqlTable) -> Vec<Statement> {
        let columns = table.staged_columns().map(|column| format!(",\n{} {}", quote(&column.name), column.stage_type));
        vec![Statement::new(format!(
            "CREATE TEMPORARY TABLE \"daplake_stage\" (\n\"_action\" text{}\n) ON COMMIT DROP",
            columns.collect::<String>()
        ))]
    }

    fn stage(&self) -> String {
        STAGE.to_owned()
    }

    fn action_type(&self) -> String {
        "text".to_owned()
    }

    fn unique_stage(&self, table: &SqlTable) -> Vec<Statement> {
        vec![Statement::new(format!("CREATE UNIQUE INDEX ON {STAGE} ({})", quoted(table.keys())))]
    }

    fn analyze_stage(&self) -> Vec<Statement> {
        vec![Statement::new(format!("ANALYZE {STAGE}"))]
    }

    fn fill_lookups(&self, table: &SqlTable) -> Vec<Statement> {
        table
            .lookups()
            .map(|(column, lookup)| {
                let name = quote(&column.name);
                Statement::new(format!(
                    "INSERT INTO {lookup} (\"value\") SELECT DISTINCT s.{name} FROM {STAGE} AS s \
                     WHERE s.\"_action\" {EQUAL} 'U' AND s.{name} IS NOT NULL ON CONFLICT (\"value\") DO NOTHING"
                ))
            })
            .collect()
    }

    fn clear(&self, table: &SqlTable) -> Statement {
        // Unlike TRUNCATE, it lets readers see the old rows until the commit.
        Statement::new(format!("DELETE FROM {}", table_name(&table.table)))
    }

    fn upsert(&self, table: &SqlTable) -> Vec<Statement> {
        let updates: Vec<String> = table
            .columns
            .iter()
            .filter(|column| !column.is_in_primary_key())
            .map(|column| format!("{name} = EXCLUDED.{name}", name = quote(&column.name)))
            .collect();
        let update = if updates.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", updates.join(", ")) };
        let insert = self.insert(table);
        vec![Statement::new(format!("{} ON CONFLICT ({}) DO {update}", insert.text, quoted(table.primary_key())))]
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

impl Transactions for PostgresDialect {
    fn begin(&self) -> Statement {
        Statement::new(BEGIN)
    }

    fn ddl_is_transactional(&self) -> bool {
        true
    }

    fn lock(&self, name: &str) -> Statement {
        Statement::new("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))")
            .bind(format!("daplake {name}"))
    }

    fn try_lock(&self, name: &str) -> Statement {
        Statement::new("SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))")
            .bind(format!("daplake {name}"))
    }

    fn begin_definition(&self) -> Vec<Statement> {
        vec![Statement::new(format!("SAVEPOINT daplake; SET LOCAL lock_timeout = '{DEFINITION_WAIT}'"))]
    }

    fn end_definition(&self) -> Vec<Statement> {
        vec![Statement::new("SET LOCAL lock_timeout = 0; RELEASE SAVEPOINT daplake")]
    }

    fn undo_definition(&self) -> Option<Vec<Statement>> {
        Some(vec![Statement::new("ROLLBACK TO SAVEPOINT daplake; RELEASE SAVEPOINT daplake")])
    }

    fn keeps_transaction(&self, keyword: &str) -> bool {
        !["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"].contains(&keyword)
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

impl ValueLimits for PostgresDialect {
    fn holds_non_finite(&self) -> bool {
        true
    }

    fn holds_nul(&self) -> bool {
        false
    }

    /// Arrays arrive as JSON where nested values are kept as JSON.
    fn is_json(&self, sql_type: &str) -> bool {
        sql_type == "jsonb" || sql_type.ends_with("[]")
    }

    /// By the primary key, which is created when the rows are in, or by the unique index of the staging table.
    fn refuses_duplicates(&self) -> bool {
        true
    }
}
