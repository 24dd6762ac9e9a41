//! The settings file (`daplake.toml`): from text to values for options, each checked where it stands. What they are defaults of is in
//! `keys.rs`; who wins is decided in `settings.rs`.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use toml_edit::{Document, Item, TableLike, Value};

use crate::cli::settings::paths::at_home;
use crate::cli::settings::settings_schema;
use crate::cli::settings::settings_schema::{Form, KEYS, Key, SHARED, TABLES, TARGET, nearest};
use crate::cli::values::bytes::parse_bytes;
use crate::cli::values::duration::parse_duration;
#[cfg(feature = "lake")]
use crate::cli::values::memory::parse_limit;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::ops::Address;

/// In a target: the list of tables to take, or sections for single tables.
const OF_TABLES: &str = "tables";

/// What a settings file says.
#[derive(Debug, Default)]
pub(in crate::cli) struct FileSettings {
    /// For all targets.
    pub(in crate::cli) values: Vec<FileValue>,
    /// What is said of single tables, for all targets.
    pub(in crate::cli) tables: Vec<TableValue>,
    /// In the file's order.
    pub(in crate::cli) targets: Vec<FileTarget>,
    /// What a person should know, one sentence each.
    pub(in crate::cli) warnings: Vec<String>,
    /// The same of what only the surroundings lack, each with its section: it matters to commands that need the section.
    pub(in crate::cli) lacking: Vec<(String, String)>,
    /// A secret stands in it as it is.
    has_clear_text: bool,
}

/// The value of one option.
#[derive(Clone)]
pub(in crate::cli) struct FileValue {
    pub(in crate::cli) option: &'static str,
    pub(in crate::cli) sync_only: bool,
    /// As they would be typed.
    pub(in crate::cli) texts: Vec<String>,
}

impl std::fmt::Debug for FileValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A value may be a secret.
        f.debug_struct("FileValue").field("option", &self.option).finish_non_exhaustive()
    }
}

/// The value of one option for the tables that a pattern means.
#[derive(Debug, Clone)]
pub(in crate::cli) struct TableValue {
    /// As it is written.
    pub(in crate::cli) pattern: String,
    pub(in crate::cli) value: FileValue,
}

/// The values of the options for tables. What a target says of a pattern stands in place of what is said of the same pattern for all
/// targets; the columns of different patterns add up.
pub(in crate::cli) fn options_of_tables(all: &[TableValue], own: &[TableValue]) -> Vec<FileValue> {
    let is_own =
        |one: &&TableValue| own.iter().any(|other| other.pattern == one.pattern && other.value.option == one.value.option);
    let mut values: Vec<FileValue> = Vec::new();
    for TableValue { value, .. } in all.iter().filter(|one| !is_own(one)).chain(own) {
        match values.iter_mut().find(|known| known.option == value.option) {
            Some(known) => known.texts.extend(value.texts.iter().cloned()),
            None => values.push(value.clone()),
        }
    }
    values
}

/// One target, and what is said for it alone.
#[derive(Debug)]
pub(in crate::cli) struct FileTarget {
    pub(in crate::cli) name: String,
    pub(in crate::cli) values: Vec<FileValue>,
    /// What is said of single tables.
    pub(in crate::cli) tables: Vec<TableValue>,
    /// Why it cannot be used just now, such as a variable that is not set.
    pub(in crate::cli) problem: Option<Error>,
}

impl FileTarget {
    /// Its folder or URL.
    pub(in crate::cli) fn address(&self) -> Option<&str> {
        self.values.iter().find(|value| value.option == "target")?.texts.first().map(String::as_str)
    }
}

impl FileSettings {
    /// Reads and checks a file. `variable` gives the values of variables. Errors are of kind `Usage` and name the line.
    pub(in crate::cli) fn read(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .context(Kind::Usage, "The settings file cannot be read")
            .with_field("file", path.display())?;
        let mut settings = parse(&text, path, variable)?;
        if let Some(warning) = open_to_others(path, settings.has_clear_text)? {
            settings.warnings.push(warning);
        }
        Ok(settings)
    }
}

/// A file that everybody may change could send the credentials anywhere.
#[cfg(unix)]
fn open_to_others(path: &Path, holds_secrets: bool) -> Result<Option<String>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).context(Kind::Usage, "The settings file cannot be read")?.permissions().mode();
    if mode & 0o002 != 0 {
        return Err(Error::new(Kind::Usage, "The settings file can be changed by every user of this machine")
            .with_field("file", path.display())
            .hint(format!("chmod 600 {}", path.display())));
    }
    let warns = holds_secrets && mode & 0o044 != 0;
    Ok(warns.then(|| format!("{} can be read by other users of this machine; chmod 600 it", path.display())))
}

#[cfg(not(unix))]
fn open_to_others(_: &Path, _: bool) -> Result<Option<String>> {
    Ok(None)
}

/// As [`FileSettings::read`], from text; `path` is for messages and for relative paths.
pub(in crate::cli) fn parse(text: &str, path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<FileSettings> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new(".")).to_owned();
    let mut reader = Reader { text, path, folder, variable, settings: FileSettings::default() };
    let document = Document::parse(text).map_err(|error| {
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        reader.wrong("The settings file is not TOML", "", error.span()).with_field("reason", message)
    })?;
    reader.sections(document.as_table())?;
    Ok(reader.settings)
}

/// What the section `[log]` says, of a file that may be wrong elsewhere.
pub(in crate::cli) fn log_values(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Vec<FileValue> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let Ok(document) = Document::parse(text.as_str()) else { return Vec::new() };
    let Some(section) = document.get("log").and_then(Item::as_table_like) else { return Vec::new() };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new(".")).to_owned();
    let mut reader = Reader { text: &text, path, folder, variable, settings: FileSettings::default() };
    let keys: Vec<&'static Key> = KEYS.iter().filter(|key| key.section == "log").collect();
    reader.values(section, "log", &keys).map(|(values, _)| values).unwrap_or_default()
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    folder: PathBuf,
    variable: &'a dyn Fn(&str) -> Option<String>,
    settings: FileSettings,
}

impl Reader<'_> {
    fn sections(&mut self, document: &toml_edit::Table) -> Result<()> {
        let known: Vec<&str> = KEYS.iter().map(|key| key.section).chain(["targets", "tables"]).collect();
        for (name, item) in document.iter() {
            let span = self.span_of(document, name, item);
            if !known.contains(&name) {
                // A key of a section, written above all sections?
                let home = KEYS.iter().find(|key| key.name == name);
                let hint = match (home, nearest(name, known.iter().copied())) {
                    (Some(key), _) => format!("it belongs below [{}]", key.section),
                    (None, Some(near)) => format!("did you mean [{near}]?"),
                    (None, None) => format!("sections are {}", unique(&known).join(", ")),
                };
                return Err(self.wrong("The settings file has a section that nobody knows", name, span).hint(hint));
            }
            let Some(table) = item.as_table_like() else {
                return Err(self.wrong("This must be a section", name, span).hint(match name {
                    "tables" => {
                        "which tables to take is said below [sync]; [tables.NAME] says something of single ones".to_owned()
                    }
                    name => format!("write [{name}] in a line of its own and its keys below it"),
                }));
            };
            match name {
                "targets" => self.targets(table)?,
                "tables" => self.settings.tables = self.tables(table, "tables")?,
                section => {
                    let keys: Vec<&'static Key> = KEYS.iter().filter(|key| key.section == section).collect();
                    let (values, problems) = self.values(table, section, &keys)?;
                    // The credentials may still come from elsewhere, and not every command needs all of the file.
                    let lacking = problems.iter().map(|problem| (section.to_owned(), problem.to_string()));
                    self.settings.lacking.extend(lacking);
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
            let tables = match table.get(OF_TABLES).and_then(Item::as_table_like) {
                Some(tables) => self.tables(tables, &format!("{shown}.{OF_TABLES}"))?,
                None => Vec::new(),
            };
            let problem = problems.into_iter().next();
            if problem.is_none() && !values.iter().any(|value| value.option == "target") {
                let span = self.header_of(table, item);
                return Err(self.wrong("A target needs a url", &shown, span).hint("such as url = \"./lake\""));
            }
            self.settings.targets.push(FileTarget { name: name.to_owned(), values, tables, problem });
        }
        Ok(())
    }

    /// Each list of columns becomes part of the option that takes `table.column`.
    fn tables(&mut self, tables: &dyn TableLike, section: &str) -> Result<Vec<TableValue>> {
        let keys: Vec<&'static Key> = TABLES.iter().collect();
        let mut found = Vec::new();
        for (pattern, item) in tables.iter() {
            let shown = format!("{section}.\"{pattern}\"");
            let Some(table) = item.as_table_like() else {
                let wrong = self.wrong("What is said of tables must be a section", &shown, item.span());
                return Err(wrong.hint("write [tables.\"user*\"] in a line of its own, and drop_columns and others below it"));
            };
            let (values, problems) = self.values(table, &shown, &keys)?;
            // A column that should be hidden must not show because a variable is missing.
            if let Some(problem) = problems.into_iter().next() {
                return Err(problem);
            }
            for mut value in values {
                let is_list = TABLES.iter().any(|key| key.option == value.option && key.form == Form::List);
                let separator = if is_list { '.' } else { '=' };
                value.texts.iter_mut().for_each(|text| *text = format!("{pattern}{separator}{text}"));
                found.push(TableValue { pattern: pattern.to_owned(), value });
            }
        }
        Ok(found)
    }

    /// The values of a section. What only the surroundings lack (a variable, a secret's file) is not an error of the file.
    fn values(&mut self, table: &dyn TableLike, section: &str, keys: &[&'static Key]) -> Result<(Vec<FileValue>, Vec<Error>)> {
        let mut values: Vec<FileValue> = Vec::new();
        let mut problems = Vec::new();
        for (name, item) in table.iter() {
            let shown = format!("{section}.{name}");
            let span = table.key(name).and_then(|key| key.span()).or_else(|| item.span());
            // A list chooses tables, a section says something of single ones.
            if name == OF_TABLES && section.starts_with("targets.") && item.is_table_like() {
                continue;
            }
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let wrong = self.wrong("The settings file has a key that nobody knows", &shown, span);
                let elsewhere = KEYS.iter().find(|key| key.name == name);
                return Err(match (nearest(name, keys.iter().map(|key| key.name)), elsewhere) {
                    (Some(near), _) => wrong.hint(format!("did you mean `{near}`?")),
                    (None, Some(key)) => wrong.hint(format!("it belongs below [{}]", key.section)),
                    (None, None) => {
                        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                        wrong.hint(format!("keys of [{section}] are {}", names.join(", ")))
                    }
                });
            };
            let texts = match self.texts(key, &shown, item)? {
                Ok(texts) => texts,
                Err(missing) => {
                    problems.push(missing);
                    continue;
                }
            };
            let sync_only = settings_schema::is_for_sync_only(key.section);
            // Several keys may make up one option: a pace each, say.
            match values.iter_mut().find(|value| value.option == key.option) {
                Some(value) => value.texts.extend(texts),
                None => values.push(FileValue { option: key.option, sync_only, texts }),
            }
        }
        Ok((values, problems))
    }

    /// A value as it would be typed; the inner error is about the surroundings.
    fn texts(&mut self, key: &'static Key, shown: &str, item: &Item) -> Result<Result<Vec<String>>> {
        let wrong = |reader: &Self| {
            reader.wrong("A value has the wrong form", shown, item.span()).hint(format!("it must be {}", key.form.words()))
        };
        let one = |text: String| Ok(Ok(vec![text]));
        match (key.form, item) {
            (Form::List, Item::Value(Value::Array(array))) => {
                let mut texts = Vec::new();
                for value in array.iter() {
                    let Some(text) = value.as_str() else { return Err(wrong(self)) };
                    match self.expanded(text, shown, item)? {
                        Ok(text) => texts.push(text),
                        Err(missing) => return Ok(Err(missing)),
                    }
                }
                // An empty list of an option would be no value at all, as if the key were not there.
                if texts.is_empty() && key.name != "exclude" {
                    return Err(self.wrong("A list is empty", shown, item.span()).hint("leave the key out, or say [\"all\"]"));
                }
                Ok(Ok(texts))
            }
            (Form::Pairs, item) if item.as_table_like().is_some() => {
                let mut texts = Vec::new();
                for (name, value) in item.as_table_like().into_iter().flat_map(|table| table.iter()) {
                    let Some(text) = value.as_str() else { return Err(wrong(self)) };
                    let is_secret = ["secret", "key", "token", "password", "sas"].iter().any(|word| name.contains(word));
                    match self.revealed(text, &format!("{shown}.{name}"), value, is_secret)? {
                        Ok(text) => texts.push(format!("{name}={text}")),
                        Err(missing) => return Ok(Err(missing)),
                    }
                }
                Ok(Ok(texts))
            }
            (Form::Count, Item::Value(Value::Integer(number))) if *number.value() >= 0 => {
                one(self.paced(key, number.value().to_string()))
            }
            (Form::Size, Item::Value(Value::Integer(number))) if *number.value() >= 0 => one(number.value().to_string()),
            #[cfg(feature = "lake")]
            (Form::Memory, Item::Value(Value::Integer(number))) => {
                let text = number.value().to_string();
                match parse_limit(&text) {
                    Ok(_) => one(text),
                    Err(reason) => Err(wrong(self).with_field("reason", reason)),
                }
            }
            (Form::Flag, Item::Value(Value::Boolean(flag))) => one(flag.value().to_string()),
            (form, Item::Value(Value::String(text))) if !matches!(form, Form::List | Form::Pairs) => {
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
                    Form::Memory => parse_limit(&text).err(),
                    Form::Time => parse_duration(&text).err(),
                    Form::OneOf(words) if !words.contains(&text.as_str()) => {
                        let near = nearest(&text, words.iter().copied());
                        Some(near.map_or("unknown word".to_owned(), |near| format!("did you mean \"{near}\"?")))
                    }
                    _ if text.is_empty() => Some("it is empty".to_owned()),
                    _ => None,
                };
                if let Some(reason) = reason {
                    return Err(wrong(self).with_field("reason", reason));
                }
                one(match form {
                    // A report may go to standard output.
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

    /// The paces of calls share one option, which wants to know whose pace it is.
    fn paced(&self, key: &Key, number: String) -> String {
        match key.option {
            "pacing" => format!("{}={number}", key.name.replace('_', "-")),
            _ => number,
        }
    }

    /// A folder beside the file, or a URL as it is.
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

    /// As [`Reader::expanded`], or what the file holds that `file:PATH` names.
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
        let read = std::fs::read_to_string(&path).context(Kind::Usage, "The file of a secret cannot be read");
        Ok(match read {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                Err(error.with_field("key", shown).with_field("path", path.display()).with_field("file", self.path.display()))
            }
        })
    }

    /// With the values of variables in place of `${NAME}`; `$${` stands for `${` itself. In a URL, what a variable gives for the user,
    /// the password or the value of an item is percent-encoded, so that no character of it ends that part.
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
                return Err(self.wrong("A reference to a variable has no end", shown, item.span()).hint("write it as ${NAME}"));
            };
            let name = &rest[at + 2..at + end];
            if !is_variable(name) {
                return Err(self
                    .wrong("A reference to a variable has no name", shown, item.span())
                    .hint("write it as ${NAME}"));
            }
            let Some(value) = (self.variable)(name) else {
                let missing = self.wrong("The settings file names a variable that is not set", shown, item.span());
                return Ok(Err(missing.with_field("variable", name)));
            };
            out.push_str(&rest[..at]);
            let start = text.len() - rest.len() + at;
            out.push_str(&match url_part(text, start..start + end + 1) {
                UrlPart::Whole => utf8_percent_encode(&value, UNRESERVED).to_string(),
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
            "{shown} stands in clear text in {}, line {line}; write \"${{NAME_OF_A_VARIABLE}}\" or \"file:PATH\" instead",
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

    /// An error about a place in the file. It never holds a value.
    fn wrong(&self, message: &'static str, shown: &str, span: Option<Range<usize>>) -> Error {
        let error = Error::new(Kind::Usage, message);
        let error = if shown.is_empty() { error } else { error.with_field("key", shown) };
        error.with_field("file", self.path.display()).with_field("line", self.line(span))
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A text with a letter in place of each reference to a variable.
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

/// Parts of a URL as it is written: what may be `user:password`, and what follows the `?`.
struct UrlText {
    user_info: Range<usize>,
    query: Range<usize>,
}

impl UrlText {
    /// `None`: it is no URL. A password may hold any character, so all up to the last `@` counts as user information.
    fn of(text: &str) -> Option<Self> {
        let start = text.find("://")? + 3;
        let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
        let user_info = start..text[start..end].rfind('@').map_or(start, |at| start + at);
        let query = text[end..].find('?').map_or(text.len(), |at| end + at + 1)..text.len();
        Some(Self { user_info, query })
    }
}

/// Whether a URL holds a password in clear text.
pub(in crate::cli) fn holds_password(text: &str) -> bool {
    let is_clear = |value: &str| !value.is_empty() && !value.contains("${");
    UrlText::of(text).is_some_and(|url| {
        let in_front = text[url.user_info].split_once(':').is_some_and(|(_, password)| is_clear(password));
        let items = text[url.query].split('&').filter_map(|item| item.split_once('='));
        in_front || items.into_iter().any(|(name, value)| name == "password" && is_clear(value))
    })
}

/// Where in a URL a reference to a variable stands.
enum UrlPart {
    /// It is the whole user, password, or value of an item: the variable holds it as it is.
    Whole,
    /// It is a piece of one.
    Piece,
    /// Elsewhere, or in no URL.
    Other,
}

fn url_part(text: &str, reference: Range<usize>) -> UrlPart {
    let Some(url) = UrlText::of(text) else { return UrlPart::Other };
    let within = |part: &Range<usize>| part.start <= reference.start && reference.end <= part.end;
    // The part ends at the separators around it.
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

/// All but letters, digits and `-._~`.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As [`UNRESERVED`], but what is encoded already stays.
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
        found.map(|value| value.texts.clone()).unwrap_or_default()
    }

    #[test]
    fn values_come_as_they_would_be_typed() {
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
        assert_eq!(lake.values[0].texts, [in_folder("lake")]);
        assert_eq!(lake.values[1].texts, ["region=eu", "secret_access_key=avalue${b"]);
        assert_eq!(db.values[0].texts, ["postgresql://etl:value@host/db"]);
        assert_eq!(db.values[1].texts, ["users"]);
    }

    #[test]
    fn a_target_has_its_own_word_on_single_tables() {
        let settings = read(
            "[tables.users]\nmode = \"history\"\ndrop_columns = [\"a\"]\n[tables.\"*\"]\ndrop_columns = [\"b\"]\n[targets.x]\nurl = \"x\"\ninclude = [\"users\"]\n[targets.x.tables.users]\nmode = \"current\"\ndrop_columns = [\"c\"]\n[targets.y]\nurl = \"y\"\ntables = [\"courses\"]\n",
        )
        .unwrap();
        let [x, y] = &settings.targets[..] else { panic!("two targets") };
        let texts = |target: &FileTarget, option: &str| {
            let values = options_of_tables(&settings.tables, &target.tables);
            values.into_iter().find(|value| value.option == option).map(|value| value.texts).unwrap_or_default()
        };
        assert_eq!(texts(x, "mode"), ["users=current"]);
        assert_eq!(texts(x, "drop_column"), ["*.b", "users.c"]);
        assert_eq!(texts(y, "mode"), ["users=history"]);
        assert_eq!(texts(y, "drop_column"), ["users.a", "*.b"]);
        assert_eq!((x.values[1].option, &x.values[1].texts[..]), ("table", &["users".to_owned()][..]));
        assert_eq!((y.values[1].option, &y.values[1].texts[..]), ("table", &["courses".to_owned()][..]));
        let error = read("[targets.x]\nurl = \"x\"\n[targets.x.tables.users]\nmod = \"history\"\n").map(|_| ()).unwrap_err();
        assert_eq!((error.get("line"), error.hint_text()), (Some("4"), Some("did you mean `mode`?")));
    }

    #[test]
    fn what_a_variable_gives_for_a_part_of_a_url_does_not_end_that_part() {
        let read = |url: &str, value: &str| {
            let text = format!("[targets.a]\nurl = \"{url}\"\n");
            let settings = parse(&text, Path::new("/etc/daplake.toml"), &|_| Some(value.to_owned())).unwrap();
            settings.targets[0].values[0].texts[0].clone()
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
    fn what_is_wrong_is_named_with_its_line_and_the_nearest_name() {
        for (text, line, words) in [
            ("[sync]\ntabels = [\"users\"]\n", "2", "`tables`"),
            ("\n\n[servise]\nurl = \"x\"\n", "3", "[service]"),
            ("tables = [\"users\"]\n", "1", "[sync]"),
            ("[service]\nmemory_limit = \"1GiB\"\n", "2", "[engine]"),
            ("[sync]\nconcurrency = \"many\"\n", "2", "whole number"),
            ("[sync]\nconcurrency = -1\n", "2", "whole number"),
            ("[sync]\ntables = \"users\"\n", "2", "a list of texts"),
            ("[sync]\ntables = [1]\n", "2", "a list of texts"),
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
            assert!(said.contains(words), "{text}: {said}");
        }
        let error = read("[sync]\ntables = [\n").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("not TOML"), "{error}");
        assert!(read("[sync]\na = 1\na = 2\n").is_err());
    }

    #[test]
    fn secrets_in_clear_text_are_warned_of_without_being_said() {
        let settings = read(
            "[service]\nclient_secret = \"planted\"\n[targets.a]\nurl = \"postgresql://u:planted@h/d\"\n[targets.b]\nurl = \"s3://b\"\nstore_options = { secret_access_key = \"planted\" }\n",
        )
        .unwrap();
        assert_eq!(settings.warnings.len(), 3, "{:?}", settings.warnings);
        let said = settings.warnings.join("\n");
        assert!(said.contains("line 2") && said.contains("line 4") && said.contains("line 7"), "{said}");
        assert!(!said.contains("planted") && !format!("{settings:?}").contains("planted"));
    }

    #[test]
    fn what_only_the_surroundings_lack_does_not_spoil_the_file() {
        let settings = read(
            "[service]\nclient_id = \"${ABSENT}\"\nclient_secret = \"file:/nowhere/at/all\"\n[targets.a]\nurl = \"postgresql://u:${ABSENT}@h/d\"\n[targets.b]\nurl = \"lake\"\n",
        )
        .unwrap();
        assert_eq!(value(&settings, "client_id"), [""; 0]);
        let (section, words) = &settings.lacking[0];
        assert!(section == "service" && words.contains("ABSENT"), "{:?}", settings.lacking);
        assert!(settings.targets[0].problem.as_ref().unwrap().get("variable") == Some("ABSENT"));
        assert!(settings.targets[1].problem.is_none());
    }
}
