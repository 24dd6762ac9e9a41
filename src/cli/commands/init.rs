//! `init`: writes a commented settings file.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::setup::InitArgs;
use crate::cli::settings::file;
use crate::cli::settings::file::{holds_password, without_references};
use crate::cli::settings::paths::{SETTINGS_NAME, at_home};
use crate::cli::settings::template::template;
use crate::cli::terminal::output::out;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::Address;

pub(in crate::cli) fn init(global: &GlobalArgs, args: &InitArgs) -> Result<()> {
    let path = global.settings.clone().unwrap_or_else(|| PathBuf::from(SETTINGS_NAME));
    // An absolute path means the same wherever the program is started later.
    let target = match Address::parse(&without_references(&args.target))? {
        Address::Folder(_) => {
            let folder = at_home(&args.target)?;
            let folder = std::path::absolute(folder.as_ref()).context(Kind::Usage, "The target's path cannot be used")?;
            folder.display().to_string()
        }
        Address::File(_) | Address::Store(_) | Address::Database(_) => args.target.clone(),
    };
    if holds_password(&target) {
        return Err(Error::new(Kind::Usage, "The target contains a password, which must not be written to a settings file")
            .hint("use a variable instead, in single quotes: 'postgresql://etl:${LAKE_PASSWORD}@host/database'"));
    }
    let secret = match &args.secret_file {
        Some(file) => {
            let file = std::path::absolute(file).context(Kind::Usage, "The path of the secret file cannot be used")?;
            format!("file:{}", file.display())
        }
        None => "${DAP_CLIENT_SECRET}".to_owned(),
    };
    let text = template(args, &target, &secret);
    write_new(&path, &text)?;
    // An error here is a defect of the template.
    file::parse(&text, &path, &|_| Some("x".to_owned())).context(Kind::Bug, "The new settings file cannot be parsed")?;
    out(&format!(
        "Wrote {} (only you can read it).\n\nNext steps:\n  export DAP_CLIENT_ID='region#id'{}\n  daplake check\n  daplake sync\n  daplake sync --watch        # keep running, and sync every 4 hours\n",
        path.display(),
        if args.secret_file.is_none() { " DAP_CLIENT_SECRET='...'" } else { "" },
    ))
}

/// Creates the file with mode 0600. Kind `Usage` if it exists.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(Kind::Usage, "The settings file already exists and was not changed")
                .with_field("file", path.display())
                .hint("give another path with --settings, or move the file away"))
        }
        other => other.context(Kind::Io, format!("The settings file cannot be written: {}", path.display())),
    }
}
