//! Limits of calls per minute.

/// The limit of one kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Pace {
    pub(in crate::cli) kind: PaceKind,
    pub(in crate::cli) per_minute: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum PaceKind {
    JobStatus,
    TableLists,
    Schemas,
    ObjectUrls,
}

/// A limit such as `schemas=100`.
pub(in crate::cli) fn parse_pace(text: &str) -> Result<Pace, String> {
    let (name, number) = text.split_once('=').ok_or("write it as schemas=100")?;
    let kind = match name.trim() {
        "job-status" => PaceKind::JobStatus,
        "table-lists" => PaceKind::TableLists,
        "schemas" => PaceKind::Schemas,
        "object-urls" => PaceKind::ObjectUrls,
        _ => return Err(format!("`{name}` is not one of job-status, table-lists, schemas, object-urls")),
    };
    let per_minute = number.trim().parse().map_err(|_| format!("`{number}` is not a number of calls per minute"))?;
    Ok(Pace { kind, per_minute })
}
