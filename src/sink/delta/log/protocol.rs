//! The version and features of the Delta protocol that a table requires: the minimum for its options, so that as many programs as
//! possible can read it. No I/O.

use serde_json::{Value, json};

use crate::sink::ReaderRequirement;

/// A table feature that old readers or writers do not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    ColumnMapping,
    DeletionVectors,
    ChangeDataFeed,
}

/// The reader and writer versions that list features instead of implying them.
const TABLE_FEATURES: (i64, i64) = (3, 7);

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Feature::ColumnMapping => "columnMapping",
            Feature::DeletionVectors => "deletionVectors",
            Feature::ChangeDataFeed => "changeDataFeed",
        }
    }

    /// The lowest reader and writer version that imply or allow the feature.
    fn versions(self) -> (i64, i64) {
        match self {
            Feature::ColumnMapping => (2, 5),
            Feature::DeletionVectors => TABLE_FEATURES,
            Feature::ChangeDataFeed => (1, 4),
        }
    }

    fn affects_readers(self) -> bool {
        self != Feature::ChangeDataFeed
    }
}

/// The features that a reader version without a list implies.
fn implied_reader(version: i64) -> Vec<&'static str> {
    if version >= 2 { vec!["columnMapping"] } else { Vec::new() }
}

/// The features that a writer version without a list implies.
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
pub(crate) fn new_protocol(needs: &[Feature]) -> Value {
    if !needs.iter().any(|feature| feature.versions() == TABLE_FEATURES) {
        let reader = needs.iter().map(|feature| feature.versions().0).max().unwrap_or(1).max(1);
        let writer = needs.iter().map(|feature| feature.versions().1).max().unwrap_or(2).max(2);
        return json!({"minReaderVersion": reader, "minWriterVersion": writer});
    }
    let readers: Vec<&str> = needs.iter().filter(|feature| feature.affects_readers()).map(|feature| feature.name()).collect();
    let writers: Vec<&str> = needs.iter().map(|feature| feature.name()).collect();
    let (reader, writer) = TABLE_FEATURES;
    json!({"minReaderVersion": reader, "minWriterVersion": writer, "readerFeatures": readers, "writerFeatures": writers})
}

/// The `protocol` action that adds the missing features of `needs` to `old`; `None` if none is missing. Never removes a feature.
pub(crate) fn raised_protocol(old: &Value, needs: &[Feature]) -> Option<Value> {
    let version = |name: &str, default: i64| old[name].as_i64().unwrap_or(default);
    let (reader, writer) = (version("minReaderVersion", 1), version("minWriterVersion", 2));
    let list = |name: &str| -> Vec<String> {
        let features = old[name].as_array().map(Vec::as_slice).unwrap_or_default();
        features.iter().filter_map(|feature| feature.as_str().map(str::to_owned)).collect()
    };
    let owned = |names: Vec<&str>| -> Vec<String> { names.into_iter().map(str::to_owned).collect() };
    let mut readers = if reader >= TABLE_FEATURES.0 { list("readerFeatures") } else { owned(implied_reader(reader)) };
    let mut writers = if writer >= TABLE_FEATURES.1 { list("writerFeatures") } else { owned(implied_writer(writer)) };
    let before = (readers.clone(), writers.clone());
    for feature in needs {
        let name = feature.name();
        if feature.affects_readers() && !readers.iter().any(|known| known == name) {
            readers.push(name.to_owned());
        }
        if !writers.iter().any(|known| known == name) {
            writers.push(name.to_owned());
        }
    }
    if before == (readers.clone(), writers.clone()) {
        return None;
    }
    let has_lists = needs.iter().any(|feature| feature.versions() == TABLE_FEATURES);
    let required = |version: fn(Feature) -> i64| needs.iter().map(|feature| version(*feature)).max().unwrap_or(0);
    let new_reader = if has_lists { TABLE_FEATURES.0 } else { reader.max(required(|feature| feature.versions().0)) };
    let new_writer = if has_lists || new_reader >= TABLE_FEATURES.0 {
        TABLE_FEATURES.1
    } else {
        writer.max(required(|feature| feature.versions().1))
    };
    let mut protocol = json!({"minReaderVersion": new_reader, "minWriterVersion": new_writer});
    if new_reader >= TABLE_FEATURES.0 {
        protocol["readerFeatures"] = json!(readers);
    }
    if new_writer >= TABLE_FEATURES.1 {
        protocol["writerFeatures"] = json!(writers);
    }
    Some(protocol)
}

/// Requirements of a reader.
pub(crate) fn reader_requirement(protocol: &Value) -> ReaderRequirement {
    let features = protocol["readerFeatures"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut features: Vec<String> = features.map(str::to_owned).collect();
    let version = protocol["minReaderVersion"].as_i64().unwrap_or(1);
    if version < TABLE_FEATURES.0 {
        features.extend(implied_reader(version).into_iter().map(str::to_owned));
    }
    features.sort_unstable();
    ReaderRequirement { version, features }
}

/// Versions and features as text for `status`: `1/2`, or `3/7: deletionVectors`.
pub(crate) fn describe(protocol: &Value) -> String {
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
    fn a_new_table_requires_the_lowest_version() {
        assert_eq!(new_protocol(&[]), json!({"minReaderVersion": 1, "minWriterVersion": 2}));
        assert_eq!(new_protocol(&[ColumnMapping]), json!({"minReaderVersion": 2, "minWriterVersion": 5}));
        assert_eq!(new_protocol(&[ChangeDataFeed]), json!({"minReaderVersion": 1, "minWriterVersion": 4}));
        let lists = new_protocol(&[ColumnMapping, DeletionVectors]);
        assert_eq!(lists["readerFeatures"], json!(["columnMapping", "deletionVectors"]));
        assert_eq!(lists["minWriterVersion"], 7);
    }

    #[test]
    fn readers_must_support_the_listed_or_implied_features() {
        let features = |needs: &[Feature]| reader_requirement(&new_protocol(needs)).features;
        assert_eq!(reader_requirement(&new_protocol(&[])), ReaderRequirement { version: 1, features: Vec::new() });
        assert_eq!(features(&[ChangeDataFeed]), [""; 0]);
        assert_eq!(features(&[ColumnMapping]), ["columnMapping"]);
        assert_eq!(features(&[DeletionVectors, ColumnMapping]), ["columnMapping", "deletionVectors"]);
    }

    #[test]
    fn a_raised_protocol_lists_the_features_that_its_version_implied() {
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
        assert_eq!(raised_protocol(&raised, &[ColumnMapping, DeletionVectors]), None, "raising twice changes nothing");
        assert_eq!(raised_protocol(&plain, &[ColumnMapping]), Some(json!({"minReaderVersion": 2, "minWriterVersion": 5})));
    }

    #[test]
    fn features_of_other_programs_stay_listed() {
        let writers_only = json!({"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["domainMetadata"]});
        let raised = raised_protocol(&writers_only, &[ColumnMapping]).unwrap();
        assert_eq!(
            raised,
            json!({"minReaderVersion": 2, "minWriterVersion": 7, "writerFeatures": ["domainMetadata", "columnMapping"]})
        );
        let raised = raised_protocol(&raised, &[DeletionVectors]).unwrap();
        assert_eq!(raised["readerFeatures"], json!(["columnMapping", "deletionVectors"]));
        assert_eq!(describe(&raised), "3/7: domainMetadata, columnMapping, deletionVectors");
        assert_eq!(describe(&json!({"minReaderVersion": 1, "minWriterVersion": 2})), "1/2");
    }
}
