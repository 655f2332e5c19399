//! What is done with one photograph.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use gdrd_core::data::{Decoding, MAX_BYTES, decode, png};
use gdrd_core::digest;
use gdrd_core::error::{Error, Result};
use gdrd_core::face::{Face, Kernel};
use gdrd_core::files::write_atomically;
use gdrd_student::front_end::{Detector, align, crop};

use super::boxes::{Given, Known};
use super::journal::{Aligned, Record};
use super::photographs::Photograph;
use super::{Take, face_path};

/// The folder of the faces in the folder of results.
pub(super) const FACES: &str = "faces";

/// What says where faces are.
pub(super) enum Source {
    Detector(Box<dyn Detector>),
    Boxes(Known),
}

/// How photographs are looked at.
pub(super) struct Looking<'a> {
    pub(super) source: Source,
    pub(super) how: Decoding,
    pub(super) take: Take,
    pub(super) size: usize,
    pub(super) margin: f32,
    pub(super) out: &'a Path,
}

impl Looking<'_> {
    /// The faces of a photograph, and whether that is news; or why the photograph or a box says nothing. Errors are those of the
    /// detector and of the folder of results.
    pub(super) fn at(
        &self,
        photograph: &Photograph,
        known: Option<&Record>,
    ) -> Result<std::result::Result<(Record, bool), String>> {
        let bytes = match read(&photograph.path) {
            Ok(bytes) => bytes,
            Err(why) => return Ok(Err(why)),
        };
        let content = self.content(photograph, &bytes);
        if let Some(known) = known
            && known.content == content
            && known.faces.iter().all(|face| face.is_there(self.out))
        {
            return Ok(Ok((known.clone(), false)));
        }
        let image = match decode(&bytes, self.how) {
            Ok(image) => image,
            Err(error) => return Ok(Err(error.to_string())),
        };
        drop(bytes);
        let mut all = match &self.source {
            Source::Boxes(boxes) => boxes.of(photograph).to_vec(),
            Source::Detector(detector) => {
                let found = detector.detect(&image).map_err(|error| error.at(photograph.name.clone()))?;
                let given = |one: &gdrd_student::front_end::Detection| Given {
                    bounds: one.bounds,
                    landmarks: Some(one.landmarks),
                    score: Some(one.score),
                };
                found.iter().map(given).collect()
            }
        };
        let found = all.len();
        self.choose(&image, &mut all);
        let faces: Result<Vec<Face>> = all.iter().map(|given| self.cut(&image, given)).collect();
        let faces = match faces {
            Ok(faces) => faces,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut record = Record { image: photograph.name.clone(), content, found, faces: Vec::new() };
        for (at, (face, given)) in faces.iter().zip(&all).enumerate() {
            let (file, bytes) = (photograph.face(at), png(face)?);
            let path = face_path(self.out, &file);
            let folder = path.parent().unwrap_or(self.out);
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
            write_atomically(&path, &bytes)?;
            let sha256 = digest::hex(&digest::of_bytes(&bytes));
            let Given { bounds, landmarks, score } = *given;
            record.faces.push(Aligned { file, sha256, bounds, landmarks, score });
        }
        self.forget(known, &record);
        Ok(Ok((record, true)))
    }

    /// What the faces of a photograph depend on, beside the options.
    fn content(&self, photograph: &Photograph, bytes: &[u8]) -> String {
        let boxes = match &self.source {
            Source::Boxes(boxes) => format!("{:?}", boxes.of(photograph)),
            Source::Detector(_) => String::new(),
        };
        digest::hex(&digest::of_bytes(&[&digest::of_bytes(bytes), boxes.as_bytes()].concat()))
    }

    /// Leaves the faces that are taken.
    fn choose(&self, image: &Face, all: &mut Vec<Given>) {
        let middle = [image.width() as f32 / 2.0, image.height() as f32 / 2.0];
        let far = |given: &Given| {
            let [x, y] = given.bounds.centre();
            (x - middle[0]).hypot(y - middle[1])
        };
        match self.take {
            Take::Central => all.sort_by(|a, b| far(a).total_cmp(&far(b))),
            Take::Largest | Take::All => all.sort_by(|a, b| b.bounds.area().total_cmp(&a.bounds.area())),
        }
        if self.take != Take::All {
            all.truncate(1);
        }
    }

    /// A face: upright by its landmarks, or the square around its box.
    fn cut(&self, image: &Face, given: &Given) -> Result<Face> {
        given.bounds.within(image.width(), image.height())?;
        if let Some(landmarks) = &given.landmarks {
            return align(image, landmarks, self.size);
        }
        let face = crop(image, &given.bounds, self.margin)?;
        match face.width() > self.size {
            true => face.resized(self.size, Kernel::Bicubic, true),
            false => Ok(face),
        }
    }

    /// Removes the faces of a photograph as it was before, as far as they are as they were written.
    fn forget(&self, before: Option<&Record>, now: &Record) {
        let stays = |old: &Aligned| now.faces.iter().any(|new| new.file == old.file);
        for old in before.iter().flat_map(|record| &record.faces).filter(|old| !stays(old) && old.is_there(self.out)) {
            // One that stays does no harm: no list names it.
            let _ = std::fs::remove_file(face_path(self.out, &old.file));
        }
    }
}

/// The bytes of a photograph.
fn read(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(error.to_string()),
        Ok(_) if bytes.len() as u64 > MAX_BYTES => Err(format!("it has more than {MAX_BYTES} bytes")),
        Ok(_) => Ok(bytes),
    }
}
