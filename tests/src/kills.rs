//! Rounds in which `gdrd serve` is killed while clients change its people: nothing that was acknowledged may be lost, and nobody who was
//! deleted may be found in its files.
//!
//! Each client has people of its own and sends one request after the other, so that when the server is killed all but its last request
//! were answered. What the server has after the next start must be what the answers say, with that last request or without it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gdrd_core::seed::Seed;
use rand::Rng;
use serde_json::{Value, json};

use crate::service::{Client, Server, face};
use crate::{Bench, files_below};

const CLIENTS: usize = 3;
const ROOT: &str = "/api/v1/recognition";

/// The people of a client: their faces, each with the number of its image.
type People = BTreeMap<String, BTreeMap<String, u32>>;

/// What a client knows: the people that were acknowledged, and what its last request would make of them.
#[derive(Clone, Default)]
struct Ledger {
    people: People,
    maybe: Option<Wish>,
    /// Names of people whose deletion was acknowledged.
    deleted: Vec<String>,
    acknowledged: usize,
}

/// A request that was sent.
#[derive(Clone, Debug)]
enum Wish {
    Add(String, u32),
    Subject(String),
    Rename(String, String),
    Delete(String),
    Face(String, String),
}

/// A place for rounds, with one database for all of them.
pub struct Kills {
    bench: Bench,
    program: PathBuf,
    student: PathBuf,
    key: String,
    ledgers: Vec<Ledger>,
}

/// What a round saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Changes that were acknowledged before the server was killed.
    pub acknowledged: usize,
    /// Requests that were on their way, and were found done.
    pub done: usize,
    /// Requests that were on their way, and were found not done.
    pub undone: usize,
    /// Milliseconds from the start of the next server until it listened.
    pub restart: u128,
}

impl Kills {
    /// A new database, of which backups are kept.
    pub fn new(program: PathBuf, student: PathBuf) -> Self {
        let bench = Bench::empty();
        let mut made = Self { bench, program, student, key: String::new(), ledgers: vec![Ledger::default(); CLIENTS] };
        let mut server = made.start();
        made.key = server.key.take().expect("a key");
        made
    }

    fn start(&self) -> Server {
        let student = self.student.to_string_lossy();
        let arguments = ["people.db", "--student", &student, "--backups", "backups", "--backup-keep", "2"];
        Server::start(&self.program, self.bench.path(), &arguments).unwrap_or_else(|said| panic!("{said}"))
    }

    /// Starts the server, changes people, kills it within `longest`, and compares.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn round(&mut self, seed: u64, longest: Duration) -> Result<Round, String> {
        let start = Instant::now();
        let mut server = self.start();
        let restart = start.elapsed().as_millis();
        let found = self.compare(&server)?;
        let client = server.client(&self.key);
        let moment = longest.mul_f64(Seed(seed).stream("kill", &[]).random_range(0.0..1.0));
        let ledgers = std::mem::take(&mut self.ledgers);
        let before: usize = ledgers.iter().map(|ledger| ledger.acknowledged).sum();
        self.ledgers = std::thread::scope(|scope| {
            let clients: Vec<_> = ledgers
                .into_iter()
                .enumerate()
                .map(|(number, ledger)| {
                    let client = client.clone();
                    scope.spawn(move || work(&client, seed, number, ledger))
                })
                .collect();
            std::thread::sleep(moment);
            server.kill();
            clients.into_iter().map(|client| client.join().expect("a client")).collect()
        });
        let acknowledged = self.ledgers.iter().map(|ledger| ledger.acknowledged).sum::<usize>() - before;
        Ok(Round { acknowledged, restart, ..found })
    }

    /// Starts the server once more and compares.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn last(&mut self) -> Result<Round, String> {
        let server = self.start();
        self.compare(&server)
    }

    /// Compares what the server has with what it acknowledged, and takes what it has for true.
    fn compare(&mut self, server: &Server) -> Result<Round, String> {
        let client = server.client(&self.key);
        let (mut has, names) = (all(&client)?, names(&client)?);
        for name in names {
            has.entry(name).or_default();
        }
        let mut round = Round::default();
        for (number, ledger) in self.ledgers.iter_mut().enumerate() {
            let mine: BTreeMap<String, Vec<String>> = has
                .iter()
                .filter(|(name, _)| name.starts_with(&prefix(number)))
                .map(|(a, b)| (a.clone(), b.clone()))
                .collect();
            match ledger.settled(&mine) {
                Some(true) => round.done += 1,
                Some(false) => round.undone += 1,
                None => {
                    return Err(format!(
                        "client {number}: acknowledged {:#?}, perhaps {:?}, found {mine:#?}",
                        ledger.people, ledger.maybe
                    ));
                }
            }
            ledger.maybe = None;
            // One face: its image is that which came, and it is recognised.
            if let Some((name, (id, image))) =
                ledger.people.iter().find_map(|(name, faces)| Some((name, faces.iter().next()?)))
            {
                let (_, bytes) = client.send("GET", &format!("{ROOT}/faces/{id}/img"), None)?;
                let found = client.form(&format!("{ROOT}/recognize"), &[("file", &face(*image))]).1;
                let similarity = found["result"][0]["subjects"][0]["similarity"].as_f64().unwrap_or(0.0);
                if bytes != face(*image) || similarity < 0.999 {
                    return Err(format!("{name}: face {id} is another, or is not recognised: {found}"));
                }
            }
        }
        let files: Vec<(PathBuf, Vec<u8>)> = files_below(self.bench.path(), "")
            .into_iter()
            .map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default()))
            .collect();
        for name in self.ledgers.iter().flat_map(|ledger| &ledger.deleted) {
            if let Some((path, _)) = files.iter().find(|(_, bytes)| has_text(bytes, name.as_bytes())) {
                return Err(format!("{name} was deleted, and is in {}", path.display()));
            }
        }
        Ok(round)
    }
}

/// Whether bytes have a text in them.
pub fn has_text(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|part| part == text)
}

fn prefix(client: usize) -> String {
    format!("client {client} ")
}

impl Ledger {
    /// Whether what is there is as acknowledged, with the last request or without it; which of both, if it is one.
    fn settled(&mut self, mine: &BTreeMap<String, Vec<String>>) -> Option<bool> {
        let is = |people: &People| -> bool {
            let named = people.iter().map(|(name, faces)| (name.clone(), faces.keys().cloned().collect::<Vec<_>>()));
            named.collect::<BTreeMap<_, _>>() == *mine
        };
        if is(&self.people) {
            return Some(false);
        }
        let wish = self.maybe.clone()?;
        let mut people = self.people.clone();
        if let Wish::Add(name, image) = &wish {
            // Its number was not heard.
            let known = people.entry(name.clone()).or_default();
            let new = mine.get(name)?.iter().find(|id| !known.contains_key(*id))?;
            known.insert(new.clone(), *image);
        } else {
            wish.made(&mut people);
        }
        if !is(&people) {
            return None;
        }
        self.people = people;
        Some(true)
    }
}

impl Wish {
    fn made(&self, people: &mut People) {
        match self {
            Wish::Add(..) => {}
            Wish::Subject(name) => {
                people.entry(name.clone()).or_default();
            }
            Wish::Rename(old, new) => {
                let faces = people.remove(old).unwrap_or_default();
                people.insert(new.clone(), faces);
            }
            Wish::Delete(name) => drop(people.remove(name)),
            Wish::Face(name, id) => drop(people.get_mut(name).and_then(|faces| faces.remove(id))),
        }
    }

    fn send(&self, client: &Client) -> Result<(u16, Value), String> {
        let encoded = |name: &str| name.replace(' ', "%20");
        let json = |body: Value| Some(("application/json".to_string(), body.to_string().into_bytes()));
        let (method, path, body) = match self {
            Wish::Add(name, image) => {
                let path = format!("/faces?subject={}", encoded(name));
                ("POST", path, Some(crate::service::form(&[("file", &face(*image))])))
            }
            Wish::Subject(name) => ("POST", "/subjects".into(), json(json!({ "subject": name }))),
            Wish::Rename(old, new) => ("PUT", format!("/subjects/{}", encoded(old)), json(json!({ "subject": new }))),
            Wish::Delete(name) => ("DELETE", format!("/subjects/{}", encoded(name)), None),
            Wish::Face(_, id) => ("DELETE", format!("/faces/{id}"), None),
        };
        let body = body.as_ref().map(|(kind, bytes)| (kind.as_str(), bytes.as_slice()));
        let (status, bytes) = client.send(method, &format!("{ROOT}{path}"), body)?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}

/// Changes people until the server is gone.
fn work(client: &Client, seed: u64, number: usize, mut ledger: Ledger) -> Ledger {
    let mut chance = Seed(seed).stream("client", &[number as u64]);
    loop {
        let names: Vec<&String> = ledger.people.keys().collect();
        let some = (!names.is_empty()).then(|| names[chance.random_range(0..names.len())].clone());
        // A name that no other text has in it.
        let new = format!("{}{:016x}", prefix(number), chance.random::<u64>());
        let wish = match (chance.random_range(0..10), some) {
            (0, _) => Wish::Subject(new),
            (1, Some(name)) => Wish::Rename(name, new),
            (2, Some(name)) => Wish::Delete(name),
            (3, Some(name)) => match ledger.people[&name].keys().next() {
                Some(id) => Wish::Face(name.clone(), id.clone()),
                None => Wish::Delete(name),
            },
            (4..=6, Some(name)) => Wish::Add(name, chance.random_range(0..1000)),
            _ => Wish::Add(new, chance.random_range(0..1000)),
        };
        ledger.maybe = Some(wish.clone());
        let Ok((status, answer)) = wish.send(client) else { return ledger };
        assert!(status < 300, "{wish:?}: {status} {answer}");
        match &wish {
            Wish::Add(name, image) => {
                let id = answer["image_id"].as_str().expect("a number").to_string();
                ledger.people.entry(name.clone()).or_default().insert(id, *image);
            }
            Wish::Delete(name) => ledger.deleted.push(name.clone()),
            _ => {}
        }
        wish.made(&mut ledger.people);
        (ledger.maybe, ledger.acknowledged) = (None, ledger.acknowledged + 1);
    }
}

/// The numbers of all faces by the names of their subjects, sorted.
fn all(client: &Client) -> Result<BTreeMap<String, Vec<String>>, String> {
    let (_, bytes) = client.send("GET", &format!("{ROOT}/faces?size=10000"), None)?;
    let list: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in list["faces"].as_array().into_iter().flatten() {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_string();
        found.entry(text("subject")).or_default().push(text("image_id"));
    }
    found.values_mut().for_each(|faces| faces.sort());
    Ok(found)
}

fn names(client: &Client) -> Result<Vec<String>, String> {
    let (_, bytes) = client.send("GET", &format!("{ROOT}/subjects"), None)?;
    let list: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    Ok(list["subjects"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect())
}
