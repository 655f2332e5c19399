//! Measuring the student and its teachers by the recipe's protocols.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};

use super::Place;
use super::assembly::Assembly;
use super::datasets::open_measured;
use crate::context::Host;
use crate::data::LOW;
use crate::degrade::{Degraded, Downscale};
use crate::digest;
use crate::embedder::{Denoiser, Embedder, Embeddings};
use crate::error::{Context, Error, Result};
use crate::evaluation::{Measured, Outcome, Protocol, Role};
use crate::experiment::Experiment;
use crate::face::{Face, FaceBatch};
use crate::files::{self, sealed, unsealed, write_atomically};
use crate::nn::{Inference, Mode, kernels};
use crate::observe::{Event, Observer, tell};
use crate::student::StudentFile;
use crate::teacher::{TeacherEmbedder, embedding_width};

/// The student of a run as an [`Embedder`].
pub struct StudentEmbedder<'a> {
    name: String,
    file: &'a StudentFile,
    width: usize,
    device: &'a Device,
    /// What embeds on the CPU, where the student has such a form, as everywhere else; made when it is used for the first time.
    fast: OnceLock<Option<Inference>>,
}

impl<'a> StudentEmbedder<'a> {
    /// The student of a file; one without an embedding has none of any width.
    pub fn new(file: &'a StudentFile, device: &'a Device) -> Self {
        let name = format!("student at {size}x{size}", size = file.header.prepare.size);
        Self { name, file, width: file.header.card.embedding.unwrap_or(0), device, fast: OnceLock::new() }
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
        let StudentFile { header, student, .. } = self.file;
        let small = faces.iter().map(|face| header.prepare.apply(face)).collect::<Result<Vec<_>>>()?;
        if self.device.is_cpu() && self.fast.get().is_none() {
            let made = student.inference()?;
            self.fast.get_or_init(|| made);
        }
        let values = match self.fast.get() {
            Some(Some(network)) => network.embed(&small)?,
            _ => {
                let map = student.backbone(&FaceBatch::from_faces(&small, self.device)?, Mode::Evaluate)?;
                student.head(&map, Mode::Evaluate)?.flatten_all()?.to_vec1::<f32>()?
            }
        };
        let found = Embeddings::from_rows(self.width, values)?;
        match &header.facts.quality {
            Some(model) => model.rate(found, faces, &small, header.facts.least_pixels()),
            None => Ok(found),
        }
    }

    fn denoiser(&self) -> Option<&dyn Denoiser> {
        self.file.header.card.embedding.is_none().then_some(self)
    }
}

impl Denoiser for StudentEmbedder<'_> {
    fn whole(&self, face: &Face) -> Result<Face> {
        self.file.header.prepare.apply(face)
    }

    fn denoise(&self, noisy: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        self.file.student.denoise(noisy, timesteps)
    }
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
    experiment: &Experiment,
    what: &Measuring,
    place: &Place,
    observer: &dyn Observer,
) -> Result<BTreeMap<String, Vec<Measured>>> {
    let parts = Assembly::new(experiment, place, observer)?;
    open_measured(&parts, matches!(what, Measuring::Teachers))?;
    for name in experiment.evaluate.keys() {
        parts.protocol(name)?;
    }
    match what {
        Measuring::Embedder(embedder) => evaluate(&parts, Some(*embedder), Role::Student, false),
        Measuring::Teachers => evaluate(&parts, None, Role::Student, true),
    }
}

/// Every protocol on `first`, on each teacher that embeds, and on that teacher behind the degradation. What teachers score
/// is kept in the store: it is the same for every run with these teachers and data.
pub(super) fn evaluate(
    parts: &Assembly,
    first: Option<&dyn Embedder>,
    role: Role,
    teachers: bool,
) -> Result<BTreeMap<String, Vec<Measured>>> {
    let mut found = BTreeMap::new();
    for name in parts.experiment().evaluate.keys() {
        let protocol = parts.protocol(name)?;
        let mut bench = Bench { parts, name, protocol: &*protocol, rows: Vec::new() };
        if let Some(embedder) = first.filter(|embedder| protocol.measures(*embedder)) {
            bench.measure(embedder, role.clone(), None)?;
        }
        if teachers {
            for teacher in parts.experiment().teachers.keys() {
                bench.measure_teacher(teacher)?;
            }
        }
        if bench.rows.is_empty() {
            let what = match first {
                None => "no teacher of the recipe has embeddings; a student file can be measured with `--student FILE`",
                Some(_) => "neither the student nor a teacher has embeddings",
            };
            return Err(Error::component(format!("protocol `{name}`: {what}")));
        }
        found.insert(name.clone(), bench.rows);
    }
    Ok(found)
}

/// How faces come to a teacher: what its views do to them, and the degradation before that, if there is one.
type Way<'a> = (&'a [Option<Downscale>], Option<&'a Downscale>);

/// Gives `each` a teacher that embeds, as it is, and behind the degradation.
pub(super) fn each_of_teacher(
    parts: &Assembly,
    name: &str,
    mut each: impl FnMut(&dyn Embedder, Role, Way) -> Result<()>,
) -> Result<()> {
    let teacher = parts.context().teacher(name)?;
    if !teacher.knows_any_face() || embedding_width(&*teacher).is_err() {
        return Ok(());
    }
    let device = parts.device();
    let title = match teacher.card().input_size {
        Some(size) => format!("teacher `{name}` at {size}x{size}"),
        None => format!("teacher `{name}` on faces as they are"),
    };
    let views = parts.views_of(&*teacher)?;
    let low = parts.context().part::<dyn crate::data::Degradation>("view", LOW)?;
    let plain = TeacherEmbedder::new(&title, &*teacher, device)?.with_views(views.clone());
    let role = |small: bool| Role::Teacher { name: name.to_string(), small };
    each(&plain, role(false), (&views, None))?;
    let Some(downscale) = low.downscale() else { return Ok(()) };
    let inner = TeacherEmbedder::new(&format!("teacher `{name}`"), &*teacher, device)?.with_views(views.clone());
    each(&Degraded::new(&inner, downscale.clone()), role(true), (&views, Some(downscale)))
}

fn read(path: &Path) -> Result<Outcome> {
    let bytes = files::read(path).map_err(|e| Error::io(path, e))?;
    Outcome::from_json(&String::from_utf8_lossy(unsealed(&bytes)?))
}

/// One protocol while it measures.
struct Bench<'a> {
    parts: &'a Assembly<'a>,
    name: &'a str,
    protocol: &'a dyn Protocol,
    rows: Vec<Measured>,
}

/// A protocol's progress is told with the protocol's name.
struct Named<'a> {
    parts: &'a Assembly<'a>,
    name: &'a str,
}

impl Host for Named<'_> {
    fn device(&self) -> &Device {
        self.parts.device()
    }

    fn seed(&self) -> u64 {
        self.parts.seed()
    }

    fn report(&self, what: &str, done: usize, total: usize) -> Result<()> {
        self.parts.report(&format!("{}: {what}", self.name), done, total)
    }
}

impl Bench<'_> {
    /// Measures `embedder`, or takes the outcome kept under the key `kept`, or under that and the seed where the protocol draws.
    fn measure(&mut self, embedder: &dyn Embedder, role: Role, kept: Option<String>) -> Result<()> {
        let path = |key: &String| self.parts.store().folder().join(format!("{key}.outcome"));
        let seeded = |key: &String| digest::of_value(&(key, self.parts.seed()));
        let places = kept.iter().flat_map(|key| [path(key), path(&seeded(key))]);
        let outcome = match places.into_iter().find(|path| path.exists()) {
            Some(path) => match read(&path) {
                Ok(outcome) => Some(outcome),
                Err(error) => {
                    let message = format!("kept outcome `{}`: {error}; it is measured again", path.display());
                    tell(self.parts.observer(), &Event::Warning { message })?;
                    None
                }
            },
            None => None,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                let host = Named { parts: self.parts, name: self.name };
                let cx = crate::context::BuildContext::new(&host);
                let place = || format!("{}: {}", self.name, embedder.name());
                let outcome = self.protocol.evaluate(embedder, &cx).at(place)?;
                let text = outcome.to_json().at(place)?;
                if let Some(key) = &kept {
                    let path = if cx.record().seed.is_some() { path(&seeded(key)) } else { path(key) };
                    let store = self.parts.store().folder();
                    files::make_folders(store).map_err(|e| Error::io(store, e))?;
                    write_atomically(&path, &sealed(text.as_bytes()))?;
                }
                outcome
            }
        };
        let headline = outcome.headline()?;
        let event = Event::ProtocolDone {
            protocol: self.name.to_string(),
            embedder: embedder.name().to_string(),
            headline: format!("{} {}", headline.name, headline.shown()),
        };
        tell(self.parts.observer(), &event)?;
        self.rows.push(Measured { embedder: embedder.name().to_string(), role, outcome });
        Ok(())
    }

    /// Measures a teacher that embeds, as it is and behind the degradation.
    fn measure_teacher(&mut self, name: &str) -> Result<()> {
        let (parts, protocol) = (self.parts, self.protocol);
        each_of_teacher(parts, name, |embedder, role, (views, downscale)| {
            if !protocol.measures(embedder) {
                return Ok(());
            }
            let key = self.key(name, views, downscale)?;
            self.measure(embedder, role, Some(key))
        })
    }

    /// Everything that a teacher's outcome depends on: what teacher, protocol, data and lists are, what its views do to a face, the
    /// degradation, the program and the kernels that its processor runs.
    fn key(&self, teacher: &str, views: &[Option<Downscale>], degradation: Option<&Downscale>) -> Result<String> {
        Ok(digest::of_value(&serde_json::json!({
            "outcome": 1,
            "program": self.parts.program(),
            "kernels": kernels::processor(),
            "device": kernels::device_name(self.parts.device())?,
            "teacher": self.parts.content("teacher", teacher)?,
            "name": teacher,
            "protocol": self.parts.content("protocol", self.name)?,
            "views": views,
            "degradation": degradation,
        })))
    }
}
