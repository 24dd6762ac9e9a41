//! The command line: arguments, settings, output, exit codes. It holds no logic that a library user would miss.

use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
