//! `completions` and `man`, generated from the definition of the command line.

use clap::error::ErrorKind;

use crate::cli::args::completions::{CompletionsArgs, ManArgs};
use crate::cli::terminal::output::out;
use crate::error::{Kind, Result, ResultExt};

pub(in crate::cli) fn completions(mut definition: clap::Command, args: &CompletionsArgs) -> Result<()> {
    let name = definition.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, name, &mut script);
    out(&String::from_utf8_lossy(&script))
}

/// The inner error is one of usage.
pub(in crate::cli) fn man(mut definition: clap::Command, args: &ManArgs) -> Result<Result<(), clap::Error>> {
    definition.build();
    let page = match &args.command {
        None => definition,
        Some(command) => match definition.find_subcommand(command) {
            Some(found) => found.clone(),
            None => {
                let message = format!("unknown command `{command}`");
                return Ok(Err(definition.error(ErrorKind::InvalidSubcommand, message)));
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).context(Kind::Bug, "The manual page cannot be written")?;
    out(&String::from_utf8_lossy(&text))?;
    Ok(Ok(()))
}
