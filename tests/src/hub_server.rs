//! A Hub on loopback: the part of the Hugging Face Hub's protocol that downloads use, over HTTP/1.1, with faults on order.
//!
//! Large files are stored elsewhere, as on the real Hub: the answer names commit, ETag and size and redirects to a second
//! server, the store, which knows nothing of repositories. Small files are redirected to another path of the same server.

mod socks;
mod uploads;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub use socks::socks;

/// A request that a server has received.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether the store received it, and not the Hub.
    pub store: bool,
    /// `HEAD`, `GET`, `POST`, `PUT` or `CONNECT`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// What came with it.
    pub body: Vec<u8>,
    /// How many requests of this method this server had received before.
    pub earlier: usize,
}

/// What a server does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// What the Hub would do.
    Honest,
    /// This answer: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The right answer, cut off after so many bytes of its body.
    Cut(usize),
    /// So many bytes of the body, then silence until the client hangs up.
    Stall(usize),
    /// The body in so many pieces, each after a pause.
    Slow(usize, Duration),
    /// The right answer with its last byte changed.
    Corrupt,
    /// The whole body, whatever range was asked for.
    NoRanges,
}

/// A repository: files by commit, commits by branch or tag.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// Where branches and tags stand.
    pub revisions: BTreeMap<String, String>,
    /// Files by commit and path.
    pub files: BTreeMap<(String, String), Vec<u8>>,
    /// The token that may read it; anybody if none.
    pub token: Option<String>,
    /// Whether its terms must be accepted first.
    pub gated: bool,
    /// Whether it was made for its owners alone.
    pub private: bool,
}

type Script = dyn Fn(&Request) -> Act + Send + Sync;

struct State {
    repositories: BTreeMap<String, Repository>,
    /// Repositories that were renamed.
    renamed: BTreeMap<String, String>,
    requests: Vec<Request>,
    script: Arc<Script>,
    hub: String,
    store: String,
    /// The token that may write; any if none.
    writer: Option<String>,
    /// The parts of what was uploaded, by digest.
    uploads: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
}

/// Files of at least so many bytes are in the store.
const LARGE: usize = 1000;

/// A running Hub with its store. Its threads end with the process.
pub struct HubServer {
    /// What `HF_ENDPOINT` is for it.
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

/// A commit that is told from others by its number.
pub fn commit(number: u8) -> String {
    format!("{number:02x}").repeat(20)
}

/// Sha256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn etag(bytes: &[u8]) -> String {
    match bytes.len() {
        LARGE.. => sha256(bytes),
        size => hex(&Sha1::new_with_prefix(format!("blob {size}\0")).chain_update(bytes).finalize()),
    }
}

impl HubServer {
    /// A Hub without repositories.
    pub fn start() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("an address"));
        let (hub, store) = (bind(), bind());
        let endpoint = address(&hub);
        let state = Arc::new(Mutex::new(State {
            repositories: BTreeMap::new(),
            renamed: BTreeMap::new(),
            requests: Vec::new(),
            script: Arc::new(|_| Act::Honest),
            hub: endpoint.clone(),
            store: address(&store),
            writer: None,
            uploads: BTreeMap::new(),
        }));
        for (listener, is_store) in [(hub, false), (store, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || serve(stream, is_store, &state));
                }
            });
        }
        Self { endpoint, state }
    }

    /// Puts a file into a repository (`org/name`, `spaces/org/name` ...) at a commit where `revision` stands from now on.
    pub fn put(&self, repository: &str, revision: &str, commit: &str, path: &str, bytes: &[u8]) {
        let mut state = self.state.lock().expect("the state");
        let found = state.repositories.entry(repository.to_string()).or_default();
        found.revisions.insert(revision.to_string(), commit.to_string());
        found.files.insert((commit.to_string(), path.to_string()), bytes.to_vec());
    }

    /// Changes a repository.
    pub fn change(&self, repository: &str, change: impl FnOnce(&mut Repository)) {
        change(self.state.lock().expect("the state").repositories.entry(repository.to_string()).or_default());
    }

    /// Lets this token alone write.
    pub fn writer(&self, token: &str) {
        self.state.lock().expect("the state").writer = Some(token.to_string());
    }

    /// The files of a repository where `main` stands.
    pub fn files(&self, repository: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock().expect("the state");
        let Some(found) = state.repositories.get(repository) else { return BTreeMap::new() };
        let files = found.files.iter().filter(|((commit, _), _)| found.revisions.get("main") == Some(commit));
        files.map(|((_, path), bytes)| (path.clone(), bytes.clone())).collect()
    }

    /// Redirects an old name to a new one.
    pub fn rename(&self, old: &str, new: &str) {
        self.state.lock().expect("the state").renamed.insert(old.to_string(), new.to_string());
    }

    /// Says what happens to requests from now on; counting begins anew.
    pub fn script(&self, script: impl Fn(&Request) -> Act + Send + Sync + 'static) {
        let mut state = self.state.lock().expect("the state");
        state.script = Arc::new(script);
        state.requests.clear();
    }

    /// The requests since the last script.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("the state").requests.clone()
    }

    /// The `GET`s that the store has received.
    pub fn downloads(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.store && request.method == "GET").collect()
    }
}

/// An answer before it is written.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn of(status: u16, headers: Vec<(&'static str, String)>, body: &[u8]) -> Self {
        Self { status, headers, body: body.to_vec() }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let headers = vec![("X-Error-Code", code.to_string()), ("X-Error-Message", message.to_string())];
        Self::of(status, headers, message.as_bytes())
    }
}

fn serve(stream: TcpStream, store: bool, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    loop {
        let Some(mut request) = read(&mut reader, store) else { return };
        let act = {
            let mut state = state.lock().expect("the state");
            let same = |other: &&Request| other.store == store && other.method == request.method;
            request.earlier = state.requests.iter().filter(same).count();
            state.requests.push(request.clone());
            let script = state.script.clone();
            drop(state);
            script(&request)
        };
        if request.method == "CONNECT" {
            // As a proxy it is the host that was asked for.
            if (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_err() {
                return;
            }
            continue;
        }
        if write(&stream, &request, act, state).is_none() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>, store: bool) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, mut path) = (words.next()?.to_string(), words.next()?.to_string());
    if let Some((_, rest)) = path.split_once("://") {
        // A proxy is asked with the whole address.
        path = rest.find('/').map_or("/".into(), |at| rest[at..].to_string());
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { store, method, path, headers, body, earlier: 0 })
}

/// Writes the answer; none if the connection is over.
fn write(mut stream: &TcpStream, request: &Request, act: Act, state: &Mutex<State>) -> Option<()> {
    let (answer, ranges) = match &act {
        Act::Answer(status, headers, body) => (Answer::of(*status, headers.clone(), body), false),
        act => {
            let mut state = state.lock().expect("the state");
            let changed = uploads::answer(request, &mut state);
            (changed.unwrap_or_else(|| honest(request, &state)), !matches!(act, Act::NoRanges))
        }
    };
    let Answer { mut status, mut headers, mut body } = answer;
    let range =
        request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    if let Some(from) = range.filter(|_| ranges && status == 200) {
        let from: usize = from;
        if from >= body.len() {
            (status, body) = (416, Vec::new());
        } else {
            headers.push(("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())));
            (status, body) = (206, body[from..].to_vec());
        }
    }
    if let (Act::Corrupt, Some(last)) = (&act, body.last_mut()) {
        *last ^= 1;
    }
    let mut head = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method == "HEAD" {
        return Some(());
    }
    match act {
        Act::Cut(length) => {
            stream.write_all(&body[..length.min(body.len())]).ok()?;
            stream.shutdown(std::net::Shutdown::Both).ok()?;
            None
        }
        Act::Stall(length) => {
            stream.write_all(&body[..length.min(body.len())]).ok()?;
            // Until the client hangs up.
            let _ = stream.read(&mut [0]);
            None
        }
        Act::Slow(pieces, pause) => {
            for piece in body.chunks(body.len().div_ceil(pieces).max(1)) {
                std::thread::sleep(pause);
                stream.write_all(piece).ok()?;
            }
            Some(())
        }
        _ => stream.write_all(&body).ok(),
    }
}

/// What the Hub, or its store, answers.
fn honest(request: &Request, state: &State) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    if request.store {
        let all = state.repositories.values().flat_map(|repository| repository.files.values());
        let blob = path.trim_start_matches("/blobs/");
        return match all.into_iter().find(|bytes| etag(bytes) == blob) {
            Some(bytes) => Answer::of(200, vec![("ETag", "\"of-the-store\"".into())], bytes),
            None => Answer::of(403, Vec::new(), b"the signature is wrong"),
        };
    }
    if let Some(rest) = path.strip_prefix("/api/resolve-cache/") {
        let bytes = state.repositories.iter().find_map(|(name, repository)| {
            let (commit, file) = rest.strip_prefix(name)?.strip_prefix('/')?.split_once('/')?;
            repository.files.get(&(commit.to_string(), file.to_string()))
        });
        return match bytes {
            Some(bytes) => Answer::of(200, vec![("ETag", format!("\"{}\"", etag(bytes)))], bytes),
            None => Answer::error(404, "EntryNotFound", "Entry not found"),
        };
    }
    if let Some(rest) = path.strip_prefix("/api/") {
        let rest = rest.strip_prefix("models/").unwrap_or(rest);
        let (name, _) = rest.split_once("/revision/").unwrap_or((rest, ""));
        let files = state.repositories.get(name).into_iter().flat_map(|repository| repository.files.keys());
        let names: Vec<_> = files.map(|(_, file)| serde_json::json!({ "rfilename": file })).collect();
        let private = state.repositories.get(name).is_some_and(|repository| repository.private);
        let body = serde_json::json!({ "id": name, "private": private, "siblings": names }).to_string();
        return Answer::of(200, vec![("Content-Type", "application/json".into())], body.as_bytes());
    }
    let Some((name, rest)) = path.trim_start_matches('/').split_once("/resolve/") else {
        return Answer::of(404, Vec::new(), b"no such page");
    };
    if let Some(new) = state.renamed.get(name) {
        return Answer::of(307, vec![("Location", format!("/{new}/resolve/{rest}"))], b"");
    }
    let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
    let (revision, file) = (revision.replace("%2F", "/"), file.replace("%20", " "));
    let sent = request.headers.get("authorization").and_then(|sent| sent.strip_prefix("Bearer "));
    let Some(repository) = state.repositories.get(name) else {
        return match sent {
            // Whether there is one is not for strangers to know.
            None => Answer::error(401, "RepoNotFound", "Invalid username or password."),
            Some(_) => Answer::error(404, "RepoNotFound", "Repository not found"),
        };
    };
    if repository.token.is_some() && repository.token.as_deref() != sent {
        return match sent {
            Some(_) => Answer::error(401, "", "Invalid credentials in Authorization header"),
            None => Answer::error(401, "RepoNotFound", "Invalid username or password."),
        };
    }
    if repository.gated {
        return Answer::error(403, "GatedRepo", "Access to this model is restricted");
    }
    // A commit that no branch stands at any more is still there.
    let known = repository.files.keys().any(|(commit, _)| *commit == revision);
    let Some(commit) = repository.revisions.get(&revision).cloned().or(known.then(|| revision.clone())) else {
        return Answer::error(404, "RevisionNotFound", "Invalid rev id");
    };
    let Some(bytes) = repository.files.get(&(commit.clone(), file.clone())) else {
        return Answer::error(404, "EntryNotFound", "Entry not found");
    };
    let mut headers = vec![("X-Repo-Commit", commit.clone())];
    if bytes.len() < LARGE {
        headers.push(("Location", format!("/api/resolve-cache/{name}/{commit}/{file}")));
        return Answer::of(307, headers, b"");
    }
    headers.push(("X-Linked-Etag", format!("\"{}\"", etag(bytes))));
    headers.push(("X-Linked-Size", bytes.len().to_string()));
    headers.push(("ETag", "\"of-the-pointer\"".into()));
    headers.push(("Location", format!("{}/blobs/{}?signature=x", state.store, etag(bytes))));
    Answer::of(302, headers, b"")
}
