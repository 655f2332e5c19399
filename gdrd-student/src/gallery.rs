//! People who are known, and who of them a face looks like.

mod file;

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use gdrd_core::error::{Error, Result};
use rayon::prelude::*;

use crate::FaceEncoder;
use crate::embedding::{Embedding, dot, of_two_students};

/// People who are known by their embeddings. A search looks at all of them and is exact.
///
/// ```
/// use gdrd_student::{Face, FaceEncoder, Gallery};
///
/// # fn main() -> Result<(), gdrd_student::Error> {
/// # let bytes = include_bytes!("../../tests/files/student-format-1.safetensors");
/// # let encoder = FaceEncoder::from_bytes(bytes, &candle_core::Device::Cpu)?;
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
/// Searches from which on a product of matrices is worth its copies, and the most of them at once.
const MANY: usize = 8;

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
        for faces in faces.chunks(MANY) {
            let scores = self.scores(faces)?;
            found.extend(scores.par_iter().map(|scores| self.best(scores, k)).collect::<Vec<_>>());
        }
        Ok(found)
    }

    /// The person whom a face looks most like, if it reaches the threshold: who is not known is nobody.
    ///
    /// A threshold at a false match rate holds for one comparison. Among `n` people a stranger is taken for somebody about `n` times
    /// as often.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn identify(&self, face: &Embedding, threshold: f64) -> Result<Option<Match>> {
        let nearest = self.search(face, 1)?.pop();
        Ok(nearest.filter(|found| f64::from(found.similarity) >= threshold))
    }

    /// The similarity of every row to each of a few faces.
    fn scores(&self, faces: &[Embedding]) -> Result<Vec<Vec<f32>>> {
        let rows = (BLOCK / self.width).max(1);
        let blocks = self.rows.par_chunks(rows * self.width);
        if faces.len() < MANY {
            let of = |face: &Embedding| {
                let scores = |rows: &[f32]| rows.chunks_exact(self.width).map(|row| dot(row, face.values())).collect();
                let blocks: Vec<Vec<f32>> = self.rows.par_chunks(rows * self.width).map(scores).collect();
                blocks.concat()
            };
            return Ok(faces.iter().map(of).collect());
        }
        let right: Vec<f32> = faces.iter().flat_map(|face| face.values()).copied().collect();
        let right = Tensor::from_vec(right, (faces.len(), self.width), &Device::Cpu)?;
        let product = |rows: &[f32]| -> Result<Vec<f32>> {
            let left = Tensor::from_slice(rows, (rows.len() / self.width, self.width), &Device::Cpu)?.t()?;
            Ok(right.matmul(&left)?.flatten_all()?.to_vec1()?)
        };
        let blocks = blocks.map(product).collect::<Result<Vec<_>>>()?;
        let of = |face: usize| {
            let parts = blocks.iter().flat_map(|block| {
                let rows = block.len() / faces.len();
                block[face * rows..(face + 1) * rows].iter().copied()
            });
            parts.collect()
        };
        Ok((0..faces.len()).map(of).collect())
    }

    fn best(&self, scores: &[f32], k: usize) -> Vec<Match> {
        let mut of_person = vec![f32::NEG_INFINITY; self.people.len()];
        for (entry, score) in self.entries.iter().zip(scores) {
            let best = &mut of_person[*entry as usize];
            *best = best.max(*score);
        }
        let mut people: Vec<u32> = (0..self.people.len() as u32).collect();
        let nearer = |a: &u32, b: &u32| of_person[*b as usize].total_cmp(&of_person[*a as usize]).then(a.cmp(b));
        if k < people.len() {
            people.select_nth_unstable_by(k, nearer);
            people.truncate(k);
        }
        people.sort_unstable_by(nearer);
        let found = |at: u32| Match {
            person: self.people[at as usize].clone(),
            similarity: of_person[at as usize].clamp(-1.0, 1.0),
        };
        people.into_iter().map(found).collect()
    }

    fn check(&self, face: &Embedding) -> Result<()> {
        match face.student() == self.student && face.values().len() == self.width {
            true => Ok(()),
            false => Err(of_two_students(&self.student, face.student())),
        }
    }
}

#[cfg(test)]
mod tests;
