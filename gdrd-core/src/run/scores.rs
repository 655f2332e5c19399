//! Measuring the student and its teachers by the recipe's protocols.

use std::collections::BTreeMap;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::prepared::Prepared;
use super::{Place, tell};
use crate::degrade::{Degraded, Downscale};
use crate::digest;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Context, Error, Result};
use crate::evaluation::scores::Scores;
use crate::face::{Face, FaceBatch};
use crate::nn::Mode;
use crate::observe::{Event, Observer};
use crate::recipe::Recipe;
use crate::student::Student;
use crate::teacher::{Output, TeacherEmbedder};
use crate::trainer::write_atomically;

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

/// Every protocol on the student, on each teacher that embeds, and on that teacher behind the degradation. What teachers
/// score is kept in the store: it is the same for every run with these teachers and data.
pub(super) fn evaluate(
    recipe: &Recipe,
    prepared: &Prepared,
    place: &Place,
    observer: &mut dyn Observer,
) -> Result<BTreeMap<String, Vec<Measured>>> {
    let downscale = recipe.degradation.downscale();
    let mut found = BTreeMap::new();
    for (name, (data, protocol)) in &prepared.protocols {
        let dataset = prepared.views(data)?.dataset();
        let mut rows = Vec::new();
        let mut measure = |embedder: &dyn Embedder, kept: Option<String>| -> Result<()> {
            let path = kept.map(|key| place.store.join(format!("{key}.json")));
            let what = format!("{name}: {}", embedder.name());
            let scores = match path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) {
                Some(text) => Scores::from_json(&text).at(|| "a kept score".into())?,
                None => {
                    let mut report = |done, total| tell(observer, &Event::Working { what: what.clone(), done, total });
                    protocol.evaluate(embedder, dataset, &mut report).at(|| what.clone())?
                }
            };
            if let Some(path) = path.filter(|path| !path.exists()) {
                write_atomically(&path, scores.to_json()?.as_bytes())?;
            }
            let score = scores.scores.first().map_or(0.0, |score| score.value);
            let embedder = embedder.name().to_string();
            tell(observer, &Event::ProtocolDone { protocol: name.clone(), embedder: embedder.clone(), score })?;
            rows.push(Measured { embedder, scores });
            Ok(())
        };
        if let Some(student) = StudentEmbedder::new(&*prepared.student, downscale, &prepared.device) {
            measure(&student, None)?;
        }
        for (teacher_name, teacher) in &prepared.teachers {
            let size = teacher.card().input_size.unwrap_or(112);
            if teacher.shape(&Output::Embedding, size).is_err() {
                continue;
            }
            let key = |form: &str| {
                digest::of_value(&serde_json::json!({
                    "scores": 1,
                    "gdrd": env!("CARGO_PKG_VERSION"),
                    "teacher": teacher.card().digest,
                    "name": teacher_name,
                    "protocol": recipe.evaluate[name].resolved,
                    "pairs": recipe.evaluate[name].resolved.get("pairs").and_then(|path| {
                        digest::of_file(std::path::Path::new(path.as_str()?)).ok()
                    }),
                    "dataset": dataset.fingerprint(),
                    "form": form,
                }))
            };
            let label = format!("teacher `{teacher_name}` at {size}");
            let plain = TeacherEmbedder::new(&label, &**teacher, &prepared.device)?;
            measure(&plain, Some(key("plain")))?;
            let label = format!("teacher `{teacher_name}`");
            let plain = TeacherEmbedder::new(&label, &**teacher, &prepared.device)?;
            let degraded = Degraded::new(&plain, downscale.clone());
            measure(&degraded, Some(key(&digest::of_value(downscale))))?;
        }
        if rows.is_empty() {
            return Err(Error::component(format!(
                "protocol `{name}`: neither the student nor a teacher has embeddings"
            )));
        }
        found.insert(name.clone(), rows);
    }
    Ok(found)
}
