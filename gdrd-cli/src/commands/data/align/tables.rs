//! `faces.csv` and `not-found.csv`.

use std::path::Path;

use gdrd_core::error::Result;
use gdrd_core::files::write_atomically;
use gdrd_core::report::table::{Align, Table};

use super::boxes::{BOX, POINTS};
use super::photographs::Photograph;
use super::{Outcome, journal::Aligned};

/// What was found, as `--boxes` reads it.
pub(super) const FACES: &str = "faces.csv";
/// What was not.
pub(super) const NOT_FOUND: &str = "not-found.csv";

/// Writes both tables.
pub(super) fn write(out: &Path, photographs: &[Photograph], found: &[Outcome]) -> Result<()> {
    let columns = ["image", "face", "found", "score"].into_iter().chain(BOX).chain(POINTS);
    let mut faces = Table::new(columns.map(|name| (name, Align::Left)));
    let mut missing = Table::new(["image", "why"].map(|name| (name, Align::Left)));
    for (photograph, outcome) in photographs.iter().zip(found) {
        match outcome {
            Ok(record) if record.faces.is_empty() => missing.push([&*photograph.name, "no face"])?,
            Ok(record) => {
                record.faces.iter().try_for_each(|face| faces.push(row(&record.image, record.found, face)))?
            }
            Err(why) => missing.push([&photograph.name, why])?,
        }
    }
    write_atomically(&out.join(FACES), faces.to_csv().as_bytes())?;
    write_atomically(&out.join(NOT_FOUND), missing.to_csv().as_bytes())
}

fn row(image: &str, found: usize, face: &Aligned) -> Vec<String> {
    let bounds = [face.bounds.left, face.bounds.top, face.bounds.width, face.bounds.height];
    let score = face.score.map_or(String::new(), |score| score.to_string());
    let points: Vec<String> = match &face.landmarks {
        Some(landmarks) => landmarks.as_flattened().iter().map(f32::to_string).collect(),
        None => vec![String::new(); POINTS.len()],
    };
    let first = [image.to_string(), face.file.clone(), found.to_string(), score];
    first.into_iter().chain(bounds.map(|number| number.to_string())).chain(points).collect()
}
