//! Paths in recipes: relative to the text that wrote them, with environment variables.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::source::{Sources, Span};
use crate::context::{BuildContext, FileCheck, LocalFile};
use crate::error::Result;
use crate::hub::{HUB_SCHEME, HubAddress};

/// The format that marks a path in a JSON schema.
pub(crate) const PATH_FORMAT: &str = "path";

/// A path in a recipe.
///
/// The schema of a kind's options says which of them are paths; before the options are read, each becomes absolute: `${NAME}` is
/// replaced by the environment variable, and a relative path starts from the folder of the file that wrote it, or from the
/// current folder when it was written in `--set`. So a path may stand anywhere in the options, also inside enums and lists.
///
/// An address such as `hf://org/repo/file` keeps its form. [`BuildContext::file`] leads to the file on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecipePath(PathBuf);

impl RecipePath {
    /// The path or address as the resolved recipe has it.
    pub fn written(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// The file called `name` in the same folder, on this machine or on the Hub.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        Self(self.0.with_file_name(name))
    }

    /// The path of a folder or file on this machine; an address of the Hub is no such path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl<P: Into<PathBuf>> From<P> for RecipePath {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

impl fmt::Display for RecipePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl BuildContext<'_> {
    /// The file that a path leads to: itself, or from the cache or the network for an address of the Hub. Its digest becomes a
    /// part of what the plug-in is.
    ///
    /// # Errors
    /// If it cannot be had or read.
    pub fn file(&self, path: &RecipePath) -> Result<LocalFile> {
        self.file_at(&path.written())
    }

    /// The same of a file that must pass `check`, such as one that holds many images. While it stays as it is, it is not checked
    /// again.
    ///
    /// # Errors
    /// If it cannot be had or read, or does not pass.
    pub fn file_checked(&self, path: &RecipePath, check: &FileCheck<'_>) -> Result<LocalFile> {
        let file = self.file(path)?;
        self.passed(&file.path, check)?;
        Ok(file)
    }

    /// Takes note of names and bytes of `files`, which lie below `folder` and must pass `check`. Files that did not change since
    /// they were last read are not read again.
    ///
    /// # Errors
    /// If one cannot be read or does not pass.
    pub fn fingerprint(&self, folder: &RecipePath, files: &[PathBuf], check: &FileCheck<'_>) -> Result<()> {
        self.read_all(&folder.written(), files, check)
    }
}

impl JsonSchema for RecipePath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RecipePath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": PATH_FORMAT })
    }
}

/// The absolute path that `text`, written at `span`, means.
///
/// # Errors
/// A sentence, if the text is empty or a variable is not set.
pub(crate) fn resolve(text: &str, span: Span, sources: &Sources) -> std::result::Result<String, String> {
    let text = expand(text, |name| std::env::var(name).ok())?;
    if text.is_empty() {
        return Err("a path cannot be empty".to_string());
    }
    // Before the scheme: pasted from a browser, such an address is one of the Hub too.
    if let Some(address) = HubAddress::of_web_address(&text) {
        return Ok(address.to_string());
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        return Err(format!(
            "`{text}` is a web address, but not that of a file on huggingface.co, which gdrd fetches; expected a path on this \
             machine or {HUB_SCHEME}ORG/REPOSITORY/FILE"
        ));
    }
    if text.starts_with(HUB_SCHEME) {
        return text.parse::<HubAddress>().map(|address| address.to_string());
    }
    if text.contains("://") {
        return Ok(text);
    }
    let path = std::path::absolute(sources.folder_of(span).join(&text)).map_err(|e| format!("path `{text}`: {e}"))?;
    path.into_os_string().into_string().map_err(|path| format!("the path {} is not UTF-8", path.display()))
}

/// `text` with each `${NAME}` replaced by what `variable` gives for `NAME`.
pub(crate) fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> std::result::Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            return Err("`${` without `}`, expected `${NAME}`".to_string());
        };
        let value = variable(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_anywhere() {
        let variable = |name: &str| (name == "DATA").then(|| "/data".to_string());
        assert_eq!(expand("${DATA}/a/${DATA}b", variable), Ok("/data/a//datab".to_string()));
        assert_eq!(expand("a$b{c}", variable), Ok("a$b{c}".to_string()));
        assert_eq!(expand("${OTHER}", variable), Err("the environment variable `OTHER` is not set".to_string()));
        assert_eq!(expand("${DATA", variable), Err("`${` without `}`, expected `${NAME}`".to_string()));
    }

    #[test]
    fn relative_paths_start_at_the_text_that_wrote_them() {
        let mut sources = Sources::default();
        sources.add_file(Path::new("/recipes/a.toml"), "path = \"x\"".to_string());
        let set = sources.add_set("path=x".to_string());
        assert_eq!(resolve("x", Span::empty(7), &sources), Ok("/recipes/x".to_string()));
        assert_eq!(resolve("/y", Span::empty(7), &sources), Ok("/y".to_string()));
        assert_eq!(resolve("hf://a/b/c", Span::empty(7), &sources), Ok("hf://a/b/c".to_string()));
        assert!(resolve("hf://a/b", Span::empty(7), &sources).is_err());
        assert_eq!(resolve("s3://a/b", Span::empty(7), &sources), Ok("s3://a/b".to_string()));
        let pasted = "https://huggingface.co/o/n/blob/main/w/x.pth?download=true";
        assert_eq!(resolve(pasted, Span::empty(7), &sources), Ok("hf://o/n/w/x.pth".to_string()));
        let pasted = "https://huggingface.co/datasets/o/n/resolve/refs%2Fpr%2F3/x.pth";
        assert_eq!(resolve(pasted, Span::empty(7), &sources), Ok("hf://datasets/o/n@refs%2Fpr%2F3/x.pth".to_string()));
        for other in ["https://huggingface.co/o/n", "https://huggingface.co/o/n/tree/main", "http://example.org/x.pth"]
        {
            let error = resolve(other, Span::empty(7), &sources).expect_err("no file of the Hub");
            assert!(error.contains("is a web address") && error.contains("hf://ORG/REPOSITORY/FILE"), "{error}");
        }
        let here = std::env::current_dir().expect("a current folder").join("x");
        assert_eq!(resolve("x", Span::empty(set), &sources), Ok(here.display().to_string()));
        assert!(resolve("", Span::empty(7), &sources).is_err());
    }

    #[test]
    fn other_formats_write_and_read_the_path_as_it_is() {
        let path = RecipePath::from("/a/b");
        let text = serde_json::to_string(&path).expect("a string");
        assert_eq!(text, "\"/a/b\"");
        assert_eq!(serde_json::from_str::<RecipePath>(&text).expect("a path"), path);
        assert_eq!(schemars::schema_for!(RecipePath).get("type").and_then(|t| t.as_str()), Some("string"));
    }
}
