//! `completions` and `man`.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake completions bash > ~/.local/share/bash-completion/completions/daplake")]
pub(in crate::cli) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell.
    #[arg(value_enum)]
    pub(in crate::cli) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  daplake man sync > daplake-sync.1")]
pub(in crate::cli) struct ManArgs {
    /// Page of this command; without it, the page of the program.
    pub(in crate::cli) command: Option<String>,
}
