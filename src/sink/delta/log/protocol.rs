//! Which version and features of the Delta protocol a table asks for: the least that its options need, so that the most
//! programs can read it. Pure values.

use serde_json::{Value, json};

/// An ability of tables that old programs lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::delta) enum Feature {
    /// Columns have other names in the files.
    ColumnMapping,
    /// Rows of files are marked as deleted.
    DeletionVectors,
    /// Changes can be read as rows.
    ChangeDataFeed,
}

/// Versions that only list features.
const LISTS: (i64, i64) = (3, 7);

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Feature::ColumnMapping => "columnMapping",
            Feature::DeletionVectors => "deletionVectors",
            Feature::ChangeDataFeed => "changeDataFeed",
        }
    }

    /// Least versions (reader, writer) without lists that have it; 0 where readers need not know of it.
    fn versions(self) -> (i64, i64) {
        match self {
            Feature::ColumnMapping => (2, 5),
            Feature::DeletionVectors => LISTS,
            Feature::ChangeDataFeed => (1, 4),
        }
    }

    fn concerns_readers(self) -> bool {
        self != Feature::ChangeDataFeed
    }
}

/// What a version without lists means, as a list.
fn implied_reader(version: i64) -> Vec<&'static str> {
    if version >= 2 { vec!["columnMapping"] } else { Vec::new() }
}

fn implied_writer(version: i64) -> Vec<&'static str> {
    let all = [
        (2, "appendOnly"),
        (2, "invariants"),
        (3, "checkConstraints"),
        (4, "changeDataFeed"),
        (4, "generatedColumns"),
        (5, "columnMapping"),
        (6, "identityColumns"),
    ];
    all.into_iter().filter(|(since, _)| version >= *since).map(|(_, name)| name).collect()
}

/// The `protocol` action of a new table.
pub(in crate::sink::delta) fn new_protocol(needs: &[Feature]) -> Value {
    if !needs.iter().any(|feature| feature.versions() == LISTS) {
        let reader = needs.iter().map(|feature| feature.versions().0).max().unwrap_or(1).max(1);
        let writer = needs.iter().map(|feature| feature.versions().1).max().unwrap_or(2).max(2);
        return json!({"minReaderVersion": reader, "minWriterVersion": writer});
    }
    let readers: Vec<&str> = needs.iter().filter(|feature| feature.concerns_readers()).map(|feature| feature.name()).collect();
    let writers: Vec<&str> = needs.iter().map(|feature| feature.name()).collect();
    json!({"minReaderVersion": LISTS.0, "minWriterVersion": LISTS.1, "readerFeatures": readers, "writerFeatures": writers})
}

/// The `protocol` action that adds what `old` lacks of `needs`; `None` if it lacks nothing. Never takes anything away.
pub(in crate::sink::delta) fn raised_protocol(old: &Value, needs: &[Feature]) -> Option<Value> {
    let version = |name: &str, least: i64| old[name].as_i64().unwrap_or(least);
    let (reader, writer) = (version("minReaderVersion", 1), version("minWriterVersion", 2));
    let list = |name: &str| -> Vec<String> {
        let features = old[name].as_array().map(Vec::as_slice).unwrap_or_default();
        features.iter().filter_map(|feature| feature.as_str().map(str::to_owned)).collect()
    };
    let owned = |names: Vec<&str>| -> Vec<String> { names.into_iter().map(str::to_owned).collect() };
    let mut readers = if reader >= LISTS.0 { list("readerFeatures") } else { owned(implied_reader(reader)) };
    let mut writers = if writer >= LISTS.1 { list("writerFeatures") } else { owned(implied_writer(writer)) };
    let before = (readers.clone(), writers.clone());
    for feature in needs {
        let name = feature.name();
        if feature.concerns_readers() && !readers.iter().any(|known| known == name) {
            readers.push(name.to_owned());
        }
        if !writers.iter().any(|known| known == name) {
            writers.push(name.to_owned());
        }
    }
    if before == (readers.clone(), writers.clone()) {
        return None;
    }
    let lists = needs.iter().any(|feature| feature.versions() == LISTS);
    let least = |number: fn(Feature) -> i64| needs.iter().map(|feature| number(*feature)).max().unwrap_or(0);
    let new_reader = if lists { LISTS.0 } else { reader.max(least(|feature| feature.versions().0)) };
    let new_writer = if lists || new_reader >= LISTS.0 { LISTS.1 } else { writer.max(least(|feature| feature.versions().1)) };
    let mut protocol = json!({"minReaderVersion": new_reader, "minWriterVersion": new_writer});
    if new_reader >= LISTS.0 {
        protocol["readerFeatures"] = json!(readers);
    }
    if new_writer >= LISTS.1 {
        protocol["writerFeatures"] = json!(writers);
    }
    Some(protocol)
}

/// Versions and features in words, for `status`: `1/2`, or `3/7: deletionVectors`.
pub(in crate::sink::delta) fn described(protocol: &Value) -> String {
    let version = |name: &str| protocol[name].as_i64().unwrap_or(1);
    let mut text = format!("{}/{}", version("minReaderVersion"), version("minWriterVersion"));
    let features: Vec<&str> = protocol["writerFeatures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !features.is_empty() {
        text = format!("{text}: {}", features.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Feature::*;
    use super::*;

    #[test]
    fn a_new_table_asks_for_the_least() {
        assert_eq!(new_protocol(&[]), json!({"minReaderVersion": 1, "minWriterVersion": 2}));
        assert_eq!(new_protocol(&[ColumnMapping]), json!({"minReaderVersion": 2, "minWriterVersion": 5}));
        assert_eq!(new_protocol(&[ChangeDataFeed]), json!({"minReaderVersion": 1, "minWriterVersion": 4}));
        let lists = new_protocol(&[ColumnMapping, DeletionVectors]);
        assert_eq!(lists["readerFeatures"], json!(["columnMapping", "deletionVectors"]));
        assert_eq!(lists["minWriterVersion"], 7);
    }

    #[test]
    fn a_raised_table_keeps_what_its_version_meant() {
        let plain = json!({"minReaderVersion": 1, "minWriterVersion": 2});
        assert_eq!(raised_protocol(&plain, &[]), None);
        assert_eq!(
            raised_protocol(&plain, &[DeletionVectors]),
            Some(json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
                "writerFeatures": ["appendOnly", "invariants", "deletionVectors"]}))
        );
        let mapped = json!({"minReaderVersion": 2, "minWriterVersion": 5});
        assert_eq!(raised_protocol(&mapped, &[ColumnMapping]), None);
        let raised = raised_protocol(&mapped, &[ColumnMapping, DeletionVectors]).unwrap();
        assert_eq!(raised["readerFeatures"], json!(["columnMapping", "deletionVectors"]));
        assert_eq!(
            raised["writerFeatures"],
            json!([
                "appendOnly",
                "invariants",
                "checkConstraints",
                "changeDataFeed",
                "generatedColumns",
                "columnMapping",
                "deletionVectors"
            ])
        );
        assert_eq!(raised_protocol(&raised, &[ColumnMapping, DeletionVectors]), None, "once is enough");
        assert_eq!(raised_protocol(&plain, &[ColumnMapping]), Some(json!({"minReaderVersion": 2, "minWriterVersion": 5})));
    }

    #[test]
    fn lists_of_other_programs_are_added_to() {
        let writers_only = json!({"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["domainMetadata"]});
        let raised = raised_protocol(&writers_only, &[ColumnMapping]).unwrap();
        assert_eq!(
            raised,
            json!({"minReaderVersion": 2, "minWriterVersion": 7, "writerFeatures": ["domainMetadata", "columnMapping"]})
        );
        let raised = raised_protocol(&raised, &[DeletionVectors]).unwrap();
        assert_eq!(raised["readerFeatures"], json!(["columnMapping", "deletionVectors"]));
        assert_eq!(described(&raised), "3/7: domainMetadata, columnMapping, deletionVectors");
        assert_eq!(described(&json!({"minReaderVersion": 1, "minWriterVersion": 2})), "1/2");
    }
}
