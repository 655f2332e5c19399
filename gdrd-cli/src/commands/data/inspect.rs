//! `data inspect`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gdrd_core::data::census::{census, seen};
use gdrd_core::error::Result;
use gdrd_core::files::check_output;
use gdrd_core::registry::Registry;
use serde_json::json;

use super::source::{Source, here, reporter, say_first, write_json};
use crate::args::PlaceArguments;
use crate::progress::Progress;

#[derive(Args)]
pub(crate) struct InspectArguments {
    /// A path, or RECIPE.toml:NAME
    source: String,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArguments,
}

pub(crate) fn inspect(wanted: &InspectArguments, registry: &Arc<Registry>) -> Result<()> {
    let place = here(&wanted.place, registry)?;
    let source = Source::open(&wanted.source, &place, registry)?;
    if let Some(out) = &wanted.out {
        check_output(out, source.paths.iter().map(PathBuf::as_path))?;
    }
    let progress = Progress::new();
    let seen = seen(&*source.dataset, &mut reporter(&progress, "reading faces"))?;
    drop(progress);
    let found = census(&*source.dataset, &seen);
    say!("{}: {} faces, {} people, {} faces of nobody known", source.name, found.faces, found.people, found.unknown);
    say!("fingerprint {}", source.fingerprint);
    if !found.histogram.is_empty() {
        say!("\n| faces of a person | people | faces |\n|---|---:|---:|");
        for bin in &found.histogram {
            let range = match bin.to {
                Some(to) if to == bin.from => to.to_string(),
                Some(to) => format!("{} to {to}", bin.from),
                None => format!("{} and more", bin.from),
            };
            say!("| {range} | {} | {} |", bin.people, bin.faces);
        }
    }
    say!("\nsizes in pixels: {}", found.sizes.len());
    say_first(found.sizes.iter().map(|((width, height), count)| format!("{width}x{height}: {count}")));
    if !found.attributes.is_empty() {
        say!("attributes: {}", found.attributes.len());
        say_first(found.attributes.iter().map(|(name, values)| {
            let values: Vec<String> = values.iter().map(|(value, count)| format!("{value} ({count})")).collect();
            format!("{name}: {}", values.join(", "))
        }));
    }
    if found.pairs > 0 {
        say!("pairs: {}", found.pairs);
    }
    let left_out = if found.left_out > 0 { format!(", of them {} left out", found.left_out) } else { String::new() };
    say!("broken: {}{left_out}", found.broken.len());
    say_first(found.broken.iter().cloned());
    let across = found.duplicates.iter().filter(|one| !one.one_person).count();
    say!("images that are there more than once: {}, of them {across} as several people", found.duplicates.len());
    say_first(found.duplicates.iter().map(|one| one.places.join(" = ")));
    // What they list in further lines stands under `broken`.
    found.notes.iter().for_each(|note| say!("note: {}", note.lines().next().unwrap_or_default().trim_end_matches(':')));
    match &wanted.out {
        Some(out) => {
            let (name, fingerprint) = (&source.name, &source.fingerprint);
            write_json(out, &json!({ "source": name, "fingerprint": fingerprint, "census": found }))
        }
        None => Ok(()),
    }
}
