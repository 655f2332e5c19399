//! Files put into a model repository of the Hub, in one commit: small ones within it, large ones before it by Git LFS.
//!
//! The requests are those of the Python client's `create_repo` and `create_commit` (huggingface_hub, `hf_api.py`, `_commit_api.py`,
//! `lfs.py`); the newer store of large files, Xet, is not spoken, and the Hub takes Git LFS beside it.

use std::collections::BTreeMap;

use super::{DEFAULT_REVISION, HUB_SCHEME, HubAddress, RepositoryType};
use crate::digest;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::Body;
use ureq::http::Response;

use super::client::{Hub, tell};
use super::http::{self, Fault, LFS, Tried};

/// What is to be put into which repository.
pub struct Push<'a> {
    /// `ORG/NAME` of a model repository, which is made if it is not there.
    pub repository: &'a str,
    /// Whether everybody may read it. Nothing is put into one that everybody may read if this is false.
    pub public: bool,
    /// The commit's message.
    pub message: &'a str,
    /// The files: paths in the repository, and bytes.
    pub files: &'a [(String, Vec<u8>)],
}

/// What a push has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The repository's page.
    pub url: String,
    /// The commit.
    pub commit: String,
    /// Whether only its owners may read the repository.
    pub private: bool,
}

/// Bytes of a file from which the Hub guesses whether it is text.
const SAMPLE: usize = 512;
const JSON: &str = "application/json";

impl Push<'_> {
    /// Owner and name of the repository.
    fn names(&self) -> Result<(&str, &str)> {
        let address = format!("{HUB_SCHEME}{}/README.md", self.repository).parse::<HubAddress>().ok();
        let plain = |found: &HubAddress| {
            found.repository_type == RepositoryType::Model
                && found.revision.is_none()
                && found.repository == self.repository
        };
        address.filter(plain).and_then(|_| self.repository.split_once('/')).ok_or_else(|| {
            Error::hub(format!(
                "`{}` is no model repository; expected OWNER/NAME, such as ann/small-faces",
                self.repository
            ))
        })
    }
}

impl Hub {
    /// Puts files into a model repository, in one commit on its branch `main`.
    ///
    /// # Errors
    /// If there is no token or it may not write there, the network is not to be used, everybody may read the repository though that is not
    /// wanted, or the Hub refuses. Before the commit, the last request, nothing of the files can be seen by anybody.
    pub fn push(&self, push: &Push, observer: &dyn Observer) -> Result<Pushed> {
        let (owner, name) = push.names()?;
        if let Some(why) = self.settings.offline {
            return Err(Error::hub(format!("a push needs the network, and {why}")));
        }
        if self.settings.token.is_none() {
            return Err(Error::hub(
                "a push needs a token that may write: set HF_TOKEN, or log in by the Hub's own `hf auth login`",
            ));
        }
        let visibility = if push.public { "public" } else { "private" };
        let wanted = json!({ "name": name, "organization": owner, "visibility": visibility });
        let made =
            self.post("api/repos/create", "make the repository", JSON, wanted.to_string().as_bytes(), observer)?;
        // 409: it is there.
        if made.status().as_u16() != 409 {
            self.answer(made, "make the repository")?;
        }
        let private = self.is_private(push, observer)?;
        let regular = self.upload_large(push, observer)?;
        let mut lines = vec![json!({ "key": "header", "value": { "summary": push.message, "description": "" } })];
        for (path, bytes) in push.files {
            lines.push(match regular.contains(path) {
                true => json!({
                    "key": "file",
                    "value": { "content": STANDARD.encode(bytes), "path": path, "encoding": "base64" },
                }),
                false => json!({
                    "key": "lfsFile",
                    "value": { "path": path, "algo": "sha256", "oid": sha256(bytes), "size": bytes.len() },
                }),
            });
        }
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (url, what) = (self.url(&format!("api/models/{}/commit/{DEFAULT_REVISION}", push.repository)), "commit");
        // One that was not answered may have been made: it is not sent again.
        let answer = http::send_body(&self.settings, "POST", &url, "application/x-ndjson", body.as_bytes());
        let answer = answer.map_err(|fault| match fault {
            Fault::Final(error) => error,
            Fault::Again(why, _) => {
                Error::hub(format!("{why}; whether the commit was made, `{}` says", self.page(push)))
            }
        })?;
        let said = self.answer(answer, what)?;
        let commit = said["commitOid"].as_str().unwrap_or_default().to_string();
        if commit.is_empty() {
            return Err(self.unexpected(what, "no `commitOid`"));
        }
        Ok(Pushed { url: self.page(push), commit, private })
    }

    fn page(&self, push: &Push) -> String {
        format!("{}/{}", self.settings.endpoint, push.repository)
    }

    /// Whether only its owners may read the repository; an error if all may, and that is not wanted.
    fn is_private(&self, push: &Push, observer: &dyn Observer) -> Result<bool> {
        let url = self.url(&format!("api/models/{}", push.repository));
        let what = "say whether the repository is private";
        let answer = self.patiently(&what, observer, || passed(http::send(&self.settings, "GET", &url, None)?))?;
        match (self.answer(answer, what)?["private"].as_bool(), push.public) {
            (Some(false), false) => Err(Error::hub(format!(
                "everybody may read `{}`, and nothing was put into it; `--public` says that this is meant",
                push.repository
            ))),
            (Some(private), _) => Ok(private),
            (None, _) => Err(self.unexpected(what, "no `private`")),
        }
    }

    /// Uploads the files that are not part of the commit itself; the paths of those that are.
    fn upload_large(&self, push: &Push, observer: &dyn Observer) -> Result<Vec<String>> {
        let what = "say how files are sent";
        let about = |(path, bytes): &(String, Vec<u8>)| {
            let sample = STANDARD.encode(&bytes[..bytes.len().min(SAMPLE)]);
            json!({ "path": path, "sample": sample, "size": bytes.len() })
        };
        let body = json!({ "files": push.files.iter().map(about).collect::<Vec<_>>() }).to_string();
        let path = format!("api/models/{}/preupload/{DEFAULT_REVISION}", push.repository);
        let modes = self.answer(self.post(&path, what, JSON, body.as_bytes(), observer)?, what)?;
        let modes = modes["files"].as_array().ok_or_else(|| self.unexpected(what, "no `files`"))?;
        let mode = |path: &str| modes.iter().find(|file| file["path"] == path)?["uploadMode"].as_str();
        let mut regular = Vec::new();
        let mut large: BTreeMap<String, (&str, &[u8])> = BTreeMap::new();
        for (path, bytes) in push.files {
            match mode(path) {
                Some("lfs") if !bytes.is_empty() => {
                    large.insert(sha256(bytes), (path, bytes));
                }
                Some("regular" | "lfs") => regular.push(path.clone()),
                found => return Err(self.unexpected(what, &format!("for `{path}` the mode {found:?}"))),
            }
        }
        if large.is_empty() {
            return Ok(regular);
        }
        let what = "say where large files go";
        let objects: Vec<Value> =
            large.iter().map(|(oid, (_, bytes))| json!({ "oid": oid, "size": bytes.len() })).collect();
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256",
            "ref": { "name": DEFAULT_REVISION },
        });
        let path = format!("{}.git/info/lfs/objects/batch", push.repository);
        let said = self.answer(self.post(&path, what, LFS, body.to_string().as_bytes(), observer)?, what)?;
        for object in said["objects"].as_array().into_iter().flatten() {
            let oid = object["oid"].as_str().unwrap_or_default();
            let Some((path, bytes)) = large.remove(oid) else {
                return Err(self.unexpected(what, &format!("an object `{oid}` that it was not asked about")));
            };
            if let Some(message) = object["error"]["message"].as_str() {
                return Err(Error::hub(format!("{} refuses `{path}`: {message}", self.settings.endpoint)));
            }
            // Without actions, the bytes are there.
            if !object["actions"].is_null() {
                self.upload(path, bytes, (oid, &object["actions"]), observer)?;
            }
        }
        match large.into_values().next() {
            Some((path, _)) => Err(self.unexpected(what, &format!("nothing about `{path}`"))),
            None => Ok(regular),
        }
    }

    /// Brings the bytes of a large file to where the Hub says, in parts if it says so.
    fn upload(&self, path: &str, bytes: &[u8], (oid, actions): (&str, &Value), observer: &dyn Observer) -> Result<()> {
        let what = format!("take `{path}`");
        let href = |action: &Value| action["href"].as_str().map(String::from);
        let target = href(&actions["upload"]).ok_or_else(|| self.unexpected(&what, "no address for the bytes"))?;
        let header = actions["upload"]["header"].as_object().cloned().unwrap_or_default();
        let chunk = header.get("chunk_size").map(|size| size.as_str().map_or(size.as_u64(), |text| text.parse().ok()));
        let telling = |done: usize| {
            tell(observer, &Event::Working { what: format!("uploading {path}"), done, total: bytes.len() })
        };
        telling(0)?;
        match chunk {
            None => {
                self.put(&what, &target, bytes, observer)?;
            }
            Some(chunk) => {
                let chunk = chunk.and_then(|chunk| usize::try_from(chunk).ok()).filter(|chunk| *chunk > 0);
                let chunk = chunk.ok_or_else(|| self.unexpected(&what, "parts of no size"))?;
                let number = |(name, url): (&String, &Value)| Some((name.parse().ok()?, url.as_str()?.to_string()));
                let urls: BTreeMap<u32, String> = header.iter().filter_map(number).collect();
                if urls.len() != bytes.len().div_ceil(chunk) {
                    let found = format!("{} addresses for {} bytes in parts of {chunk}", urls.len(), bytes.len());
                    return Err(self.unexpected(&what, &found));
                }
                let mut parts = Vec::new();
                for (part, (number, url)) in bytes.chunks(chunk).zip(urls) {
                    let answer = self.put(&what, &url, part, observer)?;
                    let etag = http::text(answer.headers(), "etag").filter(|etag| !etag.is_empty());
                    let etag = etag.ok_or_else(|| self.unexpected(&what, "a part without an ETag"))?;
                    parts.push(json!({ "partNumber": number, "etag": etag }));
                    telling((parts.len() * chunk).min(bytes.len()))?;
                }
                let body = json!({ "oid": oid, "parts": parts }).to_string();
                self.answer(self.post_to(&target, &what, LFS, body.as_bytes(), observer)?, &what)?;
            }
        }
        telling(bytes.len())?;
        if let Some(verify) = href(&actions["verify"]) {
            let body = json!({ "oid": oid, "size": bytes.len() }).to_string();
            self.answer(self.post_to(&verify, &what, JSON, body.as_bytes(), observer)?, &what)?;
        }
        Ok(())
    }

    fn put(&self, what: &str, url: &str, bytes: &[u8], observer: &dyn Observer) -> Result<Response<Body>> {
        let send = || passed(http::send_body(&self.settings, "PUT", url, "application/octet-stream", bytes)?);
        let answer = self.patiently(&what, observer, send)?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(self.refused(answer, what)),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.settings.endpoint.secret())
    }

    fn post(&self, path: &str, what: &str, kind: &str, body: &[u8], observer: &dyn Observer) -> Result<Response<Body>> {
        self.post_to(&self.url(path), what, kind, body, observer)
    }

    fn post_to(
        &self,
        url: &str,
        what: &str,
        kind: &str,
        body: &[u8],
        observer: &dyn Observer,
    ) -> Result<Response<Body>> {
        self.patiently(&what, observer, || passed(http::send_body(&self.settings, "POST", url, kind, body)?))
    }

    /// What a good answer says; nothing where it says no JSON.
    fn answer(&self, mut answer: Response<Body>, what: &str) -> Result<Value> {
        if !answer.status().is_success() {
            return Err(self.refused(answer, what));
        }
        let text = answer.body_mut().read_to_string().map_err(|e| self.unexpected(what, &e.to_string()))?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    fn refused(&self, mut answer: Response<Body>, what: &str) -> Error {
        let status = answer.status().as_u16();
        let header = http::text(answer.headers(), "x-error-message");
        let body = answer.body_mut().read_to_string().unwrap_or_default();
        let in_body =
            serde_json::from_str::<Value>(&body).ok().and_then(|said| said["error"].as_str().map(String::from));
        let said = header.or(in_body).map_or(String::new(), |said| format!(": {said}"));
        let advice = match status {
            300..=399 => "; is the repository called otherwise now?",
            401 => "; the Hub does not know this token",
            403 => "; the token may not write there (a token has the role `write`, or names the repository)",
            _ => "",
        };
        Error::hub(format!("{} was asked to {what} and answered {status}{said}{advice}", self.settings.endpoint))
    }

    fn unexpected(&self, what: &str, found: &str) -> Error {
        let endpoint = &self.settings.endpoint;
        Error::hub(format!("{endpoint} was asked to {what} and does not answer as a Hub does: {found}"))
    }
}

/// An answer that will not be another one next time.
fn passed(answer: Response<Body>) -> Tried<Response<Body>> {
    match answer.status().as_u16() {
        status @ (408 | 429 | 500..=599) => {
            Err(Fault::Again(format!("the server answered {status}"), http::pause(answer.headers())))
        }
        _ => Ok(answer),
    }
}

fn sha256(bytes: &[u8]) -> String {
    digest::hex(&digest::of_bytes(bytes))
}
