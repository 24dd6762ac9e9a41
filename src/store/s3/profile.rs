//! Profiles of the AWS tools: the files `config` and `credentials` in `.aws`. Single sign-on is left to the AWS tools.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::store::StoreOptions;

/// The names and values of a profile in both files. The credentials file takes precedence.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Profile(BTreeMap<String, String>);

impl Profile {
    /// The value of a setting.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The selected profile, or the default one; empty if there is none. Fails with kind `Usage` if the selected profile does not exist.
pub(super) fn read(options: &StoreOptions) -> Result<Profile> {
    let named = options.option("profile").or(options.variable("AWS_PROFILE")).or(options.variable("AWS_DEFAULT_PROFILE"));
    let name = named.unwrap_or("default");
    let [config, credentials] = files(options);
    let mut found = false;
    let mut values = BTreeMap::new();
    let in_config = if name == "default" { "default".to_owned() } else { format!("profile {name}") };
    for (path, section) in [(config, in_config.as_str()), (credentials, name)] {
        let Some(path) = path else { continue };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).context(Kind::Usage, "The AWS profiles cannot be read").with_field("file", path.display());
            }
        };
        if let Some(section) = section_of(&text, section) {
            found = true;
            values.extend(section);
        }
    }
    match named {
        Some(name) if !found => Err(Error::new(Kind::Usage, "The AWS profile does not exist")
            .with_field("profile", name)
            .hint("list them with `aws configure list-profiles`")),
        _ => Ok(Profile(values)),
    }
}

/// The paths of the settings file and of the credentials file.
fn files(options: &StoreOptions) -> [Option<PathBuf>; 2] {
    [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")].map(|(variable, usual)| {
        match options.variable(variable) {
            Some(path) => Some(PathBuf::from(path)),
            None => Some(options.home.as_ref()?.join(".aws").join(usual)),
        }
    })
}

/// Length and modification time of each file that exists.
pub(super) type Stamps = [Option<(u64, SystemTime)>; 2];

/// Identifies the current content of the files.
pub(super) fn stamps(options: &StoreOptions) -> Stamps {
    files(options).map(|path| {
        let metadata = std::fs::metadata(path?).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    })
}

/// The values of a section. Those of a nested section (`s3 =` with indented lines) are added under their own names.
fn section_of(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut values: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = header.split_whitespace().eq(name.split_whitespace());
            if inside {
                values.get_or_insert_default();
            }
        } else if inside && let Some((key, value)) = line.split_once('=') {
            values.get_or_insert_default().insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, StoreOptions) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        write(
            "config",
            "[default]\nregion = eu-west-1\n# a note\n[profile  lake]\nregion=us-west-2\ns3 =\n  addressing_style = path\nendpoint_url = https://s3.example\n[lake]\nregion = wrong\n",
        );
        write("credentials", "[lake]\naws_access_key_id = planted-id\naws_secret_access_key = planted/secret=\n");
        let mut options = StoreOptions::default();
        options.home = Some(home.path().to_owned());
        (home, options)
    }

    #[test]
    fn both_files_make_a_profile() {
        let (_home, options) = home();
        assert_eq!(read(&options).unwrap().get("region"), Some("eu-west-1"));
        let lake = read(&options.clone().with_option("profile=lake").unwrap()).unwrap();
        let values = ["region", "endpoint_url", "addressing_style", "aws_access_key_id", "aws_secret_access_key"];
        assert_eq!(
            values.map(|name| lake.get(name).unwrap()),
            ["us-west-2", "https://s3.example", "path", "planted-id", "planted/secret="]
        );
        let by_variable = options.clone().with_variables([("AWS_PROFILE".to_owned(), "lake".to_owned())]);
        assert!(read(&by_variable).unwrap() == lake);
        let error = read(&options.with_option("profile=other").unwrap()).err().unwrap();
        assert_eq!((error.kind(), error.get("profile")), (Kind::Usage, Some("other")));
    }

    #[test]
    fn without_files_there_is_no_profile() {
        assert!(read(&StoreOptions::default()).unwrap() == Profile::default());
    }
}
