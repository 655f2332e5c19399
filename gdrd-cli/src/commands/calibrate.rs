//! `calibrate`.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use gdrd_core::embedder::Embedder;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::write_atomically;
use gdrd_core::near::no_such;
use gdrd_core::registry::Registry;
use gdrd_core::run::{Rewrite, rewrite};
use gdrd_core::student::{CalibrationOptions, StudentHeader};
use gdrd_student::FaceEncoder;

use super::{check_output, load, no_run};
use crate::args::{CalibrateArguments, WeightNumbers};
use crate::output::went_to;
use crate::progress::Progress;

pub(crate) fn calibrate(wanted: &CalibrateArguments, registry: &Arc<Registry>) -> Result<()> {
    let recipe = load(&wanted.recipe.recipe, &wanted.recipe.sets, registry)?;
    check_output(&wanted.out, Some(&recipe), [wanted.student.as_path()])?;
    let mut options = match (&wanted.data, &recipe.calibration) {
        (Some(data), _) => CalibrationOptions::of(data.clone()),
        (None, Some(options)) => options.clone(),
        (None, None) => {
            return Err(Error::recipe("expected `--data NAME`, or a recipe with `[calibration]`"));
        }
    };
    if !wanted.sizes.is_empty() {
        options.sizes.clone_from(&wanted.sizes);
    }
    if !wanted.frames.is_empty() {
        options.frames.clone_from(&wanted.frames);
    }
    if let Some(faces) = wanted.faces {
        options.faces = faces;
    }
    if let Some(problem) = options.check().into_iter().next() {
        return Err(Error::recipe(format!("`{}`: {}", problem.key, problem.message)));
    }
    if !recipe.data.contains_key(&*options.data) {
        let no = no_such("dataset", &options.data, recipe.data.keys().map(String::as_str));
        return Err(Error::recipe(format!("`{}`: {no}", wanted.recipe.recipe.display())));
    }
    let place = no_run(&wanted.place, registry)?;
    let bytes = std::fs::read(&wanted.student).map_err(|e| Error::io(&wanted.student, e))?;
    let weights = wanted.weights.map(|numbers| match numbers {
        WeightNumbers::Bfloat16 => DType::BF16,
        WeightNumbers::Float16 => DType::F16,
    });
    let open = |bytes: &[u8]| -> Result<Box<dyn Embedder>> {
        Ok(Box::new(FaceEncoder::with_kinds(bytes, &place.device, &**registry)?))
    };
    let asked = Rewrite { calibration: Some(options), evaluate: !wanted.no_evaluation, weights };
    let progress = Progress::new();
    let made = rewrite(&bytes, &asked, &open, &recipe, &place, &progress);
    drop(progress);
    let made = made.at(|| format!("`{}`", wanted.student.display()))?;
    write_atomically(&wanted.out, &made)?;
    said(&wanted.out, &made)
}

/// What the file says now.
fn said(out: &Path, bytes: &[u8]) -> Result<()> {
    let (header, _) = StudentHeader::from_bytes(bytes)?;
    let facts = &header.facts;
    let Some(calibration) = &facts.calibration else { return Ok(()) };
    let (faces, people) = (calibration.faces, calibration.people);
    went_to(out, format_args!("{}: thresholds from {faces} faces of {people} people", out.display()));
    for at in &calibration.sizes {
        let size = at.size;
        for (compared, by) in at.all() {
            for point in &by.thresholds {
                let found = point.true_match_rate.map_or("-".into(), |rate| format!("{:.2} %", 100.0 * rate));
                let (rate, similarity) = (point.false_match_rate, point.similarity);
                went_to(
                    out,
                    format_args!("  {size} pixels{compared}, false match rate {rate}: {similarity:.3}, finds {found}"),
                );
            }
        }
    }
    if let Some(quality) = &facts.quality {
        let curve: Vec<String> = quality
            .error_versus_reject
            .iter()
            .map(|(rejected, missed)| format!("{:.0} %: {:.2} %", 100.0 * rejected, 100.0 * missed))
            .collect();
        let (error, curve) = (100.0 * quality.calibration_error, curve.join(", "));
        went_to(out, format_args!("  quality: off by {error:.1} points; missed by share rejected: {curve}"));
    }
    if let Some(rounding) = &facts.rounding {
        let (to, mean, least) = (&rounding.to, rounding.mean_cosine, rounding.least_cosine);
        went_to(out, format_args!("  weights {to}: cosine with those before {mean:.6}, least {least:.6}"));
        for (protocol, before) in &rounding.figures_before {
            let after = facts.figures.get(protocol).and_then(|figures| figures.first()).map_or(f64::NAN, |f| f.value);
            let (name, unit, before) = (&before.name, &before.unit, before.value);
            went_to(out, format_args!("  {protocol}: {name} {before:.3} {unit} before, {after:.3} {unit} after"));
        }
    }
    Ok(())
}
