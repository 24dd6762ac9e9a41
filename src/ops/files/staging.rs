//! The hidden folder that collects the files of one job, and its publication under the final name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::MANIFEST;
use super::shape::Shape;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::journal::is_old;

const PREFIX: &str = ".job_";
const SUFFIX: &str = ".part";

/// The two folders of one job.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    /// The hidden folder.
    pub(super) hidden: PathBuf,
    /// The final folder.
    pub(super) shown: PathBuf,
}

impl Staging {
    /// The folders of a job in `folder`. The id comes from the service and must not change the path.
    pub(super) fn new(folder: &Path, job: &str, shape: Shape) -> Result<Self> {
        let is_plain = !job.is_empty()
            && job.len() <= 128
            && !job.starts_with('.')
            && job.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_plain {
            let shown: String = job.escape_debug().take(100).collect();
            return Err(Error::new(Kind::Data, "The id of the job is not a valid folder name").with_field("job", shown));
        }
        // Different forms of the same job must not mix.
        let word = match shape {
            Shape::AsSent => "",
            Shape::Unpacked => ".unpacked",
            Shape::Parquet => ".parquet",
        };
        let hidden = folder.join(format!("{PREFIX}{job}{word}{SUFFIX}"));
        Ok(Self { hidden, shown: folder.join(format!("job_{job}")) })
    }

    pub(super) fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.hidden)
            .context(Kind::Io, format!("Cannot create the output folder: {}", self.hidden.display()))
    }

    /// A complete file, in either folder.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        [&self.hidden, &self.shown].into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Renames the hidden folder to the final one; if that exists, moves the files into it one by one.
    pub(super) fn publish(&self) -> Result<()> {
        self.try_publish().context(Kind::Io, format!("Cannot move the files to {}", self.shown.display()))
    }

    fn try_publish(&self) -> io::Result<()> {
        if !self.hidden.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.hidden)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.ends_with(".part") || name.ends_with(".part.json") {
                fs::remove_file(&path)?;
            }
        }
        match fs::rename(&self.hidden, &self.shown) {
            Ok(()) => {}
            Err(_) if self.shown.is_dir() => {
                let mut manifest = None;
                for entry in fs::read_dir(&self.hidden)? {
                    let entry = entry?;
                    match entry.file_name() == MANIFEST {
                        true => manifest = Some(entry),
                        false => fs::rename(entry.path(), self.shown.join(entry.file_name()))?,
                    }
                }
                // The manifest describes the other files, so it comes last.
                if let Some(entry) = manifest {
                    fs::rename(entry.path(), self.shown.join(entry.file_name()))?;
                }
                fs::remove_dir(&self.hidden)?;
            }
            Err(error) => return Err(error),
        }
        sync_folder(&self.shown);
        if let Some(parent) = self.shown.parent() {
            sync_folder(parent);
        }
        Ok(())
    }

    /// Removes the hidden folder if it is empty; its files stay for the next run.
    pub(super) fn leave(&self) {
        let _ = fs::remove_dir(&self.hidden);
    }

    /// Removes the collected files.
    pub(super) fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(Kind::Io, format!("Cannot remove unfinished files: {}", self.hidden.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Removes hidden folders that earlier runs left. Best effort.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_staging = name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if is_staging && newest(&entry.path()).is_some_and(is_old) {
            tracing::debug!(folder = %entry.path().display(), "Removing unfinished files of an old run");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Time of the last change in the folder.
fn newest(folder: &Path) -> Option<SystemTime> {
    let own = fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()?;
    let inside = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok());
    inside.chain([own]).max()
}

/// Writes a file atomically.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().context(Kind::Io, format!("Cannot write a file: {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

/// Makes renames durable, on systems where that is needed.
fn sync_folder(folder: &Path) {
    if cfg!(unix)
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn job_ids_cannot_escape_the_folder() {
        let staging = |job: &str| Staging::new(Path::new("out"), job, Shape::AsSent);
        assert_eq!(staging("5d-1_x").unwrap().shown, Path::new("out/job_5d-1_x"));
        for job in ["", "..", "../x", "a/b", "a\\b", ".x", "a\0"] {
            assert_eq!(staging(job).unwrap_err().kind(), Kind::Data, "{job:?}");
        }
    }

    #[test]
    fn a_folder_appears_atomically_and_later_files_replace_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::new(folder.path(), "1", Shape::AsSent).unwrap();
        for round in ["first", "second"] {
            staging.make().unwrap();
            write_whole(&staging.hidden.join("a.gz"), round.as_bytes()).unwrap();
            write_whole(&staging.hidden.join(MANIFEST), round.as_bytes()).unwrap();
            fs::write(staging.hidden.join("b.gz.part"), "half").unwrap();
            staging.publish().unwrap();
            let mut names: Vec<_> = fs::read_dir(&staging.shown).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, [MANIFEST, "a.gz"]);
            assert_eq!(fs::read_to_string(staging.shown.join("a.gz")).unwrap(), round);
            assert!(!staging.hidden.exists());
        }
        fs::write(staging.shown.join("mine.txt"), "mine").unwrap();
        staging.make().unwrap();
        staging.publish().unwrap();
        assert!(staging.shown.join("mine.txt").exists(), "foreign files stay");
    }

    /// Windows opens a folder only with a flag of its own, and changes times only through a handle for writing.
    fn set_modified(folder: &Path, time: SystemTime) {
        let mut options = File::options();
        #[cfg(not(windows))]
        options.read(true);
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::custom_flags(options.write(true), 0x0200_0000);
        options.open(folder).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn only_old_staging_folders_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".job_old.part", ".job_new.part", "job_old", ".cache"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let old = SystemTime::now() - Duration::from_secs(72 * 3600);
        for name in [".job_old.part", "job_old", ".cache"] {
            set_modified(&folder.path().join(name), old);
        }
        sweep(folder.path());
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".cache", ".job_new.part", "job_old"]);
    }
}
