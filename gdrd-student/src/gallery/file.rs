//! The file of a gallery: a safetensors file with names, the person of each entry, and the entries.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind as Io, Read};
use std::path::{Path, PathBuf};

use gdrd_core::digest::hex;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BLOCK, Gallery};

/// What a gallery's file begins with, as the metadata of a safetensors file.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) student: String,
    pub(super) width: usize,
    pub(super) entries: usize,
    /// Bytes of the names, a JSON list.
    pub(super) names: usize,
    /// Of the names, the person of each entry, and the rows.
    pub(super) sha256: String,
}

/// The version of the file that this gdrd writes and reads.
const FORMAT: u32 = 1;
const KEY: &str = "gdrd-gallery";
/// What a gallery's header begins with.
const BEGINNING: &[u8; 32] = br#"{"__metadata__":{"gdrd-gallery":"#;
/// Most bytes of a file's header.
const LONGEST_HEADER: u64 = 1 << 16;

/// Why a file gives no gallery.
enum Unread {
    /// It is missing, cut or damaged: its earlier state may stand in for it.
    Lost(Error),
    /// It may be whole, but a later gdrd or another program wrote it, or the system does not let it be read.
    Refused(Error),
}

type Reading<T> = std::result::Result<T, Unread>;

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

fn damaged(what: &str) -> Unread {
    Unread::Lost(Error::data(format!("{what}: it is cut or damaged")))
}

/// What is said of a failed operation on a file, whose place whoever called says; `early` is for one that ends too early.
fn failed(error: std::io::Error, early: &str) -> Unread {
    match error.kind() {
        Io::UnexpectedEof => damaged(early),
        Io::NotFound => Unread::Lost(Error::io_without_place(error)),
        _ => Unread::Refused(Error::io_without_place(error)),
    }
}

impl Gallery {
    /// Opens a gallery's file. If it is missing, cut or damaged, its last complete state is used, which lies beside it, and
    /// [`recovered`](Self::recovered) says so.
    ///
    /// # Errors
    /// If there is neither the file nor an earlier state, it cannot be read, or a later gdrd or another program wrote it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let place = || format!("`{}`", path.display());
        let error = match read(path) {
            Ok(gallery) => return Ok(gallery),
            Err(Unread::Refused(error)) => return Err(error.at(place())),
            Err(Unread::Lost(error)) => error.at(place()),
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
    /// unless somebody was removed: then the new state stands there too. Where there was no file before, only its owner may read it.
    ///
    /// # Errors
    /// If another program has written the file since it was opened (nothing is lost: open it again), is writing it now, or it cannot
    /// be written.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let place = || format!("`{}`", path.display());
        let held = files::hold(&beside(path, ".lock")).at(place)?;
        let _held = held.ok_or_else(|| Error::data(format!("`{}`: another program is writing it", path.display())))?;
        [path, &*previous(path)].into_iter().for_each(files::sweep_of);
        if !self.may_replace(path).at(place)? {
            return Err(Error::data(format!(
                "`{}`: it is not the file that this gallery was opened from; another program has written it: open it again",
                path.display()
            )));
        }
        let previous = previous(path);
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
        let write = |to: &Path| files::write_secret(to, std::iter::once(first.clone()).chain(self.parts(&names)));
        if self.removed {
            // Before the file itself: one of the two is whole at any moment, and who still stands in the file can be removed again.
            write(&previous)?;
        } else if path.exists() && self.recovered.is_none() {
            gone(&previous).at(place)?;
            // The bytes of a file that is replaced live on under the other name.
            if std::fs::hard_link(path, &previous).is_err() {
                std::fs::copy(path, &previous).map_err(|e| Error::io(&previous, e))?;
            }
        }
        write(path)?;
        (self.file, self.removed, self.recovered) = (Some(header.sha256), false, None);
        Ok(())
    }

    /// Whether the file is the one that was read, or is still missing or damaged if it was so then.
    fn may_replace(&self, path: &Path) -> Result<bool> {
        if self.recovered.is_some() {
            return match read(path) {
                Ok(_) => Ok(false),
                Err(Unread::Lost(_)) => Ok(true),
                Err(Unread::Refused(error)) => Err(error),
            };
        }
        let found = header(path).map(|(header, _)| header.sha256).ok();
        Ok(!path.exists() || (self.file.is_some() && found == self.file))
    }

    /// The bytes behind the header.
    fn parts<'a>(&'a self, names: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
        let entries =
            self.entries.chunks(BLOCK).map(|part| part.iter().flat_map(|entry| entry.to_le_bytes()).collect());
        let rows = self.rows.chunks(BLOCK).map(|part| part.iter().flat_map(|value| value.to_le_bytes()).collect());
        std::iter::once(names.to_vec()).chain(entries).chain(rows)
    }
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(ending);
    name.into()
}

pub(super) fn previous(path: &Path) -> PathBuf {
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
pub(super) fn first_bytes(header: &Header) -> Result<Vec<u8>> {
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

/// What a gallery's file says of itself, the bytes up to where that ends, and the file behind it.
fn stated(path: &Path) -> Reading<(Header, u64, File)> {
    let early = "the gallery has no header";
    let mut file = File::open(path).map_err(|e| failed(e, early))?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| failed(e, early))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        let mut start = [0; BEGINNING.len()];
        return Err(match file.read_exact(&mut start).is_ok() && start == *BEGINNING {
            true => damaged(&format!("the gallery says that its header has {length} bytes")),
            false => Error::data("no gallery of gdrd").into(),
        });
    }
    let mut text = Vec::new();
    (&file).take(length).read_to_end(&mut text).map_err(|e| failed(e, early))?;
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
        return Err(Error::data(message).into());
    }
    let header: Header = serde_json::from_str(said).map_err(|e| damaged(&format!("the gallery's header: {e}")))?;
    Ok((header, 8 + length, file))
}

/// The header of a gallery's file that is as long as it says, and the file behind it.
fn header(path: &Path) -> Reading<(Header, File)> {
    let (header, before, file) = stated(path)?;
    let bytes = header.width.checked_add(1).and_then(|values| values.checked_mul(header.entries)?.checked_mul(4));
    let whole =
        bytes.and_then(|bytes| bytes.checked_add(header.names)).and_then(|bytes| (bytes as u64).checked_add(before));
    let found = file.metadata().map_err(Error::io_without_place)?.len();
    if header.width == 0 {
        return Err(damaged("the gallery's header says that an embedding has no values"));
    }
    if whole != Some(found) {
        let said = whole.map_or("more than there can be".to_string(), |whole| whole.to_string());
        return Err(damaged(&format!("the gallery has {found} bytes, its header says {said}")));
    }
    Ok((header, file))
}

fn read(path: &Path) -> Reading<Gallery> {
    let (header, mut file) = header(path)?;
    let mut sum = Sha256::new();
    // The file's length was compared with the header's numbers: nothing is larger than what lies there.
    let mut take = |bytes: usize| -> Reading<Vec<u8>> {
        let mut part = vec![0; bytes];
        file.read_exact(&mut part).map_err(|e| failed(e, "the gallery ends early"))?;
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
        return Err(Unread::Lost(Error::data("the gallery's checksum is another: it was altered or is damaged")));
    }
    let people: Vec<String> =
        serde_json::from_slice(&names).map_err(|e| Error::data(format!("the gallery's names: {e}")))?;
    let numbers: HashMap<String, u32> = people.iter().cloned().zip(0..).collect();
    let known = |entry: &u32| (*entry as usize) < people.len();
    if numbers.len() != people.len() || !entries.iter().all(known) || !rows.iter().all(|value| value.is_finite()) {
        return Err(Error::data("the gallery contradicts itself: names that repeat, or entries of nobody").into());
    }
    let gallery = Gallery::of(header.student, header.width);
    Ok(Gallery { people, numbers, entries, rows, file: Some(header.sha256), ..gallery })
}
