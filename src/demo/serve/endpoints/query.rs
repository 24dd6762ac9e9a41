//! Endpoints for tables: lists, schemas, and queries with all their checks. Jobs answer the queries.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::demo::serve::faults::fault::Fault;
use crate::demo::serve::http::answer::{Answer, Answered};
use crate::demo::serve::jobs::job::Query;
use crate::demo::serve::jobs::run;
use crate::demo::serve::jobs::store::Cut;
use crate::demo::serve::state::State;
use crate::model::{Mode, TableRef, Timestamp};

/// `GET /dap/query/{namespace}/table`.
pub(crate) fn tables(state: &State, namespace: &str) -> Answered {
    let tables = state.source.tables(namespace).ok_or_else(|| Answer::not_found("namespace", namespace))?;
    Ok(Answer::ok(json!({"tables": tables})))
}

/// Checks that the namespace and the table exist.
fn check_table(state: &State, table: &TableRef) -> Answered<()> {
    let namespace = table.namespace.as_str();
    let tables = state.source.tables(namespace).ok_or_else(|| Answer::not_found("namespace", namespace))?;
    match tables.contains(&table.table) {
        true => Ok(()),
        false => Err(Answer::not_found("table", &table.table).into()),
    }
}

/// Times of the first and the newest commit.
fn reach(state: &State) -> Answered<(Timestamp, Timestamp)> {
    let commits = state.source.commits();
    let reach = commits.first().copied().zip(commits.last().copied());
    reach
        .ok_or_else(|| Answer::error(hyper::StatusCode::INTERNAL_SERVER_ERROR, "ServerError", "No data has been loaded").into())
}

/// `GET .../schema`.
pub(crate) fn schema(state: &State, table: &TableRef) -> Answered {
    check_table(state, table)?;
    let (_, newest) = reach(state)?;
    let version = state.source.schema_version(table, newest);
    let found = version.and_then(|version| Some((version, state.source.schema(table, version)?)));
    let (mut version, mut schema) = found.ok_or_else(|| Answer::not_found("table", &table.table))?;
    if state.faults.strikes(Some(table), &Fault::OlderSchema)
        && let Some(older) = state.source.schema(table, version - 1)
    {
        (version, schema) = (version - 1, older);
    }
    if state.faults.strikes(Some(table), &Fault::NewerSchema) {
        version += 1;
        if let Some(columns) = schema.pointer_mut("/properties/value/properties").and_then(Value::as_object_mut) {
            columns.insert("added_later".into(), json!({"type": "string", "description": "A column of the next version"}));
        }
    }
    Ok(Answer::ok(json!({"schema": schema, "version": version})))
}

/// `POST .../data`.
pub(crate) fn data(state: &Arc<State>, table: TableRef, body: &str) -> Answered {
    check_table(state, &table)?;
    let query = parse(table, body)?;
    let (first, newest) = reach(state)?;
    let cut = match query.since {
        None => Cut::Snapshot { at: newest },
        Some(since) => {
            check_reach(state, &query.table, since, query.until, first, newest)?;
            Cut::Changes { since, until: query.until.unwrap_or(newest) }
        }
    };
    run::start_or_find(state, query, cut)
}

fn check_reach(
    state: &State,
    table: &TableRef,
    since: Timestamp,
    until: Option<Timestamp>,
    first: Timestamp,
    newest: Timestamp,
) -> Answered<()> {
    if let Some(earliest) = state.snapshot_required_before(table).filter(|earliest| since < *earliest) {
        return Err(Answer::snapshot_required(earliest, newest).into());
    }
    if state.faults.strikes(Some(table), &Fault::SnapshotRequired) {
        return Err(Answer::snapshot_required(newest, newest).into());
    }
    if state.faults.strikes(Some(table), &Fault::OutOfRange) {
        return Err(Answer::out_of_range(newest, newest).into());
    }
    let in_range = first <= since && since <= newest && until.is_none_or(|until| since <= until && until <= newest);
    if in_range { Ok(()) } else { Err(Answer::out_of_range(first, newest).into()) }
}

/// Parses a query. Unknown members are errors, so that misspelt ones are found.
fn parse(table: TableRef, body: &str) -> Answered<Query> {
    let members = object(body)?;
    // The approximate position of a member, for people.
    let offset = |name: &str| body.find(&format!("\"{name}\"")).unwrap_or(0);
    if let Some(unknown) = members.keys().find(|name| !["format", "mode", "since", "until"].contains(&name.as_str())) {
        return Err(Answer::invalid("Unexpected member", body, offset(unknown)).into());
    }
    let text = |name: &str| match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Box::new(Answer::invalid(format!("`{name}` is not a string"), body, offset(name)))),
    };
    let time = |name: &str| -> Answered<Option<Timestamp>> {
        let invalid = |_| Box::new(Answer::invalid(format!("`{name}` is not a time with offset"), body, offset(name)));
        text(name)?.map(|text| text.parse().map_err(invalid)).transpose()
    };
    let format = text("format")?.ok_or_else(|| Answer::invalid("`format` is missing", body, 0))?;
    let format = format.parse().map_err(|_| Answer::invalid("`format` is unknown", body, offset("format")))?;
    let mode = match text("mode")? {
        None | Some("expanded") => Mode::Expanded,
        Some("condensed") => Mode::Condensed,
        Some(_) => return Err(Answer::invalid("`mode` is unknown", body, offset("mode")).into()),
    };
    let (since, until) = (time("since")?, time("until")?);
    if since.is_none() && until.is_some() {
        return Err(Answer::invalid("`until` requires `since`", body, offset("until")).into());
    }
    Ok(Query { table, format, mode, since, until })
}

fn object(body: &str) -> Answered<Map<String, Value>> {
    match json_body(body)? {
        Value::Object(members) => Ok(members),
        _ => Err(Answer::invalid("Not a JSON object", body, 0).into()),
    }
}

/// Parses a request body, or returns an error response with the position.
pub(crate) fn json_body(body: &str) -> Answered<Value> {
    serde_json::from_str(body).map_err(|error| {
        let line_begin: usize = body.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        // The column is in bytes from 1; 0 is the end of the previous line.
        let mut offset = (line_begin + error.column().saturating_sub(1)).min(body.len());
        while !body.is_char_boundary(offset) {
            offset -= 1;
        }
        Answer::invalid("Not JSON", body, offset).into()
    })
}
