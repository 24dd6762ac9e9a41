//! The settings file (`daplake.toml`): from text to values of options, each checked with its line. `schema.rs` lists the keys;
//! `resolve.rs` decides the precedence.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use toml_edit::{Document, Item, TableLike, Value};

use crate::cli::settings::credential_command::{CREDENTIAL, CREDENTIAL_COMMAND, secret_of};
use crate::cli::settings::paths::{at_home, folder_of};
use crate::cli::settings::schema;
use crate::cli::settings::schema::{Form, KEYS, Key, SHARED, TABLES, TARGET, nearest};
use crate::cli::values::bytes::parse_bytes;
use crate::cli::values::duration::parse_duration;
#[cfg(feature = "lake")]
use crate::cli::values::memory::parse_memory_limit;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::ops::Address;
use crate::redact::Secret;

/// In a target: the list of tables to load, or the sections for single tables.
const TABLES_OF_TARGET: &str = "tables";

/// The content of a settings file.
#[derive(Debug, Default)]
pub(in crate::cli) struct FileSettings {
    /// Values for all targets.
    pub(in crate::cli) values: Vec<FileValue>,
    /// Values for single tables of all targets.
    pub(in crate::cli) tables: Vec<TableValue>,
    /// Targets in the order of the file.
    pub(in crate::cli) targets: Vec<FileTarget>,
    /// Warnings, one sentence each.
    pub(in crate::cli) warnings: Vec<String>,
    /// Variables and secret files that are missing, each with its section: a warning for commands that use the section.
    pub(in crate::cli) unresolved: Vec<(String, String)>,
    /// A section has a `credential_command`.
    pub(in crate::cli) has_credential_command: bool,
    /// The file contains a secret in clear text.
    has_clear_text: bool,
}

/// The value of one option.
#[derive(Clone)]
pub(in crate::cli) struct FileValue {
    pub(in crate::cli) option: &'static str,
    pub(in crate::cli) sync_only: bool,
    /// In the syntax of the command line.
    pub(in crate::cli) arguments: Vec<String>,
}

impl std::fmt::Debug for FileValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value can be a secret.
        f.debug_struct("FileValue").field("option", &self.option).finish_non_exhaustive()
    }
}

/// The value of one option for the tables that match a pattern.
#[derive(Debug, Clone)]
pub(in crate::cli) struct TableValue {
    /// As written in the file.
    pub(in crate::cli) pattern: String,
    pub(in crate::cli) value: FileValue,
}

/// The values of the options for single tables. The values of a target replace those for all targets with the same pattern and option;
/// lists of columns for different patterns are combined.
pub(in crate::cli) fn options_of_tables(all: &[TableValue], own: &[TableValue]) -> Vec<FileValue> {
    let is_own =
        |one: &&TableValue| own.iter().any(|other| other.pattern == one.pattern && other.value.option == one.value.option);
    let mut values: Vec<FileValue> = Vec::new();
    for TableValue { value, .. } in all.iter().filter(|one| !is_own(one)).chain(own) {
        match values.iter_mut().find(|known| known.option == value.option) {
            Some(known) => known.arguments.extend(value.arguments.iter().cloned()),
            None => values.push(value.clone()),
        }
    }
    values
}

/// A target and its own values.
#[derive(Debug)]
pub(in crate::cli) struct FileTarget {
    pub(in crate::cli) name: String,
    pub(in crate::cli) values: Vec<FileValue>,
    /// Values for single tables.
    pub(in crate::cli) tables: Vec<TableValue>,
    /// Why the target cannot be used, such as a variable that is not set.
    pub(in crate::cli) problem: Option<Error>,
}

impl FileTarget {
    /// The folder or URL.
    pub(in crate::cli) fn address(&self) -> Option<&str> {
        self.values.iter().find(|value| value.option == "target")?.arguments.first().map(String::as_str)
    }
}

impl FileSettings {
    /// Reads and checks a file. `variable` returns the values of variables; `runs_command` indicates whether the `credential_command` of a
    /// section (`service`, `notify`, `targets.NAME`) may run. Without it, the values that refer to its secret are left out, except those of
    /// a target, which get a placeholder. Errors are of kind `Usage` and name the line.
    pub(in crate::cli) fn read(
        path: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
        runs_command: &dyn Fn(&str) -> bool,
    ) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .context(Kind::Usage, "The settings file cannot be read")
            .with_field("file", path.display())?;
        let mut settings = parse_with(&text, path, variable, runs_command)?;
        if let Some(warning) = open_to_others(path, settings.has_clear_text)? {
            settings.warnings.push(warning);
        }
        Ok(settings)
    }
}

/// Refuses a file that every user can change, since that user could redirect the credentials. Returns a warning if others can read
/// secrets.
#[cfg(unix)]
fn open_to_others(path: &Path, holds_secrets: bool) -> Result<Option<String>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).context(Kind::Usage, "The settings file cannot be read")?.permissions().mode();
    if mode & 0o002 != 0 {
        return Err(Error::new(Kind::Usage, "Every user of this machine can change the settings file")
            .with_field("file", path.display())
            .hint(format!("chmod 600 {}", path.display())));
    }
    let warns = holds_secrets && mode & 0o044 != 0;
    Ok(warns.then(|| format!("other users of this machine can read {}; run chmod 600", path.display())))
}

#[cfg(not(unix))]
fn open_to_others(_: &Path, _: bool) -> Result<Option<String>> {
    Ok(None)
}

/// Like [`FileSettings::read`], from text, and without commands; `path` is for messages and relative paths.
#[cfg(feature = "lake")]
pub(in crate::cli) fn parse(text: &str, path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<FileSettings> {
    parse_with(text, path, variable, &|_| false)
}

fn parse_with(
    text: &str,
    path: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
    runs_command: &dyn Fn(&str) -> bool,
) -> Result<FileSettings> {
    let mut reader = Reader::new(text, path, variable, runs_command);
    let document = Document::parse(text).map_err(|error| {
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        reader.wrong("The settings file is not valid TOML", "", error.span()).with_field("reason", message)
    })?;
    reader.sections(document.as_table())?;
    Ok(reader.settings)
}

/// The values of the section `[log]` of a file that can have errors elsewhere.
pub(in crate::cli) fn log_values(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Vec<FileValue> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let Ok(document) = Document::parse(text.as_str()) else { return Vec::new() };
    let Some(section) = document.get("log").and_then(Item::as_table_like) else { return Vec::new() };
    let mut reader = Reader::new(&text, path, variable, &|_| false);
    let keys: Vec<&'static Key> = KEYS.iter().filter(|key| key.section == "log").collect();
    reader.values(section, "log", &keys).map(|(values, _)| values).unwrap_or_default()
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    folder: PathBuf,
    variable: &'a dyn Fn(&str) -> Option<String>,
    runs_command: &'a dyn Fn(&str) -> bool,
    /// The secret of the section that is read.
    credential: Credential,
    settings: FileSettings,
}

/// The secret of a section.
enum Credential {
    /// The section has no `credential_command`.
    None,
    /// The command does not run now.
    Skipped,
    /// The command, which runs when its secret is needed.
    Command { command: Vec<String>, secret: OnceCell<Secret>, is_used: Cell<bool> },
}

/// Whether a section can have a `credential_command`.
fn has_credential(section: &str) -> bool {
    let target = section.strip_prefix("targets.").filter(|rest| !rest.contains(".tables."));
    target.is_some() || matches!(section, "service" | "notify")
}

impl<'a> Reader<'a> {
    fn new(
        text: &'a str,
        path: &'a Path,
        variable: &'a dyn Fn(&str) -> Option<String>,
        runs_command: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        let (folder, settings) = (folder_of(path), FileSettings::default());
        Self { text, path, folder, variable, runs_command, credential: Credential::None, settings }
    }
}

impl Reader<'_> {
    fn sections(&mut self, document: &toml_edit::Table) -> Result<()> {
        let known: Vec<&str> = KEYS.iter().map(|key| key.section).chain(["targets", "tables"]).collect();
        for (name, item) in document.iter() {
            let span = self.span_of(document, name, item);
            if !known.contains(&name) {
                // A key above the first section?
                let home = KEYS.iter().find(|key| key.name == name);
                let hint = match (home, nearest(name, known.iter().copied())) {
                    (Some(key), _) => format!("it belongs in [{}]", key.section),
                    (None, Some(near)) => format!("did you mean [{near}]?"),
                    (None, None) => format!("the sections are {}", unique(&known).join(", ")),
                };
                return Err(self.wrong("The settings file has an unknown section", name, span).hint(hint));
            }
            let Some(table) = item.as_table_like() else {
                return Err(self.wrong("This key must be a section", name, span).hint(match name {
                    "tables" => {
                        "the list of tables to load belongs in [sync]; [tables.NAME] has keys for single tables".to_owned()
                    }
                    name => format!("write [{name}] on a line of its own, and its keys below"),
                }));
            };
            match name {
                "targets" => self.targets(table)?,
                "tables" => self.settings.tables = self.tables(table, "tables")?,
                section => {
                    let keys: Vec<&'static Key> = KEYS.iter().filter(|key| key.section == section).collect();
                    let (values, problems) = self.values(table, section, &keys)?;
                    // The credentials can come from elsewhere, and not every command uses every section.
                    let unresolved = problems.iter().map(|problem| (section.to_owned(), problem.to_string()));
                    self.settings.unresolved.extend(unresolved);
                    self.settings.values.extend(values);
                }
            }
        }
        Ok(())
    }

    fn targets(&mut self, targets: &dyn TableLike) -> Result<()> {
        let keys: Vec<&'static Key> = TARGET.iter().chain(KEYS.iter().filter(|key| key.section == SHARED)).collect();
        for (name, item) in targets.iter() {
            let shown = format!("targets.{name}");
            let Some(table) = item.as_table_like() else {
                return Err(self.wrong("A target must be a section", &shown, item.span()).hint(format!("write [{shown}]")));
            };
            let (values, problems) = self.values(table, &shown, &keys)?;
            let tables = match table.get(TABLES_OF_TARGET).and_then(Item::as_table_like) {
                Some(tables) => self.tables(tables, &format!("{shown}.{TABLES_OF_TARGET}"))?,
                None => Vec::new(),
            };
            let problem = problems.into_iter().next();
            if problem.is_none() && !values.iter().any(|value| value.option == "target") {
                let span = self.header_of(table, item);
                return Err(self.wrong("A target needs a url", &shown, span).hint("add it, such as url = \"./lake\""));
            }
            self.settings.targets.push(FileTarget { name: name.to_owned(), values, tables, problem });
        }
        Ok(())
    }

    /// A list of columns becomes `PATTERN.COLUMN`, another value `PATTERN=VALUE`.
    fn tables(&mut self, tables: &dyn TableLike, section: &str) -> Result<Vec<TableValue>> {
        let keys: Vec<&'static Key> = TABLES.iter().collect();
        let mut found = Vec::new();
        for (pattern, item) in tables.iter() {
            let shown = format!("{section}.\"{pattern}\"");
            let Some(table) = item.as_table_like() else {
                let wrong = self.wrong("The keys of a table must be a section", &shown, item.span());
                return Err(wrong.hint("write [tables.\"user*\"] on a line of its own, and drop_columns and other keys below"));
            };
            let (values, problems) = self.values(table, &shown, &keys)?;
            // A missing variable must not expose a column that should be hidden.
            if let Some(problem) = problems.into_iter().next() {
                return Err(problem);
            }
            for mut value in values {
                let is_list = TABLES.iter().any(|key| key.option == value.option && key.form == Form::List);
                let separator = if is_list { '.' } else { '=' };
                value.arguments.iter_mut().for_each(|text| *text = format!("{pattern}{separator}{text}"));
                found.push(TableValue { pattern: pattern.to_owned(), value });
            }
        }
        Ok(found)
    }

    /// The values of a section. A missing variable or secret file is not an error of the file and is returned in the second list.
    fn values(&mut self, table: &dyn TableLike, section: &str, keys: &[&'static Key]) -> Result<(Vec<FileValue>, Vec<Error>)> {
        let mut values: Vec<FileValue> = Vec::new();
        let mut problems = Vec::new();
        self.credential = self.credential_of(table, section)?;
        for (name, item) in table.iter() {
            if name == CREDENTIAL_COMMAND && has_credential(section) {
                continue;
            }
            let shown = format!("{section}.{name}");
            let span = table.key(name).and_then(|key| key.span()).or_else(|| item.span());
            // A list selects tables; a section has keys for single tables.
            if name == TABLES_OF_TARGET && section.starts_with("targets.") && item.is_table_like() {
                continue;
            }
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let wrong = self.wrong("The settings file has an unknown key", &shown, span);
                if name == CREDENTIAL_COMMAND {
                    return Err(wrong.hint("it belongs in [service], [notify] or the section of a target"));
                }
                let elsewhere = KEYS.iter().find(|key| key.name == name);
                let more = has_credential(section).then_some(CREDENTIAL_COMMAND);
                return Err(match (nearest(name, keys.iter().map(|key| key.name).chain(more)), elsewhere) {
                    (Some(near), _) => wrong.hint(format!("did you mean `{near}`?")),
                    (None, Some(key)) => wrong.hint(format!("it belongs in [{}]", key.section)),
                    (None, None) => {
                        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                        wrong.hint(format!("the keys of [{section}] are {}", names.join(", ")))
                    }
                });
            };
            let arguments = match self.arguments(key, &shown, item)? {
                Ok(arguments) => arguments,
                Err(missing) => {
                    problems.push(missing);
                    continue;
                }
            };
            // The value of a target is kept, as its address is needed to tell what kind of target it is.
            let is_skipped = matches!(self.credential, Credential::Skipped) && !section.starts_with("targets.");
            let written = item.span().and_then(|span| self.text.get(span)).unwrap_or_default();
            if is_skipped && written.contains(&reference_to_credential()) {
                continue;
            }
            // The selection of a run does not apply to the tables that the target has.
            let sync_only = schema::is_for_sync_only(key.section) || key.option == "table";
            // Several keys can belong to one option: `pacing` has a value for each kind of call.
            match values.iter_mut().find(|value| value.option == key.option) {
                Some(value) => value.arguments.extend(arguments),
                None => values.push(FileValue { option: key.option, sync_only, arguments }),
            }
        }
        match self.client_secret(table, section) {
            Some(Ok(arguments)) => values.push(FileValue { option: "client_secret", sync_only: false, arguments }),
            Some(Err(problem)) => problems.push(problem),
            None => {}
        }
        if let Credential::Command { is_used, .. } = std::mem::replace(&mut self.credential, Credential::None)
            && !is_used.get()
        {
            let reference = reference_to_credential();
            self.settings
                .warnings
                .push(format!("{section}.{CREDENTIAL_COMMAND} is not used: no value of the section refers to {reference}"));
        }
        Ok((values, problems))
    }

    /// Checks the form of the `credential_command` of a section, and whether it may run.
    fn credential_of(&mut self, table: &dyn TableLike, section: &str) -> Result<Credential> {
        let Some(item) = table.get(CREDENTIAL_COMMAND).filter(|_| has_credential(section)) else {
            return Ok(Credential::None);
        };
        let words = item.as_array().into_iter().flat_map(|array| array.iter().map(|value| value.as_str().map(str::to_owned)));
        let command: Option<Vec<String>> = words.collect();
        let Some(command) = command.filter(|words| words.first().is_some_and(|name| !name.is_empty())) else {
            return Err(self
                .wrong("A value has the wrong form", &format!("{section}.{CREDENTIAL_COMMAND}"), item.span())
                .hint(
                    "it must be the program and its arguments, such as [\"pass\", \"show\", \"daplake\"]; no shell reads them",
                ));
        };
        self.settings.has_credential_command = true;
        if !(self.runs_command)(section) {
            return Ok(Credential::Skipped);
        }
        Ok(Credential::Command { command, secret: OnceCell::new(), is_used: Cell::new(false) })
    }

    /// The secret of `[service]`, if a command prints it and no key gives it.
    fn client_secret(&self, table: &dyn TableLike, section: &str) -> Option<Result<Vec<String>>> {
        if section != "service" || table.contains_key("client_secret") || !matches!(self.credential, Credential::Command { .. })
        {
            return None;
        }
        Some(self.credential()?.map(|secret| vec![secret]))
    }

    /// The value of `${CREDENTIAL}` in the current section. `None` if the section has no command; then it is an ordinary variable.
    fn credential(&self) -> Option<Result<String>> {
        match &self.credential {
            Credential::None => None,
            Credential::Skipped => Some(Ok("x".to_owned())),
            Credential::Command { command, secret, is_used } => {
                is_used.set(true);
                if let Some(secret) = secret.get() {
                    return Some(Ok(secret.reveal().to_owned()));
                }
                Some(secret_of(command, &self.folder).map(|found| secret.get_or_init(|| found).reveal().to_owned()))
            }
        }
    }

    /// A value in the syntax of the command line. The inner error is a missing variable or secret file.
    fn arguments(&mut self, key: &'static Key, shown: &str, item: &Item) -> Result<Result<Vec<String>>> {
        let wrong = |reader: &Self| {
            reader.wrong("A value has the wrong form", shown, item.span()).hint(format!("it must be {}", key.expected()))
        };
        let one = |text: String| Ok(Ok(vec![text]));
        match (key.form, item) {
            (Form::List | Form::Statements, Item::Value(Value::Array(array))) => {
                let mut arguments = Vec::new();
                for value in array.iter() {
                    let Some(text) = value.as_str() else { return Err(wrong(self)) };
                    match self.expanded(text, shown, item)? {
                        Ok(text) => arguments.push(text),
                        Err(missing) => return Ok(Err(missing)),
                    }
                }
                // An empty list would mean the default, as if the key were missing.
                if arguments.is_empty() && key.name != "exclude" {
                    return Err(self.wrong("A list is empty", shown, item.span()).hint("remove the key, or write [\"all\"]"));
                }
                Ok(Ok(arguments))
            }
            (Form::Pairs, item) if item.as_table_like().is_some() => {
                let mut arguments = Vec::new();
                for (name, value) in item.as_table_like().into_iter().flat_map(|table| table.iter()) {
                    let Some(text) = value.as_str() else { return Err(wrong(self)) };
                    let is_secret = ["secret", "key", "token", "password", "sas"].iter().any(|part| name.contains(part));
                    match self.revealed(text, &format!("{shown}.{name}"), value, is_secret)? {
                        Ok(text) => arguments.push(format!("{name}={text}")),
                        Err(missing) => return Ok(Err(missing)),
                    }
                }
                Ok(Ok(arguments))
            }
            (Form::Count, Item::Value(Value::Integer(number))) if *number.value() >= 0 => {
                one(self.paced(key, number.value().to_string()))
            }
            (Form::Size, Item::Value(Value::Integer(number))) if *number.value() >= 0 => one(number.value().to_string()),
            #[cfg(feature = "lake")]
            (Form::Memory, Item::Value(Value::Integer(number))) => {
                let text = number.value().to_string();
                match parse_memory_limit(&text) {
                    Ok(_) => one(text),
                    Err(reason) => Err(wrong(self).with_field("reason", reason)),
                }
            }
            (Form::Flag, Item::Value(Value::Boolean(flag))) => one(flag.value().to_string()),
            (form, Item::Value(Value::String(text))) if !matches!(form, Form::List | Form::Statements | Form::Pairs) => {
                let may_be_file = matches!(form, Form::Secret | Form::Place) || key.name == "client_id";
                let text = match may_be_file {
                    true => self.revealed(text.value(), shown, item, form == Form::Secret)?,
                    false => self.expanded(text.value(), shown, item)?,
                };
                let text = match text {
                    Ok(text) => text,
                    Err(missing) => return Ok(Err(missing)),
                };
                let reason = match form {
                    Form::Count => text.parse::<u64>().err().map(|error| error.to_string()),
                    Form::Flag => (!matches!(text.as_str(), "true" | "false")).then(|| "neither true nor false".to_owned()),
                    Form::Size => parse_bytes(&text).err(),
                    #[cfg(feature = "lake")]
                    Form::Memory => parse_memory_limit(&text).err(),
                    Form::Time => parse_duration(&text).err(),
                    Form::Choice | Form::OneOf(_) => unknown_choice(key, &text),
                    _ if text.is_empty() => Some("it is empty".to_owned()),
                    _ => None,
                };
                if let Some(reason) = reason {
                    return Err(wrong(self).with_field("reason", reason));
                }
                if key.option == "notify_smtp" && item.as_str().is_some_and(holds_password) {
                    self.warn_of_clear_text(shown, item);
                }
                one(match form {
                    // `-` is standard output.
                    Form::Path if key.option == "report" && text == "-" => text,
                    Form::Path => self.folder.join(at_home(&text)?.as_ref()).display().to_string(),
                    Form::Place => self.place(text, shown, item)?,
                    Form::Count => self.paced(key, text),
                    _ => text,
                })
            }
            _ => Err(wrong(self)),
        }
    }

    /// All limits of calls share one option, which expects `KIND=N`.
    fn paced(&self, key: &Key, number: String) -> String {
        match key.option {
            "pacing" => format!("{}={number}", key.name.replace('_', "-")),
            _ => number,
        }
    }

    /// A folder relative to the file, or a URL unchanged.
    fn place(&mut self, text: String, shown: &str, item: &Item) -> Result<String> {
        let placed = |error: Error| {
            error.with_field("key", shown).with_field("file", self.path.display()).with_field("line", self.line(item.span()))
        };
        match Address::parse(&text).map_err(placed)? {
            Address::Folder(folder) => Ok(self.folder.join(at_home(folder)?.as_ref()).display().to_string()),
            Address::File(_) | Address::Store(_) | Address::Database(_) => {
                if item.as_str().is_some_and(|raw| !raw.starts_with("file:") && holds_password(raw)) {
                    self.warn_of_clear_text(shown, item);
                }
                Ok(text)
            }
        }
    }

    /// Like [`Reader::expanded`]; `file:PATH` is replaced by the content of the file.
    fn revealed(&mut self, text: &str, shown: &str, item: &Item, is_secret: bool) -> Result<Result<String>> {
        let Some(path) = text.strip_prefix("file:").filter(|rest| !rest.starts_with("//")) else {
            if is_secret && !text.contains("${") {
                self.warn_of_clear_text(shown, item);
            }
            return self.expanded(text, shown, item);
        };
        let path = match self.expanded(path, shown, item)? {
            Ok(path) => self.folder.join(at_home(&path)?.as_ref()),
            Err(missing) => return Ok(Err(missing)),
        };
        let read = std::fs::read_to_string(&path).context(Kind::Usage, "The secret file cannot be read");
        Ok(match read {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                Err(error.with_field("key", shown).with_field("path", path.display()).with_field("file", self.path.display()))
            }
        })
    }

    /// Replaces `${NAME}` by the value of a variable; `$${` is a literal `${`. In a URL, values of user, password and parameters are
    /// percent-encoded, so that none of their characters ends that part.
    fn expanded(&self, text: &str, shown: &str, item: &Item) -> Result<Result<String>> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at]);
                out.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            let Some(end) = rest[at..].find('}') else {
                return Err(self
                    .wrong("A reference to a variable is not closed", shown, item.span())
                    .hint("write it as ${NAME}"));
            };
            let name = &rest[at + 2..at + end];
            if !is_variable(name) {
                return Err(self
                    .wrong("A reference to a variable has no name", shown, item.span())
                    .hint("write it as ${NAME}"));
            }
            let value = match (name == CREDENTIAL).then(|| self.credential()).flatten() {
                Some(Ok(secret)) => secret,
                Some(Err(error)) => {
                    return Ok(Err(error.with_field("key", shown).with_field("file", self.path.display())));
                }
                None => match (self.variable)(name) {
                    Some(value) => value,
                    None => {
                        let missing = self.wrong("The settings file refers to a variable that is not set", shown, item.span());
                        return Ok(Err(missing.with_field("variable", name)));
                    }
                },
            };
            out.push_str(&rest[..at]);
            let start = text.len() - rest.len() + at;
            out.push_str(&match url_part(text, start..start + end + 1) {
                UrlPart::Whole => encoded(&value),
                UrlPart::Piece => encoded_piece(&value),
                UrlPart::Other => value,
            });
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Ok(Ok(out))
    }

    fn warn_of_clear_text(&mut self, shown: &str, item: &Item) {
        let line = self.line(item.span());
        self.settings.has_clear_text = true;
        self.settings.warnings.push(format!(
            "{shown} is in clear text in {}, line {line}; write \"${{NAME_OF_A_VARIABLE}}\" or \"file:PATH\" instead, or use {CREDENTIAL_COMMAND}",
            self.path.display()
        ));
    }

    fn span_of(&self, table: &toml_edit::Table, name: &str, item: &Item) -> Option<Range<usize>> {
        table.key(name).and_then(|key| key.span()).or_else(|| item.span())
    }

    fn header_of(&self, table: &dyn TableLike, item: &Item) -> Option<Range<usize>> {
        item.span().or_else(|| table.iter().find_map(|(_, item)| item.span()))
    }

    fn line(&self, span: Option<Range<usize>>) -> usize {
        let start = span.map_or(0, |span| span.start).min(self.text.len());
        self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// An error at a place in the file. It never contains a value.
    fn wrong(&self, message: &'static str, shown: &str, span: Option<Range<usize>>) -> Error {
        let error = Error::new(Kind::Usage, message);
        let error = if shown.is_empty() { error } else { error.with_field("key", shown) };
        error.with_field("file", self.path.display()).with_field("line", self.line(span))
    }
}

fn reference_to_credential() -> String {
    format!("${{{CREDENTIAL}}}")
}

/// Why a value is not among those of a key.
fn unknown_choice(key: &Key, text: &str) -> Option<String> {
    let choices = key.choices();
    if choices.is_empty() || choices.iter().any(|name| name == text) {
        return None;
    }
    let near = nearest(text, choices.iter().map(String::as_str));
    Some(near.map_or("unknown value".to_owned(), |near| format!("did you mean \"{near}\"?")))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Replaces each reference to a variable by a letter.
#[cfg(feature = "lake")]
pub(in crate::cli) fn without_references(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((_, after)) = after.split_once('}').filter(|(name, _)| is_variable(name)) else { break };
        out.push_str(before);
        out.push('x');
        rest = after;
    }
    out + rest
}

/// Ranges of a URL as written: the user information, and the parameters after the `?`.
struct UrlText {
    user_info: Range<usize>,
    query: Range<usize>,
}

impl UrlText {
    /// `None` if it is not a URL. A password can contain any character, so everything before the last `@` is user information.
    fn parse(text: &str) -> Option<Self> {
        let start = text.find("://")? + 3;
        let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
        let user_info = start..text[start..end].rfind('@').map_or(start, |at| start + at);
        let query = text[end..].find('?').map_or(text.len(), |at| end + at + 1)..text.len();
        Some(Self { user_info, query })
    }
}

/// The end of the user information in a URL that has some.
#[cfg(feature = "lake")]
pub(in crate::cli) fn user_end(text: &str) -> Option<usize> {
    UrlText::parse(text).map(|url| url.user_info).filter(|user| !user.is_empty()).map(|user| user.end)
}

/// Whether a URL contains a password in clear text.
pub(in crate::cli) fn holds_password(text: &str) -> bool {
    let is_clear = |value: &str| !value.is_empty() && !value.contains("${");
    UrlText::parse(text).is_some_and(|url| {
        let in_front = text[url.user_info].split_once(':').is_some_and(|(_, password)| is_clear(password));
        let items = text[url.query].split('&').filter_map(|item| item.split_once('='));
        in_front || items.into_iter().any(|(name, value)| name == "password" && is_clear(value))
    })
}

/// The position of a reference to a variable in a URL.
enum UrlPart {
    /// The whole user, password or value of a parameter: the variable is taken literally.
    Whole,
    /// A part of one.
    Piece,
    /// Elsewhere, or not in a URL.
    Other,
}

fn url_part(text: &str, reference: Range<usize>) -> UrlPart {
    let Some(url) = UrlText::parse(text) else { return UrlPart::Other };
    let within = |part: &Range<usize>| part.start <= reference.start && reference.end <= part.end;
    // Separators delimit the part.
    let (part, separators) = if within(&url.user_info) {
        (url.user_info, [':', ':'])
    } else if within(&url.query) {
        (url.query, ['&', '='])
    } else {
        return UrlPart::Other;
    };
    let is_start = reference.start == part.start || text[..reference.start].ends_with(separators);
    let is_end = reference.end == part.end || text[reference.end..].starts_with(separators);
    if is_start && is_end { UrlPart::Whole } else { UrlPart::Piece }
}

/// All characters except letters, digits and `-._~`.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value as user, password or value of a parameter in a URL.
pub(in crate::cli) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, UNRESERVED).to_string()
}

/// Encodes like [`UNRESERVED`], but keeps what is already encoded.
fn encoded_piece(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        out.extend(utf8_percent_encode(before, UNRESERVED));
        let is_encoded = after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        out.push_str(if is_encoded { "%" } else { "%25" });
        rest = after;
    }
    out.extend(utf8_percent_encode(rest, UNRESERVED));
    out
}

fn unique<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    names.iter().copied().filter(|name| seen.insert(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An absolute folder of this system.
    const FOLDER: &str = if cfg!(windows) { "C:\\daplake" } else { "/etc/daplake" };

    fn in_folder(name: &str) -> String {
        Path::new(FOLDER).join(name).display().to_string()
    }

    fn read(text: &str) -> Result<FileSettings> {
        parse(text, &Path::new(FOLDER).join("daplake.toml"), &|name| (name == "KNOWN").then(|| "value".to_owned()))
    }

    fn value(settings: &FileSettings, option: &str) -> Vec<String> {
        let of_tables = options_of_tables(&settings.tables, &[]);
        let found = settings.values.iter().chain(&of_tables).find(|value| value.option == option);
        found.map(|value| value.arguments.clone()).unwrap_or_default()
    }

    #[test]
    fn values_are_in_the_syntax_of_the_command_line() {
        let settings = read(
            "[service]\nurl = \"https://x\"\nclient_secret = \"${KNOWN}\"\n[sync]\nnamespaces = [\"canvas\", \"catalog\"]\nconcurrency = 3\ndrop_removed_columns = true\nbad_rows = \"bad.jsonl\"\n[engine]\nmemory_limit = \"1GiB\"\n[pacing]\nschemas = 10\njob_status = 20\n[tables.\"user*\"]\ndrop_columns = [\"*_email\", \"name\"]\n[tables.\"canvas.courses\"]\ndrop_columns = [\"sis_source_id\"]\n[targets.lake]\nurl = \"lake\"\nstore_options = { region = \"eu\", secret_access_key = \"a${KNOWN}$${b\" }\n[targets.db]\nurl = \"postgresql://etl:${KNOWN}@host/db\"\ntables = [\"users\"]\n",
        )
        .unwrap();
        assert_eq!(value(&settings, "base_url"), ["https://x"]);
        assert_eq!(value(&settings, "client_secret"), ["value"]);
        assert_eq!(value(&settings, "namespace"), ["canvas", "catalog"]);
        assert_eq!(value(&settings, "concurrency"), ["3"]);
        assert_eq!(value(&settings, "drop_removed_columns"), ["true"]);
        assert_eq!(value(&settings, "bad_rows"), [in_folder("bad.jsonl")]);
        assert_eq!(value(&settings, "pacing"), ["schemas=10", "job-status=20"]);
        assert_eq!(value(&settings, "drop_column"), ["user*.*_email", "user*.name", "canvas.courses.sis_source_id"]);
        assert_eq!(settings.warnings, [""; 0]);
        let [lake, db] = &settings.targets[..] else { panic!("two targets") };
        assert_eq!(lake.name, "lake");
        assert_eq!(lake.values[0].arguments, [in_folder("lake")]);
        assert_eq!(lake.values[1].arguments, ["region=eu", "secret_access_key=avalue${b"]);
        assert_eq!(db.values[0].arguments, ["postgresql://etl:value@host/db"]);
        assert_eq!(db.values[1].arguments, ["users"]);
    }

    #[test]
    fn a_target_overrides_values_of_single_tables() {
        let settings = read(
            "[tables.users]\nmode = \"history\"\ndrop_columns = [\"a\"]\n[tables.\"*\"]\ndrop_columns = [\"b\"]\n[targets.x]\nurl = \"x\"\ninclude = [\"users\"]\n[targets.x.tables.users]\nmode = \"current\"\ndrop_columns = [\"c\"]\n[targets.y]\nurl = \"y\"\ntables = [\"courses\"]\n",
        )
        .unwrap();
        let [x, y] = &settings.targets[..] else { panic!("two targets") };
        let arguments = |target: &FileTarget, option: &str| {
            let values = options_of_tables(&settings.tables, &target.tables);
            values.into_iter().find(|value| value.option == option).map(|value| value.arguments).unwrap_or_default()
        };
        assert_eq!(arguments(x, "mode"), ["users=current"]);
        assert_eq!(arguments(x, "drop_column"), ["*.b", "users.c"]);
        assert_eq!(arguments(y, "mode"), ["users=history"]);
        assert_eq!(arguments(y, "drop_column"), ["users.a", "*.b"]);
        assert_eq!((x.values[1].option, &x.values[1].arguments[..]), ("table", &["users".to_owned()][..]));
        assert_eq!((y.values[1].option, &y.values[1].arguments[..]), ("table", &["courses".to_owned()][..]));
        let error = read("[targets.x]\nurl = \"x\"\n[targets.x.tables.users]\nmod = \"history\"\n").map(|_| ()).unwrap_err();
        assert_eq!((error.get("line"), error.hint_text()), (Some("4"), Some("did you mean `mode`?")));
    }

    #[test]
    fn values_of_variables_are_percent_encoded_in_urls() {
        let read = |url: &str, value: &str| {
            let text = format!("[targets.a]\nurl = \"{url}\"\n");
            let settings = parse(&text, Path::new("/etc/daplake.toml"), &|_| Some(value.to_owned())).unwrap();
            settings.targets[0].values[0].arguments[0].clone()
        };
        let odd = "p@ss/w#rd:?%40&=";
        for (url, value, expected) in [
            ("postgresql://etl:${P}@h/d", odd, "postgresql://etl:p%40ss%2Fw%23rd%3A%3F%2540%26%3D@h/d"),
            ("postgresql://${P}:${P}@h/d", "a@b", "postgresql://a%40b:a%40b@h/d"),
            ("postgresql://etl:x${P}@h/d", "p%40s/", "postgresql://etl:xp%40s%2F@h/d"),
            ("postgresql://h/d?user=u&password=${P}", "a&b", "postgresql://h/d?user=u&password=a%26b"),
            ("postgresql://etl@${P}/d", "db.example:5432", "postgresql://etl@db.example:5432/d"),
            ("${P}", "postgresql://etl:p%40ss@h/d", "postgresql://etl:p%40ss@h/d"),
        ] {
            assert_eq!(read(url, value), expected);
        }
        for (text, is_clear) in
            [("mysql://u:p@h/d", true), ("mysql://u:${P}@h/d", false), ("mysql://u@h/d?password=p", true), ("lake", false)]
        {
            assert_eq!(holds_password(text), is_clear, "{text}");
        }
        assert_eq!(without_references("mysql://u:${P}@${H}/d"), "mysql://u:x@x/d");
    }

    #[test]
    fn errors_have_the_line_and_the_nearest_name() {
        for (text, line, expected) in [
            ("[sync]\ntabels = [\"users\"]\n", "2", "`tables`"),
            ("\n\n[servise]\nurl = \"x\"\n", "3", "[service]"),
            ("tables = [\"users\"]\n", "1", "[sync]"),
            ("[service]\nmemory_limit = \"1GiB\"\n", "2", "[engine]"),
            ("[sync]\nconcurrency = \"many\"\n", "2", "whole number"),
            ("[sync]\nconcurrency = -1\n", "2", "whole number"),
            ("[sync]\ntables = \"users\"\n", "2", "a list of strings"),
            ("[sync]\ntables = [1]\n", "2", "a list of strings"),
            ("[sync]\n\nnested = \"jsn\"\n", "3", "\"json\""),
            ("[engine]\nmemory_limit = \"1 parsec\"\n", "2", "256MiB"),
            ("[schedule]\nevery = \"4\"\n", "2", "4h"),
            ("[targets.a]\nformat = \"delta\"\n", "1", "url"),
            ("[targets.a]\nurl = \"x\"\nlimits = 1\n", "3", "url"),
            ("[service]\nclient_id = \"${}\"\n", "2", "${NAME}"),
            ("[service]\nclient_id = \"${KNOWN\"\n", "2", "${NAME}"),
            ("service = 1\n", "1", "[service]"),
            ("[tables.users]\ndrop_column = [\"x\"]\n", "2", "`drop_columns`"),
            ("[tables]\nusers = 1\n", "2", "[tables."),
        ] {
            let error = read(text).map(|_| ()).expect_err(text);
            assert_eq!(error.kind(), Kind::Usage);
            assert_eq!(error.get("line"), Some(line), "{text}: {error}");
            let said = format!("{error} {}", error.hint_text().unwrap_or_default());
            assert!(said.contains(expected), "{text}: {said}");
        }
        let error = read("[sync]\ntables = [\n").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("not valid TOML"), "{error}");
        assert!(read("[sync]\na = 1\na = 2\n").is_err());
    }

    #[test]
    fn secrets_in_clear_text_get_a_warning_that_does_not_repeat_them() {
        let settings = read(
            "[service]\nclient_secret = \"planted\"\n[targets.a]\nurl = \"postgresql://u:planted@h/d\"\n[targets.b]\nurl = \"s3://b\"\nstore_options = { secret_access_key = \"planted\" }\n",
        )
        .unwrap();
        assert_eq!(settings.warnings.len(), 3, "{:?}", settings.warnings);
        let said = settings.warnings.join("\n");
        assert!(said.contains("line 2") && said.contains("line 4") && said.contains("line 7"), "{said}");
        assert!(!said.contains("planted") && !format!("{settings:?}").contains("planted"));
    }

    #[cfg(unix)]
    #[test]
    fn the_output_of_a_command_is_a_secret_of_its_section() {
        let text = "[service]\nclient_id = \"i\"\ncredential_command = [\"echo\", \"s#1\"]\n[targets.db]\nurl = \"mysql://u:${CREDENTIAL}@h/d\"\ncredential_command = [\"echo\", \"p@1\"]\n[targets.s3]\nurl = \"s3://b\"\nstore_options = { secret_access_key = \"${CREDENTIAL}\" }\ncredential_command = [\"echo\", \"k\"]\n";
        let read = |runs: &dyn Fn(&str) -> bool| parse_with(text, Path::new("/daplake.toml"), &|_| None, runs).unwrap();
        let all = read(&|_| true);
        assert!(all.has_credential_command && all.warnings.is_empty() && all.unresolved.is_empty(), "{:?}", all.warnings);
        assert_eq!(value(&all, "client_secret"), ["s#1"]);
        assert_eq!(all.targets[0].address(), Some("mysql://u:p%401@h/d"));
        assert_eq!(all.targets[1].values[1].arguments, ["secret_access_key=k"]);
        // A command that is not needed does not run.
        let some = read(&|section| section == "targets.s3");
        assert_eq!(value(&some, "client_secret"), [""; 0]);
        assert_eq!(some.targets[0].address(), Some("mysql://u:x@h/d"));
        assert_eq!(some.targets[1].values[1].arguments, ["secret_access_key=k"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_failed_command_matters_only_where_its_secret_is_needed() {
        let text = "[service]\ncredential_command = [\"false\"]\n[targets.a]\nurl = \"mysql://u:${CREDENTIAL}@h/d\"\ncredential_command = [\"false\"]\n[targets.b]\nurl = \"b\"\ncredential_command = [\"false\"]\n";
        let settings = parse_with(text, Path::new("/daplake.toml"), &|_| None, &|_| true).unwrap();
        assert!(settings.unresolved[0].1.contains("credential command has failed"), "{:?}", settings.unresolved);
        assert_eq!(settings.targets[0].problem.as_ref().unwrap().get("key"), Some("targets.a.url"));
        assert!(settings.targets[1].problem.is_none());
        assert!(settings.warnings[0].contains("targets.b.credential_command is not used"), "{:?}", settings.warnings);
        for (text, expected) in [
            ("[service]\ncredential_command = \"pass show x\"\n", "[\"pass\""),
            ("[service]\ncredential_command = []\n", "[\"pass\""),
            ("[sync]\ncredential_command = [\"x\"]\n", "[service]"),
            ("[service]\ncredential_comand = [\"x\"]\n", "`credential_command`"),
        ] {
            let error = read(text).map(|_| ()).unwrap_err();
            assert!(error.hint_text().unwrap().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_variable_does_not_make_the_file_invalid() {
        let settings = read(
            "[service]\nclient_id = \"${ABSENT}\"\nclient_secret = \"file:/nowhere/at/all\"\n[targets.a]\nurl = \"postgresql://u:${ABSENT}@h/d\"\n[targets.b]\nurl = \"lake\"\n",
        )
        .unwrap();
        assert_eq!(value(&settings, "client_id"), [""; 0]);
        let (section, message) = &settings.unresolved[0];
        assert!(section == "service" && message.contains("ABSENT"), "{:?}", settings.unresolved);
        assert!(settings.targets[0].problem.as_ref().unwrap().get("variable") == Some("ABSENT"));
        assert!(settings.targets[1].problem.is_none());
    }
}
