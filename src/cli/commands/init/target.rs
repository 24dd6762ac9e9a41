//! The question for the target: kind by kind, with an example of each.

use std::path::Path;

use super::secrets::{self, NewSecret, Place};
use super::steps::{accepted, stem_of};
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::setup::InitArgs;
use crate::cli::args::target::TargetArgs;
use crate::cli::commands::context;
use crate::cli::settings::file::{encoded, holds_password, user_end};
use crate::cli::settings::paths::at_home;
use crate::cli::settings::template::{list, quoted};
use crate::cli::terminal::prompt;
use crate::cli::values::choices::name_of;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::{self, Address, Finding};
use crate::redact::Secret;
use crate::schema::LakeFormat;

/// The keys of the target with their values in TOML, and the files that they refer to.
pub(super) struct Chosen {
    pub(super) values: Vec<(&'static str, String)>,
    pub(super) secrets: Vec<NewSecret>,
}

/// A kind of target.
struct Form {
    label: &'static str,
    example: &'static str,
    format: Option<LakeFormat>,
}

const FOLDER: Form =
    Form { label: "a folder on this machine, as Delta Lake tables", example: "./lake", format: Some(LakeFormat::Delta) };
const PARQUET: Form =
    Form { label: "a folder on this machine, as plain Parquet files", example: "./parquet", format: Some(LakeFormat::Parquet) };
const STORE: Form = Form {
    label: "an object store: S3, Azure or Google Cloud, as Delta Lake tables",
    example: "s3://bucket/canvas",
    format: Some(LakeFormat::Delta),
};

/// The kinds of this build.
const FORMS: &[Form] = &[
    FOLDER,
    PARQUET,
    STORE,
    #[cfg(feature = "postgres")]
    Form { label: "PostgreSQL", example: "postgresql://etl@db.example.org:5432/canvas?ssl=require", format: None },
    #[cfg(feature = "mysql")]
    Form { label: "MySQL or MariaDB", example: "mysql://etl@db.example.org:3306/canvas?ssl=require", format: None },
    #[cfg(feature = "mssql")]
    Form { label: "SQL Server", example: "mssql://etl@db.example.org:1433/canvas?ssl=verify-full", format: None },
];

/// The address of a target.
struct Located {
    /// For the test, with its password.
    address: Secret,
    options: Vec<String>,
    chosen: Chosen,
}

/// Asks for the target until it is writable or the user accepts it anyway.
pub(super) async fn ask(
    global: &GlobalArgs,
    args: &InitArgs,
    namespaces: &[String],
    path: &Path,
    folder: &Path,
) -> Result<Chosen> {
    let mut given = args.target.clone();
    loop {
        let (mut located, format) = match given.take() {
            Some(text) => (known(global, args, &text, path, folder)?, args.format),
            None => {
                let options: Vec<String> = FORMS.iter().map(|form| format!("{}: {}", form.label, form.example)).collect();
                let form = &FORMS[prompt::choose("Where should the tables be kept?", &options, 0)?];
                (in_form(global, args, form, path, folder)?, form.format.map(|usual| args.format.unwrap_or(usual)))
            }
        };
        let finding = check(global, &located, format, namespaces).await;
        if accepted(&[finding])? {
            if let Some(format) = format.filter(|format| *format != LakeFormat::default()) {
                located.chosen.values.push(("format", quoted(name_of(format))));
            }
            return Ok(located.chosen);
        }
    }
}

/// A target of an option.
fn known(global: &GlobalArgs, args: &InitArgs, text: &str, path: &Path, folder: &Path) -> Result<Located> {
    match Address::parse(text)? {
        Address::Folder(_) | Address::File(_) => in_folder(text),
        Address::Store(_) => store(global, text),
        Address::Database(_) => database(args, text, path, folder),
    }
}

/// Asks for the address of a kind of target.
fn in_form(global: &GlobalArgs, args: &InitArgs, form: &Form, path: &Path, folder: &Path) -> Result<Located> {
    match Address::parse(form.example)? {
        Address::Folder(_) | Address::File(_) => {
            let text = prompt::valid("Folder", form.example, |answer| match Address::parse(answer)? {
                Address::Folder(_) | Address::File(_) => Ok(answer.to_owned()),
                _ => Err(Error::new(Kind::Usage, "This is not a folder on this machine")),
            })?;
            in_folder(&text)
        }
        Address::Store(_) => {
            let question = "URL of bucket or container, and a prefix: s3://, az:// or gs://";
            let text = prompt::valid(question, "", |answer| match Address::parse(answer)? {
                Address::Store(_) => Ok(answer.to_owned()),
                _ => Err(Error::new(Kind::Usage, "This is not the URL of an object store").hint(form.example)),
            })?;
            store(global, &text)
        }
        Address::Database(_) => {
            let text = prompt::valid("URL without the password", "", |answer| match Address::parse(answer)? {
                Address::Database(_) if user_end(answer).is_some() && !holds_password(answer) => Ok(answer.to_owned()),
                Address::Database(_) if holds_password(answer) => {
                    Err(Error::new(Kind::Usage, "The URL contains a password")
                        .hint("leave it out; the next question asks for it"))
                }
                _ => Err(Error::new(Kind::Usage, "The URL does not name a database and a user").hint(form.example)),
            })?;
            database(args, &text, path, folder)
        }
    }
}

/// A folder. An absolute path means the same wherever the program is started later.
fn in_folder(text: &str) -> Result<Located> {
    let text = absolute(text)?;
    let chosen = Chosen { values: vec![("url", quoted(&text))], secrets: Vec::new() };
    Ok(Located { address: Secret::new(text), options: Vec::new(), chosen })
}

/// A folder as an absolute path; another address as it is.
pub(super) fn absolute(text: &str) -> Result<String> {
    if !matches!(Address::parse(text)?, Address::Folder(_)) {
        return Ok(text.to_owned());
    }
    let folder = at_home(text)?;
    let folder = std::path::absolute(folder.as_ref()).context(Kind::Usage, "The target's path cannot be used")?;
    Ok(folder.display().to_string())
}

/// An object store and its options. Credentials come from the usual variables, profiles and roles.
fn store(global: &GlobalArgs, url: &str) -> Result<Located> {
    let question = "Options, such as region=eu-central-1,profile=lake (credentials come from variables such as AWS_*)";
    let options = prompt::valid(question, "none", |answer| {
        let options: Vec<String> = answer.split(',').map(|option| option.trim().to_owned()).collect();
        let options = if answer == "none" { Vec::new() } else { options };
        let is_secret = |option: &&String| ["secret", "token", "password", "sas"].iter().any(|part| option.contains(part));
        if options.iter().any(|option| is_secret(&option)) {
            return Err(Error::new(Kind::Usage, "A secret must not be written to the settings file")
                .hint("set the variables of the store, or a profile; credential_command in the settings file is another way"));
        }
        context::store_options(global, &options).map(|_| options)
    })?;
    let mut values = vec![("url", quoted(url))];
    if !options.is_empty() {
        let pairs = options.iter().filter_map(|option| option.split_once('='));
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{} = {}", name.trim(), quoted(value.trim()))).collect();
        values.push(("store_options", format!("{{ {} }}", pairs.join(", "))));
    }
    Ok(Located { address: Secret::new(url), options, chosen: Chosen { values, secrets: Vec::new() } })
}

/// A database, and where its password is.
fn database(args: &InitArgs, url: &str, path: &Path, folder: &Path) -> Result<Located> {
    if user_end(url).is_none() || !prompt::confirm("Does the database need a password?", true)? {
        let chosen = Chosen { values: vec![("url", quoted(url))], secrets: Vec::new() };
        return Ok(Located { address: Secret::new(url), options: Vec::new(), chosen });
    }
    let name = format!("DAPLAKE_{}_PASSWORD", args.name.to_ascii_uppercase().replace('-', "_"));
    let file = format!("{}-{}.url", stem_of(path), args.name);
    let kept = secrets::ask("password", &name, &file, folder)?;
    let address = Secret::new(with_password(url, &encoded(kept.secret.reveal())));
    let mut secrets = Vec::new();
    let values = match kept.place {
        // A file replaces a whole value, so it holds the whole URL.
        Place::NewFile(name) => {
            secrets.push(NewSecret { path: folder.join(&name), secret: address.clone() });
            vec![("url", quoted(&format!("file:{name}")))]
        }
        Place::File(path) => vec![("url", quoted(&format!("file:{}", path.display())))],
        Place::Variable(name) => vec![("url", quoted(&with_password(url, &format!("${{{name}}}"))))],
        Place::Command(words) => {
            vec![("url", quoted(&with_password(url, "${CREDENTIAL}"))), ("credential_command", list(&words))]
        }
    };
    Ok(Located { address, options: Vec::new(), chosen: Chosen { values, secrets } })
}

fn with_password(url: &str, password: &str) -> String {
    match user_end(url) {
        Some(at) => format!("{}:{password}{}", &url[..at], &url[at..]),
        None => url.to_owned(),
    }
}

/// Tests the target as `check` does.
async fn check(global: &GlobalArgs, located: &Located, format: Option<LakeFormat>, namespaces: &[String]) -> Finding {
    let target = TargetArgs {
        target: Some(located.address.reveal().to_owned()),
        to: Vec::new(),
        format,
        store_option: located.options.clone(),
    };
    let opened = match context::target(global, &target).await {
        Ok(target) => context::default_engine().and_then(|engine| ops::open_sink(&target, &engine)),
        Err(error) => Err(error),
    };
    match opened {
        Ok(sink) => ops::check_target("target", sink.as_ref(), namespaces, None).await,
        Err(error) => Finding::bad("target", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_after_the_user() {
        for (url, expected) in [
            ("postgresql://etl@h:5432/d?ssl=require", "postgresql://etl:${P}@h:5432/d?ssl=require"),
            ("mysql://a@b@h/d", "mysql://a@b:${P}@h/d"),
            ("mysql://h/d", "mysql://h/d"),
            ("mysql://h/d?x=a@b", "mysql://h/d?x=a@b"),
        ] {
            assert_eq!(with_password(url, "${P}"), expected);
        }
    }

    #[test]
    fn every_example_is_an_address_without_a_password() {
        for form in FORMS {
            assert!(Address::parse(form.example).is_ok() && !holds_password(form.example), "{}", form.example);
            let is_database = matches!(Address::parse(form.example), Ok(Address::Database(_)));
            assert_eq!(is_database, form.format.is_none(), "{}", form.example);
        }
    }
}
