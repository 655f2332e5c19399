//! `data clean`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gdrd_core::error::Result;
use gdrd_core::evaluation::cleaning::{Thresholds, clean as judge};
use gdrd_core::files::check_output;
use gdrd_core::registry::Registry;
use serde_json::json;

use super::source::{Eyes, SkipUnreadable, Source, here, say_first, write_json};
use crate::args::PlaceArguments;

#[derive(Args)]
pub(crate) struct CleanArguments {
    /// A path, or RECIPE.toml:NAME
    source: String,
    /// The cosine with the mean of its person's other faces below which a face is a stray [default: what best tells people apart]
    #[arg(long, value_name = "COSINE", allow_hyphen_values = true)]
    stray: Option<f32>,
    /// The cosine of two people's means from which on they are one [default: the median of two halves of one person]
    #[arg(long, value_name = "COSINE")]
    same: Option<f32>,
    /// Write all strays and pairs as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    unreadable: SkipUnreadable,
    #[command(flatten)]
    eyes: Eyes,
    #[command(flatten)]
    place: PlaceArguments,
}

pub(crate) fn clean(wanted: &CleanArguments, registry: &Arc<Registry>) -> Result<()> {
    let place = here(&wanted.place, registry)?;
    let source = Source::whole(&wanted.source, &wanted.unreadable, &place, registry)?;
    if let Some(out) = &wanted.out {
        check_output(out, source.paths.iter().map(PathBuf::as_path))?;
    }
    let embeddings = wanted.eyes.look(&[&source], &place, registry)?.remove(0);
    let dataset = &*source.dataset;
    let people: Vec<Option<usize>> = (0..dataset.len()).map(|index| dataset.person(index)).collect();
    let thresholds = Thresholds { stray: wanted.stray, same: wanted.same };
    let found = judge(&embeddings, &people, thresholds, &place.device)?;
    let name = |person: usize| dataset.people()[person].as_str();
    let of = |row: usize| name(found.means.people[row]);
    say!("{}: {} of {} faces were judged, those with others of their person", source.name, found.judged, dataset.len());
    source.say_notes();
    let (strays, below) = (found.strays.len(), found.stray_below);
    let swapped = found.strays.iter().filter(|stray| stray.cosine > stray.own && stray.cosine >= below).count();
    say!(
        "faces below a cosine of {below:.3} with their person's others: {strays}, of them {swapped} like somebody else"
    );
    say_first(found.strays.iter().map(|stray| {
        let (place, nearest) = (dataset.place(stray.index), name(stray.nearest));
        format!("{place}: {:.3} with its own, {:.3} with {nearest}", stray.own, stray.cosine)
    }));
    say!("pairs of people whose means have a cosine of {:.3} or more: {}", found.same_from, found.same_count);
    say_first(found.same.iter().map(|pair| format!("{} ~ {}: {:.3}", of(pair.left), of(pair.right), pair.cosine)));
    let Some(out) = &wanted.out else { return Ok(()) };
    let strays: Vec<_> = found
        .strays
        .iter()
        .map(|stray| {
            json!({ "place": dataset.place(stray.index), "key": dataset.key(stray.index), "own": stray.own,
                    "nearest": name(stray.nearest), "cosine": stray.cosine })
        })
        .collect();
    let same: Vec<_> = found.same.iter().map(|pair| json!([of(pair.left), of(pair.right), pair.cosine])).collect();
    write_json(
        out,
        &json!({ "source": source.name, "judged": found.judged, "stray_below": found.stray_below, "strays": strays,
                 "same_from": found.same_from, "same_count": found.same_count, "same": same }),
    )
}
