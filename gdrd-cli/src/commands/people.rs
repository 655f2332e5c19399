//! `compare`, `enrol`, `forget`, `search` and `watch`: who is on a photograph of a face.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gdrd_core::data::is_image_name;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::{plain_name, write_atomically};
use gdrd_core::registry::Registry;
use gdrd_student::{Embedding, FaceEncoder, Gallery, Match};
use serde_json::{Value, json};

use super::{Reading, open_student};
use crate::args::{CompareArguments, EnrolArguments, ForgetArguments, Operating, SearchArguments, WatchArguments};

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

fn embed(encoder: &FaceEncoder, path: &Path, reading: &Reading) -> Result<Embedding> {
    encoder.face(&reading.face(path)?).at(|| format!("`{}`", path.display()))
}

pub(crate) fn compare(wanted: &CompareArguments, registry: &Registry) -> Result<()> {
    let CompareArguments { a, b, operating, json: as_json } = wanted;
    let encoder = operating.held.hold(open_student(&operating.student, registry)?)?;
    let reading = Reading::usual();
    let (a, b) = (embed(&encoder, a, &reading)?, embed(&encoder, b, &reading)?);
    let similarity = a.similarity(&b)?;
    let threshold = threshold(&encoder, operating, a.pixels().min(b.pixels()))?;
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
    let EnrolArguments { gallery: path, folder, student, held, json: as_json } = wanted;
    let reading = Reading::usual();
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
            match embed(&encoder, image, &reading) {
                Ok(face) => faces.push(face),
                Err(error) => passed.push(error.to_string()),
            }
        }
        if faces.is_empty() {
            passed.push(format!("`{}`: no photograph that can be read", folder.join(person).display()));
            continue;
        }
        // The folder says all that is known of a person, so that enrolling it twice changes nothing.
        gallery.remove(person);
        enrolled += faces.len();
        faces.iter().try_for_each(|face| gallery.enrol(person, face))?;
    }
    passed.iter().for_each(|why| talk!("passed over: {why}"));
    if enrolled == 0 {
        return Err(Error::data(format!("`{}`: no photograph that can be read", folder.display())));
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

/// Whom a photograph shows.
struct Found {
    matches: Vec<Match>,
    threshold: Option<f64>,
    quality: Option<f64>,
}

impl Found {
    fn of(
        path: &Path,
        gallery: &Gallery,
        encoder: &FaceEncoder,
        operating: &Operating,
        top: usize,
        reading: &Reading,
    ) -> Result<Self> {
        let face = embed(encoder, path, reading)?;
        let threshold = threshold(encoder, operating, face.pixels())?;
        Ok(Self { matches: gallery.search(&face, top)?, threshold, quality: face.quality() })
    }

    /// The person, if one was recognised.
    fn person(&self) -> Option<&str> {
        let nearest = self.matches.first()?;
        (f64::from(nearest.similarity) >= self.threshold?).then_some(&nearest.person)
    }

    fn json(&self, path: &Path) -> Value {
        let nearest = |found: &Match| json!({ "person": found.person, "similarity": found.similarity });
        json!({
            "image": path.to_string_lossy(),
            "person": self.person(),
            "threshold": self.threshold,
            "quality": self.quality,
            "nearest": self.matches.iter().map(nearest).collect::<Vec<_>>(),
        })
    }

    fn text(&self, path: &Path) -> String {
        let nearest: Vec<String> =
            self.matches.iter().map(|found| format!("{} {:.3}", found.person, found.similarity)).collect();
        let person = match (self.person(), self.threshold) {
            (Some(person), _) => person,
            (None, Some(_)) => "nobody known",
            (None, None) => "no decision: the student's file has no thresholds",
        };
        format!("{}: {person} (nearest: {}{})", path.display(), nearest.join(", "), worth(self.quality))
    }
}

pub(crate) fn search(wanted: &SearchArguments, registry: &Registry) -> Result<()> {
    let SearchArguments { gallery: path, images, operating, top, json: as_json } = wanted;
    let encoder = operating.held.hold(open_student(&operating.student, registry)?)?;
    let gallery = open_gallery(path)?;
    for image in images {
        let found = Found::of(image, &gallery, &encoder, operating, *top, &Reading::usual())?;
        match *as_json {
            true => say!("{}", found.json(image)),
            false => say!("{}", found.text(image)),
        }
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
    let reading = Reading::usual();
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
                _ => match Found::of(&image, &gallery, &encoder, &wanted.operating, wanted.top, &reading) {
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
fn recognised(image: &Path, found: &Found, wanted: &WatchArguments) -> Result<()> {
    match wanted.json {
        true => say!("{}", found.json(image)),
        false => say!("{}", found.text(image)),
    }
    if wanted.tag {
        let mut name = image.as_os_str().to_os_string();
        name.push(".json");
        write_atomically(Path::new(&name), format!("{}\n", found.json(image)).as_bytes())?;
    }
    if let (Some(sorted), Some(name)) = (&wanted.sort, image.file_name()) {
        let folder = sorted.join(found.person().map_or("unknown".into(), plain_name));
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let bytes = std::fs::read(image).map_err(|e| Error::io(image, e))?;
        write_atomically(&folder.join(name), &bytes)?;
    }
    Ok(())
}
