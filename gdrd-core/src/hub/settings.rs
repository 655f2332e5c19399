//! Where the Hub is, where its files are kept, and who asks: from the environment variables of the Hub's own clients.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use ureq::http::Uri;

use super::url::Url;

/// How the Hub is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: Url,
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
    https: Option<NamedProxy>,
    http: Option<NamedProxy>,
    all: Option<NamedProxy>,
    none: Vec<String>,
}

/// A proxy, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedProxy {
    pub(super) variable: String,
    pub(super) url: Url,
}

/// The variables that are read, proxies in lower case too.
const VARIABLES: [&str; 15] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_OFFLINE",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
];

impl Settings {
    /// The settings that the environment of this process says.
    ///
    /// # Errors
    /// If there is no folder for the cache, or a value cannot be read.
    pub fn from_env() -> Result<Self> {
        for (name, value) in std::env::vars_os() {
            let ours = name.to_str().filter(|name| VARIABLES.contains(&name.to_uppercase().as_str()));
            if let Some(name) = ours.filter(|_| value.to_str().is_none()) {
                return Err(Error::hub(format!("the environment variable {name} is not UTF-8")));
            }
        }
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
        let endpoint = Url::new(endpoint.trim_end_matches('/'));
        let is_web = |scheme: &str| ["https", "http"].contains(&scheme);
        let uri = endpoint.secret().parse::<Uri>().ok().filter(|uri| uri.scheme_str().is_some_and(is_web));
        if uri.is_none() {
            return Err(Error::hub(format!("HF_ENDPOINT is `{endpoint}`, expected https://HOST or http://HOST")));
        }
        let kept = variable("HF_TOKEN_PATH").map(folder).or_else(|| Some(hub_home?.join("token")));
        let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter();
        let token = named.filter_map(|name| Some((name.to_string(), variable(name)?))).next();
        let token = token.or_else(|| kept.and_then(|p| Some((format!("`{}`", p.display()), read_text(&p)?))));
        let token = token.map(|(place, text)| Token::of(&place, text.trim())).transpose()?.flatten();
        let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        let seconds = match variable("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => 10,
            Some(text) => text.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                Error::hub(format!("HF_HUB_DOWNLOAD_TIMEOUT is `{text}`, expected a whole number of seconds"))
            })?,
        };
        let either = |name: &str| {
            let found = |name: String| Some((name.clone(), variable(&name)?));
            found(name.to_lowercase()).or_else(|| found(name.to_string()))
        };
        let none = either("NO_PROXY").map(|(_, hosts)| hosts).unwrap_or_default();
        let proxy = |name: &str| either(name).map(|(variable, url)| NamedProxy { variable, url: Url::new(url) });
        Ok(Self {
            endpoint,
            cache,
            token,
            offline: variable("HF_HUB_OFFLINE").is_some_and(yes).then_some("HF_HUB_OFFLINE is set"),
            refresh: false,
            proxies: Proxies {
                https: proxy("HTTPS_PROXY"),
                http: proxy("HTTP_PROXY"),
                all: proxy("ALL_PROXY"),
                none: none.split(',').map(|host| host.trim().to_lowercase()).filter(|host| !host.is_empty()).collect(),
            },
            patience: Duration::from_secs(seconds),
            tries: 5,
            pause: Duration::from_millis(300),
        })
    }
}

/// The text of a file, whatever its bytes; none if there is no such file.
fn read_text(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

impl Token {
    /// The token that `place` holds; none if it is empty.
    ///
    /// # Errors
    /// If it has a character that no token has.
    fn of(place: &str, text: &str) -> Result<Option<Self>> {
        match text.chars().position(|c| !c.is_ascii_graphic()) {
            Some(at) => Err(Error::hub(format!(
                "the token in {place} has a character at place {} that no token has; expected letters, digits and signs \
                 of ASCII without spaces",
                at + 1
            ))),
            None => Ok((!text.is_empty()).then(|| Self(text.to_string()))),
        }
    }
}

impl Proxies {
    /// The proxy for a request to `host`.
    pub(super) fn of(&self, scheme: &str, host: &str) -> Option<&NamedProxy> {
        let host = host.to_lowercase();
        let spared = |pattern: &String| {
            let name = pattern.trim_start_matches('*').trim_start_matches('.');
            pattern == "*" || host == name || !name.is_empty() && host.ends_with(&format!(".{name}"))
        };
        if self.none.iter().any(spared) {
            return None;
        }
        let own = if scheme == "https" { &self.https } else { &self.http };
        own.as_ref().or(self.all.as_ref())
    }
}

#[cfg(test)]
mod tests {
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
        let of = |scheme: &str, host: &str| {
            proxies.of(scheme, host).map(|proxy| (proxy.variable.as_str(), proxy.url.secret()))
        };
        assert_eq!(of("https", "huggingface.co"), Some(("HTTPS_PROXY", "http://s:1")));
        assert_eq!(of("http", "huggingface.co"), Some(("http_proxy", "http://p:2")));
        for host in ["localhost", "a.inside.org", "inside.org", "x.lab"] {
            assert_eq!(of("https", host), None, "{host}");
        }
        assert_eq!(of("https", "notinside.org"), Some(("HTTPS_PROXY", "http://s:1")));
        let all = settings(&[("ALL_PROXY", "http://a:3")]).expect("settings").proxies;
        assert_eq!(all.of("https", "x").map(|proxy| proxy.url.secret()), Some("http://a:3"));
    }

    #[test]
    fn wrong_values_are_named() {
        assert_eq!(settings(&[("HF_HUB_OFFLINE", "0")]).expect("settings").offline, None);
        assert!(settings(&[("HF_HUB_OFFLINE", "true")]).expect("settings").offline.is_some());
        let error = settings(&[("HF_ENDPOINT", "hf.co")]).expect_err("no scheme").to_string();
        assert!(error.contains("HF_ENDPOINT is `hf.co`"), "{error}");
        let error = settings(&[("HF_ENDPOINT", "http://ann:pass word@h")]).expect_err("a space").to_string();
        assert!(error.contains("HF_ENDPOINT is `http://***@h`") && !error.contains("pass"), "{error}");
        let error = settings(&[("HF_TOKEN", "hf_s\u{e9}cret")]).expect_err("an accent").to_string();
        assert!(error.contains("the token in HF_TOKEN has a character at place 5"), "{error}");
        assert!(!error.contains("cret"), "{error}");
        let error = settings(&[("HUGGING_FACE_HUB_TOKEN", "two words")]).expect_err("a space").to_string();
        assert!(error.contains("the token in HUGGING_FACE_HUB_TOKEN has a character at place 4"), "{error}");
        let shown = settings(&[("ALL_PROXY", "http://ann:secret@h:3"), ("HF_ENDPOINT", "https://bob:hush@h")]);
        let shown = format!("{:?}", shown.expect("settings"));
        assert!(!shown.contains("secret") && !shown.contains("hush") && shown.contains("http://***@h:3"), "{shown}");
        let error = settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).expect_err("no number").to_string();
        assert!(error.contains("`soon`, expected a whole number"), "{error}");
    }
}
