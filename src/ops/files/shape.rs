//! The form in which downloaded objects are stored.

use crate::model::Format;

/// The form in which an object is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// The bytes of the object as the service stores them, with gzip for text formats, as the official client does.
    #[default]
    AsSent,
    /// Text formats decompressed.
    Unpacked,
    /// Text formats decoded with the schema of the table and written as Parquet.
    Parquet,
}

impl Shape {
    /// The value in the manifest.
    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::AsSent => "as sent",
            Shape::Unpacked => "unpacked",
            Shape::Parquet => "converted to parquet",
        }
    }

    /// The file name for an object that the service calls `sent`.
    pub(super) fn file_name(self, sent: &str, format: Format) -> String {
        let bare = sent.strip_suffix(".gz").filter(|bare| !bare.is_empty()).unwrap_or(sent);
        match self {
            Shape::AsSent => sent.to_owned(),
            Shape::Unpacked => bare.to_owned(),
            Shape::Parquet => {
                let stem = bare.strip_suffix(&format!(".{format}")).filter(|stem| !stem.is_empty()).unwrap_or(bare);
                format!("{stem}.parquet")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_shape() {
        let name = |shape: Shape, sent: &str| shape.file_name(sent, Format::Jsonl);
        assert_eq!(name(Shape::AsSent, "part-0.jsonl.gz"), "part-0.jsonl.gz");
        assert_eq!(name(Shape::Unpacked, "part-0.jsonl.gz"), "part-0.jsonl");
        assert_eq!(name(Shape::Unpacked, "part-0"), "part-0");
        assert_eq!(name(Shape::Parquet, "part-0.jsonl.gz"), "part-0.parquet");
        assert_eq!(name(Shape::Parquet, "part-0.x.gz"), "part-0.x.parquet");
        assert_eq!(name(Shape::Unpacked, ".gz"), ".gz");
    }
}
