//! One file: from the cache, or from the network, and verified.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cache::{self, Cache, Cached};
use super::http::{self, Fault, Metadata, Tried};
use super::part::Part;
use super::{DEFAULT_REVISION, HubAddress, HubFile, LockedFile, Settings};
use crate::digest;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::observe::{Event, Flow, Observer};

/// The Hub, and the part of it that is on this machine.
pub struct Hub {
    pub(super) settings: Settings,
    licence: fn(&HubAddress) -> Option<String>,
}

impl Hub {
    /// The Hub as these settings reach it.
    pub fn new(settings: Settings) -> Self {
        Self { settings, licence: |_| None }
    }

    /// The Hub as the environment variables of its own clients say: `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the like.
    ///
    /// # Errors
    /// If there is no folder for the cache, or a value cannot be read.
    pub fn from_env() -> Result<Self> {
        Ok(Self::new(Settings::from_env()?))
    }

    /// The same Hub, by somebody who knows licences and terms of some files.
    #[must_use]
    pub fn with_licences(self, licence: fn(&HubAddress) -> Option<String>) -> Self {
        Self { licence, ..self }
    }

    /// One file: from the cache if it is there, from the network if not.
    ///
    /// # Errors
    /// If the file cannot be had, is not the one that is locked, or is damaged; what is no use for another try is removed from
    /// the cache.
    pub fn get(&self, address: &HubAddress, locked: Option<&LockedFile>, observer: &dyn Observer) -> Result<HubFile> {
        let found = self.cached_or_downloaded(address, locked, observer).at(|| address.to_string())?;
        Ok(HubFile { licence: (self.licence)(address), ..found })
    }

    fn cached_or_downloaded(
        &self,
        address: &HubAddress,
        locked: Option<&LockedFile>,
        observer: &dyn Observer,
    ) -> Result<HubFile> {
        let revision = locked.map_or(address.revision(), |locked| &locked.commit);
        let cache = Cache::of(&self.settings.cache, address);
        let fresh = self.settings.refresh && !cache::is_commit(revision);
        if let Some(Cached { path, commit }) = cache.find(revision, &address.path).filter(|_| !fresh) {
            match undamaged(&path)? {
                Ok((sha256, size)) => return file(&path, LockedFile { commit, sha256, size }, locked),
                Err(damage) if self.settings.offline.is_some() => return Err(Error::hub(damage)),
                Err(damage) => warn(observer, format!("{address}: {damage}; downloading it again"))?,
            }
        }
        if let Some(why) = self.settings.offline {
            let mut commits = cache.commits_with(&address.path);
            // A cache that was copied without its references has no word for what `main` stands for.
            if locked.is_none() && revision == DEFAULT_REVISION && !cache.knows(revision) && commits.len() == 1 {
                let commit = commits.remove(0);
                warn(
                    observer,
                    format!(
                        "{address}: the cache does not say which commit `{revision}` is; taking {commit}, the only one that is there"
                    ),
                )?;
                let pinned = address.clone().at_revision(&commit).map_err(Error::hub)?;
                return self.cached_or_downloaded(&pinned, None, observer);
            }
            let there = match commits.is_empty() {
                true => String::new(),
                false => format!(" (it is there at commit {}; `@COMMIT` in the address names one)", commits.join(", ")),
            };
            return Err(Error::hub(format!(
                "not in the cache `{}`{}{there}, and {why}",
                self.settings.cache.display(),
                if locked.is_some() { format!(" at commit {revision}") } else { String::new() },
            )));
        }
        self.download(address, revision, locked, &cache, observer)
    }

    fn download(
        &self,
        address: &HubAddress,
        revision: &str,
        locked: Option<&LockedFile>,
        cache: &Cache,
        observer: &dyn Observer,
    ) -> Result<HubFile> {
        let metadata = self.patiently(address, observer, || http::metadata(&self.settings, address, revision))?;
        let Metadata { commit, etag, size } = &metadata;
        if let Some(locked) = locked
            && (etag.len() == 64 && *etag != locked.sha256 || *size != locked.size)
        {
            return Err(differs(locked, &format!("{size} bytes with ETag {etag}")));
        }
        let lock = cache.lock(etag, || poll(observer, &format!("waiting for another process: {address}")))?;
        let blob = cache.blob(etag);
        let there = match blob.is_file() {
            true => undamaged(&blob)?.ok().filter(|(_, found)| found == size),
            false => None,
        };
        let is_new = there.is_none();
        let sha256 = match there {
            Some((sha256, _)) => sha256,
            None => self.bytes(address, &metadata, cache, observer)?,
        };
        let found = LockedFile { commit: commit.clone(), sha256, size: *size };
        let checked = file(&blob, found, locked)?;
        let path = cache.link(etag, revision, commit, &address.path, is_new)?;
        drop(lock);
        Ok(HubFile { path, ..checked })
    }

    /// Tries until it is done, will never be, or patience is at its end.
    pub(super) fn patiently<T>(
        &self,
        what: &dyn Display,
        observer: &dyn Observer,
        mut attempt: impl FnMut() -> Tried<T>,
    ) -> Result<T> {
        let mut patience = Patience::new(&self.settings);
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Again(why, pause)) => patience.wait(what, why, pause, observer)?,
            }
        }
    }

    /// Downloads and verifies a blob; its sha256.
    fn bytes(
        &self,
        address: &HubAddress,
        metadata: &Metadata,
        cache: &Cache,
        observer: &dyn Observer,
    ) -> Result<String> {
        let mut part = Part::open(cache.incomplete(&metadata.etag), &metadata.etag, metadata.size)?;
        let mut patience = Patience::new(&self.settings);
        let mut wrong = false;
        loop {
            let before = part.done;
            let fault = match self.receive(address, metadata, &mut part, observer) {
                Ok(()) => match part.verified() {
                    Ok(sha256) => {
                        part.persist(&cache.blob(&metadata.etag))?;
                        return Ok(sha256);
                    }
                    // A part of an earlier try may be to blame, once.
                    Err(why) if !wrong => {
                        wrong = true;
                        part.restart()?;
                        warn(observer, format!("{address}: {why}; downloading it again"))?;
                        continue;
                    }
                    Err(why) => Fault::Final(Error::hub(why)),
                },
                Err(fault) => fault,
            };
            match fault {
                Fault::Final(error) => {
                    if error.kind() != ErrorKind::Stopped {
                        part.discard();
                    }
                    return Err(error);
                }
                Fault::Again(why, pause) => {
                    if part.done > before {
                        patience = Patience::new(&self.settings);
                    }
                    let kept = match part.done {
                        0 => why,
                        done => format!("{why}; {done} of {} bytes are here", metadata.size),
                    };
                    if let Err(error) = patience.wait(address, kept, pause, observer) {
                        if part.done == 0 {
                            part.discard();
                        }
                        return Err(error);
                    }
                }
            }
        }
    }

    /// One try at the rest of a blob.
    fn receive(
        &self,
        address: &HubAddress,
        metadata: &Metadata,
        part: &mut Part,
        observer: &dyn Observer,
    ) -> Tried<()> {
        if part.is_complete() {
            return Ok(());
        }
        let mut answer = http::bytes(&self.settings, address, &metadata.commit, part.done)?;
        let header = |name| http::text(answer.headers(), name);
        match answer.status().as_u16() {
            206 => {
                let from = header("content-range")
                    .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
                if from != Some(part.done) {
                    part.restart()?;
                    return Err(Fault::Again("the server sent another range than it was asked for".into(), None));
                }
            }
            416 => {
                part.restart()?;
                return Err(Fault::Again("the server has no such range".into(), None));
            }
            // The server knows no ranges and begins again.
            _ => part.restart()?,
        }
        if http::is_page(&answer) && !address.path.ends_with(".html") {
            let why = "a web page came in the place of the file; does a proxy or a network ask for a login?";
            return Err(Error::hub(why).into());
        }
        let (expected, announced) = (metadata.size - part.done, header("content-length"));
        if let Some(announced) = announced.filter(|length| *length != expected.to_string()) {
            return Err(Fault::Again(format!("expected {expected} bytes, the server announces {announced}"), None));
        }
        let mut body = answer.body_mut().as_reader();
        loop {
            let event = Event::Downloading { what: address.to_string(), done: part.done, total: metadata.size };
            tell(observer, &event)?;
            match part.take(&mut body)? {
                Ok(true) => {}
                Ok(false) if part.is_complete() => break,
                Ok(false) => return Err(Fault::Again("the connection ended too soon".into(), None)),
                Err(error) => return Err(Fault::Again(format!("the connection broke: {error}"), None)),
            }
        }
        let event = Event::Downloading { what: address.to_string(), done: part.done, total: metadata.size };
        tell(observer, &event)?;
        Ok(())
    }
}

/// Sha256 and size of a file of the cache, or in what way it is damaged.
fn undamaged(path: &Path) -> Result<std::result::Result<(String, u64), String>> {
    let sha256 = digest::of_file(path)?;
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    Ok(match cache::sha256_by_name(path) {
        Some(name) if name != sha256 => {
            Err(format!("the cached file `{}` is damaged: expected sha256 {name}, found {sha256}", path.display()))
        }
        _ => Ok((sha256, size)),
    })
}

/// The file, if it is the one that is locked.
fn file(path: &Path, found: LockedFile, locked: Option<&LockedFile>) -> Result<HubFile> {
    match locked {
        Some(locked) if (&locked.sha256, locked.size) != (&found.sha256, found.size) => {
            Err(differs(locked, &format!("{} bytes with sha256 {}", found.size, found.sha256)))
        }
        _ => Ok(HubFile { path: path.to_path_buf(), locked: found, licence: None }),
    }
}

fn differs(locked: &LockedFile, found: &str) -> Error {
    let LockedFile { commit, sha256, size } = locked;
    Error::hub(format!(
        "not the file that the lock names: expected {size} bytes with sha256 {sha256} at commit {commit}, found {found}"
    ))
}

/// How often a request is tried.
struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    fn new(settings: &Settings) -> Self {
        Self { left: settings.tries.saturating_sub(1), pause: settings.pause }
    }

    /// Waits for the next try; an error if there is none, or the user wants to stop.
    fn wait(
        &mut self,
        what: &dyn Display,
        why: String,
        asked: Option<Duration>,
        observer: &dyn Observer,
    ) -> Result<()> {
        if self.left == 0 {
            return Err(Error::hub(format!("{why}; given up after several tries")));
        }
        self.left -= 1;
        let pause = asked.unwrap_or(self.pause);
        self.pause *= 2;
        warn(observer, format!("{what}: {why}; trying again in {:.1} s", pause.as_secs_f64()))?;
        let until = Instant::now() + pause;
        while let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            poll(observer, &format!("waiting: {what}"))?;
            std::thread::sleep(rest.min(Duration::from_millis(200)));
        }
        Ok(())
    }
}

fn warn(observer: &dyn Observer, message: String) -> Result<()> {
    tell(observer, &Event::Warning { message })
}

/// Asks whether the user wants to stop.
fn poll(observer: &dyn Observer, what: &str) -> Result<()> {
    tell(observer, &Event::Working { what: what.to_string(), done: 0, total: 1 })
}

pub(super) fn tell(observer: &dyn Observer, event: &Event) -> Result<()> {
    match observer.on(event) {
        Flow::Continue => Ok(()),
        Flow::Stop => Err(Error::new(ErrorKind::Stopped, "stopped by the user; what is downloaded is kept")),
    }
}
