//! `completions` and `man`.

use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake completions bash > ~/.local/share/bash-completion/completions/daplake")]
pub(in crate::cli) struct CompletionsArgs {
    /// Shell.
    #[arg(value_enum)]
    pub(in crate::cli) shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake man sync > daplake-sync.1")]
pub(in crate::cli) struct ManArgs {
    /// Command [default: the program itself].
    pub(in crate::cli) command: Option<String>,
}
