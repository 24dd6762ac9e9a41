//! Exit codes: 0 success, 2 wrong usage, 5 failure, 38 not supported, 125 interrupted (those of the official client on Linux).

use std::process::ExitCode;

use crate::error::{Error, Kind};

/// The code of an error. One exhaustive table.
pub(super) fn code(error: &Error) -> ExitCode {
    use Kind::*;
    ExitCode::from(match error.kind() {
        Unsupported => 38,
        Cancelled => 125,
        Usage | Auth | Account | NotFound | Expired | OutOfRange | SnapshotRequired | Throttled | Unavailable | Job | Data
        | Schema | Target | Conflict | Io | Resources | Bug => 5,
    })
}

/// Something in the settings file is wrong, which is wrong usage.
pub(super) fn wrong_settings() -> ExitCode {
    ExitCode::from(2)
}

/// Prints what the argument parser has to say: help and version on standard output, mistakes on standard error.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is no failure of ours.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}
