//! All faces of a dataset in one file, which is read through a memory map.
//!
//! Format 1, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `gdrdpack`, the number of the format as `u32`, four zeros |
//! | | the images, one after another: encoded (JPEG, PNG ...), or raw squares, RGB, row by row |
//! | 32 for each face | `u64` where its image begins, `u64` where its text begins, `u32` bytes of the image, `u32` bytes of the text, `u32` CRC-32 of the image (that of zip and PNG), `u32` number of the person, `0xffffffff` if nobody knows |
//! | | the texts: the key, and behind it the names and values of attributes, with a zero byte in front of each |
//! | | a description in JSON: form, size, people, pairs, where it all came from |
//! | 24 | `u64` each: where the table of faces, the texts and the description begin |
//! | 40 | a checksum of everything from the table on, as behind gdrd's other files |

mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{Decoding, decode, squared};
use super::{Attribute, Compared, Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Context, Error, Result};
use crate::face::Face;
use crate::files::{Mapped, unsealed};
use crate::plugin::Kind;
use crate::recipe::RecipePath;

pub use write::{PackAs, Packing, pack};

/// Faces from the one file that `gdrd data import` writes: keys, people, attributes and pairs are those of the dataset that it was
/// made of.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Packed {
    /// The file.
    pub file: RecipePath,
    /// Height and width that faces are brought to, in pixels, as in `identity-folders`; what the file says when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub size: Option<usize>,
}

impl Kind for Packed {
    const NAME: &'static str = "packed";
    const PURPOSE: &'static str = "faces from the one file that `gdrd data import` writes";
}

impl DatasetConfig for Packed {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let file = cx.file(&self.file)?;
        let place = || format!("`{}`", self.file);
        let mut pack = Pack::new(Mapped::open(&file.path)?, self.file.to_string()).at(place)?;
        // The writer decoded every image that it took, so bytes that fit their checksum need not be decoded again.
        let mut check = || pack.check_images().map(|()| String::new()).at(place);
        cx.fact("checksums of a packed file's images", &[file.path], &mut check)?;
        pack.description.size = self.size.or(pack.description.size);
        Ok(Box::new(pack))
    }
}

const MAGIC: &[u8; 8] = b"gdrdpack";
const FORMAT: u32 = 1;
const HEAD: usize = 16;
const ENTRY: usize = 32;
const TAIL: usize = 24;
const SEAL: usize = 40;
/// The number of a person whom nobody knows.
const NOBODY: u32 = u32::MAX;

/// Whether bytes begin as a packed file does.
pub fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// How the images are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Encoded,
    Raw,
}

/// What stands at the end of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    form: Form,
    size: Option<usize>,
    low_resolution: bool,
    people: Vec<String>,
    /// First face, second face, whether both are of one person.
    pairs: Vec<(u64, u64, bool)>,
    /// Of what the file was made.
    made_of: BTreeMap<String, String>,
    notes: Vec<String>,
    /// What about the faces no camera took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<String>,
}

/// A packed file.
struct Pack {
    map: Mapped,
    file: String,
    table: usize,
    count: usize,
    description: Description,
    pairs: Vec<Compared>,
}

struct Entry<'a> {
    image: &'a [u8],
    start: u64,
    text: &'a str,
    crc: u32,
    person: Option<usize>,
}

impl Pack {
    fn new(map: Mapped, file: String) -> Result<Self> {
        let word = |at: usize| {
            let bytes = map.get(at..)?.first_chunk()?;
            usize::try_from(u64::from_le_bytes(*bytes)).ok()
        };
        if !is_packed(&map) {
            return Err(Error::data(
                "it is no packed file, which begins with `gdrdpack`; `gdrd data import` writes one",
            ));
        }
        let format = map.get(8..12).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        if format != Some(FORMAT) {
            return Err(Error::data(format!("expected format {FORMAT}, found {}", format.unwrap_or_default())));
        }
        let cut = || Error::data(format!("it is cut: {} bytes, and no end", map.len()));
        let tail = map.len().checked_sub(TAIL + SEAL).ok_or_else(cut)?;
        let starts = [0, 8, 16].map(|at| word(tail + at));
        let [Some(table), Some(texts), Some(description)] = starts else { return Err(cut()) };
        let in_order = HEAD <= table && table <= texts && texts <= description && description <= tail;
        if !in_order {
            return Err(cut());
        }
        unsealed(&map[table..])?;
        let wrong = |e: serde_json::Error| Error::data(format!("its description cannot be read: {e}"));
        let description: Description = serde_json::from_slice(&map[description..tail]).map_err(wrong)?;
        let count = (texts - table) / ENTRY;
        if count == 0 || !(texts - table).is_multiple_of(ENTRY) {
            return Err(Error::data(format!("its table has {} bytes, expected {ENTRY} for each face", texts - table)));
        }
        let place = |at: u64| usize::try_from(at).ok().filter(|at| *at < count);
        let pair = |(left, right, same): &(u64, u64, bool)| {
            Some(Compared { left: place(*left)?, right: place(*right)?, same: *same })
        };
        let pairs = description.pairs.iter().map(pair).collect::<Option<Vec<_>>>();
        let pairs =
            pairs.ok_or_else(|| Error::data(format!("a pair names a face beyond the {count} that there are")))?;
        let pack = Self { map, file, table, count, description, pairs };
        let mut seen = vec![false; pack.description.people.len()];
        for index in 0..count {
            let entry = pack.checked(index, texts).ok_or_else(|| {
                Error::data(format!(
                    "the entry of face {index} leads out of the file, or to a person that there is not"
                ))
            })?;
            if let Some(person) = entry.person {
                seen[person] = true;
            }
        }
        match seen.iter().position(|seen| !seen) {
            Some(person) => Err(Error::data(format!("`{}` has no face", pack.description.people[person]))),
            None => Ok(pack),
        }
    }

    /// The entry of a face, if everything in it lies where it must.
    fn checked(&self, index: usize, texts: usize) -> Option<Entry<'_>> {
        let entry = self.map.get(self.table + ENTRY * index..)?.get(..ENTRY)?;
        let long = |at: usize| Some(u64::from_le_bytes(*entry.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u32::from_le_bytes(*entry.get(at..)?.first_chunk()?));
        let within = |start: u64, length: u32, from: usize, to: usize| {
            let start = usize::try_from(start).ok().filter(|start| *start >= from)?;
            let end = start.checked_add(length as usize).filter(|end| *end <= to)?;
            self.map.get(start..end)
        };
        let start = long(0)?;
        let image = within(start, short(16)?, HEAD, self.table)?;
        let text = std::str::from_utf8(within(long(8)?, short(20)?, texts, self.map.len() - TAIL - SEAL)?).ok()?;
        let person = match short(28)? {
            NOBODY => None,
            person => Some(usize::try_from(person).ok().filter(|person| *person < self.description.people.len())?),
        };
        let side = (image.len() / 3).isqrt();
        if self.description.form == Form::Raw && (3 * side * side != image.len() || side == 0) {
            return None;
        }
        Some(Entry { image, start, text, crc: short(24)?, person })
    }

    fn entry(&self, index: usize) -> Entry<'_> {
        assert!(index < self.count, "face {index} of {}", self.count);
        self.checked(index, 0).expect("every entry was checked when the file was opened, and the file is not changed")
    }

    /// Finds images whose bytes have changed.
    fn check_images(&self) -> Result<()> {
        let is_damaged = |index: &usize| {
            let entry = self.entry(*index);
            crc32fast::hash(entry.image) != entry.crc
        };
        let damaged: Vec<usize> = (0..self.count).into_par_iter().filter(is_damaged).collect();
        let Some(first) = damaged.first() else { return Ok(()) };
        Err(Error::data(format!(
            "{} of {} images do not fit their checksums, the first is `{}` at byte {}: the file is damaged; make it anew",
            damaged.len(),
            self.count,
            self.key(*first),
            self.entry(*first).start
        )))
    }
}

impl Dataset for Pack {
    fn len(&self) -> usize {
        self.count
    }

    fn people(&self) -> &[String] {
        &self.description.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.entry(index).person
    }

    fn key(&self, index: usize) -> String {
        self.entry(index).text.split('\0').next().unwrap_or_default().to_string()
    }

    fn place(&self, index: usize) -> String {
        let entry = self.entry(index);
        format!("`{}`: `{}` at byte {}", self.file, self.key(index), entry.start)
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        let mut words = self.entry(index).text.split('\0').skip(1).map(str::to_string);
        std::iter::from_fn(|| Some((words.next()?, words.next()?))).collect()
    }

    fn is_low_resolution(&self) -> bool {
        self.description.low_resolution
    }

    fn size(&self, _: usize) -> Option<usize> {
        self.description.size
    }

    fn face(&self, index: usize) -> Result<Face> {
        let image = self.entry(index).image;
        let face = match self.description.form {
            Form::Encoded => decode(image, Decoding::default())?,
            Form::Raw => {
                let side = (image.len() / 3).isqrt();
                Face::new(side, side, image.to_vec())?
            }
        };
        squared(face, self.description.size)
    }

    fn image(&self, index: usize) -> Option<Result<Cow<'_, [u8]>>> {
        (self.description.form == Form::Encoded).then(|| Ok(Cow::Borrowed(self.entry(index).image)))
    }

    fn made(&self) -> Vec<String> {
        self.description.made.clone()
    }

    fn pairs(&self) -> &[Compared] {
        &self.pairs
    }

    fn notes(&self) -> &[String] {
        &self.description.notes
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::data::SyntheticFaces;
    use crate::degrade::Downscale;
    use crate::plugin::Workbench;

    fn faces() -> Box<dyn Dataset> {
        let config = SyntheticFaces {
            identities: 3,
            images_per_identity: 2,
            first_identity: 0,
            size: 24,
            fixed_appearance: true,
            ..SyntheticFaces::default()
        };
        config.build(&BuildContext::new(&Workbench::new(Device::Cpu))).expect("faces")
    }

    fn packed(faces: &dyn Dataset, form: &PackAs) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("faces.pack");
        let packing = pack(faces, form, &path, false, &BTreeMap::new(), &mut |_, _| Ok(())).expect("written");
        assert_eq!((packing.faces, packing.left_out.len()), (6, 0));
        (folder, path)
    }

    fn opened(path: &std::path::Path) -> Result<Box<dyn Dataset>> {
        Packed { file: RecipePath::from(path), size: None }.build(&BuildContext::new(&Workbench::new(Device::Cpu)))
    }

    #[test]
    fn what_is_packed_is_read_as_it_was() {
        let faces = faces();
        let (_folder, path) = packed(&*faces, &PackAs::Images);
        let pack = opened(&path).expect("a pack");
        assert_eq!((pack.len(), pack.people(), pack.size(0)), (6, faces.people(), faces.size(0)));
        for index in 0..6 {
            assert_eq!((pack.key(index), pack.person(index)), (faces.key(index), faces.person(index)));
            assert_eq!(pack.attributes(index), faces.attributes(index));
            assert_eq!(pack.face(index).expect("a face"), faces.face(index).expect("a face"));
        }
        assert!(!pack.is_low_resolution());
    }

    #[test]
    fn small_faces_are_stored_as_they_are() {
        let faces = faces();
        let small = Downscale { size: 8, ..Downscale::default() };
        let reduce = |index: usize| small.apply(&faces.face(index)?);
        let (_folder, path) = packed(&*faces, &PackAs::Faces { face: &reduce, low_resolution: true });
        assert!(std::fs::metadata(&path).expect("a file").len() < 6 * 3 * 64 + 2000);
        let pack = opened(&path).expect("a pack");
        assert_eq!(pack.face(5).expect("a face"), reduce(5).expect("a face"));
        assert!(pack.is_low_resolution() && pack.image(0).is_none());
    }

    #[test]
    fn every_change_and_cut_is_found() {
        let (_folder, path) = packed(&*faces(), &PackAs::Images);
        let bytes = std::fs::read(&path).expect("a file");
        let said = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            opened(&path).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for length in (0..bytes.len()).step_by(61).chain([bytes.len() - 1]) {
            assert!(!said(&bytes[..length]).is_empty(), "cut to {length}");
        }
        for at in (0..bytes.len()).step_by(53).filter(|at| !(12..16).contains(at)) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(!said(&damaged).is_empty(), "byte {at}");
        }
        let mut damaged = bytes.clone();
        damaged[100] ^= 1;
        assert!(said(&damaged).contains("1 of 6 images do not fit their checksums, the first is `"));
        damaged = bytes.clone();
        damaged[8] = 2;
        assert!(said(&damaged).contains("expected format 1, found 2"));
        assert!(said(b"PK").contains("it is no packed file"));
        assert_eq!(said(&bytes), "");
    }
}
