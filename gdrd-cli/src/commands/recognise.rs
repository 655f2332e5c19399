//! `search` and `watch`: who is on photographs, once or as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gdrd_core::data::is_image_name;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::{plain_name, write_atomically};
use gdrd_core::registry::Registry;
use gdrd_student::{Embedding, FaceEncoder, Gallery, Match};
use serde_json::{Value, json};

use super::people::{Bar, Eyes, deciding, entries, open_gallery, threshold, worth};
use super::{all_read, pass_over};
use crate::args::{Operating, SearchArguments, WatchArguments};
use crate::photograph;

/// Whom a face shows.
struct Found {
    /// Where it is in the photograph, `[left, top, right, bottom]`, and how many pixels it has there; none where the image is a face.
    place: Option<([i64; 4], usize)>,
    matches: Vec<Match>,
    /// The similarity from which on a match is the person, or why there is none.
    threshold: std::result::Result<Bar, String>,
    quality: Option<f64>,
    /// What the quality means, in words.
    worth: String,
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
            let place = found.landmarks.is_some().then_some((found.bounds, found.pixels));
            Ok(Self { place, ..Self::of(&face, gallery, encoder, operating, top)? })
        };
        eyes.faces(path, 0)?.into_iter().map(one).collect()
    }

    /// Whom an embedding shows.
    fn of(
        face: &Embedding,
        gallery: &Gallery,
        encoder: &FaceEncoder,
        operating: &Operating,
        top: usize,
    ) -> Result<Self> {
        let threshold = threshold(encoder, operating, |rate| encoder.threshold_of(rate, face));
        let (quality, worth) = (face.quality(), worth(face.quality(), encoder));
        Ok(Self { place: None, matches: gallery.search(face, top)?, threshold, quality, worth })
    }

    /// The person, if one was recognised.
    fn person(&self) -> Option<&str> {
        let nearest = self.matches.first()?;
        let bar = self.threshold.as_ref().ok()?;
        (f64::from(nearest.similarity) >= bar.similarity).then_some(&nearest.person)
    }

    fn json(&self, path: &Path) -> Value {
        let nearest = |found: &Match| json!({ "person": found.person, "similarity": found.similarity });
        let mut all = json!({
            "image": path.to_string_lossy(),
            "person": self.person(),
            "threshold": self.threshold.as_ref().ok().map(|bar| bar.similarity),
            "quality": self.quality,
            "nearest": self.matches.iter().map(nearest).collect::<Vec<_>>(),
        });
        if let Err(why) = &self.threshold {
            all["no_decision"] = json!(why);
        }
        if let Some((bounds, pixels)) = self.place {
            all["box"] = json!(bounds);
            all["pixels"] = json!(pixels);
        }
        all
    }

    fn text(&self, path: &Path) -> String {
        let nearest: Vec<String> =
            self.matches.iter().map(|found| format!("{} {:.3}", found.person, found.similarity)).collect();
        let person = match (self.person(), &self.threshold) {
            (Some(person), _) => person.to_string(),
            (None, Ok(_)) => "nobody known".to_string(),
            (None, Err(why)) => format!("no decision: {why}"),
        };
        let place = self
            .place
            .map_or(String::new(), |([left, top, ..], pixels)| format!(", face of {pixels} pixels at ({left}, {top})"));
        format!("{}{place}: {person} (nearest: {}{})", path.display(), nearest.join(", "), self.worth)
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
    let SearchArguments { gallery: path, images, operating, finding, top, fuse, json: as_json } = wanted;
    let encoder = deciding(operating, registry)?;
    let gallery = open_known(path, &encoder)?;
    let eyes = Eyes::open(finding)?;
    let (mut passed, mut fused, mut frames) = (0, Vec::new(), Vec::new());
    for image in images {
        let done = match fuse {
            true => eyes.largest(&encoder, image).map(|(_, face)| {
                fused.push(image.to_string_lossy());
                frames.push(face);
            }),
            false => {
                Found::all(image, &gallery, &encoder, operating, *top, &eyes).map(|found| tell(image, &found, *as_json))
            }
        };
        if let Err(error) = done {
            pass_over(image, &error, *as_json);
            passed += 1;
        }
    }
    if !frames.is_empty() {
        let found = Found::of(&Embedding::fused(&frames)?, &gallery, &encoder, operating, *top)?;
        let whole = PathBuf::from(format!("{} images as one face", frames.len()));
        match *as_json {
            true => {
                let mut said = found.json(&whole);
                said.as_object_mut().map(|said| said.remove("image"));
                said["images"] = json!(fused);
                say!("{said}");
            }
            false => say!("{}", found.text(&whole)),
        }
    }
    all_read(passed, images.len())
}

/// A gallery of this student.
fn open_known(path: &Path, encoder: &FaceEncoder) -> Result<Gallery> {
    let gallery = open_gallery(path)?;
    match gallery.student() == encoder.digest() {
        true => Ok(gallery),
        false => Err(Error::data(format!(
            "`{}`: embeddings of two students: expected a gallery of student {:.12}, found one of {:.12}; enrol its people anew",
            path.display(),
            encoder.digest(),
            gallery.student(),
        ))),
    }
}

/// What a file was when it was last looked at: one that is still being written is another the next time.
#[derive(Clone, Copy, PartialEq)]
struct State(u64, Option<SystemTime>);

impl State {
    /// None where there is no such file.
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|about| Self(about.len(), about.modified().ok()))
    }
}

/// Looks between two of which a file that cannot be read must stay the same before it is called unreadable.
const PATIENCE: u32 = 3;

pub(crate) fn watch(wanted: &WatchArguments, registry: &Registry) -> Result<()> {
    let encoder = deciding(&wanted.operating, registry)?;
    let mut gallery = open_known(&wanted.gallery, &encoder)?;
    let mut known = State::of(&wanted.gallery);
    if let Some(sorted) = &wanted.sort {
        std::fs::create_dir_all(sorted).map_err(|e| Error::io(sorted, e))?;
    }
    let eyes = Eyes::open(&wanted.finding)?;
    let mut seen: BTreeMap<PathBuf, (State, Option<u32>)> = BTreeMap::new();
    let mut unread = BTreeSet::new();
    if !wanted.once {
        talk!("watching {}; press Ctrl-C to stop", wanted.folder.display());
    }
    loop {
        let mut waiting = false;
        // Whoever was enrolled or forgotten meanwhile.
        let now = State::of(&wanted.gallery);
        if now.is_some() && now != known {
            match open_known(&wanted.gallery, &encoder) {
                Ok(newer) => gallery = newer,
                Err(error) => talk!("warning: the people are as they were: {error}"),
            }
            known = now;
        }
        let images: Vec<PathBuf> =
            entries(&wanted.folder)?.into_iter().filter(|path| is_image_name(path) && path.is_file()).collect();
        // A name that is used again is a new photograph.
        seen.retain(|path, _| path.exists());
        unread.retain(|path| seen.contains_key(path));
        for image in images {
            let Some(state) = State::of(&image) else { continue };
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
                        unread.remove(&image);
                        true
                    }
                    Err(error) if looks >= PATIENCE => {
                        pass_over(&image, &error, wanted.json);
                        unread.insert(image.clone());
                        true
                    }
                    Err(_) => false,
                },
            };
            waiting |= !done;
            seen.insert(image, (state, (!done).then_some(looks)));
        }
        if wanted.once && !waiting {
            return all_read(unread.len(), seen.len());
        }
        std::thread::sleep(Duration::from_millis(wanted.every));
    }
}

/// Says who it is, and sorts or tags the photograph. One that is gone by now is left alone.
fn recognised(image: &Path, found: &[Found], wanted: &WatchArguments) -> Result<()> {
    let bytes = match std::fs::read(image) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(image, error)),
    };
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
        for person in people {
            let folder = sorted.join(person);
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            keep(&folder, Path::new(name), &bytes)?;
        }
    }
    Ok(())
}

/// Writes a copy into a folder, unless it is there. Another photograph of this name stays: the copy has a number then.
fn keep(folder: &Path, name: &Path, bytes: &[u8]) -> Result<()> {
    let part = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (part(name.file_stem()), part(name.extension()));
    let mut path = folder.join(name);
    let mut number = 1;
    loop {
        match std::fs::read(&path) {
            Ok(there) if there == bytes => return Ok(()),
            Ok(_) => {
                number += 1;
                path = folder.join(format!("{stem}-{number}.{ending}"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return write_atomically(&path, bytes),
            Err(error) => return Err(Error::io(&path, error)),
        }
    }
}
