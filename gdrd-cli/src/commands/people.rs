//! `compare`, `enrol` and `forget`, and what they share with `search` and `watch`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gdrd_core::data::{Decoding, is_image_name, read_image};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::registry::Registry;
use gdrd_core::student::Threshold;
use gdrd_student::front_end::Detector;
use gdrd_student::{Embedding, FaceEncoder, Gallery};
use serde_json::json;

use super::student_for_photographs;
use crate::args::{CompareArguments, EnrolArguments, Finding, ForgetArguments, Operating};
use crate::photograph::{self, detector, faces, whole};
use crate::progress::Progress;

/// The rate that thresholds are taken at when none is asked for.
const USUAL_RATE: f64 = 0.001;

/// The student, which must have thresholds for the rate that was asked for: what no face could be decided by is said before the first.
pub(super) fn deciding(operating: &Operating, registry: &Registry) -> Result<FaceEncoder> {
    let encoder = operating.held.hold(student_for_photographs(&operating.student, registry)?)?;
    let asked = operating.rate.or_else(|| encoder.header().facts.calibration.as_ref().map(|_| USUAL_RATE));
    if let (None, Some(rate)) = (operating.threshold, asked) {
        encoder.threshold(rate, usize::MAX)?;
    }
    Ok(encoder)
}

/// From which similarity on a match counts as recognised.
#[derive(Clone, Copy)]
pub(super) struct Bar {
    pub(super) similarity: f64,
    /// The rates that were measured there; none where the user chose it.
    measured: Option<Threshold>,
}

impl Bar {
    fn text(&self) -> String {
        let rates = self.measured.map_or(String::new(), |Threshold { false_match_rate, true_match_rate, .. }| {
            let right = true_match_rate.map_or(String::new(), |rate| {
                format!(", where {:.0} % of all faces of the same person are recognised", 100.0 * rate)
            });
            format!(" at a false match rate of {false_match_rate}{right}")
        });
        format!(", threshold {:.3}{rates}", self.similarity)
    }
}

/// The similarity from which on a match counts as recognised, or why there is none; `at` knows the one of a false match rate.
pub(super) fn threshold(
    encoder: &FaceEncoder,
    operating: &Operating,
    at: impl FnOnce(f64) -> Result<Threshold>,
) -> std::result::Result<Bar, String> {
    match (operating.threshold, operating.rate, &encoder.header().facts.calibration) {
        (Some(similarity), ..) => Ok(Bar { similarity, measured: None }),
        (None, None, None) => Err("the student's file has no thresholds (`gdrd calibrate` measures them)".to_string()),
        (None, rate, _) => match at(rate.unwrap_or(USUAL_RATE)) {
            Ok(found) => Ok(Bar { similarity: found.similarity, measured: Some(found) }),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// How the faces of photographs are found: by a detector, or each image is a face.
pub(super) struct Eyes(Option<(Box<dyn Detector>, f32)>);

impl Eyes {
    pub(super) fn open(finding: &Finding) -> Result<Self> {
        let Some(name) = &finding.detector else { return Ok(Self(None)) };
        let (detector, _) = detector(name, &finding.searching, &Progress::new())?;
        Ok(Self(Some((detector, finding.searching.score))))
    }

    /// The faces of a photograph, turned as its EXIF orientation says; the largest first, at most `limit` unless that is 0.
    pub(super) fn faces(&self, path: &Path, limit: usize) -> Result<Vec<photograph::Found>> {
        let image = read_image(path, Decoding::default())?;
        match &self.0 {
            Some((detector, score)) => faces(&**detector, &image, *score, limit).at(|| format!("`{}`", path.display())),
            None => Ok(vec![whole(image)]),
        }
    }

    /// The largest face of a photograph, and its embedding.
    pub(super) fn largest(&self, encoder: &FaceEncoder, path: &Path) -> Result<(photograph::Found, Embedding)> {
        let found = self.faces(path, 1)?.into_iter().next();
        let found = found.ok_or_else(|| Error::data(format!("`{}`: no face is found on it", path.display())))?;
        let embedding = encoder.face(&found.face).at(|| format!("`{}`", path.display()))?;
        Ok((found, embedding))
    }
}

pub(crate) fn compare(wanted: &CompareArguments, registry: &Registry) -> Result<()> {
    let CompareArguments { a, b, operating, finding, json: as_json } = wanted;
    let encoder = deciding(operating, registry)?;
    let eyes = Eyes::open(finding)?;
    let ((at_a, a), (at_b, b)) = (eyes.largest(&encoder, a)?, eyes.largest(&encoder, b)?);
    let similarity = a.similarity(&b)?;
    let pixels = at_a.pixels.min(at_b.pixels);
    let threshold = threshold(&encoder, operating, |rate| encoder.threshold(rate, pixels));
    let same = threshold.as_ref().ok().map(|bar| f64::from(similarity) >= bar.similarity);
    let quality = a.quality().zip(b.quality()).map(|(a, b)| a.min(b));
    let bar = threshold.as_ref().ok().copied();
    if *as_json {
        let mut said = json!({ "same": same, "similarity": similarity, "threshold": bar.map(|bar| bar.similarity), "quality": quality });
        if let Err(why) = threshold {
            said["no_decision"] = json!(why);
        }
        say!("{said}");
        return Ok(());
    }
    let beside = bar.map_or(String::new(), |bar| bar.text());
    let verdict = match (same, threshold) {
        (Some(true), _) => "the same person".to_string(),
        (Some(false), _) => "not recognised as the same person".to_string(),
        (None, why) => format!("no decision: {}", why.err().unwrap_or_default()),
    };
    say!("{verdict} (similarity {similarity:.3}{beside}{})", worth(quality, &encoder));
    Ok(())
}

/// What a face's quality means: its rate is that of the quality model, not the one that was asked for.
pub(super) fn worth(quality: Option<f64>, encoder: &FaceEncoder) -> String {
    let rate = encoder.header().facts.quality.as_ref().map(|model| model.false_match_rate);
    quality.zip(rate).map_or(String::new(), |(quality, rate)| worth_at(quality, rate))
}

fn worth_at(quality: f64, rate: f64) -> String {
    let share = 100.0 * quality;
    format!(", of such faces {share:.0} % of the same person's are recognised at a false match rate of {rate}")
}

/// The photographs of each person below a folder, both in the order of their names.
fn photographs(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut found = BTreeMap::new();
    for person in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let images: Vec<PathBuf> = entries(&person)?.into_iter().filter(|path| is_image_name(path)).collect();
        let name = person.file_name().and_then(|name| name.to_str()).map(str::to_string);
        let name = name.ok_or_else(|| Error::data(format!("`{}`: its name is no UTF-8", person.display())))?;
        found.insert(name, images);
    }
    Ok(found)
}

pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|e| Error::io(folder, e))?.path());
    }
    paths.sort();
    Ok(paths)
}

pub(super) fn open_gallery(path: &Path) -> Result<Gallery> {
    let gallery = Gallery::open(path).map_err(|error| match path.exists() {
        true => error,
        false => Error::new(error.kind(), format!("{error}; `gdrd enrol` makes a gallery")),
    })?;
    if let Some(why) = gallery.recovered() {
        talk!("warning: {why}");
    }
    Ok(gallery)
}

pub(crate) fn enrol(wanted: &EnrolArguments, registry: &Registry) -> Result<()> {
    let EnrolArguments { gallery: path, folder, student, held, finding, json: as_json } = wanted;
    let eyes = Eyes::open(finding)?;
    let encoder = held.hold(student_for_photographs(student, registry)?)?;
    let people = photographs(folder)?;
    if people.is_empty() {
        let message =
            format!("`{}`: expected a folder for each person with photographs of their face", folder.display());
        return Err(Error::data(message));
    }
    // Beside a file that is gone, its earlier state may lie.
    let mut earlier = path.as_os_str().to_os_string();
    earlier.push(".previous");
    let mut gallery = match path.exists() || Path::new(&earlier).exists() {
        true => open_gallery(path)?,
        false => Gallery::new(&encoder),
    };
    let (mut enrolled, mut passed) = (0, Vec::new());
    for (person, images) in &people {
        let mut faces = Vec::new();
        for image in images {
            match eyes.largest(&encoder, image) {
                Ok((_, face)) => faces.push(face),
                Err(error) => passed.push(error.to_string()),
            }
        }
        if faces.is_empty() {
            passed.push(format!("`{}`: no photograph with a face that can be read", folder.join(person).display()));
            continue;
        }
        // The folder says all that is known of a person, so that enrolling it twice changes nothing.
        gallery.remove(person);
        enrolled += faces.len();
        faces.iter().try_for_each(|face| gallery.enrol(person, face))?;
    }
    passed.iter().for_each(|why| talk!("passed over: {why}"));
    if enrolled == 0 {
        return Err(Error::data(format!("`{}`: no photograph with a face that can be read", folder.display())));
    }
    gallery.save(path)?;
    let (all, count) = (gallery.people().len(), gallery.len());
    match *as_json {
        true => say!("{}", json!({ "enrolled": enrolled, "passed_over": passed, "people": all, "faces": count })),
        false => say!("{}: {enrolled} faces enrolled; it has {all} people, {count} faces", path.display()),
    }
    Ok(())
}

pub(crate) fn forget(wanted: &ForgetArguments) -> Result<()> {
    let ForgetArguments { gallery: path, people, json: as_json } = wanted;
    let mut gallery = open_gallery(path)?;
    if let Some(unknown) = people.iter().find(|person| !gallery.people().contains(person)) {
        return Err(Error::data(format!("`{}`: nobody is called `{unknown}`", path.display())));
    }
    let removed: usize = people.iter().map(|person| gallery.remove(person)).sum();
    gallery.save(path)?;
    match *as_json {
        true => say!("{}", json!({ "removed": removed, "people": gallery.people().len() })),
        false => say!("{}: {removed} faces removed, in it and beside it", path.display()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_names_its_own_rate() {
        let measured = |true_match_rate| {
            let found = Threshold { false_match_rate: 0.001, similarity: 0.606, true_match_rate };
            Bar { similarity: found.similarity, measured: Some(found) }.text()
        };
        let begin = ", threshold 0.606 at a false match rate of 0.001";
        let whole = format!("{begin}, where 55 % of all faces of the same person are recognised");
        assert_eq!((measured(Some(0.551)), measured(None)), (whole, begin.to_string()));
        assert_eq!(Bar { similarity: 0.9, measured: None }.text(), ", threshold 0.900");
        let worth = worth_at(0.8, 0.01);
        assert_eq!(worth, ", of such faces 80 % of the same person's are recognised at a false match rate of 0.01");
    }
}
