//! `plan`.

use std::sync::Arc;

use gdrd_core::error::Result;
use gdrd_core::registry::Registry;
use gdrd_core::run::{self, Assembly, Prepared};
use indicatif::{HumanBytes, HumanDuration};

use super::{load, no_run};
use crate::args::{PlaceArguments, RecipeArguments};
use crate::progress::Progress;

pub(crate) fn plan(arguments: &RecipeArguments, place: &PlaceArguments, registry: &Arc<Registry>) -> Result<()> {
    let recipe = load(&arguments.recipe, &arguments.sets, registry)?;
    let place = no_run(place, registry)?;
    let progress = Progress::new();
    let parts = Assembly::new(&recipe, &place, &progress)?;
    let prepared = Prepared::new(&parts)?;
    for name in parts.built("dataset") {
        let set = parts.context().dataset(&name)?;
        say!("dataset `{name}`: {} faces, {} identities", set.len(), set.people().len());
    }
    let card = prepared.student.card();
    let (backbone, head) = prepared.student_parameters();
    say!(
        "student `{}`: input {}, map {:?}, embedding {}, parameters {backbone} backbone + {head} head",
        recipe.student.network.kind,
        card.input_size,
        card.map,
        card.embedding.map_or("none".into(), |width| width.to_string())
    );
    for stage in run::plan(&prepared)? {
        say!("\nstage `{}`: {} steps", stage.stage, stage.steps);
        for (teacher, output, shape) in &stage.taps {
            say!("  reads {output} of teacher `{teacher}`, {shape:?}");
        }
        for (name, shape) in &stage.loss_variables {
            say!("  trains {name}, {shape:?}");
        }
        let bytes = HumanBytes(stage.state_bytes as u64);
        match stage.solved {
            true => say!("  {} parameters solved in closed form, {bytes} of sums", stage.trained),
            false => say!("  {} trained parameters, {bytes} with gradients and optimiser", stage.trained),
        }
        if stage.store_bytes > 0 {
            let once = HumanDuration(std::time::Duration::from_secs_f64(stage.teacher_seconds));
            say!("  teachers once: {once}, {} of features", HumanBytes(stage.store_bytes as u64));
        }
        let total = std::time::Duration::from_secs_f64(stage.seconds_per_step * stage.steps as f64);
        say!("  {:.3} s per step, {} in all", stage.seconds_per_step, HumanDuration(total));
    }
    Ok(())
}
