//! `doctor`.

use gdrd_core::error::{Context, Error, ErrorKind, Result};
use gdrd_core::evaluation::contract::{Examined, better, examine};
use gdrd_core::evaluation::{ProtocolConfig, Verification};
use gdrd_core::observe::{Event, Flow, Observer};
use gdrd_core::experiment::Experiment;
use gdrd_core::registry::Registry;
use gdrd_core::report::table::{Align, Table};
use gdrd_core::teacher::{Output, Teacher};

use super::hub::{Locked, with_files};
use super::load;
use crate::args::DoctorTeacher;
use crate::progress::Progress;

/// Pairs that are drawn where no list is given.
const DRAWN_PAIRS: usize = 400;

pub(crate) fn teacher(wanted: &DoctorTeacher, registry: &Registry) -> Result<()> {
    let recipe = load(&wanted.recipe.recipe, &wanted.recipe.sets, registry)?;
    let recipe = with_files(recipe, &Locked::new(), wanted.place.offline, registry)?;
    let device = wanted.place.device()?;
    let data = dataset_name(wanted.data.as_deref(), &recipe)?;
    let dataset = recipe.data[&data].config.build().at(|| format!("dataset `{data}`"))?;
    let protocol = Verification {
        data,
        pairs: wanted.pairs.clone().map(Into::into),
        drawn_pairs: DRAWN_PAIRS,
        folds: 10,
        flip: false,
        far: Vec::new(),
    };
    let protocol = protocol.prepare(&*dataset).at(|| format!("dataset `{}`", protocol.data))?;
    let teachers = teachers(wanted.teacher.as_deref(), &recipe, &device)?;
    for (name, teacher) in &teachers {
        let mut progress = Progress::new();
        let mut report = |contract: &str, done, total| {
            let event = Event::Working { what: format!("teacher `{name}`: {contract}"), done, total };
            match progress.on(&event) {
                Flow::Continue => Ok(()),
                Flow::Stop => Err(Error::new(ErrorKind::Stopped, "stopped by the user")),
            }
        };
        let found = examine(&**teacher, &*dataset, &*protocol, &device, &mut report);
        drop(progress);
        show(name, &found.at(|| format!("teacher `{name}`"))?)?;
    }
    Ok(())
}

/// The dataset that is asked for, or that of the first protocol.
fn dataset_name(asked: Option<&str>, recipe: &Experiment) -> Result<String> {
    let first = recipe.evaluate.values().next().map(|protocol| protocol.config.data());
    let name = asked.or(first).ok_or_else(|| {
        Error::recipe("the recipe has no `[evaluate]`; name the dataset of the pairs' faces with `--data`")
    })?;
    match recipe.data.contains_key(name) {
        true => Ok(name.to_string()),
        false => Err(Error::recipe(format!("no dataset is called `{name}`; there are {:?}", recipe.data.keys()))),
    }
}

/// The teacher that is asked for, or every one that embeds any face.
fn teachers(
    asked: Option<&str>,
    recipe: &Experiment,
    device: &candle_core::Device,
) -> Result<Vec<(String, Box<dyn Teacher>)>> {
    let mut found = Vec::new();
    for (name, component) in recipe.teachers.iter().filter(|(name, _)| asked.is_none_or(|asked| asked == name.as_str()))
    {
        let teacher = component.config.build(device).at(|| format!("teacher `{name}`"))?;
        let embeds = match teacher.knows_any_face() {
            true => teacher.shape(&Output::Embedding, teacher.card().input_size.unwrap_or(112)),
            false => {
                Err(Error::component("it knows no other faces than its file's; examine the teacher that wrote it"))
            }
        };
        match embeds {
            Ok(_) => found.push((name.clone(), teacher)),
            Err(error) if asked.is_some() => return Err(error.at(format!("teacher `{name}`"))),
            Err(_) => {}
        }
    }
    match (found.is_empty(), asked) {
        (false, _) => Ok(found),
        (true, Some(asked)) => {
            Err(Error::recipe(format!("no teacher is called `{asked}`; there are {:?}", recipe.teachers.keys())))
        }
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
        let value = |score: &str| one.scores.get(score).map_or(f64::NAN, |score| score.value);
        let declared = if at == 0 { " (declared)" } else { "" };
        table.push([
            format!("{}{declared}", one.name),
            format!("{:.2} %", value("accuracy")),
            format!("{:.4}", value("area under the ROC curve")),
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
            other.scores.pairs,
            other.p,
            found.len() - 1
        ),
        None => say!("No contract beats the declared one.\n"),
    }
    Ok(())
}
