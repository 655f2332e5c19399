//! Files on the Hugging Face Hub, as recipes name them and as a run's lock keeps them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::typed::Recipe;
use crate::error::Error;

/// How every address of a file on the Hub begins.
pub const HUB_SCHEME: &str = "hf://";
/// The branch that is meant when an address has no revision.
pub const DEFAULT_REVISION: &str = "main";
const FORM: &str = "expected hf://[datasets/|spaces/]ORG/REPOSITORY[@REVISION]/FILE";

/// The sort of a repository on the Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepositoryType {
    /// A model; addresses have no word for it.
    Model,
    /// A dataset.
    Dataset,
    /// A Space.
    Space,
}

impl RepositoryType {
    /// What stands before the repository's name in addresses, `datasets/` for example; nothing for a model.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
            Self::Space => "spaces/",
        }
    }
}

/// The address of one file on the Hub, in the form that the Hub's own Python client reads:
/// `hf://[datasets/|spaces/]org/repository[@revision]/path`, a `/` in the revision written as `%2F`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubAddress {
    /// Model, dataset or Space.
    pub repository_type: RepositoryType,
    /// `org/name`.
    pub repository: String,
    /// A branch, a tag, a commit, or `refs/pr/N`, if one was written.
    pub revision: Option<String>,
    /// The file's path in the repository.
    pub path: String,
}

impl HubAddress {
    /// The same file at another revision.
    ///
    /// # Errors
    /// If the text is no name of a revision.
    pub fn at_revision(mut self, revision: &str) -> Result<Self, String> {
        if !is_plain(revision) {
            return Err(format!("`{revision}` is no revision; expected a branch, a tag or a commit"));
        }
        self.revision = Some(revision.to_string());
        Ok(self)
    }

    /// The revision that was written, or [`DEFAULT_REVISION`].
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The repository with its type: `datasets/org/name`, or `org/name` for a model.
    pub fn full_repository(&self) -> String {
        format!("{}{}", self.repository_type.prefix(), self.repository)
    }
}

impl FromStr for HubAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}`: {why}; {FORM}");
        let rest = text.strip_prefix(HUB_SCHEME).ok_or_else(|| wrong("not an address of the Hub"))?;
        let types = [RepositoryType::Dataset, RepositoryType::Space];
        let found = types.into_iter().find_map(|kind| Some((kind, rest.strip_prefix(kind.prefix())?)));
        let (repository_type, rest) = found.unwrap_or((RepositoryType::Model, rest));
        let mut parts = rest.splitn(3, '/');
        let (Some(org), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("no file"));
        };
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision.replace("%2F", "/").replace("%2f", "/"))),
            None => (name, None),
        };
        let word = |word: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !word.is_empty() && word.chars().all(good) && !word.contains("..") && !word.contains("--")
        };
        if !word(org) || !word(name) {
            return Err(wrong("the repository has two names of letters, digits, `-`, `_` and `.`"));
        }
        if !revision.as_deref().is_none_or(is_plain) {
            return Err(wrong("the revision is empty or no name"));
        }
        if !is_plain(path) {
            return Err(wrong("the file's path is empty, or has an empty part or `..`"));
        }
        Ok(Self { repository_type, repository: format!("{org}/{name}"), revision, path: path.to_string() })
    }
}

/// Whether a text stays inside the folder that it is joined to, on every system.
fn is_plain(path: &str) -> bool {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(good) && !path.contains(['\\', ':', '\0'])
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB_SCHEME}{}", self.full_repository())?;
        if let Some(revision) = &self.revision {
            write!(f, "@{}", revision.replace('/', "%2F"))?;
        }
        write!(f, "/{}", self.path)
    }
}

/// What a lock keeps of a file of the Hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedFile {
    /// The commit that the revision meant.
    pub commit: String,
    /// Sha256 of the bytes.
    pub sha256: String,
    /// Number of bytes.
    pub size: u64,
}

/// A file of the Hub that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub locked: LockedFile,
    /// Its licence and terms, in words; none if gdrd does not know them.
    pub licence: Option<String>,
}

/// Files of the Hub by their address, as [`HubAddress`] writes it.
pub type HubFiles = BTreeMap<String, HubFile>;

impl Recipe {
    /// The files on the Hub that the recipe names, each with the keys that lead to it, such as
    /// `teacher.discriminative.weights`.
    pub fn addresses(&self) -> Vec<(String, HubAddress)> {
        let mut found = Vec::new();
        addresses_in(&toml::Value::Table(self.resolved.clone()), "", &mut found);
        found
    }

    /// The files that the recipe was given, by address.
    pub fn files(&self) -> &HubFiles {
        self.sources.files()
    }

    /// Where a path of the resolved recipe leads on this machine.
    pub fn local<'a>(&'a self, path: &'a str) -> &'a Path {
        self.files().get(path).map_or(Path::new(path), |file| &file.path)
    }

    /// Every path that the recipe was read from or names, as far as it leads to something on this machine.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self.sources.names().map(PathBuf::from).collect();
        strings_in(&toml::Value::Table(self.resolved.clone()), &mut |text| found.push(self.local(text).to_path_buf()));
        found.retain(|path| path.exists());
        found
    }

    /// Refuses a recipe that names files on the Hub which it has not been given.
    pub(crate) fn needs_no_network(&self) -> Result<(), Error> {
        match self.addresses().into_iter().find(|(_, address)| !self.files().contains_key(&address.to_string())) {
            None => Ok(()),
            Some((key, address)) => {
                Err(Error::hub(format!("`{key}` is {address}, which was not fetched; `gdrd_teachers::hub` does that")))
            }
        }
    }
}

/// Tells every string in a value.
fn strings_in(value: &toml::Value, tell: &mut dyn FnMut(&str)) {
    match value {
        toml::Value::String(text) => tell(text),
        toml::Value::Array(items) => items.iter().for_each(|item| strings_in(item, tell)),
        toml::Value::Table(table) => table.iter().for_each(|(_, item)| strings_in(item, tell)),
        _ => {}
    }
}

/// Every address of the Hub in a table, with the keys that lead to it.
fn addresses_in(value: &toml::Value, key: &str, found: &mut Vec<(String, HubAddress)>) {
    match value {
        toml::Value::String(text) if text.starts_with(HUB_SCHEME) => {
            found.extend(text.parse().ok().map(|address| (key.to_string(), address)));
        }
        toml::Value::Array(items) => items.iter().for_each(|item| addresses_in(item, key, found)),
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                addresses_in(value, &key, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_in_one_form() {
        let cases = [
            ("hf://org/name/a/b.pth", RepositoryType::Model, "org/name", "main", "a/b.pth"),
            ("hf://org/name@v1.0/f", RepositoryType::Model, "org/name", "v1.0", "f"),
            ("hf://datasets/o/n@refs%2Fpr%2F7/f.npy", RepositoryType::Dataset, "o/n", "refs/pr/7", "f.npy"),
            ("hf://spaces/OAOA/DifFace/w/x.pth", RepositoryType::Space, "OAOA/DifFace", "main", "w/x.pth"),
        ];
        for (text, kind, repository, revision, path) in cases {
            let address: HubAddress = text.parse().expect(text);
            assert_eq!((address.repository_type, address.repository.as_str()), (kind, repository));
            assert_eq!((address.revision(), address.path.as_str()), (revision, path));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_leads_nowhere_or_out_of_the_cache_is_refused() {
        let cases = [
            ("hf://org", "no file"),
            ("hf://org/name", "no file"),
            ("hf://datasets/org/name", "no file"),
            ("hf://org/name/", "the file's path"),
            ("hf://org/name/../x", "the file's path"),
            ("hf://org/name/a//x", "the file's path"),
            ("hf://org/name/c:\\x", "the file's path"),
            ("hf://org/name@/f", "the revision"),
            ("hf://org/name@..%2F..%2Fx/f", "the revision"),
            ("hf://../name/f", "the repository"),
            ("hf://org/na me/f", "the repository"),
        ];
        for (text, why) in cases {
            let error = text.parse::<HubAddress>().expect_err(text);
            assert!(error.contains(why) && error.contains(FORM), "{error}");
        }
        let address: HubAddress = "hf://o/n/f".parse().expect("an address");
        assert!(address.clone().at_revision("../x").is_err());
        assert_eq!(address.at_revision("v2").expect("a tag").to_string(), "hf://o/n@v2/f");
    }
}
