//! From the URL of a target to its sink.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::sink::delta::{DeltaOptions, DeltaSink};
use crate::stage::Engine;

/// A place where tables are kept, parsed but not touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A folder of Delta tables.
    Folder(PathBuf),
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |what: &str| {
            Err(Error::new(Kind::Unsupported, format!("This version keeps tables in local folders only, not in {what}"))
                .hint("give a folder, such as --target ./lake"))
        };
        if text.is_empty() {
            return Err(Error::new(Kind::Usage, "The target is empty").hint("give a folder, such as --target ./lake"));
        }
        let Some((scheme, _)) = text.split_once("://") else { return Ok(Target::Folder(PathBuf::from(text))) };
        match scheme {
            "file" => url::Url::parse(text).ok().and_then(|url| url.to_file_path().ok()).map(Target::Folder).ok_or_else(|| {
                Error::new(Kind::Usage, "The file:// target is not an absolute path").hint("write it as file:///srv/lake")
            }),
            "s3" | "s3a" | "az" | "abfs" | "abfss" | "gs" => refuse("object stores"),
            "postgresql" | "postgres" | "mysql" | "mariadb" | "mssql" => refuse("SQL databases"),
            _ => Err(Error::new(Kind::Usage, "Unknown kind of target").with("scheme", scheme)),
        }
    }
}

/// Opens the sink of a target. Touches nothing yet.
pub fn open_target(target: &Target, engine: &Engine) -> Result<Arc<DeltaSink>> {
    match target {
        Target::Folder(path) => Ok(Arc::new(DeltaSink::at_path(path, DeltaOptions::new(engine.clone()))?)),
    }
}
