//! `data align`: photographs to aligned faces.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, ValueEnum};
use gdrd_core::data::Decoding;
use gdrd_core::error::{Error, Result};
use gdrd_core::nn::weights::first_of;
use gdrd_core::observe::{Event, tell};
use rayon::prelude::*;
use serde::Serialize;

use self::boxes::Known;
use self::journal::{Journal, Record};
use self::photographs::Photograph;
use self::work::{Looking, Source};
use crate::args::{Searching, size};
use crate::photograph::detector;
use crate::progress::Progress;

mod boxes;
mod journal;
mod photographs;
mod sheet;
mod tables;
mod work;

#[derive(Args)]
pub(crate) struct AlignArguments {
    /// Folder of photographs, at any depth: JPEG, PNG, BMP, WebP or GIF
    photos: PathBuf,
    /// Folder of the results: a new one, or that of an earlier call with the same options
    out: PathBuf,
    /// Detector that finds faces: an ONNX file of YuNet (such as OpenCV's face_detection_yunet_2023mar.onnx) or SCRFD with landmarks, or
    /// its hf:// address. Needs a gdrd built with the feature `align`
    #[arg(long, value_name = "FILE", required_unless_present = "boxes", conflicts_with = "boxes")]
    detector: Option<String>,
    /// CSV file that says where the faces are: columns image (its path in PHOTOS), left, top, width, height, in pixels of the upright
    /// photograph, and x1, y1 to x5, y5 for landmarks if there are any (eyes, nose, corners of the mouth, from the left of the picture).
    /// A box is enough: without landmarks the square around it is cut out as it is, and only reduced if it is larger than SIZE
    #[arg(long, value_name = "FILE")]
    boxes: Option<PathBuf>,
    /// Height and width of the faces, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 112, value_parser = size)]
    size: usize,
    /// Which faces of a photograph are written [default: largest, with --boxes all]
    #[arg(long, value_enum, value_name = "WHICH")]
    take: Option<Take>,
    #[command(flatten)]
    searching: Searching,
    /// What is added on each side of a box without landmarks, in lengths of its longer side, -0.4 to 4
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, allow_negative_numbers = true, requires = "boxes")]
    margin: f32,
    /// Leave photographs as the camera's sensor had them, whatever their EXIF orientation
    #[arg(long)]
    ignore_orientation: bool,
    /// Take photographs that cannot be read, and boxes that are in none, for no error
    #[arg(long)]
    skip_unreadable: bool,
}

/// Which faces of a photograph are written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Take {
    /// The one with the largest box
    Largest,
    /// The one nearest to the middle, as LFW is labelled
    Central,
    /// All of them, numbered from the largest
    All,
}

/// What the faces of every photograph depend on: the first line of the journal.
#[derive(Serialize)]
struct Options {
    format: u32,
    detector: Option<String>,
    score: f32,
    overlap: f32,
    longest_side: usize,
    enlarge: f32,
    size: usize,
    take: Take,
    margin: f32,
    exif_orientation: bool,
}

pub(crate) fn align(wanted: &AlignArguments) -> Result<()> {
    let how = Decoding { exif_orientation: !wanted.ignore_orientation };
    if !(-0.4..=4.0).contains(&wanted.margin) {
        return Err(Error::recipe(format!("`--margin`: expected -0.4 to 4, found {}", wanted.margin)));
    }
    photographs::keep_apart(&wanted.photos, &wanted.out)?;
    let progress = Progress::new();
    let (source, detector_digest) = source(wanted, &progress)?;
    let (photographs, passed_over) = photographs::find(&wanted.photos)?;
    if let Source::Boxes(boxes) = &source {
        boxes.check(&photographs, &wanted.photos)?;
    }
    let take = wanted.take.unwrap_or(if wanted.boxes.is_some() { Take::All } else { Take::Largest });
    let options = Options {
        format: 1,
        detector: detector_digest,
        score: wanted.searching.score,
        overlap: wanted.searching.overlap,
        longest_side: wanted.searching.longest_side,
        enlarge: wanted.searching.enlarge,
        size: wanted.size,
        take,
        margin: wanted.margin,
        exif_orientation: how.exif_orientation,
    };
    let (journal, known) = Journal::open(&wanted.out, &options)?;
    journal.sweep(&photographs);
    let looking = Looking { source, how, take, size: wanted.size, margin: wanted.margin, out: &wanted.out };
    let found = look_at_all(&photographs, &looking, &journal, &known, &progress);
    drop(progress);
    let done = Done { photographs: &photographs, found: found?, passed_over };
    done.write(wanted, how)?;
    let gone = gone(&known, &photographs);
    if gone > 0 {
        talk!("{gone} photographs of an earlier call are in `{}` no longer; their faces stay", wanted.photos.display());
    }
    done.end(wanted)
}

/// How many photographs of earlier calls are there no longer.
fn gone<T>(known: &BTreeMap<String, T>, photographs: &[Photograph]) -> usize {
    let names: HashSet<&str> = photographs.iter().map(|one| one.name.as_str()).collect();
    known.keys().filter(|name| !names.contains(name.as_str())).count()
}

/// What says where faces are, and the sha256 of the detector.
fn source(wanted: &AlignArguments, progress: &Progress) -> Result<(Source, Option<String>)> {
    match (&wanted.boxes, &wanted.detector) {
        (Some(path), _) => Ok((Source::Boxes(Known::read(path)?), None)),
        (None, Some(name)) => {
            let (detector, path) = detector(name, &wanted.searching, progress)?;
            Ok((Source::Detector(detector), Some(gdrd_core::digest::of_file(&path)?)))
        }
        (None, None) => Err(Error::recipe("expected `--detector FILE` or `--boxes FILE`")),
    }
}

/// What became of a photograph: the faces in it, or why nothing can be said of it.
type Outcome = std::result::Result<Record, String>;

/// Looks at every photograph, on all cores, unless that was done before.
fn look_at_all(
    photographs: &[Photograph],
    looking: &Looking,
    journal: &Journal,
    known: &BTreeMap<String, Record>,
    progress: &Progress,
) -> Result<Vec<Outcome>> {
    let done = AtomicUsize::new(0);
    let one = |photograph: &Photograph| {
        let outcome = looking.at(photograph, known.get(&photograph.name))?;
        if let Ok((record, true)) = &outcome {
            journal.add(record)?;
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        tell(progress, &Event::Working { what: "photographs".into(), done, total: photographs.len() })?;
        Ok(outcome.map(|(record, _)| record))
    };
    // One by one: neighbours may differ in size a hundredfold.
    photographs.par_iter().with_max_len(1).map(one).collect()
}

/// All that was found.
struct Done<'a> {
    photographs: &'a [Photograph],
    found: Vec<Outcome>,
    passed_over: Vec<String>,
}

impl Done<'_> {
    fn write(&self, wanted: &AlignArguments, how: Decoding) -> Result<()> {
        tables::write(&wanted.out, self.photographs, &self.found)?;
        sheet::write(&wanted.out, self.photographs, &self.found, how)
    }

    /// Says what was found; photographs that could not be read are an error unless they may be skipped.
    fn end(&self, wanted: &AlignArguments) -> Result<()> {
        let records = || self.found.iter().flatten();
        let faces: usize = records().map(|record| record.faces.len()).sum();
        let (all, with) = (self.found.len(), records().filter(|record| !record.faces.is_empty()).count());
        let without = records().count() - with;
        let unread: Vec<&str> = self
            .photographs
            .iter()
            .zip(&self.found)
            .filter(|(_, found)| found.is_err())
            .map(|(photograph, _)| photograph.name.as_str())
            .collect();
        if !self.passed_over.is_empty() {
            let names = self.passed_over.iter().map(|name| format!("`{name}`"));
            talk!(
                "passed over, not named as images: {}: {}",
                self.passed_over.len(),
                first_of(self.passed_over.len(), names)
            );
        }
        let out = |name: &str| wanted.out.join(name).display().to_string();
        say!("{all} photographs: {with} with a face, {without} without, {} unreadable", unread.len());
        say!("{}: {faces} faces", out("faces"));
        say!("{}: where they are", out(tables::FACES));
        say!("{}: where none was found, and why", out(tables::NOT_FOUND));
        say!("{}: no face framed in red, the least sure in orange, a sample of the others in green", out(sheet::NAME));
        if unread.is_empty() || wanted.skip_unreadable {
            return Ok(());
        }
        let names = first_of(unread.len(), unread.iter().map(|name| format!("`{name}`")));
        Err(Error::data(format!(
            "{} photographs could not be read: {names}; `{}` says why, everything else is done. `--skip-unreadable` takes this for \
             no error",
            unread.len(),
            out(tables::NOT_FOUND)
        )))
    }
}

/// The file of a face in a folder of results.
fn face_path(out: &Path, face: &str) -> PathBuf {
    out.join(work::FACES).join(face)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photographs_that_are_gone_are_counted() {
        let photograph = |at: usize| Photograph { path: PathBuf::new(), name: at.to_string(), stem: String::new() };
        let photographs: Vec<Photograph> = (0..100).map(photograph).collect();
        let known: BTreeMap<String, ()> = (3..102).map(|at| (at.to_string(), ())).collect();
        assert_eq!(gone(&known, &photographs), 2);
    }
}
