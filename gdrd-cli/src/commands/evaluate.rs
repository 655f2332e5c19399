//! `evaluate`.

use std::path::Path;
use std::sync::Arc;

use gdrd_core::error::{Error, Result};
use gdrd_core::files::write_atomically;
use gdrd_core::registry::Registry;
use gdrd_core::report::{curve_tables, results_table};
use gdrd_core::run::{Measuring, measure};
use gdrd_student::FaceEncoder;

use super::{check_output, load, no_run};
use crate::args::{HeldArguments, PlaceArguments, RecipeArguments};
use crate::output::went_to;
use crate::progress::Progress;

pub(crate) fn evaluate(
    arguments: &RecipeArguments,
    student: Option<(&Path, HeldArguments)>,
    out: Option<&Path>,
    place: &PlaceArguments,
    registry: &Arc<Registry>,
) -> Result<()> {
    let recipe = load(&arguments.recipe, &arguments.sets, registry)?;
    if recipe.evaluate.is_empty() {
        return Err(no_protocol());
    }
    if student.is_none() && recipe.teachers.is_empty() {
        return Err(Error::recipe(
            "there is nothing to measure: the recipe has no teacher; name a student with `--student`",
        ));
    }
    if let Some(out) = out {
        check_output(out, Some(&recipe), student.map(|(path, _)| path))?;
    }
    let place = no_run(place, registry)?;
    let encoder = match student {
        Some((path, held)) => Some(held.hold(FaceEncoder::open_with_kinds(path, &place.device, &**registry)?)?),
        None => None,
    };
    let what = match &encoder {
        Some(encoder) => Measuring::Embedder(encoder),
        None => Measuring::Teachers,
    };
    let progress = Progress::new();
    let found = measure(&recipe, &what, &place, &progress);
    drop(progress);
    let found = found?;
    for (protocol, rows) in &found {
        let table = results_table(rows)?.to_markdown();
        let mut text = format!("{protocol}:\n{table}");
        for row in rows {
            for (name, table) in curve_tables(row)? {
                text += &format!("\n{protocol}, {name}:\n{}", table.to_markdown());
            }
        }
        went_to(out.unwrap_or(Path::new("")), format_args!("{text}"));
    }
    if let Some(out) = out {
        let text = serde_json::to_vec_pretty(&found).map_err(|e| Error::data(e.to_string()))?;
        write_atomically(out, &text)?;
    }
    Ok(())
}

pub(super) fn no_protocol() -> Error {
    Error::recipe("the recipe has no `[evaluate]`, expected at least one protocol, such as `[evaluate.lfw]`")
}
