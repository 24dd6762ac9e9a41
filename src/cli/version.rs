//! Name and version of the program.

use std::ffi::OsString;
use std::path::Path;

/// The name under which the program was started: `dap` through a link of that name, which changes only the output of `--version`.
pub(in crate::cli) fn program_name(arguments: &[OsString]) -> &'static str {
    let stem = arguments.first().and_then(|path| Path::new(path).file_stem());
    if stem.is_some_and(|stem| stem == "dap") { "dap" } else { "daplake" }
}

/// Version, platform and features.
#[cfg(feature = "lake")]
pub(in crate::cli) fn version_text() -> String {
    let features = [
        ("lake", cfg!(feature = "lake")),
        ("demo", cfg!(feature = "demo")),
        ("postgres", cfg!(feature = "postgres")),
        ("mysql", cfg!(feature = "mysql")),
        ("mssql", cfg!(feature = "mssql")),
        ("prompt", cfg!(feature = "prompt")),
        ("otel", cfg!(feature = "otel")),
        ("cluster", cfg!(feature = "cluster")),
    ];
    let built: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let (version, system) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    format!("daplake {version} on {system} {}, with {}", std::env::consts::ARCH, built.join(", "))
}
