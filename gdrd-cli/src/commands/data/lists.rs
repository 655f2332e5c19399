//! `data pairs` and `data split`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use gdrd_core::error::{Error, Result};
use gdrd_core::evaluation::drawn_lists::{gallery, pair_list};
use gdrd_core::files::{check_output, write_atomically};
use gdrd_core::registry::Registry;
use gdrd_core::seed::Seed;

use super::source::{Source, here};
use crate::args::PlaceArguments;

#[derive(Args)]
pub(crate) struct PairsArguments {
    /// A path, or RECIPE.toml:NAME
    source: String,
    /// The list to write; a protocol `verification` reads it as `pairs`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folds; nobody is in two of them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    folds: u32,
    /// Pairs of one person in each fold, and as many of two
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    each: u32,
    /// What pairs are drawn by
    #[arg(long, default_value_t = 7)]
    seed: u64,
    #[command(flatten)]
    place: PlaceArguments,
}

pub(crate) fn pairs(wanted: &PairsArguments, registry: &Arc<Registry>) -> Result<()> {
    let source = Source::open(&wanted.source, &here(&wanted.place, registry)?, registry)?;
    check_output(&wanted.out, source.paths.iter().map(PathBuf::as_path))?;
    let (folds, each) = (wanted.folds as usize, wanted.each as usize);
    let text = pair_list(&*source.dataset, folds, each, Seed(wanted.seed))?;
    write_atomically(&wanted.out, text.as_bytes())?;
    say!(
        "{}: {folds} folds of {each} pairs of one person and {each} of two, seed {}",
        wanted.out.display(),
        wanted.seed
    );
    Ok(())
}

#[derive(Args)]
pub(crate) struct SplitArguments {
    /// A path to a folder of images, or RECIPE.toml:NAME
    source: String,
    /// The list to write; a dataset `listed` reads it, and `split = { with = { side = "gallery" } }` of a protocol divides it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Share of each person's faces for the gallery
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    share: f64,
    /// Fewest faces of a person who is listed
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    least: u32,
    /// What faces are drawn by
    #[arg(long, default_value_t = 7)]
    seed: u64,
    #[command(flatten)]
    place: PlaceArguments,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a number above 0 and below 1".to_string())
}

pub(crate) fn split(wanted: &SplitArguments, registry: &Arc<Registry>) -> Result<()> {
    let source = Source::open(&wanted.source, &here(&wanted.place, registry)?, registry)?;
    check_output(&wanted.out, source.paths.iter().map(PathBuf::as_path))?;
    let dataset = &*source.dataset;
    let sides = gallery(dataset, wanted.share, wanted.least as usize, Seed(wanted.seed))?;
    let mut text = "path,person,key,side\n".to_string();
    let mut counts = [0, 0];
    for (index, side) in sides.iter().enumerate().filter_map(|(index, side)| Some((index, (*side)?))) {
        let path = dataset.place(index);
        if !Path::new(&path).is_absolute() || !Path::new(&path).is_file() {
            let message = format!("`{path}` is no image file: a split lists files; expected a dataset of folders");
            return Err(Error::data(message));
        }
        let person = dataset.person(index).map_or("", |person| dataset.people()[person].as_str());
        let key = dataset.key(index);
        let side = if side { "gallery" } else { "probe" };
        counts[usize::from(side == "probe")] += 1;
        let words = [path.as_str(), person, &key, side].map(quoted);
        text += &format!("{}\n", words.join(","));
    }
    write_atomically(&wanted.out, text.as_bytes())?;
    let [gallery, probes] = counts;
    say!("{}: {gallery} faces in the gallery, {probes} probes, seed {}", wanted.out.display(), wanted.seed);
    Ok(())
}

/// A word of a CSV line.
fn quoted(word: &str) -> String {
    match word.contains([',', '"', '\n', '\r']) || word.trim() != word {
        true => format!("\"{}\"", word.replace('"', "\"\"")),
        false => word.to_string(),
    }
}
