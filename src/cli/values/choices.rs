//! Options whose values are an enum of the library: the names of the values, each in one place. The settings file accepts the same.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::model::Format;
#[cfg(feature = "lake")]
use crate::ops::{CatalogKind, Freshness, NotifyForm, NotifyOn, OnSnapshotRequired, OutOfRange};
use crate::page::Columns;
#[cfg(feature = "lake")]
use crate::schema::{LakeFormat, Nested};
#[cfg(feature = "lake")]
use crate::sink::OnSchemaChange;
#[cfg(feature = "lake")]
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, IcebergView, OnForeignChanges};
#[cfg(feature = "sql")]
use crate::sink::sql::{DependentViews, NonFinite};

/// An enum whose values can be named on the command line.
pub(in crate::cli) trait Choice: Copy + Send + Sync + 'static {
    /// Names and values, in the order of help texts.
    const CHOICES: &'static [(&'static str, Self)];
}

/// The parser of an option whose value is one of [`Choice::CHOICES`].
pub(in crate::cli) fn choice<C: Choice>() -> impl TypedValueParser<Value = C> {
    PossibleValuesParser::new(C::CHOICES.iter().map(|(name, _)| *name)).try_map(|text| {
        let found = C::CHOICES.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or("not one of the values")
    })
}

/// The name of a value.
#[cfg(feature = "lake")]
pub(in crate::cli) fn name_of<C: Choice + PartialEq>(value: C) -> &'static str {
    C::CHOICES.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| *name)
}

impl Choice for Format {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("tsv", Format::Tsv), ("csv", Format::Csv), ("jsonl", Format::Jsonl), ("parquet", Format::Parquet)];
}

impl Choice for Columns {
    const CHOICES: &'static [(&'static str, Self)] = &[("keys", Columns::Keys), ("all", Columns::All)];
}

#[cfg(feature = "lake")]
impl Choice for LakeFormat {
    const CHOICES: &'static [(&'static str, Self)] = &[("delta", LakeFormat::Delta), ("parquet", LakeFormat::Parquet)];
}

#[cfg(feature = "lake")]
impl Choice for Nested {
    const CHOICES: &'static [(&'static str, Self)] = &[("typed", Nested::Typed), ("json", Nested::Json)];
}

#[cfg(feature = "lake")]
impl Choice for DeletionVectors {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("auto", DeletionVectors::Auto), ("on", DeletionVectors::On), ("off", DeletionVectors::Off)];
}

#[cfg(feature = "lake")]
impl Choice for IcebergView {
    const CHOICES: &'static [(&'static str, Self)] = &[("on", IcebergView::On), ("off", IcebergView::Off)];
}

#[cfg(feature = "lake")]
impl Choice for Option<CatalogKind> {
    const CHOICES: &'static [(&'static str, Self)] = &[("glue", Some(CatalogKind::Glue)), ("none", None)];
}

#[cfg(feature = "lake")]
impl Choice for ChangeDataFeed {
    const CHOICES: &'static [(&'static str, Self)] = &[("on", ChangeDataFeed::On), ("off", ChangeDataFeed::Off)];
}

#[cfg(feature = "lake")]
impl Choice for OnForeignChanges {
    const CHOICES: &'static [(&'static str, Self)] = &[("fail", OnForeignChanges::Fail), ("warn", OnForeignChanges::Warn)];
}

#[cfg(feature = "lake")]
impl Choice for OnSnapshotRequired {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("fail", OnSnapshotRequired::Fail), ("resnapshot", OnSnapshotRequired::Resnapshot)];
}

#[cfg(feature = "lake")]
impl Choice for OnSchemaChange {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("apply", OnSchemaChange::Apply),
        ("fail", OnSchemaChange::Fail),
        ("ignore-new-columns", OnSchemaChange::IgnoreNewColumns),
    ];
}

#[cfg(feature = "lake")]
impl Choice for OutOfRange {
    const CHOICES: &'static [(&'static str, Self)] = &[("fail", OutOfRange::Fail), ("null", OutOfRange::Null)];
}

#[cfg(feature = "lake")]
impl Choice for NotifyForm {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("json", NotifyForm::Json), ("slack", NotifyForm::Slack), ("teams", NotifyForm::Teams)];
}

#[cfg(feature = "lake")]
impl Choice for NotifyOn {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("always", NotifyOn::Always), ("change", NotifyOn::Change), ("failure", NotifyOn::Failure)];
}

#[cfg(feature = "lake")]
impl Choice for Freshness {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("current", Freshness::Current), ("behind", Freshness::Behind), ("failing", Freshness::Failing)];
}

#[cfg(feature = "sql")]
impl Choice for DependentViews {
    const CHOICES: &'static [(&'static str, Self)] = &[("recreate", DependentViews::Recreate), ("fail", DependentViews::Fail)];
}

#[cfg(feature = "sql")]
impl Choice for NonFinite {
    const CHOICES: &'static [(&'static str, Self)] = &[("fail", NonFinite::Fail), ("null", NonFinite::Null)];
}
