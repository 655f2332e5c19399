//! Files on the Hugging Face Hub, as recipes name them and as a run's lock keeps them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::observe::Observer;

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
/// `hf://[datasets/|spaces/]org/repository[@revision]/path`, a `/` in the revision written as `%2F` but for `refs/pr/N` and
/// `refs/convert/NAME`. The web address of a file on the Hub (`https://huggingface.co/org/repository/blob/main/path`, or with
/// `resolve` or `raw`) is read too.
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
    /// The file that a web address leads to, if it is that of a file on the Hub.
    pub fn of_web_address(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let (host, rest) = rest.split_once('/')?;
        if !["huggingface.co", "www.huggingface.co", "hf.co"].contains(&host) {
            return None;
        }
        let rest = rest.split(['?', '#']).next()?;
        let (repository, file) = ["/resolve/", "/blob/", "/raw/"].iter().find_map(|word| rest.split_once(word))?;
        let file = file.replace("%20", " ");
        // A revision of several parts stands in a web address as it is, or with its slashes encoded.
        let parts = if file.starts_with("refs/") { 4 } else { 2 };
        let mut parts: Vec<&str> = file.splitn(parts, '/').collect();
        let path = parts.pop()?;
        let revision = parts.join("/").replace("%2F", "/").replace("%2f", "/");
        let address: Self = format!("{HUB_SCHEME}{repository}/{path}").parse().ok()?;
        match revision.as_str() {
            DEFAULT_REVISION => Some(address),
            revision => address.at_revision(revision).ok(),
        }
    }

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
        if let Some(address) = Self::of_web_address(text) {
            return Ok(address);
        }
        let rest = text.strip_prefix(HUB_SCHEME).ok_or_else(|| wrong("not an address of the Hub"))?;
        let types = [RepositoryType::Dataset, RepositoryType::Space];
        let found = types.into_iter().find_map(|kind| Some((kind, rest.strip_prefix(kind.prefix())?)));
        let (repository_type, rest) = found.unwrap_or((RepositoryType::Model, rest));
        let mut parts = rest.splitn(3, '/');
        let (Some(org), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("no file"));
        };
        let (name, revision, path) = match name.split_once('@') {
            Some((name, "refs")) => match path.splitn(3, '/').collect::<Vec<_>>().as_slice() {
                [kind @ ("pr" | "convert"), of, path] => (name, Some(format!("refs/{kind}/{of}")), *path),
                _ => return Err(wrong("after `refs` comes `/pr/NUMBER/` or `/convert/NAME/`, then the file")),
            },
            Some((name, revision)) => (name, Some(revision.replace("%2F", "/").replace("%2f", "/")), path),
            None => (name, None, path),
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

/// A way to files on the Hub: from the cache, or from the network.
///
/// ```
/// use gdrd_core::error::{Error, Result};
/// use gdrd_core::observe::{Observer, Silent};
/// use gdrd_core::hub::{Fetch, HubAddress, HubFile};
///
/// /// A machine without a network and without a cache.
/// struct Nowhere;
///
/// impl Fetch for Nowhere {
///     fn fetch(&self, address: &HubAddress, _: &dyn Observer) -> Result<HubFile> {
///         Err(Error::data(format!("`{address}`: not on this machine")))
///     }
/// }
///
/// let address: HubAddress = "hf://org/name/model.safetensors".parse().expect("an address");
/// let error = Nowhere.fetch(&address, &Silent).expect_err("nothing is here");
/// assert!(error.to_string().contains("hf://org/name/model.safetensors"));
/// ```
pub trait Fetch: Send + Sync {
    /// The file at an address, at the commit that a lock holds the run to, if there is one.
    ///
    /// # Errors
    /// If it cannot be had or is not the locked one.
    fn fetch(&self, address: &HubAddress, observer: &dyn Observer) -> crate::error::Result<HubFile>;
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
    fn special_revisions_and_web_addresses_are_read_in_the_form_that_people_have() {
        for (text, expected) in [
            ("hf://o/n@refs/pr/3/a/f.pth", "hf://o/n@refs%2Fpr%2F3/a/f.pth"),
            ("hf://datasets/o/n@refs/convert/parquet/f", "hf://datasets/o/n@refs%2Fconvert%2Fparquet/f"),
            ("https://huggingface.co/o/n/resolve/main/a/f.pth?download=true", "hf://o/n/a/f.pth"),
            ("https://huggingface.co/o/n/blob/v1.0/f%20g.pth#L1", "hf://o/n@v1.0/f g.pth"),
            ("https://hf.co/datasets/o/n/raw/refs%2Fpr%2F3/f", "hf://datasets/o/n@refs%2Fpr%2F3/f"),
            ("https://huggingface.co/spaces/o/n/blob/refs/pr/3/f", "hf://spaces/o/n@refs%2Fpr%2F3/f"),
        ] {
            let address: HubAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), expected);
        }
        for text in [
            "https://huggingface.co/o/n",
            "https://example.org/o/n/blob/main/f",
            "https://huggingface.co/o/n/blob/main/../x",
        ] {
            assert!(text.parse::<HubAddress>().is_err(), "{text}");
        }
        let error = "hf://o/n@refs/heads/x/f".parse::<HubAddress>().expect_err("another reference");
        assert!(error.contains("after `refs` comes `/pr/NUMBER/`"), "{error}");
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
