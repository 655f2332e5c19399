//! `compare`, `enrol`, `forget`, `search` and `watch`: who is on a photograph of a face.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gdrd_core::data::{Decoding, is_image_name, read_image};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::{plain_name, write_atomically};
use gdrd_core::registry::Registry;
use gdrd_student::front_end::Detector;
use gdrd_student::{Embedding, FaceEncoder, Gallery, Match};
use serde_json::{Value, json};

use super::open_student;
use crate::args::{
    CompareArguments, EnrolArguments, Finding, ForgetArguments, Operating, SearchArguments, WatchArguments,
};
use crate::photograph::{self, detector, faces, whole};
use crate::progress::Progress;

/// The rate that thresholds are taken at when none is asked for.
const USUAL_RATE: f64 = 0.001;

/// The similarity from which on a face counts as recognised; none if the student's file has no thresholds and none was asked for.
fn threshold(encoder: &FaceEncoder, operating: &Operating, pixels: usize) -> Result<Option<f64>> {
    match (operating.threshold, operating.rate, &encoder.header().facts.calibration) {
        (Some(threshold), ..) => Ok(Some(threshold)),
        (None, None, None) => Ok(None),
        (None, rate, _) => Ok(Some(encoder.threshold(rate.unwrap_or(USUAL_RATE), pixels)?.similarity)),
    }
}

/// How the faces of photographs are found: by a detector, or each image is a face.
struct Eyes(Option<(Box<dyn Detector>, f32)>);

impl Eyes {
    fn open(finding: &Finding) -> Result<Self> {
        let Some(name) = &finding.detector else { return Ok(Self(None)) };
        let (detector, _) = detector(name, &finding.searching, &Progress::new())?;
        Ok(Self(Some((detector, finding.searching.score))))
    }

    /// The faces of a photograph, turned as its EXIF orientation says; the largest first, at most `limit` unless that is 0.
    fn faces(&self, path: &Path, limit: usize) -> Result<Vec<photograph::Found>> {
        let image = read_image(path, Decoding::default())?;
        match &self.0 {
            Some((detector, score)) => faces(&**detector, &image, *score, limit).at(|| format!("`{}`", path.display())),
            None => Ok(vec![whole(image)]),
        }
    }

    /// The largest face of a photograph, and its embedding.
    fn largest(&self, encoder: &FaceEncoder, path: &Path) -> Result<(photograph::Found, Embedding)> {
        let found = self.faces(path, 1)?.into_iter().next();
        let found = found.ok_or_else(|| Error::data(format!("`{}`: no face is found on it", path.display())))?;
        let embedding = encoder.face(&found.face).at(|| format!("`{}`", path.display()))?;
        Ok((found, embedding))
    }
}

pub(crate) fn compare(wanted: &CompareArguments, registry: &Registry) -> Result<()> {
    let CompareArguments { a, b, operating, finding, json: as_json } = wanted;
    let encoder = operating.held.hold(open_student(&operating.student, registry)?)?;
    let eyes = Eyes::open(finding)?;
    let ((at_a, a), (at_b, b)) = (eyes.largest(&encoder, a)?, eyes.largest(&encoder, b)?);
    let similarity = a.similarity(&b)?;
    let threshold = threshold(&encoder, operating, at_a.pixels.min(at_b.pixels))?;
    let same = threshold.map(|threshold| f64::from(similarity) >= threshold);
    let quality = a.quality().zip(b.quality()).map(|(a, b)| a.min(b));
    if *as_json {
        say!("{}", json!({ "same": same, "similarity": similarity, "threshold": threshold, "quality": quality }));
        return Ok(());
    }
    let verdict = match same {
        Some(true) => "the same person",
        Some(false) => "not recognised as the same person",
        None => "no decision: the student's file has no thresholds (`gdrd calibrate` measures them)",
    };
    let beside = threshold.map_or(String::new(), |threshold| format!(", threshold {threshold:.3}"));
    say!("{verdict} (similarity {similarity:.3}{beside}{})", worth(quality));
    Ok(())
}

/// What a face's quality means.
fn worth(quality: Option<f64>) -> String {
    quality.map_or(String::new(), |quality| {
        format!(", of such faces {:.0} % of the same person's are recognised", 100.0 * quality)
    })
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

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|e| Error::io(folder, e))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn open_gallery(path: &Path) -> Result<Gallery> {
    let gallery = Gallery::open(path)?;
    if let Some(why) = gallery.recovered() {
        talk!("warning: {why}");
    }
    Ok(gallery)
}

pub(crate) fn enrol(wanted: &EnrolArguments, registry: &Registry) -> Result<()> {
    let EnrolArguments { gallery: path, folder, student, held, finding, json: as_json } = wanted;
    let eyes = Eyes::open(finding)?;
    let encoder = held.hold(open_student(student, registry)?)?;
    let people = photographs(folder)?;
    if people.is_empty() {
        let message =
            format!("`{}`: expected a folder for each person with photographs of their face", folder.display());
        return Err(Error::data(message));
    }
    let mut gallery = if path.exists() { open_gallery(path)? } else { Gallery::new(&encoder) };
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

/// Whom a face shows.
struct Found {
    /// Where it is in the photograph, `[left, top, right, bottom]`, and how many pixels it has there; none where the image is a face.
    place: Option<([i64; 4], usize)>,
    matches: Vec<Match>,
    threshold: Option<f64>,
    quality: Option<f64>,
}

impl Found {
    /// All faces of a photograph, the largest first.
    fn all(
        path: &Path,
        gallery: &Gallery,
        encoder: &FaceEncoder,
        operating: &Operating,
        top: usize,
        eyes: &Eyes,
    ) -> Result<Vec<Self>> {
        let one = |found: photograph::Found| {
            let face = encoder.face(&found.face).at(|| format!("`{}`", path.display()))?;
            let threshold = threshold(encoder, operating, found.pixels)?;
            let place = found.landmarks.is_some().then_some((found.bounds, found.pixels));
            Ok(Self { place, matches: gallery.search(&face, top)?, threshold, quality: face.quality() })
        };
        eyes.faces(path, 0)?.into_iter().map(one).collect()
    }

    /// The person, if one was recognised.
    fn person(&self) -> Option<&str> {
        let nearest = self.matches.first()?;
        (f64::from(nearest.similarity) >= self.threshold?).then_some(&nearest.person)
    }

    fn json(&self, path: &Path) -> Value {
        let nearest = |found: &Match| json!({ "person": found.person, "similarity": found.similarity });
        let mut all = json!({
            "image": path.to_string_lossy(),
            "person": self.person(),
            "threshold": self.threshold,
            "quality": self.quality,
            "nearest": self.matches.iter().map(nearest).collect::<Vec<_>>(),
        });
        if let Some((bounds, pixels)) = self.place {
            all["box"] = json!(bounds);
            all["pixels"] = json!(pixels);
        }
        all
    }

    fn text(&self, path: &Path) -> String {
        let nearest: Vec<String> =
            self.matches.iter().map(|found| format!("{} {:.3}", found.person, found.similarity)).collect();
        let person = match (self.person(), self.threshold) {
            (Some(person), _) => person,
            (None, Some(_)) => "nobody known",
            (None, None) => "no decision: the student's file has no thresholds",
        };
        let place = self
            .place
            .map_or(String::new(), |([left, top, ..], pixels)| format!(", face of {pixels} pixels at ({left}, {top})"));
        format!("{}{place}: {person} (nearest: {}{})", path.display(), nearest.join(", "), worth(self.quality))
    }
}

/// Says who is on a photograph.
fn tell(image: &Path, found: &[Found], as_json: bool) {
    for face in found {
        match as_json {
            true => say!("{}", face.json(image)),
            false => say!("{}", face.text(image)),
        }
    }
    if found.is_empty() {
        match as_json {
            true => say!("{}", json!({ "image": image.to_string_lossy(), "person": null, "box": null })),
            false => say!("{}: no face is found", image.display()),
        }
    }
}

pub(crate) fn search(wanted: &SearchArguments, registry: &Registry) -> Result<()> {
    let SearchArguments { gallery: path, images, operating, finding, top, json: as_json } = wanted;
    let encoder = operating.held.hold(open_student(&operating.student, registry)?)?;
    let gallery = open_gallery(path)?;
    let eyes = Eyes::open(finding)?;
    for image in images {
        tell(image, &Found::all(image, &gallery, &encoder, operating, *top, &eyes)?, *as_json);
    }
    Ok(())
}

/// What a file was when it was last looked at: one that is still being written is another the next time.
type State = (u64, Option<SystemTime>);

/// Looks between two of which a file that cannot be read must stay the same before it is called unreadable.
const PATIENCE: u32 = 3;

pub(crate) fn watch(wanted: &WatchArguments, registry: &Registry) -> Result<()> {
    let encoder = wanted.operating.held.hold(open_student(&wanted.operating.student, registry)?)?;
    let gallery = open_gallery(&wanted.gallery)?;
    if let Some(sorted) = &wanted.sort {
        std::fs::create_dir_all(sorted).map_err(|e| Error::io(sorted, e))?;
    }
    let eyes = Eyes::open(&wanted.finding)?;
    let mut seen: BTreeMap<PathBuf, (State, Option<u32>)> = BTreeMap::new();
    if !wanted.once {
        talk!("watching {}; press Ctrl-C to stop", wanted.folder.display());
    }
    loop {
        let mut waiting = false;
        let images: Vec<PathBuf> =
            entries(&wanted.folder)?.into_iter().filter(|path| is_image_name(path) && path.is_file()).collect();
        // A name that is used again is a new photograph.
        seen.retain(|path, _| path.exists());
        for image in images {
            let Ok(about) = std::fs::metadata(&image) else { continue };
            let state = (about.len(), about.modified().ok());
            let looks = match seen.get(&image) {
                Some((then, None)) if *then == state => continue,
                Some((then, Some(looks))) if *then == state => *looks + 1,
                _ => 0,
            };
            let done = match looks {
                // Whoever writes it may not be ready.
                0 => false,
                _ => match Found::all(&image, &gallery, &encoder, &wanted.operating, wanted.top, &eyes) {
                    Ok(found) => {
                        recognised(&image, &found, wanted)?;
                        true
                    }
                    Err(error) if looks >= PATIENCE => {
                        talk!("passed over: {error}");
                        true
                    }
                    Err(_) => false,
                },
            };
            waiting |= !done;
            seen.insert(image, (state, (!done).then_some(looks)));
        }
        if wanted.once && !waiting {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(wanted.every));
    }
}

/// Says who it is, and sorts or tags the photograph.
fn recognised(image: &Path, found: &[Found], wanted: &WatchArguments) -> Result<()> {
    tell(image, found, wanted.json);
    if wanted.tag {
        let mut name = image.as_os_str().to_os_string();
        name.push(".json");
        let faces: Vec<Value> = found.iter().map(|face| face.json(image)).collect();
        let tag = match (&wanted.finding.detector, &faces[..]) {
            // The image is one face.
            (None, [face]) => face.clone(),
            _ => json!({ "image": image.to_string_lossy(), "faces": faces }),
        };
        write_atomically(Path::new(&name), format!("{tag}\n").as_bytes())?;
    }
    if let (Some(sorted), Some(name)) = (&wanted.sort, image.file_name()) {
        let mut people: BTreeSet<String> = found.iter().filter_map(Found::person).map(plain_name).collect();
        if people.is_empty() {
            people.insert("unknown".into());
        }
        let bytes = std::fs::read(image).map_err(|e| Error::io(image, e))?;
        for person in people {
            let folder = sorted.join(person);
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            write_atomically(&folder.join(name), &bytes)?;
        }
    }
    Ok(())
}
