//! Requests to the Hub: redirects, access, proxies, and what each answer means.

use std::time::Duration;

use super::HubAddress;
use crate::error::Error;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use super::settings::{NamedProxy, Settings};

/// Redirects that are followed.
const HOPS: usize = 6;
/// The longest pause that a server may ask for.
const LONGEST: Duration = Duration::from_secs(300);

/// Why a try failed.
pub(super) enum Fault {
    /// It may be better next time, after the pause that the server asked for.
    Again(String, Option<Duration>),
    /// It will not.
    Final(Error),
}

/// The outcome of a try.
pub(super) type Tried<T> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// What the Hub says of a file before its bytes.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) commit: String,
    pub(super) etag: String,
    pub(super) size: u64,
}

/// Where the Hub has a file at a revision.
pub(super) fn url_of(settings: &Settings, address: &HubAddress, revision: &str) -> String {
    let (repository, path) = (address.full_repository(), encoded(&address.path, true));
    format!("{}/{repository}/resolve/{}/{path}", settings.endpoint.secret(), encoded(revision, false))
}

fn in_circles(settings: &Settings, address: &HubAddress, revision: &str) -> Fault {
    let url = settings.endpoint.hidden_in(url_of(settings, address, revision));
    Error::hub(format!("more than {HOPS} redirects from {url}")).into()
}

/// Percent-encodes everything that has a meaning in a URL.
pub(super) fn encoded(text: &str, keep_slashes: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || keep_slashes && b == b'/';
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Asks for commit, ETag and size.
pub(super) fn metadata(settings: &Settings, address: &HubAddress, revision: &str) -> Tried<Metadata> {
    let mut url = url_of(settings, address, revision);
    let (mut commit, mut etag, mut size) = (None, None, None);
    for _ in 0..HOPS {
        let answer = send(settings, "HEAD", &url, None)?;
        let headers = answer.headers();
        commit = commit.or_else(|| text(headers, "x-repo-commit"));
        etag = etag.or_else(|| text(headers, "x-linked-etag"));
        size = size.or_else(|| text(headers, "x-linked-size"));
        let next = redirect(&url, &answer);
        // Past this redirect is the store of the bytes, which knows nothing of repositories.
        let leaves = next.as_ref().is_some_and(|next| origin(next) != origin(&url) && commit.is_some());
        match next {
            Some(next) if !leaves => url = next,
            _ => {
                if next.is_none() && !answer.status().is_success() {
                    return Err(refusal(settings, address, revision, &answer));
                }
                etag = etag.or_else(|| text(headers, "etag"));
                size = size.or_else(|| if leaves { None } else { text(headers, "content-length") });
                return understood(settings, commit, etag, size, &answer);
            }
        }
    }
    Err(in_circles(settings, address, revision))
}

fn understood(
    settings: &Settings,
    commit: Option<String>,
    etag: Option<String>,
    size: Option<String>,
    answer: &Response<Body>,
) -> Tried<Metadata> {
    let plain = |text: String| text.trim_start_matches("W/").trim_matches('"').to_string();
    let good =
        |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let commit = commit.filter(|commit| super::cache::is_commit(commit));
    let size = size.and_then(|size| size.parse().ok());
    match (commit, etag.map(plain).filter(good), size) {
        (Some(commit), Some(etag), Some(size)) => Ok(Metadata { commit, etag, size }),
        (commit, etag, size) => {
            let lacks = [("X-Repo-Commit", commit.is_none()), ("ETag", etag.is_none()), ("size", size.is_none())];
            let lacks: Vec<&str> = lacks.into_iter().filter(|(_, lacks)| *lacks).map(|(name, _)| name).collect();
            Err(Error::hub(format!(
                "{} does not answer as a Hub does: {} without {}{}; is HF_ENDPOINT right, does a proxy ask for a login?",
                settings.endpoint,
                answer.status().as_u16(),
                lacks.join(", "),
                if is_page(answer) { ", but with a web page" } else { "" },
            ))
            .into())
        }
    }
}

/// The bytes of a file from `start` on, and whether the server begins there (206) or at 0 (200).
pub(super) fn bytes(settings: &Settings, address: &HubAddress, commit: &str, start: u64) -> Tried<Response<Body>> {
    let mut url = url_of(settings, address, commit);
    for _ in 0..HOPS {
        let answer = send(settings, "GET", &url, (start > 0).then_some(start))?;
        match redirect(&url, &answer) {
            Some(next) => url = next,
            None if answer.status().is_success() || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                return Ok(answer);
            }
            // A signed address of the store may have run out; the next try gets a new one.
            None if origin(&url) != origin(settings.endpoint.secret()) && answer.status() == StatusCode::FORBIDDEN => {
                return Err(Fault::Again("the store of the bytes answered 403".into(), None));
            }
            None => return Err(refusal(settings, address, commit, &answer)),
        }
    }
    Err(in_circles(settings, address, commit))
}

/// The files of a repository, for suggestions; none if the Hub does not say.
pub(super) fn files(settings: &Settings, address: &HubAddress, revision: &str) -> Vec<String> {
    let kind = match address.repository_type.prefix() {
        "" => "models/",
        prefix => prefix,
    };
    let url = format!(
        "{}/api/{kind}{}/revision/{}",
        settings.endpoint.secret(),
        address.repository,
        encoded(revision, false)
    );
    let Ok(mut answer) = send(settings, "GET", &url, None) else { return Vec::new() };
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let names = value["siblings"].as_array().into_iter().flatten();
    names.filter_map(|file| file["rfilename"].as_str().map(String::from)).collect()
}

/// A `GET` or `HEAD`, from byte `start` on if one is named.
pub(super) fn send(settings: &Settings, method: &str, url: &str, start: Option<u64>) -> Tried<Response<Body>> {
    let agent = agent(settings, url, settings.patience)?;
    let request = if method == "HEAD" { agent.head(url) } else { agent.get(url) };
    let mut request = request.header("accept-encoding", "identity");
    if let Some(start) = start {
        request = request.header("range", format!("bytes={start}-"));
    }
    if let Some((name, value)) = authorization(settings, url) {
        request = request.header(name, value);
    }
    request.call().map_err(|error| fault(settings, url, error))
}

/// How long a server may think about what was sent to it.
const THINKING: Duration = Duration::from_secs(60);

/// A `POST` or `PUT` of a body of this type.
pub(super) fn send_body(
    settings: &Settings,
    method: &str,
    url: &str,
    content_type: &str,
    body: &[u8],
) -> Tried<Response<Body>> {
    let agent = agent(settings, url, settings.patience.max(THINKING))?;
    let request = if method == "PUT" { agent.put(url) } else { agent.post(url) };
    let mut request = request.header("content-type", content_type).header("accept", "*/*");
    if content_type.starts_with(LFS) {
        request = request.header("accept", LFS);
    }
    if let Some((name, value)) = authorization(settings, url) {
        request = request.header(name, value);
    }
    request.send(body).map_err(|error| fault(settings, url, error))
}

/// The type of what is said about large files.
pub(super) const LFS: &str = "application/vnd.git-lfs+json";

fn agent(settings: &Settings, url: &str, patience: Duration) -> Result<Agent, Error> {
    let (scheme, host) = scheme_and_host(url);
    let proxy = settings.proxies.of(scheme, host).map(proxy).transpose()?;
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(proxy)
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .user_agent(concat!("gdrd/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(settings.patience))
        .timeout_recv_response(Some(patience))
        .timeout_per_read(Some(patience))
        .build();
    Ok(config.into())
}

/// The token is for the Hub alone, not for the stores that it sends us to.
fn authorization(settings: &Settings, url: &str) -> Option<(&'static str, String)> {
    let token = settings.token.as_ref().filter(|_| origin(url) == origin(settings.endpoint.secret()))?;
    Some(("authorization", format!("Bearer {}", token.0)))
}

/// What it means that no answer came.
fn fault(settings: &Settings, url: &str, error: ureq::Error) -> Fault {
    let (scheme, host) = scheme_and_host(url);
    let mut text = settings.endpoint.hidden_in(format!("no answer from {host}: {error}"));
    if let Some(NamedProxy { variable, url }) = settings.proxies.of(scheme, host) {
        text = format!("{} (through {variable}, {url})", url.hidden_in(text));
    }
    match error {
        // A certificate that is not trusted, for one.
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Fault::Final(Error::hub(text)),
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::HostNotFound => Fault::Again(text, None),
        ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => Fault::Again(text, None),
        _ => Fault::Final(Error::hub(text)),
    }
}

/// The proxy that a variable names.
fn proxy(NamedProxy { variable, url }: &NamedProxy) -> Result<Proxy, Error> {
    Proxy::new(url.secret()).map_err(|_| {
        Error::hub(format!(
            "{variable} is `{url}`, expected [SCHEME://][USER:PASSWORD@]HOST[:PORT], where SCHEME is http, https, socks4, \
             socks4a, socks5 or socks5h"
        ))
    })
}

/// What an answer that is neither the file nor a redirect means.
fn refusal(settings: &Settings, address: &HubAddress, revision: &str, answer: &Response<Body>) -> Fault {
    let (status, headers) = (answer.status().as_u16(), answer.headers());
    let (repository, endpoint) = (address.full_repository(), &settings.endpoint);
    let code = text(headers, "x-error-code").unwrap_or_default();
    let message = text(headers, "x-error-message").unwrap_or_default();
    let token = match settings.token {
        Some(_) => "the token that was sent may not read it",
        None => "no token was sent; set HF_TOKEN",
    };
    let said = match (status, code.as_str()) {
        (408 | 429 | 500..=599, _) => {
            return Fault::Again(format!("{endpoint} answered {status} {message}").trim_end().into(), pause(headers));
        }
        (_, "GatedRepo") => format!(
            "the repository `{repository}` is gated: accept its terms at {endpoint}/{repository}, then come with your \
             token ({token})"
        ),
        (_, "RevisionNotFound") => format!("the repository `{repository}` has no revision `{revision}`"),
        (_, "EntryNotFound") => {
            let known = files(settings, address, revision);
            let near = crate::near::suggest(&address.path, known.iter().map(String::as_str));
            let near = if known.is_empty() { String::new() } else { format!("; {near}") };
            format!("the repository `{repository}` has no file `{}` at revision `{revision}`{near}", address.path)
        }
        (401, _) if message.contains("Invalid credentials") => format!("{endpoint} knows no such token as HF_TOKEN"),
        (401 | 404, "" | "RepoNotFound") | (_, "RepoNotFound") => {
            let kind = format!("{:?}", address.repository_type).to_lowercase();
            format!("{endpoint} has no {kind} `{}`, or it is private ({token})", address.repository)
        }
        (403, _) => format!("{endpoint} refuses `{repository}` (403 {message}); {token}"),
        _ => format!("{endpoint} answered {status} {code} {message}"),
    };
    Fault::Final(Error::hub(said))
}

/// The pause that a server asks for: `Retry-After`, or the Hub's `RateLimit: "resolvers";r=0;t=55`.
pub(super) fn pause(headers: &HeaderMap) -> Option<Duration> {
    let asked = text(headers, "retry-after").and_then(|text| text.trim().parse().ok());
    let reset = || text(headers, "ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    asked.or_else(reset).map(|seconds| Duration::from_secs(seconds).min(LONGEST))
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(String::from)
}

/// Whether the body is a page for people.
pub(super) fn is_page(answer: &Response<Body>) -> bool {
    text(answer.headers(), "content-type").is_some_and(|kind| kind.starts_with("text/html"))
}

/// Where a redirect leads.
fn redirect(url: &str, answer: &Response<Body>) -> Option<String> {
    let location = answer.status().is_redirection().then(|| text(answer.headers(), "location"))??;
    if location.contains("://") {
        return Some(location);
    }
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{}://{rest}", scheme_and_host(url).0));
    }
    if location.starts_with('/') {
        return Some(format!("{}{location}", origin(url)));
    }
    let folder = url.split('?').next()?.rsplit_once('/')?.0;
    Some(format!("{folder}/{location}"))
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let from = url.find("://").map_or(0, |at| at + 3);
    let length = url[from..].find(['/', '?', '#']).unwrap_or(url.len() - from);
    &url[..from + length]
}

fn scheme_and_host(url: &str) -> (&str, &str) {
    let (scheme, rest) = origin(url).split_once("://").unwrap_or(("https", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    (scheme, host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(host, _)| host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_put_together() {
        assert_eq!(origin("https://h:8/a?b"), "https://h:8");
        assert_eq!(scheme_and_host("http://127.0.0.1:80/x"), ("http", "127.0.0.1"));
        assert_eq!(scheme_and_host("https://[::1]:80/x"), ("https", "[::1]"));
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/é#.pth", true), "a%20b/%C3%A9%23.pth");
    }

    #[test]
    fn redirects_lead_from_where_they_were_said() {
        let answer = |location: &str| {
            let built = Response::builder().status(302).header("location", location);
            redirect("https://h/a/b/c?x=/y", &built.body(Body::builder().data("")).expect("a response"))
        };
        assert_eq!(answer("https://cdn/z").as_deref(), Some("https://cdn/z"));
        assert_eq!(answer("//cdn/z").as_deref(), Some("https://cdn/z"));
        assert_eq!(answer("/z?q").as_deref(), Some("https://h/z?q"));
        assert_eq!(answer("z").as_deref(), Some("https://h/a/b/z"));
    }

    #[test]
    fn pauses_are_read_in_both_forms_and_bounded() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(name.parse().expect("a name"), value.parse().expect("a value"))])
        };
        assert_eq!(pause(&headers("retry-after", "7")), Some(Duration::from_secs(7)));
        assert_eq!(pause(&headers("ratelimit", "\"resolvers\";r=0;t=55")), Some(Duration::from_secs(55)));
        assert_eq!(pause(&headers("retry-after", "99999")), Some(LONGEST));
        assert_eq!(pause(&headers("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")), None);
    }
}
