//! `evaluate`.

use std::path::Path;

use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::write_atomically;
use gdrd_core::registry::Registry;
use gdrd_core::report::results_table;
use gdrd_core::run::{Measuring, Place, measure};
use gdrd_student::FaceEncoder;

use super::hub::{Locked, with_files};
use super::{check_output, load};
use crate::args::{PlaceArguments, RecipeArguments};
use crate::output::went_to;
use crate::progress::Progress;

pub(crate) fn evaluate(
    arguments: &RecipeArguments,
    student: Option<&Path>,
    out: Option<&Path>,
    place: &PlaceArguments,
    registry: &Registry,
) -> Result<()> {
    let recipe = load(&arguments.recipe, &arguments.sets, registry)?;
    if recipe.evaluate.is_empty() {
        return Err(Error::recipe("the recipe has no `[evaluate]`"));
    }
    let recipe = with_files(recipe, &Locked::new(), place.offline, registry)?;
    if let Some(out) = out {
        check_output(out, Some(&recipe), student)?;
    }
    let folder = Path::new("runs").to_path_buf();
    let place = Place { store: folder.join(".features"), folder, device: place.device()? };
    let encoder = match student {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
            Some(FaceEncoder::from_bytes(&bytes, &place.device).at(|| format!("`{}`", path.display()))?)
        }
        None => None,
    };
    let what = match &encoder {
        Some(encoder) => Measuring::Embedder(encoder),
        None => Measuring::Teachers,
    };
    let mut progress = Progress::new();
    let found = measure(&recipe, &what, &place, &mut progress);
    drop(progress);
    let found = found?;
    for (protocol, rows) in &found {
        let table = results_table(rows)?.to_markdown();
        went_to(out.unwrap_or(Path::new("")), format_args!("{protocol}:\n{table}"));
    }
    if let Some(out) = out {
        let text = serde_json::to_vec_pretty(&found).map_err(|e| Error::data(e.to_string()))?;
        write_atomically(out, &text)?;
    }
    Ok(())
}
