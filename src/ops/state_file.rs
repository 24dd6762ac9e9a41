//! Small files of the state folder in JSON, each for one subject such as a target. Losing one costs repeated work, never data.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::journal::{fnv, make_private};

/// The file of `subject` in a state folder.
pub(super) fn path_of(folder: &Path, subject: &str, suffix: &str) -> PathBuf {
    folder.join(format!("{:016x}.{suffix}", fnv(subject.as_bytes())))
}

/// The content of a file; the default if there is none or it cannot be read.
pub(super) fn read<T: Default + DeserializeOwned>(path: &Path) -> T {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Replaces the whole file, or nothing. Creates its folder, which only the user can read.
pub(super) fn write(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_private(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    file.persist(path)?;
    Ok(())
}
