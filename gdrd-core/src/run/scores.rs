//! Measuring the student and its teachers by the recipe's protocols.

use std::collections::BTreeMap;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::prepared::{Opened, build_teachers};
use super::{Place, tell};
use crate::degrade::{Degraded, Downscale};
use crate::digest;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Context, Error, Result};
use crate::evaluation::scores::Scores;
use crate::face::{Face, FaceBatch};
use crate::files::write_atomically;
use crate::nn::Mode;
use crate::observe::{Event, Observer};
use crate::recipe::Recipe;
use crate::student::Student;
use crate::teacher::{Output, Teacher, TeacherEmbedder};

/// One embedder measured by one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured.
    pub embedder: String,
    /// How it did.
    pub scores: Scores,
}

/// The student of a run as an [`Embedder`].
pub struct StudentEmbedder<'a> {
    name: String,
    student: &'a dyn Student,
    width: usize,
    prepare: &'a Downscale,
    device: &'a Device,
}

impl<'a> StudentEmbedder<'a> {
    /// `student`, shown what `prepare` makes of a face; none if it has no embedding.
    pub fn new(student: &'a dyn Student, prepare: &'a Downscale, device: &'a Device) -> Option<Self> {
        let name = format!("student at {size}x{size}", size = prepare.size);
        student.card().embedding.map(|width| Self { name, student, width, prepare, device })
    }
}

impl Embedder for StudentEmbedder<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let small = faces.iter().map(|face| self.prepare.apply(face)).collect::<Result<Vec<_>>>()?;
        let map = self.student.backbone(&FaceBatch::from_faces(&small, self.device)?, Mode::Evaluate)?;
        let values = self.student.head(&map, Mode::Evaluate)?.flatten_all()?.to_vec1::<f32>()?;
        Embeddings::from_rows(self.width, values)
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, e))
}

/// What is measured.
pub enum Measuring<'a> {
    /// Anything that embeds, a student from its file for example.
    Embedder(&'a dyn Embedder),
    /// The recipe's teachers alone.
    Teachers,
}

/// Measures by the protocols of a recipe, without its student. Teachers are measured too when they are asked for.
///
/// # Errors
/// If a dataset or a teacher cannot be had, or the observer stops the evaluation.
pub fn measure(
    recipe: &Recipe,
    what: &Measuring,
    place: &Place,
    observer: &mut dyn Observer,
) -> Result<BTreeMap<String, Vec<Measured>>> {
    recipe.needs_no_network()?;
    let opened = Opened::new(recipe, observer, |data| recipe.evaluate.values().any(|p| p.config.data() == data))?;
    let teachers = match what {
        Measuring::Embedder(_) => BTreeMap::new(),
        Measuring::Teachers => build_teachers(recipe, &place.device)?,
    };
    let first = match what {
        Measuring::Embedder(embedder) => Some(*embedder),
        Measuring::Teachers => None,
    };
    evaluate(recipe, &opened, first, &teachers, place, observer)
}

/// Every protocol on `first`, on each teacher that embeds, and on that teacher behind the degradation. What teachers score
/// is kept in the store: it is the same for every run with these teachers and data.
pub(super) fn evaluate(
    recipe: &Recipe,
    opened: &Opened,
    first: Option<&dyn Embedder>,
    teachers: &BTreeMap<String, Box<dyn Teacher>>,
    place: &Place,
    observer: &mut dyn Observer,
) -> Result<BTreeMap<String, Vec<Measured>>> {
    let mut found = BTreeMap::new();
    for name in opened.protocols.keys() {
        let mut bench = Bench { recipe, opened, name, place, observer: &mut *observer, rows: Vec::new() };
        if let Some(embedder) = first {
            bench.measure(embedder, None)?;
        }
        for (teacher_name, teacher) in teachers {
            bench.measure_teacher(teacher_name, &**teacher)?;
        }
        if bench.rows.is_empty() {
            return Err(Error::component(format!(
                "protocol `{name}`: neither the student nor a teacher has embeddings"
            )));
        }
        found.insert(name.clone(), bench.rows);
    }
    Ok(found)
}

/// One protocol while it measures.
struct Bench<'a> {
    recipe: &'a Recipe,
    opened: &'a Opened,
    name: &'a str,
    place: &'a Place,
    observer: &'a mut dyn Observer,
    rows: Vec<Measured>,
}

impl Bench<'_> {
    /// Measures `embedder`, or takes the scores kept under the key `kept`.
    fn measure(&mut self, embedder: &dyn Embedder, kept: Option<String>) -> Result<()> {
        let path = kept.map(|key| self.place.store.join(format!("{key}.json")));
        let what = format!("{}: {}", self.name, embedder.name());
        let kept = match path.as_ref().filter(|path| path.exists()) {
            Some(path) => match Scores::from_json(&String::from_utf8_lossy(&read(path)?)) {
                Ok(scores) => Some(scores),
                Err(error) => {
                    let message = format!("kept scores `{}`: {error}; they are measured again", path.display());
                    tell(self.observer, &Event::Warning { message })?;
                    None
                }
            },
            None => None,
        };
        let is_kept = kept.is_some();
        let scores = match kept {
            Some(scores) => scores,
            None => {
                let (data, protocol) = &self.opened.protocols[self.name];
                let dataset = self.opened.views(data)?.dataset();
                let observer = &mut *self.observer;
                let mut report = |done, total| tell(observer, &Event::Working { what: what.clone(), done, total });
                protocol.evaluate(embedder, dataset, &mut report).at(|| what.clone())?
            }
        };
        if let Some(path) = path.filter(|_| !is_kept) {
            let store = &self.place.store;
            std::fs::create_dir_all(store).map_err(|e| Error::io(store, e))?;
            write_atomically(&path, scores.to_json()?.as_bytes())?;
        }
        let score = scores.scores.first().map_or(0.0, |score| score.value);
        let (protocol, embedder) = (self.name.to_string(), embedder.name().to_string());
        tell(self.observer, &Event::ProtocolDone { protocol, embedder: embedder.clone(), score })?;
        self.rows.push(Measured { embedder, scores });
        Ok(())
    }

    /// Measures a teacher that embeds, as it is and behind the degradation.
    fn measure_teacher(&mut self, name: &str, teacher: &dyn Teacher) -> Result<()> {
        let size = teacher.card().input_size.unwrap_or(112);
        if !teacher.knows_any_face() || teacher.shape(&Output::Embedding, size).is_err() {
            return Ok(());
        }
        let downscale = self.recipe.degradation.downscale();
        let plain = TeacherEmbedder::new(&format!("teacher `{name}` at {size}x{size}"), teacher, &self.place.device)?;
        self.measure(&plain, Some(self.key(name, teacher, None)?))?;
        let inner = TeacherEmbedder::new(&format!("teacher `{name}`"), teacher, &self.place.device)?;
        let degraded = Degraded::new(&inner, downscale.clone());
        self.measure(&degraded, Some(self.key(name, teacher, Some(downscale))?))
    }

    /// Everything that a teacher's scores depend on.
    fn key(&self, name: &str, teacher: &dyn Teacher, degradation: Option<&Downscale>) -> Result<String> {
        let (data, _) = &self.opened.protocols[self.name];
        let protocol = &self.recipe.evaluate[self.name].resolved;
        // The list's own bytes count, not only its path.
        let list = protocol.get("pairs").and_then(|path| path.as_str());
        let pairs = list.map(|path| digest::of_file(self.recipe.local(path))).transpose()?;
        Ok(digest::of_value(&serde_json::json!({
            "scores": env!("CARGO_PKG_VERSION"),
            "teacher": teacher.card().digest,
            "name": name,
            "protocol": protocol,
            "pairs": pairs,
            "dataset": self.opened.views(data)?.dataset().fingerprint(),
            "degradation": degradation,
        })))
    }
}
