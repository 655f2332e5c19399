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
                self.report("images decoded for the first time", start, all)?;
            }
            let some = start..(start + AT_ONCE).min(part.end);
            for found in some.into_par_iter().map(look).collect::<Vec<_>>() {
                failed |= found.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io);
                seen.push(found.unwrap_or_else(|error| Seen::Broken(error.to_string())));
            }
        }
        if all > AT_ONCE && part.end == all {
            self.report("images decoded for the first time", all, all)?;
        }
        Ok((seen, failed))
    }
}

/// What follows itself, once and with its number: most sets have images of one size.
fn runs(seen: &[Seen]) -> Vec<(usize, &Seen)> {
    seen.chunk_by(|one, next| one == next).filter_map(|run| Some((run.len(), run.first()?))).collect()
}
