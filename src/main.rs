//! The binary: hands over the arguments, returns the exit code.

fn main() -> std::process::ExitCode {
    daplake::internals::cli::main()
}
