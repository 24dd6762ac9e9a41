//! The memory that a run can use: that of the machine, or the limit of its container or service.

use std::path::{Path, PathBuf};

use crate::cli::values::bytes::parse_bytes;

/// The default if the machine has plenty of memory, or an unknown amount.
const USUAL: u64 = 256 << 20;
/// The minimum: with less, not even one batch of rows fits.
const LEAST: u64 = 1 << 20;

/// A quarter of the available memory, at least 256 MiB unless that is more than half of it.
pub(in crate::cli) fn default_limit() -> u64 {
    available().map_or(USUAL, share)
}

fn share(available: u64) -> u64 {
    (available / 4).max(USUAL.min(available / 2))
}

/// A memory limit that this machine can fulfil, in bytes.
pub(in crate::cli) fn parse_memory_limit(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes < LEAST {
        return Err(format!("`{text}` is too small; the minimum is 1MiB"));
    }
    match available() {
        Some(available) if bytes > available => {
            Err(format!("`{text}` is more than the {} MiB that this machine or container has", available >> 20))
        }
        _ => Ok(bytes),
    }
}

/// Bytes that this process can use; `None` if unknown.
fn available() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
    let installed = Some(system.total_memory()).filter(|bytes| *bytes > 0);
    installed.into_iter().chain(control_group_limit(Path::new("/"))).min()
}

/// The smallest limit of the process's control groups and their ancestors. In a container, the files of its own group are at the top,
/// whatever `/proc` calls it. `root` is the folder with `proc` and `sys`.
fn control_group_limit(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mount = root.join("sys/fs/cgroup");
    // A line is `number:controllers:path`; version 2 has number 0 and no controllers.
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (base, files): (PathBuf, &[&str]) = match controllers {
            "" => (mount.clone(), &["memory.max", "memory.high"]),
            _ if controllers.split(',').any(|name| name == "memory") => (mount.join("memory"), &["memory.limit_in_bytes"]),
            _ => return None,
        };
        let path = PathBuf::from(path.trim_start_matches('/'));
        // The last ancestor is the empty path, the top.
        let folders = path.ancestors().map(|folder| base.join(folder));
        // "max" means no limit, and so does, in version 1, a number larger than any memory.
        folders.flat_map(|folder| files.iter().filter_map(move |file| bytes_in(&folder.join(file)))).min()
    });
    limits.min()
}

fn bytes_in(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_smallest_limit_of_the_control_groups_applies() {
        let gib = 1_u64 << 30;
        for (files, expected) in [
            // A container with a namespace of its own, version 2.
            (&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "2147483648\n")][..], Some(2 * gib)),
            // A service of systemd, with the limit on its slice.
            (
                &[
                    ("proc/self/cgroup", "0::/system.slice/sync.service\n"),
                    ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
                    ("sys/fs/cgroup/system.slice/sync.service/memory.max", "max\n"),
                    ("sys/fs/cgroup/system.slice/sync.service/memory.high", "max\n"),
                ],
                Some(gib),
            ),
            // A container, version 1: the path is that on the host.
            (
                &[
                    ("proc/self/cgroup", "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
                    ("sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
                ],
                Some(gib / 2),
            ),
            (&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")], None),
            (&[], None),
        ] {
            assert_eq!(control_group_limit(machine(files).path()), expected, "{files:?}");
        }
    }

    #[test]
    fn the_default_is_a_share_of_the_available_memory() {
        assert_eq!(share(64 << 30), 16 << 30);
        assert_eq!(share(2 << 30), 512 << 20);
        assert_eq!(share(512 << 20), 256 << 20);
        assert_eq!(share(256 << 20), 128 << 20, "a small container keeps memory for everything else");
        assert!(available().is_some_and(|bytes| bytes > 64 << 20));
    }

    #[test]
    fn impossible_limits_are_refused() {
        assert_eq!(parse_memory_limit("8MiB"), Ok(8 << 20));
        for absurd in ["0", "1", "1000", "999999TiB", "99999999999999999999999TiB"] {
            assert!(parse_memory_limit(absurd).is_err(), "{absurd}");
        }
    }
}
