//! The hidden folder in which the files of one job gather, and how it becomes the folder people see. It does not know what the
//! files are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Shape;
use super::manifest::MANIFEST;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::journal::is_old;

const PREFIX: &str = ".job_";
const SUFFIX: &str = ".part";

/// The two folders of one job.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    /// Where files gather.
    pub(super) hidden: PathBuf,
    /// Where they end, all at once.
    pub(super) shown: PathBuf,
}

impl Staging {
    /// For a job whose id comes from outside and must not lead elsewhere.
    pub(super) fn new(folder: &Path, job: &str, shape: Shape) -> Result<Self> {
        let is_plain = !job.is_empty()
            && job.len() <= 128
            && !job.starts_with('.')
            && job.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_plain {
            let shown: String = job.escape_debug().take(100).collect();
            return Err(
                Error::new(Kind::Data, "The service gives a job an id that cannot be a folder name").with_field("job", shown)
            );
        }
        // Shapes of the same job must not mix.
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
            .context(Kind::Io, format!("The output folder cannot be made: {}", self.hidden.display()))
    }

    /// A file that is complete: it has its final name, here or there.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        [&self.hidden, &self.shown].into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Moves everything to where people look: as one folder if there is none yet, else file by file over what is there.
    pub(super) fn publish(&self) -> Result<()> {
        self.try_publish().context(Kind::Io, format!("The files cannot be moved to {}", self.shown.display()))
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
                // Last: it speaks of the others.
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

    /// Goes away if nothing has gathered; what has stays for the next run.
    pub(super) fn leave(&self) {
        let _ = fs::remove_dir(&self.hidden);
    }

    /// Forgets what has gathered.
    pub(super) fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(Kind::Io, format!("Unfinished files cannot be removed: {}", self.hidden.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Removes what runs of long ago left unfinished. As far as it can be done: it is only tidiness.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if is_ours && newest(&entry.path()).is_some_and(is_old) {
            tracing::debug!(folder = %entry.path().display(), "Removing what an old run left unfinished");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// When something in the folder last changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let own = fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()?;
    let inside = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok());
    inside.chain([own]).max()
}

/// Writes a file so that it is there as a whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().context(Kind::Io, format!("A file cannot be written: {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

/// So that a name survives a power cut; where the system has no such thing, it is not needed.
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
    fn job_ids_from_outside_do_not_become_paths() {
        let staging = |job: &str| Staging::new(Path::new("out"), job, Shape::AsSent);
        assert_eq!(staging("5d-1_x").unwrap().shown, Path::new("out/job_5d-1_x"));
        for job in ["", "..", "../x", "a/b", "a\\b", ".x", "a\0"] {
            assert_eq!(staging(job).unwrap_err().kind(), Kind::Data, "{job:?}");
        }
    }

    #[test]
    fn a_folder_appears_whole_and_later_files_replace_earlier_ones() {
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
        assert!(staging.shown.join("mine.txt").exists(), "what others put there stays");
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
    fn only_old_leftovers_of_ours_are_swept() {
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
