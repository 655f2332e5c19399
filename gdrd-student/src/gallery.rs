//! People who are known, and who of them a face looks like.

mod file;

use std::collections::HashMap;

use gdrd_core::error::{Error, Result};
use gdrd_core::nn::kernels::PackedRows;
use rayon::prelude::*;

use crate::FaceEncoder;
use crate::embedding::{Embedding, dot, of_two_students};

/// People who are known by their embeddings. A search looks at all of them and is exact.
///
/// ```
/// use gdrd_student::{Device, Face, FaceEncoder, Gallery};
///
/// # fn main() -> Result<(), gdrd_student::Error> {
/// # let bytes = include_bytes!("../../tests/files/student-format-1.safetensors");
/// # let encoder = FaceEncoder::from_bytes(bytes, &Device::Cpu)?;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().join("people.gallery");
/// let ann = Face::new(32, 32, (0..3072).map(|at| at as u8).collect())?;
/// let mut gallery = Gallery::new(&encoder);
/// gallery.enrol("Ann", &encoder.face(&ann)?)?;
/// gallery.save(&path)?;
///
/// let gallery = Gallery::open(&path)?;
/// let found = gallery.search(&encoder.face(&ann.flipped())?, 3)?;
/// assert_eq!(found[0].person, "Ann");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gallery {
    student: String,
    width: usize,
    people: Vec<String>,
    numbers: HashMap<String, u32>,
    /// The person of each row.
    entries: Vec<u32>,
    rows: Vec<f32>,
    /// The checksum of the file that it was read from or written to.
    file: Option<String>,
    /// Whether somebody was removed since then.
    removed: bool,
    recovered: Option<String>,
}

/// A person whom a face looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The name under which the person was enrolled.
    pub person: String,
    /// The cosine with the nearest of the person's entries.
    pub similarity: f32,
}

/// Values that are read, written or compared at once.
const BLOCK: usize = 1 << 19;
/// Searches from which on a product of matrices is faster than one after the other.
const MANY: usize = 8;
/// The most searches that share one pass over the entries.
const AT_ONCE: usize = 256;
/// The most people that such searches keep together.
const MOST_KEPT: usize = 1 << 20;

impl Gallery {
    /// Nobody yet, for embeddings of `encoder`.
    pub fn new(encoder: &FaceEncoder) -> Self {
        Self::of(encoder.digest().to_string(), encoder.width)
    }

    fn of(student: String, width: usize) -> Self {
        Self {
            student,
            width,
            people: Vec::new(),
            numbers: HashMap::new(),
            entries: Vec::new(),
            rows: Vec::new(),
            file: None,
            removed: false,
            recovered: None,
        }
    }

    /// The digest of the student whose embeddings it holds.
    pub fn student(&self) -> &str {
        &self.student
    }

    /// The names of the people, in the order in which they were enrolled.
    pub fn people(&self) -> &[String] {
        &self.people
    }

    /// Number of entries: a person may have several.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What was wrong with the file, if its last complete state was used instead.
    pub fn recovered(&self) -> Option<&str> {
        self.recovered.as_deref()
    }

    /// Adds an entry of a person, known or new.
    ///
    /// # Errors
    /// If another student made the embedding, or the name is empty or has line breaks.
    pub fn enrol(&mut self, person: &str, face: &Embedding) -> Result<()> {
        self.check(face)?;
        if person.trim().is_empty() || person.chars().any(char::is_control) {
            return Err(Error::data(format!("expected a name on one line, found {person:?}")));
        }
        let number = match self.numbers.get(person) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.people.len());
                let number = number.map_err(|_| Error::data("a gallery has room for 4,294,967,295 people"))?;
                self.people.push(person.to_string());
                self.numbers.insert(person.to_string(), number);
                number
            }
        };
        self.entries.push(number);
        self.rows.extend_from_slice(face.values());
        Ok(())
    }

    /// Removes a person with all entries; how many those were. The file keeps them until [`save`](Self::save), which leaves them
    /// neither in the file nor beside it.
    pub fn remove(&mut self, person: &str) -> usize {
        let Some(number) = self.numbers.remove(person) else { return 0 };
        let before = self.entries.len();
        let mut rows = Vec::with_capacity(self.rows.len());
        for (entry, row) in self.entries.iter().zip(self.rows.chunks_exact(self.width)) {
            if *entry != number {
                rows.extend_from_slice(row);
            }
        }
        self.entries.retain(|entry| *entry != number);
        self.entries.iter_mut().filter(|entry| **entry > number).for_each(|entry| *entry -= 1);
        self.people.remove(number as usize);
        for (at, name) in self.people.iter().enumerate().skip(number as usize) {
            self.numbers.insert(name.clone(), at as u32);
        }
        self.rows = rows;
        self.removed = true;
        before - self.entries.len()
    }

    /// The `k` people whom a face looks most like, the nearest first; fewer if there are not so many. Of two who are as near, the one
    /// who was enrolled first comes first.
    ///
    /// # Errors
    /// If another student made the embedding.
    pub fn search(&self, face: &Embedding, k: usize) -> Result<Vec<Match>> {
        Ok(self.search_all(std::slice::from_ref(face), k)?.pop().unwrap_or_default())
    }

    /// The same for many faces, which together take less time than one by one.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_all(&self, faces: &[Embedding], k: usize) -> Result<Vec<Vec<Match>>> {
        faces.iter().try_for_each(|face| self.check(face))?;
        let mut found = Vec::with_capacity(faces.len());
        let at_once = (MOST_KEPT / k.clamp(1, self.people.len().max(1))).clamp(1, AT_ONCE);
        for faces in faces.chunks(at_once) {
            found.extend(self.nearest(faces, k)?.into_iter().map(|nearest| self.named(nearest)));
        }
        Ok(found)
    }

    /// The person whom a face looks most like, if it reaches the threshold: who is not known is nobody.
    ///
    /// The threshold is that of [`FaceEncoder::threshold_of`] where the entries are single faces. It holds for one comparison: among `n`
    /// entries a stranger is taken for somebody up to `n` times as often.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn identify(&self, face: &Embedding, threshold: f64) -> Result<Option<Match>> {
        let nearest = self.search(face, 1)?.pop();
        Ok(nearest.filter(|found| f64::from(found.similarity) >= threshold))
    }

    /// The nearest people to each of some faces. Blocks of entries are compared with all of them, and no similarity is kept but those
    /// of the nearest.
    fn nearest(&self, faces: &[Embedding], k: usize) -> Result<Vec<Nearest>> {
        let rows = (BLOCK / self.width).max(1);
        let none = || vec![Nearest::new(k.min(self.people.len())); faces.len()];
        let packed = match faces.len() < MANY {
            true => None,
            false => {
                let queries: Vec<f32> = faces.iter().flat_map(|face| face.values()).copied().collect();
                Some(PackedRows::new(&queries, self.width)?)
            }
        };
        let compare = |mut found: Vec<Nearest>, (people, rows): (&[u32], &[f32])| -> Result<Vec<Nearest>> {
            let Some(packed) = &packed else {
                for (found, face) in found.iter_mut().zip(faces) {
                    for (row, person) in rows.chunks_exact(self.width).zip(people) {
                        found.offer(dot(row, face.values()), *person);
                    }
                }
                return Ok(found);
            };
            let mut least: Vec<f32> = found.iter().map(|found| found.least).collect();
            packed.products(rows, |row, scores| {
                // Nearly always none is near enough, which vectors see at once.
                if scores.iter().zip(&least).fold(false, |any, (score, least)| any | (score >= least)) {
                    for ((found, least), score) in found.iter_mut().zip(&mut least).zip(scores) {
                        found.offer(*score, people[row]);
                        *least = found.least;
                    }
                }
            })?;
            Ok(found)
        };
        let merge = |mut one: Vec<Nearest>, other: Vec<Nearest>| {
            for (one, other) in one.iter_mut().zip(&other) {
                other.found.iter().for_each(|(score, person)| one.offer(*score, *person));
            }
            Ok(one)
        };
        let blocks = self.entries.par_chunks(rows).zip(self.rows.par_chunks(rows * self.width));
        let mut found = blocks.try_fold(none, compare).try_reduce(none, merge)?;
        found.iter_mut().for_each(Nearest::settle);
        Ok(found)
    }

    fn named(&self, nearest: Nearest) -> Vec<Match> {
        let named = |(score, person): (f32, u32)| Match {
            person: self.people[person as usize].clone(),
            similarity: score.clamp(-1.0, 1.0),
        };
        nearest.found.into_iter().map(named).collect()
    }

    fn check(&self, face: &Embedding) -> Result<()> {
        match face.student() == self.student && face.values().len() == self.width {
            true => Ok(()),
            false => Err(of_two_students(&self.student, face.student())),
        }
    }
}

/// The `k` people who are nearest so far.
#[derive(Clone)]
struct Nearest {
    k: usize,
    /// Similarities and people; between two settlements a person may stand here several times, and more than `k`.
    found: Vec<(f32, u32)>,
    /// Who is further away is none of them.
    least: f32,
}

impl Nearest {
    fn new(k: usize) -> Self {
        Self { k, found: Vec::new(), least: if k == 0 { f32::INFINITY } else { f32::NEG_INFINITY } }
    }

    fn offer(&mut self, score: f32, person: u32) {
        if score >= self.least {
            self.found.push((score, person));
            if self.found.len() >= 2 * self.k + 64 {
                self.settle();
            }
        }
    }

    /// Keeps each person once and the nearest `k`, the nearest first.
    fn settle(&mut self) {
        let nearer = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        self.found.sort_unstable_by(|a, b| a.1.cmp(&b.1).then(b.0.total_cmp(&a.0)));
        self.found.dedup_by_key(|found| found.1);
        self.found.sort_unstable_by(nearer);
        self.found.truncate(self.k);
        if let Some(last) = self.found.get(self.k.wrapping_sub(1)) {
            self.least = last.0;
        }
    }
}

#[cfg(test)]
mod tests;
