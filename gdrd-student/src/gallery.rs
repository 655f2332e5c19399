//! People who are known, and who of them a face looks like.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use gdrd_core::digest::hex;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::FaceEncoder;
use crate::embedding::{Embedding, dot, of_two_students};

/// People who are known by their embeddings. A search looks at all of them: it is exact, and takes a fifth of a second for a million
/// entries of 512 values on two cores.
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

/// What a gallery's file begins with, as the metadata of a safetensors file.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    student: String,
    width: usize,
    entries: usize,
    /// Bytes of the names, a JSON list.
    names: usize,
    /// Of the names, the person of each entry, and the rows.
    sha256: String,
}

/// The version of the file that this gdrd writes and reads.
const FORMAT: u32 = 1;
const KEY: &str = "gdrd-gallery";
/// Most bytes of a file's header.
const LONGEST_HEADER: u64 = 1 << 16;
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

    /// Opens a gallery's file. If it is cut or damaged, its last complete state is used, which lies beside it, and
    /// [`recovered`](Self::recovered) says so.
    ///
    /// # Errors
    /// If there is neither the file nor an earlier state, or another program wrote it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let error = match read(path) {
            Ok(gallery) => return Ok(gallery),
            Err(error) => error.at(format!("`{}`", path.display())),
        };
        let previous = previous(path);
        match read(&previous) {
            Ok(gallery) => {
                Ok(Self { recovered: Some(format!("{error}; `{}` is used", previous.display())), ..gallery })
            }
            Err(_) => Err(error),
        }
    }

    /// Writes the gallery's file: complete or not at all. The state before it stays beside it, with `.previous` behind its name,
    /// unless somebody was removed: then the new state stands there too.
    ///
    /// # Errors
    /// If another program has written the file since it was opened (nothing is lost: open it again), is writing it now, or it cannot
    /// be written.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let place = || format!("`{}`", path.display());
        let held = files::hold(&beside(path, ".lock")).at(place)?;
        let _held = held.ok_or_else(|| Error::data(format!("`{}`: another program is writing it", path.display())))?;
        let previous = previous(path);
        if path.exists() && self.recovered.is_none() {
            let found = header(path).map(|(header, _)| header.sha256).ok();
            if self.file.is_none() || found != self.file {
                return Err(Error::data(format!(
                    "`{}`: it is not the file that this gallery was opened from; another program has written it: open it again",
                    path.display()
                )));
            }
        }
        let names = serde_json::to_vec(&self.people).map_err(|e| Error::data(e.to_string()))?;
        let mut sum = Sha256::new();
        self.parts(&names).for_each(|part| sum.update(part));
        let header = Header {
            format: FORMAT,
            student: self.student.clone(),
            width: self.width,
            entries: self.entries.len(),
            names: names.len(),
            sha256: hex(&sum.finalize()),
        };
        let first = first_bytes(&header)?;
        if self.removed {
            gone(&previous).at(place)?;
        } else if path.exists() && self.recovered.is_none() {
            gone(&previous).at(place)?;
            // The bytes of a file that is replaced live on under the other name.
            if std::fs::hard_link(path, &previous).is_err() {
                std::fs::copy(path, &previous).map_err(|e| Error::io(&previous, e))?;
            }
        }
        files::write_parts(path, std::iter::once(first).chain(self.parts(&names)))?;
        if self.removed {
            std::fs::copy(path, &previous).map_err(|e| Error::io(&previous, e))?;
        }
        (self.file, self.removed, self.recovered) = (Some(header.sha256), false, None);
        Ok(())
    }

    /// The bytes behind the header.
    fn parts<'a>(&'a self, names: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
        let entries =
            self.entries.chunks(BLOCK).map(|part| part.iter().flat_map(|entry| entry.to_le_bytes()).collect());
        let rows = self.rows.chunks(BLOCK).map(|part| part.iter().flat_map(|value| value.to_le_bytes()).collect());
        std::iter::once(names.to_vec()).chain(entries).chain(rows)
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(ending);
    name.into()
}

fn previous(path: &Path) -> PathBuf {
    beside(path, ".previous")
}

/// Removes a file that may not be there.
fn gone(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

/// A safetensors file's first bytes, padded to eight.
fn first_bytes(header: &Header) -> Result<Vec<u8>> {
    let said = serde_json::to_string(header).map_err(|e| Error::data(e.to_string()))?;
    let entries = header.names + 4 * header.entries;
    let end = entries + 4 * header.entries * header.width;
    let text = serde_json::json!({
        "__metadata__": { KEY: said },
        "names": { "dtype": "U8", "shape": [header.names], "data_offsets": [0, header.names] },
        "people": { "dtype": "U32", "shape": [header.entries], "data_offsets": [header.names, entries] },
        "embeddings": {
            "dtype": "F32", "shape": [header.entries, header.width], "data_offsets": [entries, end],
        },
    });
    let mut text = text.to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    Ok([&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat())
}

/// The header of a gallery's file, and the file behind it.
fn header(path: &Path) -> Result<(Header, File)> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let damaged = |what: &str| Error::data(format!("{what}: it is cut or damaged"));
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| damaged("the gallery has no header"))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(Error::data("no gallery of gdrd"));
    }
    let mut text = Vec::new();
    (&file).take(length).read_to_end(&mut text).map_err(|e| Error::io(path, e))?;
    if text.len() as u64 != length {
        return Err(damaged("the gallery's header ends early"));
    }
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|_| damaged("the gallery's header is no JSON"))?;
    let said = value.pointer(&format!("/__metadata__/{KEY}")).and_then(serde_json::Value::as_str);
    let said = said.ok_or_else(|| Error::data("a safetensors file, but no gallery of gdrd"))?;
    let format = serde_json::from_str::<serde_json::Value>(said).ok().and_then(|value| value["format"].as_u64());
    if let Some(later) = format.filter(|format| *format > u64::from(FORMAT)) {
        let message =
            format!("the gallery has format {later}, which a later gdrd wrote; this one reads {FORMAT}: update it");
        return Err(Error::data(message));
    }
    let header: Header = serde_json::from_str(said).map_err(|e| Error::data(format!("the gallery's header: {e}")))?;
    let bytes = header.width.checked_add(1).and_then(|values| values.checked_mul(header.entries)?.checked_mul(4));
    let whole = bytes.and_then(|bytes| bytes.checked_add(header.names)).map(|bytes| bytes as u64 + 8 + length);
    let found = file.metadata().map_err(|e| Error::io(path, e))?.len();
    if header.width == 0 || whole != Some(found) {
        return Err(damaged(&format!("the gallery has {found} bytes, its header says {whole:?}")));
    }
    Ok((header, file))
}

fn read(path: &Path) -> Result<Gallery> {
    let (header, mut file) = header(path)?;
    let mut sum = Sha256::new();
    // The file's length was compared with the header's numbers: nothing is larger than what lies there.
    let mut take = |bytes: usize| -> Result<Vec<u8>> {
        let mut part = vec![0; bytes];
        file.read_exact(&mut part).map_err(|e| Error::io(path, e))?;
        sum.update(&part);
        Ok(part)
    };
    let names = take(header.names)?;
    let mut entries = Vec::with_capacity(header.entries);
    while entries.len() < header.entries {
        let part = take(4 * BLOCK.min(header.entries - entries.len()))?;
        entries.extend(part.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)));
    }
    let values = header.entries * header.width;
    let mut rows = Vec::with_capacity(values);
    while rows.len() < values {
        let part = take(4 * BLOCK.min(values - rows.len()))?;
        rows.extend(part.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    }
    if hex(&sum.finalize()) != header.sha256 {
        return Err(Error::data("the gallery's checksum is another: it was altered or is damaged"));
    }
    let people: Vec<String> =
        serde_json::from_slice(&names).map_err(|e| Error::data(format!("the gallery's names: {e}")))?;
    let numbers: HashMap<String, u32> = people.iter().cloned().zip(0..).collect();
    let known = |entry: &u32| (*entry as usize) < people.len();
    if numbers.len() != people.len() || !entries.iter().all(known) || !rows.iter().all(|value| value.is_finite()) {
        return Err(Error::data("the gallery contradicts itself: names that repeat, or entries of nobody"));
    }
    let gallery = Gallery::of(header.student, header.width);
    Ok(Gallery { people, numbers, entries, rows, file: Some(header.sha256), ..gallery })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUDENT: &str = "0123456789abcdef";

    fn face(seed: usize, width: usize) -> Embedding {
        let noise = |at: usize| ((seed * 7919 + at * 104_729 + seed * at * 31) % 1009) as f32 / 1009.0 - 0.5;
        let values: Vec<f32> = (0..width).map(noise).collect();
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        Embedding::new(values.iter().map(|value| value / length).collect(), 16, None, STUDENT.into())
    }

    /// `people` people of three entries each.
    fn gallery(people: usize, width: usize) -> Gallery {
        let mut gallery = Gallery::of(STUDENT.into(), width);
        for at in 0..3 * people {
            gallery.enrol(&format!("person {}", at % people), &face(at, width)).expect("enrolled");
        }
        gallery
    }

    #[test]
    fn searches_are_exact_however_many_there_are() {
        for width in [5, 32] {
            let gallery = gallery(200, width);
            let probes: Vec<Embedding> = (0..21).map(|at| face(5000 + at, width)).collect();
            let all = gallery.search_all(&probes, 7).expect("found");
            for (probe, found) in probes.iter().zip(&all) {
                let nearest = |person: usize| {
                    let of = |at: usize| face(at, width).similarity(probe).expect("one student");
                    (0..3).map(|round| of(person + 200 * round)).fold(-2f32, f32::max)
                };
                let mut expected: Vec<(usize, f32)> = (0..200).map(|person| (person, nearest(person))).collect();
                expected.sort_by(|a, b| b.1.total_cmp(&a.1));
                for (found, (person, similarity)) in found.iter().zip(&expected) {
                    assert_eq!(found.person, format!("person {person}"));
                    assert!((found.similarity - similarity).abs() < 1e-5);
                }
                assert_eq!(found.len(), 7);
                assert_eq!(gallery.search(probe, 7).expect("found")[0].person, found[0].person);
            }
            for (k, expected) in [(0, 0), (1, 1), (200, 200), (usize::MAX, 200)] {
                assert_eq!(gallery.search(&probes[0], k).expect("found").len(), expected, "{k}");
            }
        }
    }

    #[test]
    fn strangers_are_nobody_and_ties_go_to_whom_was_first() {
        let mut gallery = gallery(5, 8);
        let known = face(3, 8);
        assert_eq!(gallery.identify(&known, 0.999).expect("found").map(|found| found.person), Some("person 3".into()));
        assert_eq!(gallery.identify(&face(99, 8), 0.999).expect("found"), None);
        gallery.enrol("twin", &known).expect("enrolled");
        let found = gallery.search(&known, 2).expect("found");
        assert_eq!([&found[0].person, &found[1].person], ["person 3", "twin"]);
        let nobody = Gallery::of(STUDENT.into(), 8);
        assert!(
            nobody.search(&known, 3).expect("found").is_empty()
                && nobody.identify(&known, -1.0).expect("found").is_none()
        );
        let foreign = Embedding::new(known.values().to_vec(), 16, None, "another".into());
        assert!(gallery.search(&foreign, 1).is_err() && gallery.enrol("x", &foreign).is_err());
        for name in ["", "  ", "two\nlines"] {
            assert!(gallery.enrol(name, &known).is_err(), "{name:?}");
        }
    }

    #[test]
    fn who_is_removed_is_found_no_more_and_stands_in_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("people");
        let mut gallery = gallery(4, 8);
        gallery.save(&path).expect("saved");
        gallery.enrol("person 0", &face(77, 8)).expect("enrolled");
        gallery.save(&path).expect("saved");
        let gone: Vec<u8> = face(1, 8).values().iter().flat_map(|value| value.to_le_bytes()).collect();
        let holds = |needle: &[u8]| {
            let files = std::fs::read_dir(folder.path()).expect("a folder");
            let bytes = files.map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"));
            bytes.filter(|bytes| bytes.windows(needle.len()).any(|part| part == needle)).count()
        };
        assert_eq!((holds(&gone), holds(b"person 1")), (2, 2), "in the file and in the state before it");
        assert_eq!((gallery.remove("person 1"), gallery.remove("person 1")), (3, 0));
        gallery.save(&path).expect("saved");
        assert_eq!((holds(&gone), holds(b"person 1")), (0, 0));
        let read = Gallery::open(&path).expect("a gallery");
        assert_eq!(read.people(), ["person 0", "person 2", "person 3"]);
        assert_eq!(read.len(), 10);
        for person in [0, 2, 3] {
            let found = read.search(&face(person, 8), 1).expect("found");
            assert_eq!(found[0].person, format!("person {person}"));
        }
    }

    #[test]
    fn a_file_that_is_cut_or_altered_anywhere_gives_the_state_before_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("people");
        let mut first = gallery(3, 4);
        first.save(&path).expect("saved");
        first.enrol("new", &face(9, 4)).expect("enrolled");
        first.save(&path).expect("saved");
        let whole = std::fs::read(&path).expect("bytes");
        let text = whole.iter().take_while(|byte| **byte != b' ').count();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).expect("cut");
            let read = Gallery::open(&path).expect("the state before");
            assert_eq!(read.people().len(), 3, "{at} bytes");
            assert!(read.recovered().is_some_and(|why| why.contains(".previous` is used")), "{at} bytes");
            // Behind the header, whose own texts may be spaced as they like.
            if at > text + 8 {
                let mut altered = whole.clone();
                altered[at] ^= 1;
                std::fs::write(&path, altered).expect("altered");
                let read = Gallery::open(&path).expect("either state");
                assert!(read.people().len() == 3 || read.rows == first.rows, "byte {at}");
            }
        }
        // What was recovered can be written, and a later state is not lost on the way.
        std::fs::write(&path, &whole[..50]).expect("cut");
        let mut read = Gallery::open(&path).expect("the state before");
        read.enrol("again", &face(10, 4)).expect("enrolled");
        read.save(&path).expect("saved");
        assert_eq!(Gallery::open(&path).expect("whole").people().len(), 4);
        std::fs::remove_file(previous(&path)).expect("removed");
        std::fs::write(&path, &whole[..50]).expect("cut");
        let text = Gallery::open(&path).expect_err("neither").to_string();
        assert!(text.contains("people`") && text.contains("cut or damaged"), "{text}");
    }

    #[test]
    fn two_writers_lose_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("people");
        gallery(2, 4).save(&path).expect("saved");
        let (mut a, mut b) = (Gallery::open(&path).expect("open"), Gallery::open(&path).expect("open"));
        a.enrol("by a", &face(8, 4)).expect("enrolled");
        b.enrol("by b", &face(9, 4)).expect("enrolled");
        a.save(&path).expect("saved");
        let text = b.save(&path).expect_err("another wrote").to_string();
        assert!(text.contains("another program has written it: open it again"), "{text}");
        let mut b = Gallery::open(&path).expect("open");
        b.enrol("by b", &face(9, 4)).expect("enrolled");
        let held = files::hold(&beside(&path, ".lock")).expect("a lock").expect("free");
        assert!(b.save(&path).expect_err("held").to_string().contains("another program is writing it"));
        drop(held);
        b.save(&path).expect("saved");
        assert_eq!(Gallery::open(&path).expect("open").people().len(), 4);
        assert!(Gallery::of(STUDENT.into(), 4).save(&path).is_err(), "a new one does not write over it");
    }

    #[test]
    fn foreign_later_and_lying_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("people");
        let said = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            Gallery::open(&path).expect_err("refused").to_string()
        };
        let header = |format, entries| Header {
            format,
            student: STUDENT.into(),
            width: 4,
            entries,
            names: 2,
            sha256: String::new(),
        };
        let later = first_bytes(&header(9, 0)).expect("bytes");
        assert!(said(&later).contains("format 9, which a later gdrd wrote"), "{}", said(&later));
        for entries in [1 << 20, 1 << 40] {
            let lying = first_bytes(&header(1, entries)).expect("bytes");
            assert!(said(&lying).contains("cut or damaged"), "{}", said(&lying));
        }
        let plain = [&2u64.to_le_bytes()[..], b"{}"].concat();
        assert!(said(&plain).contains("no gallery of gdrd"));
        assert!(said(&[255; 64]).contains("no gallery of gdrd") && said(b"").contains("no header"));
        std::fs::remove_file(&path).expect("removed");
        assert!(Gallery::open(&path).expect_err("missing").to_string().contains("no such file"));
    }
}
