//! Looks at every image once, before a run begins: it is decoded, and what was found is remembered while its file stays as it is.

use std::ops::Range;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::decode::{Decoding, check_image, decode};
use super::encoded::Encoded;
use crate::context::BuildContext;
use crate::digest;
use crate::error::{Error, ErrorKind, Result};

/// Images that are remembered together. A pass that was stopped goes on behind the last whole part, and when one file of a part
/// changes, this many are decoded anew.
const PART: usize = 4096;
/// Images that are decoded between two reports.
const AT_ONCE: usize = 64;
/// The question that is remembered. Another version may decode otherwise.
const QUESTION: &str = concat!("decoded images, gdrd ", env!("CARGO_PKG_VERSION"));
/// What is reported. Nothing is where everything was remembered, or decoded at once.
const WORK: &str = "images decoded for the first time";

/// What an image is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Seen {
    /// Width and height in pixels, as it is decoded.
    Size(usize, usize),
    /// Why it cannot be read.
    Broken(String),
}

impl BuildContext<'_> {
    /// Tells `each` what every image is, by its number. Images of files that did not change since are not read again.
    ///
    /// # Errors
    /// If the user stops, or what is remembered cannot be read. Images that cannot be read are no error.
    pub(super) fn survey(&self, images: &impl Encoded, how: Decoding, mut each: impl FnMut(usize, Seen)) -> Result<()> {
        for start in (0..images.len()).step_by(PART) {
            let part = start..(start + PART).min(images.len());
            let mut files: Vec<PathBuf> = part.clone().map(|index| images.container(index).to_path_buf()).collect();
            files.dedup();
            let places: Vec<String> = part.clone().map(|index| images.place(index)).collect();
            let what = digest::of_value(&(QUESTION, images.about(), how.exif_orientation, places));
            let mut now = None;
            let kept = self.fact(&what, &files, &mut || {
                let (seen, failed) = self.look(images, part.clone(), how)?;
                let text = serde_json::to_string(&runs(&seen)).map_err(|e| Error::data(e.to_string()))?;
                now = Some(seen);
                // A disk that fails today may not fail tomorrow.
                if failed { Err(Error::new(ErrorKind::Io, "files could not be read")) } else { Ok(text) }
            });
            let seen = match (now, kept) {
                (Some(seen), _) => seen,
                (None, kept) => {
                    let kept: Vec<(usize, Seen)> =
                        serde_json::from_str(&kept?).map_err(|e| Error::data(format!("what is remembered: {e}")))?;
                    kept.into_iter().flat_map(|(count, seen)| std::iter::repeat_n(seen, count)).collect()
                }
            };
            part.zip(seen).for_each(|(index, seen)| each(index, seen));
        }
        Ok(())
    }

    /// Decodes images, and whether files of some could not be read at all.
    fn look(&self, images: &impl Encoded, part: Range<usize>, how: Decoding) -> Result<(Vec<Seen>, bool)> {
        let (all, mut seen, mut failed) = (images.len(), Vec::with_capacity(part.len()), false);
        let look = |index: usize| {
            let bytes = images.image(index)?;
            check_image(&bytes)?;
            decode(&bytes, how).map(|image| Seen::Size(image.width(), image.height()))
        };
        for start in part.clone().step_by(AT_ONCE) {
            if all > AT_ONCE {
                self.report(WORK, start, all)?;
            }
            let some = start..(start + AT_ONCE).min(part.end);
            for found in some.into_par_iter().map(look).collect::<Vec<_>>() {
                failed |= found.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io);
                seen.push(found.unwrap_or_else(|error| Seen::Broken(error.to_string())));
            }
        }
        if all > AT_ONCE && part.end == all {
            self.report(WORK, all, all)?;
        }
        Ok((seen, failed))
    }
}

/// What follows itself, once and with its number: most sets have images of one size.
fn runs(seen: &[Seen]) -> Vec<(usize, &Seen)> {
    seen.chunk_by(|one, next| one == next).filter_map(|run| Some((run.len(), run.first()?))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    use candle_core::Device;

    use super::*;
    use crate::context::{FileCheck, Host, LocalFile};
    use crate::data::{Dataset, DatasetConfig, ImageFolder, ListedFaces, MxnetRecord};
    use crate::plugin::Workbench;

    /// A host that remembers, and what it was asked and told.
    struct Remembering {
        bench: Workbench,
        facts: Mutex<BTreeMap<String, String>>,
        found: Mutex<usize>,
        told: Mutex<Vec<usize>>,
    }

    impl Remembering {
        fn new() -> Self {
            let bench = Workbench::new(Device::Cpu);
            Self { bench, facts: Mutex::default(), found: Mutex::default(), told: Mutex::default() }
        }

        fn build(&self, config: &dyn DatasetConfig) -> Result<Box<dyn Dataset>> {
            config.build(&BuildContext::new(self))
        }

        fn found(&self) -> usize {
            std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl Host for Remembering {
        fn device(&self) -> &Device {
            self.bench.device()
        }

        fn report(&self, _: &str, done: usize, _: usize) -> Result<()> {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).push(done);
            Ok(())
        }

        fn file(&self, path: &str) -> Result<LocalFile> {
            self.bench.file(path)
        }

        fn fingerprint(&self, files: &[PathBuf], check: &FileCheck<'_>) -> Result<String> {
            self.bench.fingerprint(files, check)
        }

        fn fact(&self, what: &str, files: &[PathBuf], find: &mut dyn FnMut() -> Result<String>) -> Result<String> {
            let key = format!("{what} {files:?}");
            let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(fact) = facts.get(&key) {
                return Ok(fact.clone());
            }
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let fact = find()?;
            facts.insert(key, fact.clone());
            Ok(fact)
        }
    }

    fn png(red: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::from_pixel(6, 5, image::Rgb([red, 0, 0]));
        image.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
        bytes.into_inner()
    }

    /// A PNG that begins and ends as one, with a byte in its middle that is another.
    fn damaged() -> Vec<u8> {
        let mut bytes = png(9);
        let data = bytes.windows(4).position(|word| word == b"IDAT").expect("pixels");
        bytes[data + 8] ^= 0x55;
        check_image(&bytes).expect("nothing is seen from outside");
        bytes
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        std::fs::write(folder.join(name), bytes).expect("a file");
    }

    fn config<T: serde::de::DeserializeOwned>(options: serde_json::Value) -> T {
        serde_json::from_value(options).expect("options")
    }

    #[test]
    fn damage_inside_is_found_once_and_named_or_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        (0..70).for_each(|at| write(folder.path(), &format!("{at:03}.png"), &png(at)));
        write(folder.path(), "007.png", &damaged());
        write(folder.path(), "068.png", &damaged());
        let host = Remembering::new();
        let refusing: ImageFolder = config(serde_json::json!({ "folders": [folder.path()] }));
        for found in [1, 0] {
            let said = host.build(&refusing).err().expect("damaged").to_string();
            assert!(said.contains("2 of 70 images cannot be read; `unreadable = \"skip\"` leaves them out"), "{said}");
            assert!(said.contains("007.png`: ") && said.contains("068.png`: "), "{said}");
            assert_eq!(host.found(), found, "what was found is remembered");
        }
        let skip = serde_json::json!({ "folders": [folder.path()], "unreadable": "skip" });
        let data = host.build(&config::<ImageFolder>(skip)).expect("68 images");
        assert_eq!((data.len(), data.left_out().len(), host.found()), (68, 2, 0));
        assert_eq!(*host.told.lock().expect("told"), [0, 64, 70], "only what is decoded is told");
        (0..data.len()).for_each(|index| drop(data.face(index).expect("it was decoded before")));
    }

    #[test]
    fn a_file_that_could_not_be_opened_is_asked_for_again() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "list.csv", b"path\na.png\ngone.png\n");
        write(folder.path(), "a.png", &png(1));
        let host = Remembering::new();
        let list: ListedFaces = config(serde_json::json!({ "list": folder.path().join("list.csv") }));
        let said = host.build(&list).err().expect("gone").to_string();
        assert!(said.contains("gone.png`: no such file"), "{said}");
        write(folder.path(), "gone.png", &png(2));
        assert_eq!((host.build(&list).expect("two images").len(), host.found()), (2, 2));
    }

    #[test]
    fn boxes_are_compared_with_the_images_as_they_are_decoded() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = "path,x,y,width,height\na.png,0,0,4,4\na.png,80,0,4,4\nb.png,0,0,4,4\n";
        write(folder.path(), "list.csv", list.as_bytes());
        write(folder.path(), "a.png", &png(1));
        write(folder.path(), "b.png", &damaged());
        let host = Remembering::new();
        let list = folder.path().join("list.csv");
        let said = host.build(&config::<ListedFaces>(serde_json::json!({ "list": list }))).err().expect("two");
        let said = said.to_string();
        assert!(said.contains("2 of 3 images cannot be read"), "{said}");
        assert!(
            said.contains("b.png`: ") && said.contains("a.png` (line 3 of the list): the box at (80, 0)"),
            "{said}"
        );
        let skip = serde_json::json!({ "list": list, "unreadable": "skip" });
        let data = host.build(&config::<ListedFaces>(skip)).expect("one face");
        assert_eq!((data.len(), data.left_out().len(), host.found()), (1, 2, 1));
    }

    #[test]
    fn images_in_one_file_are_remembered_by_their_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let record = |image: &[u8]| {
            let bytes = [&[0; 24][..], image].concat();
            let mut part = [0xced7_230a_u32.to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
            part.extend(bytes);
            part.resize(part.len().next_multiple_of(4), 0);
            part
        };
        let rec = [record(&png(1)), record(&damaged()), record(&png(3))];
        write(folder.path(), "train.rec", &rec.concat());
        let options = serde_json::json!({ "file": folder.path().join("train.rec"), "unreadable": "skip" });
        let host = Remembering::new();
        for found in [1, 0] {
            let data = host.build(&config::<MxnetRecord>(options.clone())).expect("two images");
            assert_eq!((data.len(), data.left_out().len(), host.found()), (2, 1, found));
        }
        // An index that names other records of the same file is another question.
        write(folder.path(), "train.idx", format!("0\t0\n1\t{}\n", rec[0].len() + rec[1].len()).as_bytes());
        let data = host.build(&config::<MxnetRecord>(options)).expect("two images");
        assert_eq!((data.len(), data.left_out().len(), host.found()), (2, 0, 1));
    }
}
