//! The layout and the sync state of a PostgreSQL database, read from its catalogue, as lines that can be compared.

use std::collections::BTreeSet;

use super::postgres::Database;

/// Columns (with their positions), constraints, indexes, types and comments of all schemas except the server's own, one line each. Left
/// out are types that no column uses (the official client creates some for the members of objects) and the comments of the sync state.
pub fn layout(database: &Database) -> BTreeSet<String> {
    let ours = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'public')";
    let queries = [
        format!(
            "SELECT format('column %I.%I.%I: %s%s%s%s #%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), \
             CASE WHEN a.attnotnull THEN ' not null' END, ' default ' || pg_get_expr(d.adbin, d.adrelid), \
             CASE a.attidentity WHEN 'd' THEN ' by default as identity' WHEN 'a' THEN ' always as identity' END, \
             row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)) \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
             WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND {ours}"
        ),
        format!(
            "SELECT format('constraint %I.%I %I: %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid)) \
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {ours}"
        ),
        format!("SELECT 'index ' || indexdef FROM pg_indexes JOIN pg_namespace n ON n.nspname = schemaname WHERE {ours}"),
        format!(
            "SELECT format('type %I.%I: %s', n.nspname, t.typname, string_agg(e.enumlabel, '|' ORDER BY e.enumsortorder)) \
             FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace \
             WHERE {ours} AND EXISTS (SELECT FROM pg_attribute a WHERE a.atttypid IN (t.oid, t.typarray) AND NOT a.attisdropped) \
             GROUP BY n.nspname, t.typname"
        ),
        format!(
            "SELECT format('comment %I.%I.%s: %s', n.nspname, c.relname, a.attname, d.description) \
             FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0 \
             WHERE {ours} AND n.nspname <> 'instructure_dap'"
        ),
    ];
    let lines = queries.iter().map(|query| database.json(&format!("SELECT to_json(line) FROM ({query}) AS q (line)")));
    lines.flat_map(|lines| lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<String>>()).collect()
}

/// The sync state, without the ids of its rows.
pub fn sync_state(database: &Database) -> BTreeSet<String> {
    let lines = database.json(
        "SELECT to_json(t)::jsonb - 'id' FROM instructure_dap.table_sync t \
         UNION ALL SELECT to_jsonb(v) FROM instructure_dap.database_version v",
    );
    lines.lines().map(str::to_owned).collect()
}
