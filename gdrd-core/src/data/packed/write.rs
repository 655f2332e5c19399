//! The writer of packed files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;

use super::{Description, FORMAT, Form, HEAD, MAGIC, NOBODY};
use crate::data::{Dataset, Decoding, decode, png};
use crate::error::{Context, Error, Result};
use crate::face::Face;
use crate::files::{self, Seal};

/// What of each face is stored.
pub enum PackAs<'a> {
    /// The encoded image as it is; of faces that have none, or only a part of one, a PNG.
    Images,
    /// Pixels, such as a small view: square faces as `face` gives them, whose number it is given.
    Faces {
        /// Gives the face of this number. Called from many threads.
        face: &'a (dyn Fn(usize) -> Result<Face> + Sync),
        /// Whether nothing more may be taken from their resolution.
        low_resolution: bool,
    },
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    /// Faces in the file.
    pub faces: usize,
    /// Its bytes.
    pub bytes: u64,
    /// Faces that could not be read, each with the reason.
    pub left_out: Vec<String>,
}

/// Faces that are read at once.
const CHUNK: usize = 256;

/// Writes a dataset into one file, which is there completely or not at all. `made_of` says in the file where it came from; `report`
/// is told how many faces of how many are done, and may stop.
///
/// # Errors
/// If the file cannot be written, `report` says stop, or faces cannot be read and `skip` does not say to leave them out: the
/// error names all of them.
pub fn pack(
    dataset: &dyn Dataset,
    form: &PackAs,
    path: &Path,
    skip: bool,
    made_of: &BTreeMap<String, String>,
    report: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Packing> {
    let partial = files::partial_file(path, files::Readers::All)?;
    let mut out = Out { file: std::io::BufWriter::with_capacity(1 << 20, partial), path, at: 0, seal: None };
    out.write(&[&MAGIC[..], &FORMAT.to_le_bytes(), &[0; 4]].concat())?;
    debug_assert_eq!(out.at, HEAD as u64);
    let (mut table, mut texts) = (Vec::new(), Vec::new());
    let mut numbers: Vec<Option<u32>> = vec![None; dataset.people().len()];
    let mut people = Vec::new();
    let mut places = BTreeMap::new();
    let mut packing = Packing::default();
    for start in (0..dataset.len()).step_by(CHUNK) {
        report(start, dataset.len())?;
        let range = start..(start + CHUNK).min(dataset.len());
        let images: Vec<Result<Vec<u8>>> = range
            .clone()
            .into_par_iter()
            .map(|index| image(dataset, index, form).at(|| dataset.place(index)))
            .collect();
        for (index, image) in range.zip(images) {
            let image = match image {
                Ok(image) => image,
                Err(error) => {
                    packing.left_out.push(error.to_string());
                    continue;
                }
            };
            let person = match dataset.person(index) {
                None => NOBODY,
                Some(person) => match numbers[person] {
                    Some(number) => number,
                    None => {
                        let number = u32::try_from(people.len()).ok().filter(|number| *number < NOBODY);
                        let number =
                            number.ok_or_else(|| Error::data("a packed file has room for 4,294,967,294 people"))?;
                        people.push(dataset.people()[person].clone());
                        *numbers[person].insert(number)
                    }
                },
            };
            let text = text(dataset, index)?;
            let length = |bytes: usize| {
                u32::try_from(bytes)
                    .map_err(|_| Error::data(format!("`{}`: {bytes} bytes are too many", dataset.key(index))))
            };
            table.extend(out.at.to_le_bytes());
            table.extend((texts.len() as u64).to_le_bytes());
            table.extend(length(image.len())?.to_le_bytes());
            table.extend(length(text.len())?.to_le_bytes());
            table.extend(crc32fast::hash(&image).to_le_bytes());
            table.extend(person.to_le_bytes());
            texts.extend_from_slice(text.as_bytes());
            places.insert(index, packing.faces as u64);
            packing.faces += 1;
            out.write(&image)?;
        }
    }
    report(dataset.len(), dataset.len())?;
    if !packing.left_out.is_empty() && !skip || packing.faces == 0 {
        let (count, all) = (packing.left_out.len(), packing.left_out.join("\n  "));
        return Err(Error::data(format!("{count} of {} faces cannot be read:\n  {all}", dataset.len())));
    }
    let (form, low_resolution) = match form {
        PackAs::Images => (Form::Encoded, dataset.is_low_resolution()),
        PackAs::Faces { low_resolution, .. } => (Form::Raw, *low_resolution || dataset.is_low_resolution()),
    };
    let sizes: BTreeSet<Option<usize>> = (0..dataset.len()).map(|index| dataset.size(index)).collect();
    if form == Form::Encoded && sizes.len() > 1 {
        return Err(Error::data(format!(
            "expected faces that are brought to one size, found {sizes:?}; a packed file has one `size` for all of them"
        )));
    }
    let pair = |pair: &crate::data::Compared| Some((*places.get(&pair.left)?, *places.get(&pair.right)?, pair.same));
    let pairs: Vec<_> = dataset.pairs().iter().filter_map(pair).collect();
    let lost = dataset.pairs().len() - pairs.len();
    let description = Description {
        form,
        size: if form == Form::Encoded { dataset.size(0) } else { None },
        low_resolution,
        people,
        pairs,
        made_of: made_of.clone(),
        notes: (lost > 0).then(|| format!("left out, pairs of images that are left out: {lost}")).into_iter().collect(),
        made: dataset.made(),
    };
    let description = serde_json::to_vec(&description).map_err(|e| Error::data(e.to_string()))?;
    packing.bytes = out.finish(table, &texts, &description)?;
    Ok(packing)
}

/// The bytes of a face that are stored.
fn image(dataset: &dyn Dataset, index: usize, form: &PackAs) -> Result<Vec<u8>> {
    if let PackAs::Faces { face, .. } = form {
        return Ok(face(index)?.square()?.pixels().to_vec());
    }
    if let Some(image) = dataset.image(index) {
        let image = image?;
        // What cannot be decoded is found here, and not in the middle of a run.
        decode(&image, Decoding::default())?;
        return Ok(image.into_owned());
    }
    png(&dataset.face(index)?)
}

/// Key and attributes of a face.
fn text(dataset: &dyn Dataset, index: usize) -> Result<String> {
    let mut text = dataset.key(index);
    let attributes = dataset.attributes(index);
    let words = || attributes.iter().flat_map(|(name, value)| [name, value]);
    if text.contains('\0') || words().any(|word| word.contains('\0')) {
        return Err(Error::data(format!("`{text}`: a key or an attribute with a zero byte")));
    }
    words().for_each(|word| {
        text.push('\0');
        text.push_str(word);
    });
    Ok(text)
}

/// The file that is written.
struct Out<'a> {
    file: std::io::BufWriter<tempfile::NamedTempFile>,
    path: &'a Path,
    at: u64,
    /// From the table on.
    seal: Option<Seal>,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        files::write_all(&mut self.file, self.path, bytes).map_err(|e| Error::io(self.path, e))?;
        if let Some(seal) = &mut self.seal {
            seal.update(bytes);
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes everything behind the images; the bytes of the file.
    fn finish(mut self, mut table: Vec<u8>, texts: &[u8], description: &[u8]) -> Result<u64> {
        self.seal = Some(Seal::default());
        let starts = [self.at, self.at + table.len() as u64, self.at + (table.len() + texts.len()) as u64];
        for entry in table.as_chunks_mut::<{ super::ENTRY }>().0 {
            let mut place = [0; 8];
            place.copy_from_slice(&entry[8..16]);
            entry[8..16].copy_from_slice(&(u64::from_le_bytes(place) + starts[1]).to_le_bytes());
        }
        self.write(&table)?;
        self.write(texts)?;
        self.write(description)?;
        self.write(&starts.map(u64::to_le_bytes).concat())?;
        if let Some(seal) = self.seal.take() {
            self.write(&seal.finish())?;
        }
        let failed = |e| Error::io(self.path, e);
        self.file.flush().map_err(failed)?;
        let file = self.file.into_inner().map_err(|e| Error::io(self.path, e.into_error()))?;
        files::sync(file.as_file(), self.path).map_err(failed)?;
        files::persist(file, self.path)?;
        Ok(self.at)
    }
}
