//! The local disk of a target.

use std::path::{Path, PathBuf};

use crate::sink::Sink;

/// The nearest existing folder of a target on this machine.
pub(super) fn local_folder(sink: &dyn Sink) -> Option<PathBuf> {
    let url = sink.location().reveal();
    let path = (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()?;
    path.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned)
}

/// The free space of a folder's disk, bytes. `None` if the system does not report it.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        rustix::fs::statvfs(folder).ok().map(|stat| stat.f_bavail * stat.f_frsize)
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = folder;
        None
    }
}
