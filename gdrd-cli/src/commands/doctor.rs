//! `doctor`.

use std::sync::Arc;

use gdrd_core::error::{Context, Error, Result};
use gdrd_core::evaluation::contract::{Examined, better, examine};
use gdrd_core::evaluation::{Figure, ProtocolConfig, Verification};
use gdrd_core::experiment::Experiment;
use gdrd_core::plugin::DatasetName;
use gdrd_core::recipe::diagnostic::no_such;
use gdrd_core::registry::Registry;
use gdrd_core::report::table::{Align, Table};
use gdrd_core::run::Assembly;
use gdrd_core::teacher::embedding_width;

use super::{load, no_run};
use crate::args::DoctorTeacher;
use crate::progress::Progress;

/// Pairs that are drawn where no list is given.
const DRAWN_PAIRS: usize = 400;

pub(crate) fn teacher(wanted: &DoctorTeacher, registry: &Arc<Registry>) -> Result<()> {
    let recipe = load(&wanted.recipe.recipe, &wanted.recipe.sets, registry)?;
    let place = no_run(&wanted.place, registry)?;
    let protocol = Verification {
        pairs: wanted.pairs.clone().map(Into::into),
        drawn_pairs: DRAWN_PAIRS,
        far: Vec::new(),
        ..Verification::drawn_from(dataset_name(wanted.data.as_deref(), &recipe)?)
    };
    let progress = Progress::new();
    let parts = Assembly::new(&recipe, &place, &progress)?;
    let protocol = protocol.build(&parts.context()).at(|| format!("dataset `{}`", protocol.data))?;
    for name in teachers(wanted.teacher.as_deref(), &parts)? {
        let teacher = parts.context().teacher(&name)?;
        let found = examine(&*teacher, &*protocol, &parts.context()).at(|| format!("teacher `{name}`"))?;
        show(&name, &found)?;
    }
    Ok(())
}

/// The dataset that is asked for, or the first that a protocol names.
fn dataset_name(asked: Option<&str>, recipe: &Experiment) -> Result<String> {
    let named = recipe.evaluate.values().flat_map(|protocol| &protocol.marked);
    let first =
        named.filter(|option| option.format == DatasetName::FORMAT).map(|option| option.written.as_str()).next();
    let name = asked.or(first).ok_or_else(|| {
        Error::recipe("the recipe has no `[evaluate]`; name the dataset of the pairs' faces with `--data`")
    })?;
    match recipe.data.contains_key(name) {
        true => Ok(name.to_string()),
        false => Err(Error::recipe(no_such("dataset", name, recipe.data.keys().map(String::as_str)))),
    }
}

/// The teacher that is asked for, or every one that embeds any face.
fn teachers(asked: Option<&str>, parts: &Assembly) -> Result<Vec<String>> {
    let all = &parts.experiment().teachers;
    let mut found = Vec::new();
    for name in all.keys().filter(|name| asked.is_none_or(|asked| asked == name.as_str())) {
        let teacher = parts.context().teacher(name)?;
        let embeds = match teacher.knows_any_face() {
            true => embedding_width(&*teacher),
            false => {
                Err(Error::component("it knows no other faces than its file's; examine the teacher that wrote it"))
            }
        };
        match embeds {
            Ok(_) => found.push(name.clone()),
            Err(error) if asked.is_some() => return Err(error.at(format!("teacher `{name}`"))),
            Err(_) => {}
        }
    }
    match (found.is_empty(), asked) {
        (false, _) => Ok(found),
        (true, Some(asked)) => Err(Error::recipe(no_such("teacher", asked, all.keys().map(String::as_str)))),
        (true, None) => Err(Error::recipe("the recipe has no teacher that embeds any face")),
    }
}

fn show(name: &str, found: &[Examined]) -> Result<()> {
    let columns = [
        (format!("teacher `{name}`"), Align::Left),
        ("accuracy".to_string(), Align::Right),
        ("area under ROC".to_string(), Align::Right),
        ("gain".to_string(), Align::Right),
        ("p".to_string(), Align::Right),
    ];
    let mut table = Table::new(columns);
    for (at, one) in found.iter().enumerate() {
        let shown = |figure: &str| one.outcome.get(figure).map_or("-".to_string(), Figure::shown);
        let declared = if at == 0 { " (declared)" } else { "" };
        table.push([
            format!("{}{declared}", one.name),
            one.outcome.headline()?.shown(),
            shown("area under the ROC curve"),
            format!("{:+.2}", one.gain),
            format!("{:.4}", one.p),
        ])?;
    }
    say!("{}", table.to_markdown());
    let declared = &found[0].name;
    match better(found) {
        Some((other, true)) => say!(
            "`{}` beats the declared `{declared}` by {:.2} points (p = {:.4}): the teacher's `preprocessing`, or the \
             alignment of the faces, does not fit its weights.\n",
            other.name,
            other.gain,
            other.p
        ),
        Some((other, false)) => say!(
            "No contract beats the declared one beyond chance. `{}` is {:.2} points above it on these {} pairs (p = {:.4}, \
             of {} that were tried); more pairs would tell.\n",
            other.name,
            other.gain,
            other.outcome.items.len(),
            other.p,
            found.len() - 1
        ),
        None => say!("No contract beats the declared one.\n"),
    }
    Ok(())
}
