//! `data diff`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gdrd_core::data::Dataset;
use gdrd_core::data::census::{Seen, seen};
use gdrd_core::embedder::Embeddings;
use gdrd_core::error::Result;
use gdrd_core::evaluation::cleaning::{MOST, Means, alike};
use gdrd_core::files::check_output;
use gdrd_core::registry::Registry;
use gdrd_core::run::Place;
use serde_json::{Value, json};

use super::source::{Eyes, SkipUnreadable, Source, here, reporter, say_first, write_json};
use crate::args::PlaceArguments;
use crate::progress::Progress;

#[derive(Args)]
pub(crate) struct DiffArguments {
    /// A path, or RECIPE.toml:NAME
    a: String,
    /// A path, or RECIPE.toml:NAME
    b: String,
    /// The cosine of two people's mean embeddings from which on they may be one
    #[arg(long, value_name = "COSINE", default_value_t = 0.6)]
    similarity: f32,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    unreadable: SkipUnreadable,
    #[command(flatten)]
    eyes: Eyes,
    #[command(flatten)]
    place: PlaceArguments,
}

pub(crate) fn diff(wanted: &DiffArguments, registry: &Arc<Registry>) -> Result<()> {
    let place = here(&wanted.place, registry)?;
    let open = |text: &str| Source::whole(text, &wanted.unreadable, &place, registry);
    let (a, b) = (open(&wanted.a)?, open(&wanted.b)?);
    if let Some(out) = &wanted.out {
        check_output(out, a.paths.iter().chain(&b.paths).map(PathBuf::as_path))?;
    }
    for source in [&a, &b] {
        say!("{}: {} faces, {} people", source.name, source.dataset.len(), source.dataset.people().len());
        source.say_notes();
    }
    let of_a: BTreeSet<&String> = a.dataset.people().iter().collect();
    let names: Vec<&String> = b.dataset.people().iter().filter(|name| of_a.contains(name)).collect();
    say!("people of the same name: {}", names.len());
    say_first(names.iter().map(|name| name.to_string()));
    let images = identical(&a, &b)?;
    say!("identical images: {}", images.len());
    say_first(images.iter().map(|(a, b)| format!("{a} = {b}")));
    let mut people = Value::Null;
    if wanted.eyes.are_open() {
        let found = wanted.eyes.look(&[&a, &b], &place, registry)?;
        let (alike, count) = look_alike((&a, &found[0]), (&b, &found[1]), wanted.similarity, &place)?;
        say!("people whose means have a cosine of {} or more: {count}", wanted.similarity);
        say_first(alike.iter().map(|(a, b, cosine)| format!("{a} ~ {b}: {cosine:.3}")));
        people = json!({ "similarity": wanted.similarity, "count": count, "pairs": alike });
    }
    match &wanted.out {
        Some(out) => {
            let (names, images) = (json!(names), json!(images));
            write_json(out, &json!({ "a": a.name, "b": b.name, "names": names, "images": images, "people": people }))
        }
        None => Ok(()),
    }
}

/// Places of faces whose pixels are the same.
fn identical(a: &Source, b: &Source) -> Result<Vec<(String, String)>> {
    let progress = Progress::new();
    let mut of_a: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let look = |source: &Source| -> Result<Vec<std::result::Result<Seen, String>>> {
        let seen = seen(&*source.dataset, &mut reporter(&progress, &format!("reading {}", source.name)))?;
        // Images were looked at when the dataset was opened; what its own code makes of them may still fail.
        let broken: Vec<&String> = seen.iter().filter_map(|face| face.as_ref().err()).collect();
        if !broken.is_empty() {
            say!("{}: faces that cannot be read and are not compared: {}", source.name, broken.len());
            say_first(broken.into_iter().cloned());
        }
        Ok(seen)
    };
    for (index, face) in look(a)?.into_iter().enumerate() {
        if let Ok(face) = face {
            of_a.entry(face.digest).or_insert(index);
        }
    }
    let same = |(index, face): (usize, std::result::Result<Seen, String>)| {
        let other = of_a.get(&face.ok()?.digest)?;
        Some((a.dataset.place(*other), b.dataset.place(index)))
    };
    Ok(look(b)?.into_iter().enumerate().filter_map(same).collect())
}

/// A person of each dataset, and the cosine of their means.
type People = (String, String, f32);

/// People of two datasets by the cosine of their means; a face of nobody known stands for itself.
fn look_alike(
    a: (&Source, &Embeddings),
    b: (&Source, &Embeddings),
    similarity: f32,
    place: &Place,
) -> Result<(Vec<People>, usize)> {
    let means = |(source, embeddings): (&Source, &Embeddings)| {
        let (dataset, known) = (&*source.dataset, source.dataset.people().len());
        let labels: Vec<Option<usize>> =
            (0..dataset.len()).map(|index| dataset.person(index).or(Some(known + index))).collect();
        Means::of(embeddings, &labels)
    };
    let name = |dataset: &dyn Dataset, number: usize| match dataset.people().get(number) {
        Some(name) => name.clone(),
        None => dataset.place(number - dataset.people().len()),
    };
    let (left, right) = (means(a)?, means(b)?);
    let (found, count) = alike(&left.means, &right.means, false, similarity, MOST, &place.device)?;
    let pair = |pair: &gdrd_core::evaluation::cleaning::Alike| {
        let (one, other) = (left.people[pair.left], right.people[pair.right]);
        (name(&*a.0.dataset, one), name(&*b.0.dataset, other), pair.cosine)
    };
    Ok((found.iter().map(pair).collect(), count))
}
