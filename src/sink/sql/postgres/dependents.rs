//! Views, rules, policies and triggers that depend on a column: PostgreSQL refuses to change its type while they exist. They are dropped
//! and recreated as their owners, so that a role needs no privileges beyond those with which they were created.

use serde_json::json;

use super::names::{literal, quote};
use crate::sink::sql::dialect::{ChangedColumn, Dependent, Row, Statement};

/// See [`DependentObjects::find_dependents`](crate::sink::sql::dialect::DependentObjects::find_dependents).
pub(super) fn find(columns: &[ChangedColumn]) -> Statement {
    let wanted: Vec<_> =
        columns.iter().map(|changed| json!({"relation": changed.relation, "column": changed.column})).collect();
    Statement::new(include_str!("dependents.sql")).bind(json!(wanted).to_string())
}

/// See [`DependentObjects::read_dependent`](crate::sink::sql::dialect::DependentObjects::read_dependent).
pub(super) fn read(row: &Row) -> Option<Dependent> {
    let [kind, id, relation, part, column, is_direct, owner, can_be_owner, grant, is_temporary, is_populated] = &row[..] else {
        return None;
    };
    let is_true = |cell: &Option<String>| cell.as_deref() == Some("t");
    let kind = kind.clone()?;
    Some(Dependent {
        is_populated: kind == "materialized view" && is_true(is_populated),
        kind,
        id: id.clone()?,
        relation: relation.clone()?,
        part: part.clone()?,
        column: column.clone(),
        is_direct: is_true(is_direct),
        owner: owner.clone()?,
        can_be_owner: is_true(can_be_owner),
        grant: grant.clone()?,
        is_temporary: is_true(is_temporary),
    })
}

/// See [`DependentObjects::lock_dependents`](crate::sink::sql::dialect::DependentObjects::lock_dependents).
///
/// Readers lock a view before the relations that it uses, and so does this. A reader may still hold a table while it waits for a view. It
/// would be ended by its deadlock check `deadlock_timeout` after it began to wait, so all locks are granted, or given up, sooner. `LOCK`
/// would lock the relations of a view as well; a new owner who is the old one locks only the view.
pub(super) fn lock(dependents: &[Dependent], columns: &[ChangedColumn]) -> Vec<Statement> {
    let mut locked: Vec<&str> = Vec::new();
    let mut body = String::new();
    for dependent in dependents.iter().rev() {
        let is_changed = columns.iter().any(|changed| changed.relation == dependent.relation);
        if is_changed || locked.contains(&dependent.relation.as_str()) {
            continue;
        }
        locked.push(&dependent.relation);
        let own = format!("ALTER TABLE {} OWNER TO {}", dependent.relation, quote(&dependent.owner));
        body.push_str(&format!(
            "PERFORM pg_catalog.set_config('role', {}, true); EXECUTE {}; ",
            literal(&dependent.owner),
            literal(&own)
        ));
    }
    body.push_str("EXECUTE 'SET LOCAL role TO DEFAULT'; ");
    let mut tables: Vec<&str> = columns.iter().map(|changed| changed.relation.as_str()).collect();
    tables.dedup();
    for table in tables {
        let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        body.push_str(&format!("EXECUTE {}; ", literal(&lock)));
    }
    vec![
        Statement::new(
            "SELECT pg_catalog.set_config(s.name, d.wait, true) FROM (VALUES ('lock_timeout'), ('statement_timeout')) AS s (name), \
             (SELECT (setting::pg_catalog.int8 * 7 / 10)::pg_catalog.text AS wait FROM pg_catalog.pg_settings \
             WHERE name = 'deadlock_timeout') AS d",
        ),
        Statement::new(format!(
            "DO {}",
            literal(&format!(
                "BEGIN {body}EXCEPTION WHEN query_canceled THEN RAISE USING ERRCODE = 'lock_not_available', MESSAGE = 'locks of other sessions'; END"
            ))
        )),
    ]
}

/// See [`DependentObjects::begin_dependents`](crate::sink::sql::dialect::DependentObjects::begin_dependents). With an empty search path
/// the server qualifies all names in definitions.
pub(super) fn begin(definition_wait: &str) -> Statement {
    Statement::new(format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{definition_wait}'; SET LOCAL search_path = ''; \
         SET LOCAL default_tablespace = ''"
    ))
}

/// See [`DependentObjects::end_dependents`](crate::sink::sql::dialect::DependentObjects::end_dependents).
pub(super) fn end() -> Statement {
    Statement::new("SET LOCAL search_path TO DEFAULT; SET LOCAL default_tablespace TO DEFAULT")
}

/// See [`DependentObjects::definition_of`](crate::sink::sql::dialect::DependentObjects::definition_of).
pub(super) fn definition(dependent: &Dependent) -> Statement {
    let text = if dependent.is_view() { include_str!("view_definition.sql") } else { include_str!("part_definition.sql") };
    Statement::new(text).bind(&dependent.id)
}

/// See [`DependentObjects::drop_dependent`](crate::sink::sql::dialect::DependentObjects::drop_dependent).
pub(super) fn drop(dependent: &Dependent) -> Statement {
    let (kind, relation, part) = (dependent.kind.to_uppercase(), &dependent.relation, &dependent.part);
    let drop =
        if dependent.is_view() { format!("DROP {kind} {relation}") } else { format!("DROP {kind} {part} ON {relation}") };
    as_role(&dependent.owner, &drop)
}

/// See [`DependentObjects::recreate_dependent`](crate::sink::sql::dialect::DependentObjects::recreate_dependent).
pub(super) fn recreate(definition: &[(String, String)]) -> Vec<Statement> {
    definition.iter().map(|(role, text)| as_role(role, text)).collect()
}

/// See [`DependentObjects::populate`](crate::sink::sql::dialect::DependentObjects::populate). The owner's own policies apply to the query,
/// as when the owner refreshes the view.
pub(super) fn populate(dependent: &Dependent) -> Statement {
    let name = &dependent.relation;
    let fill =
        format!("SET LOCAL row_security = on; REFRESH MATERIALIZED VIEW {name}; ANALYZE {name}; SET LOCAL row_security = off");
    as_role(&dependent.owner, &fill)
}

/// Statements that run as a role, in one message.
fn as_role(role: &str, statements: &str) -> Statement {
    Statement::new(format!("SET LOCAL ROLE {}; {statements}; SET LOCAL role TO DEFAULT", quote(role)))
}
