//! What a run, and `gdrd calibrate`, write into a student's file beside its network.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::DType;

use super::assembly::Assembly;
use super::measure;
use super::prepared::Prepared;
use super::{Lock, Place};
use crate::context::Host;
use crate::degrade::Downscale;
use crate::embedder::Embedder;
use crate::error::{Error, Result};
use crate::evaluation::{Figure, Measured, Role};
use crate::experiment::Experiment;
use crate::nn::Alignment;
use crate::observe::{Event, Observer, tell};
use crate::student::{
    Beginning, Calibration, CalibrationOptions, QualityModel, Rounding, Source, StatedFigure, StudentFacts,
    StudentHeader, calibrate,
};

/// What is known before anything is measured.
pub(super) fn facts(prepared: &Prepared, lock: &Lock) -> Result<StudentFacts> {
    let parts = prepared.parts;
    let experiment = parts.experiment();
    let mut input = prepared.student.input();
    if let Some(input) = &mut input {
        // A student without a template of its own sees the faces that its teachers see.
        let mut templates = Vec::new();
        for name in experiment.teachers.keys() {
            templates.push(parts.context().teacher(name)?.card().preprocessing.alignment);
        }
        if input.alignment == Alignment::Data && templates.contains(&Alignment::Arcface) {
            input.alignment = Alignment::Arcface;
        }
    }
    let of_stages = experiment.stages.iter().flat_map(|stage| {
        let last = stage.options.last.as_ref().and_then(|last| last.view.clone());
        [stage.options.view.clone(), last].into_iter().flatten()
    });
    let shown: BTreeSet<String> =
        of_stages.map(|view| view.to_string()).chain([experiment.student.view.clone()]).collect();
    let view = |name: String| {
        let options = serde_json::to_value(&experiment.views.get(&name)?.resolved).ok()?;
        Some((name, options))
    };
    let mut data = BTreeMap::new();
    for name in experiment.stages.iter().map(|stage| stage.options.data.to_string()) {
        let Some(locked) = lock.data.get(&name) else { continue };
        let made = parts.context().dataset(&name)?.made();
        let licence = experiment.licences.get(&format!("data.{name}")).cloned();
        data.insert(name, Source { digest: locked.fingerprint.clone(), licence, made });
    }
    let views = shown.into_iter().filter_map(view).collect();
    let facts = StudentFacts { input, views, data, ..StudentFacts::default() };
    let Some((before, checksum)) = &prepared.before else { return Ok(facts) };
    let began_with = [beginning(before, checksum)].into_iter().chain(before.facts.began_with.clone()).collect();
    if experiment.stages.is_empty() {
        // It is that student still.
        let StudentFacts { input, views, calibration, quality, .. } = before.facts.clone();
        return Ok(StudentFacts { input: input.or(facts.input), views, began_with, calibration, quality, ..facts });
    }
    Ok(StudentFacts { began_with, ..facts })
}

fn beginning(header: &StudentHeader, checksum: &str) -> Beginning {
    Beginning {
        student: checksum.to_string(),
        recipe: header.recipe.clone(),
        teachers: header.teachers.clone(),
        licences: header.licences.clone(),
        data: header.facts.data.clone(),
    }
}

fn stated(figure: &Figure) -> Option<StatedFigure> {
    let (name, unit) = (figure.name.clone(), figure.unit.sign().to_string());
    figure.value.map(|value| StatedFigure { name, value, unit, count: figure.count })
}

/// The student's figures that stand in tables, the headline first.
pub(super) fn figures(measured: &BTreeMap<String, Vec<Measured>>) -> BTreeMap<String, Vec<StatedFigure>> {
    let of = |(protocol, rows): (&String, &Vec<Measured>)| {
        let outcome = &rows.iter().find(|row| matches!(row.role, Role::Student))?.outcome;
        let others = outcome.figures.iter().filter(|figure| figure.in_table && figure.name != outcome.headline);
        let figures = outcome.get(&outcome.headline).into_iter().chain(others).filter_map(stated).collect();
        Some((protocol.clone(), figures))
    };
    measured.iter().filter_map(of).collect()
}

/// Thresholds and a quality model by a dataset of the experiment.
pub(super) fn calibration(
    parts: &Assembly,
    student: &dyn Embedder,
    prepare: &Downscale,
    options: &CalibrationOptions,
) -> Result<(Option<Calibration>, Option<QualityModel>)> {
    let digest = parts.content("dataset", &options.data)?;
    let (calibration, quality) = calibrate(student, prepare, options, digest, &parts.context())?;
    Ok((Some(calibration), quality))
}

/// What `gdrd calibrate` does to a student file.
pub struct Rewrite {
    /// By which faces thresholds are calibrated; those that the file has stay if left out.
    pub calibration: Option<CalibrationOptions>,
    /// Whether the experiment's protocols measure the student.
    pub evaluate: bool,
    /// The numbers that weights are rounded to; as they are if left out.
    pub weights: Option<DType>,
}

/// Makes an embedder of a student file's bytes.
pub type Opens<'a> = dyn Fn(&[u8]) -> Result<Box<dyn Embedder>> + 'a;

/// A student file with its facts measured anew, and perhaps its weights rounded. `open` makes an embedder of a student file's bytes.
///
/// # Errors
/// If the bytes are no student file, a weight is too large for its numbers, or something cannot be measured.
pub fn rewrite(
    bytes: &[u8],
    wanted: &Rewrite,
    open: &Opens,
    experiment: &Experiment,
    place: &Place,
    observer: &dyn Observer,
) -> Result<Vec<u8>> {
    let parts = Assembly::new(experiment, place, observer)?;
    let (mut header, mut tensors) = StudentHeader::from_bytes(bytes)?;
    header.format = crate::student::STUDENT_FORMAT;
    if header.facts.input.is_none() {
        header.facts.input = crate::student::StudentFile::open(bytes, &place.device, &*place.registry)?.student.input();
    }
    let before = open(bytes)?;
    let measure = |embedder: &dyn Embedder| -> Result<BTreeMap<String, Vec<StatedFigure>>> {
        match wanted.evaluate {
            true => Ok(figures(&measure::evaluate(&parts, Some(embedder), Role::Student, false)?)),
            false => Ok(BTreeMap::new()),
        }
    };
    let mut figures = measure(&*before)?;
    let mut student = before;
    if let (None, Some(rounding)) = (wanted.weights, &header.facts.rounding) {
        // Read as float32, written as they were: nothing is lost by it.
        let dtype = if rounding.to == "bfloat16" { DType::BF16 } else { DType::F16 };
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(dtype)?;
        }
    }
    if let Some(dtype) = wanted.weights {
        for (name, tensor) in &mut tensors {
            let rounded = tensor.to_dtype(dtype)?;
            let values = rounded.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::weights(format!("`{name}` has values that are too large for {dtype:?}")));
            }
            *tensor = rounded;
        }
        let rounded = open(&header.to_bytes(&tensors)?)?;
        let cosines = match &wanted.calibration {
            None => Vec::new(),
            Some(options) => cosines(&*student, &*rounded, options, &parts)?,
        };
        if cosines.is_empty() {
            return Err(Error::recipe("weights are rounded with a calibration alone: it measures what that costs"));
        }
        let first = |(name, all): (&String, &Vec<StatedFigure>)| Some((name.clone(), all.first()?.clone()));
        header.facts.rounding = Some(Rounding {
            to: if dtype == DType::BF16 { "bfloat16" } else { "float16" }.into(),
            mean_cosine: cosines.iter().sum::<f64>() / cosines.len() as f64,
            least_cosine: cosines.iter().copied().fold(1.0, f64::min),
            faces: cosines.len(),
            figures_before: figures.iter().filter_map(first).collect(),
        });
        figures = measure(&*rounded)?;
        student = rounded;
    }
    if !figures.is_empty() {
        header.facts.figures = figures;
    }
    if let Some(options) = &wanted.calibration {
        (header.facts.calibration, header.facts.quality) = calibration(&parts, &*student, &header.prepare, options)?;
    }
    state_licences(&mut header, &parts)?;
    header.to_bytes(&tensors)
}

/// Adds the licences that the recipe states of the student's teachers and data, where the file has none and the recipe's part is that
/// very one. A part that cannot be built any more is left as it is, with a warning.
fn state_licences(header: &mut StudentHeader, parts: &Assembly) -> Result<()> {
    let stated = &parts.experiment().licences;
    let is_same = |family: &'static str, name: &str, digest: &str| match parts.content(family, name) {
        Ok(content) => Ok(content == digest),
        Err(error) => {
            let message = format!("the licence of {family} `{name}` is not added, since it cannot be built: {error}");
            tell(parts.observer(), &Event::Warning { message }).map(|()| false)
        }
    };
    let StudentHeader { teachers, licences, facts, .. } = header;
    for (name, digest) in teachers {
        let wanted = stated.contains_key(&format!("teacher.{name}")) && !licences.contains_key(name);
        if wanted && is_same("teacher", name, digest)? {
            licences.extend(super::licences(parts).remove_entry(name));
        }
    }
    for (name, source) in &mut facts.data {
        let Some(licence) = stated.get(&format!("data.{name}")).filter(|_| source.licence.is_none()) else { continue };
        if is_same("dataset", name, &source.digest)? {
            source.licence = Some(licence.clone());
        }
    }
    Ok(())
}

/// How far two students' embeddings of each of a calibration's faces lie apart.
fn cosines(a: &dyn Embedder, b: &dyn Embedder, options: &CalibrationOptions, parts: &Assembly) -> Result<Vec<f64>> {
    let dataset = parts.context().dataset(&options.data)?;
    let mut cosines = Vec::new();
    let count = dataset.len().min(options.faces);
    for start in (0..count).step_by(96) {
        parts.report("rounding", start, count)?;
        let faces = (start..count.min(start + 96)).map(|at| crate::data::face_as_it_is(&*dataset, at));
        let faces = faces.collect::<Result<Vec<_>>>()?;
        let (a, b) = (a.embed(&faces)?, b.embed(&faces)?);
        let dot = |row| a.known(row).iter().zip(b.known(row)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        cosines.extend((0..a.len()).map(dot));
    }
    Ok(cosines)
}
