//! Where the Hub is, where its files are kept, and who asks: from the environment variables of the Hub's own clients.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use gdrd_core::error::{Error, Result};

/// How the Hub is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `HF_HOME/hub`, or the same below the user's cache folder: shared with the Python client.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or what `HF_TOKEN_PATH` or `HF_HOME/token` holds, where `hf auth login` puts it.
    pub token: Option<Token>,
    /// Why the network is not to be used; none if it may be.
    pub offline: Option<&'static str>,
    /// Whether branches and tags are looked up again though the cache knows where they stood.
    pub refresh: bool,
    /// Proxies by scheme, and hosts that need none.
    pub proxies: Proxies,
    /// How long a server may be silent: `HF_HUB_DOWNLOAD_TIMEOUT` in seconds, 10 when not set.
    pub patience: Duration,
    /// Tries without progress before a request is given up.
    pub tries: u32,
    /// The pause after the first of them; it doubles with each.
    pub pause: Duration,
}

/// An access token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub(super) String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    https: Option<String>,
    http: Option<String>,
    all: Option<String>,
    none: Vec<String>,
}

impl Settings {
    /// The settings that the environment of this process says.
    ///
    /// # Errors
    /// If there is no folder for the cache, or a value cannot be read.
    pub fn from_env() -> Result<Self> {
        Self::from(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), std::env::home_dir())
    }

    fn from(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self> {
        let folder = |text: String| match (text.strip_prefix("~/"), &home) {
            (Some(below), Some(home)) => home.join(below),
            _ => PathBuf::from(text),
        };
        let caches = variable("XDG_CACHE_HOME").map(folder).or_else(|| Some(home.as_ref()?.join(".cache")));
        let hub_home = variable("HF_HOME").map(folder).or_else(|| Some(caches?.join("huggingface")));
        let named = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(folder);
        let cache = named.or_else(|| Some(hub_home.as_ref()?.join("hub")));
        let cache = cache.ok_or_else(|| Error::hub("no home folder for the cache of the Hub; set HF_HOME"))?;
        let cache = std::path::absolute(&cache).map_err(|e| Error::io(&cache, e))?;
        if cache.to_str().is_none() {
            return Err(Error::hub(format!("the Hub's cache {} is not UTF-8; set HF_HOME", cache.display())));
        }
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::hub(format!("HF_ENDPOINT is `{endpoint}`, expected https://HOST or http://HOST")));
        }
        let kept = variable("HF_TOKEN_PATH").map(folder).or_else(|| Some(hub_home?.join("token")));
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(|| kept.and_then(|path| std::fs::read_to_string(path).ok()));
        let token = token.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
        let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        let seconds = match variable("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => 10,
            Some(text) => text.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                Error::hub(format!("HF_HUB_DOWNLOAD_TIMEOUT is `{text}`, expected a whole number of seconds"))
            })?,
        };
        let either = |name: &str| variable(&name.to_lowercase()).or_else(|| variable(name));
        let none = either("NO_PROXY").unwrap_or_default();
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache,
            token: token.map(Token),
            offline: variable("HF_HUB_OFFLINE").is_some_and(yes).then_some("HF_HUB_OFFLINE is set"),
            refresh: false,
            proxies: Proxies {
                https: either("HTTPS_PROXY"),
                http: either("HTTP_PROXY"),
                all: either("ALL_PROXY"),
                none: none.split(',').map(|host| host.trim().to_lowercase()).filter(|host| !host.is_empty()).collect(),
            },
            patience: Duration::from_secs(seconds),
            tries: 5,
            pause: Duration::from_millis(300),
        })
    }
}

impl Proxies {
    /// The proxy for a request to `host`.
    pub(super) fn of(&self, scheme: &str, host: &str) -> Option<&str> {
        let host = host.to_lowercase();
        let spared = |pattern: &String| {
            let name = pattern.trim_start_matches('*').trim_start_matches('.');
            pattern == "*" || host == name || !name.is_empty() && host.ends_with(&format!(".{name}"))
        };
        if self.none.iter().any(spared) {
            return None;
        }
        let own = if scheme == "https" { &self.https } else { &self.http };
        own.as_deref().or(self.all.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        Settings::from(find, Some(PathBuf::from("/h")))
    }

    #[test]
    fn the_cache_is_where_the_python_client_has_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).expect("settings").cache;
        assert_eq!(cache(&[]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]), Path::new("/h/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
    }

    #[test]
    fn tokens_come_from_the_variable_or_the_file_and_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "hf_file\n").expect("a token");
        let home = folder.path().to_str().expect("UTF-8");
        let found = settings(&[("HF_HOME", home)]).expect("settings");
        assert_eq!(found.token, Some(Token("hf_file".into())));
        assert!(!format!("{found:?}").contains("hf_file"));
        let found = settings(&[("HF_HOME", home), ("HF_TOKEN", "hf_variable")]).expect("settings");
        assert_eq!(found.token, Some(Token("hf_variable".into())));
    }

    #[test]
    fn proxies_are_chosen_by_scheme_and_host() {
        let found = settings(&[
            ("HTTPS_PROXY", "http://s:1"),
            ("http_proxy", "http://p:2"),
            ("NO_PROXY", "localhost, .inside.org,*.lab"),
        ]);
        let proxies = found.expect("settings").proxies;
        assert_eq!(proxies.of("https", "huggingface.co"), Some("http://s:1"));
        assert_eq!(proxies.of("http", "huggingface.co"), Some("http://p:2"));
        for host in ["localhost", "a.inside.org", "inside.org", "x.lab"] {
            assert_eq!(proxies.of("https", host), None, "{host}");
        }
        assert_eq!(proxies.of("https", "notinside.org"), Some("http://s:1"));
        let all = settings(&[("ALL_PROXY", "http://a:3")]).expect("settings").proxies;
        assert_eq!(all.of("https", "x"), Some("http://a:3"));
    }

    #[test]
    fn wrong_values_are_named() {
        assert_eq!(settings(&[("HF_HUB_OFFLINE", "0")]).expect("settings").offline, None);
        assert!(settings(&[("HF_HUB_OFFLINE", "true")]).expect("settings").offline.is_some());
        let error = settings(&[("HF_ENDPOINT", "hf.co")]).expect_err("no scheme").to_string();
        assert!(error.contains("HF_ENDPOINT is `hf.co`"), "{error}");
        let error = settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).expect_err("no number").to_string();
        assert!(error.contains("`soon`, expected a whole number"), "{error}");
    }
}
