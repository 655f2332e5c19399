//! `data pairs` and `data split`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gdrd_core::data::Dataset;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::evaluation::drawn_lists::{gallery, pair_list};
use gdrd_core::files::{check_output, write_atomically};
use gdrd_core::registry::Registry;
use gdrd_core::seed::Seed;

use super::source::{SkipUnreadable, Source, here};
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
    unreadable: SkipUnreadable,
    #[command(flatten)]
    place: PlaceArguments,
}

pub(crate) fn pairs(wanted: &PairsArguments, registry: &Arc<Registry>) -> Result<()> {
    let source = Source::whole(&wanted.source, &wanted.unreadable, &here(&wanted.place, registry)?, registry)?;
    check_output(&wanted.out, source.paths.iter().map(PathBuf::as_path))?;
    let (folds, each) = (wanted.folds as usize, wanted.each as usize);
    let text = pair_list(&*source.dataset, folds, each, Seed(wanted.seed))?;
    write_atomically(&wanted.out, text.as_bytes())?;
    say!(
        "{}: {folds} folds of {each} pairs of one person and {each} of two, seed {}",
        wanted.out.display(),
        wanted.seed
    );
    source.say_notes();
    Ok(())
}

#[derive(Args)]
pub(crate) struct SplitArguments {
    /// A path to a folder of images or a CSV list, or RECIPE.toml:NAME, whose images are files: folders, AR, `.mat` and CSV lists
    source: String,
    /// The list to write, with all attributes; a dataset `listed` reads it, and `split = { with = { side = "gallery" } }` of a protocol divides it
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
    unreadable: SkipUnreadable,
    #[command(flatten)]
    place: PlaceArguments,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a number above 0 and below 1".to_string())
}

pub(crate) fn split(wanted: &SplitArguments, registry: &Arc<Registry>) -> Result<()> {
    let source = Source::whole(&wanted.source, &wanted.unreadable, &here(&wanted.place, registry)?, registry)?;
    check_output(&wanted.out, source.paths.iter().map(PathBuf::as_path))?;
    let sides = gallery(&*source.dataset, wanted.share, wanted.least as usize, Seed(wanted.seed))?;
    let List { text, counts: [gallery, probes], left_out } = list(&*source.dataset, &sides)?;
    write_atomically(&wanted.out, text.as_bytes())?;
    say!("{}: {gallery} faces in the gallery, {probes} probes, seed {}", wanted.out.display(), wanted.seed);
    source.say_notes();
    if !left_out.is_empty() {
        say!("left out, attributes called as columns of a list are: {}", left_out.join(", "));
    }
    if source.is_of_recipe {
        say!(
            "note: options of `{}` such as `size`, `margin`, `exif_orientation` and `low_resolution` are not in the list; a dataset \
             `listed` that reads it wants them again",
            source.name
        );
    }
    Ok(())
}

/// A list that is written.
struct List {
    text: String,
    /// Faces in the gallery, and probes.
    counts: [usize; 2],
    /// Attributes that have no column.
    left_out: Vec<String>,
}

/// The column that says who is in the gallery.
const SIDE: &str = "side";
/// Columns that a list has for other things than attributes.
const TAKEN: [&str; 8] = ["path", "person", "key", "x", "y", "width", "height", SIDE];

/// The list of all faces that are on a side: their files, people, keys, boxes where there are some, and attributes.
fn list(dataset: &dyn Dataset, sides: &[Option<bool>]) -> Result<List> {
    let mut faces = Vec::new();
    for (index, is_known) in sides.iter().enumerate().filter_map(|(index, side)| Some((index, (*side)?))) {
        let file = dataset.file(index).ok_or_else(|| {
            Error::data(
                "expected an image in a file of its own, found none; a split lists files, as folders, AR, `.mat` and CSV lists have \
                 them, and not packed, archived, drawn or painted faces",
            )
        });
        let file = file.at(|| dataset.place(index))?;
        let path = std::path::absolute(&file.path).map_err(|e| Error::io(&file.path, e))?;
        let path = path.to_str().map(str::to_string);
        let path = path.ok_or_else(|| Error::data("expected a path in UTF-8, which a list can hold, found another"));
        faces.push((index, is_known, path.at(|| dataset.place(index))?, file.region, dataset.attributes(index)));
    }
    let names: BTreeSet<&str> = faces.iter().flat_map(|(.., found)| found.iter().map(|(name, _)| &**name)).collect();
    let (left_out, names): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| TAKEN.contains(name));
    let boxes = if faces.iter().any(|(.., region, _)| region.is_some()) { &TAKEN[3..7] } else { &[] };
    let mut text = String::new();
    let mut line = |words: &[&str]| {
        text += &words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(",");
        text.push('\n');
    };
    line(&[&["path", "person", "key"], boxes, &[SIDE], &names].concat());
    let mut counts = [0, 0];
    for (index, is_known, path, region, attributes) in &faces {
        let person = dataset.person(*index).map_or("", |person| dataset.people()[person].as_str());
        let key = dataset.key(*index);
        let corner = |at: usize| region.map_or(String::new(), |region| region[at].to_string());
        let corners: Vec<String> = (0..boxes.len()).map(corner).collect();
        let mut words = vec![path.as_str(), person, &key];
        words.extend(corners.iter().map(String::as_str));
        words.push(if *is_known { "gallery" } else { "probe" });
        let value = |wanted: &&str| attributes.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value);
        words.extend(names.iter().map(value));
        counts[usize::from(!is_known)] += 1;
        line(&words);
    }
    let left_out = left_out.into_iter().map(|name| format!("`{name}`")).collect();
    Ok(List { text, counts, left_out })
}

/// A word of a CSV line.
fn quoted(word: &str) -> String {
    match word.contains([',', '"', '\n', '\r']) || word.trim() != word {
        true => format!("\"{}\"", word.replace('"', "\"\"")),
        false => word.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;
    use gdrd_core::context::BuildContext;
    use gdrd_core::data::{DatasetConfig, ListedFaces, NamedFiles, SyntheticFaces, png};
    use gdrd_core::face::Face;
    use gdrd_core::plugin::Workbench;

    use super::*;

    fn built<C: DatasetConfig + serde::de::DeserializeOwned>(options: serde_json::Value) -> Box<dyn Dataset> {
        let config: C = serde_json::from_value(options).expect("options");
        config.build(&BuildContext::new(&Workbench::new(Device::Cpu))).expect("a dataset")
    }

    fn image(path: &Path, shade: u8) {
        let face = Face::new(8, 8, (0..192).map(|at| at ^ shade).collect()).expect("a face");
        std::fs::write(path, png(&face).expect("a PNG")).expect("written");
    }

    /// Key, person, attributes and pixels.
    type Known = (String, Option<String>, Vec<(String, String)>, Vec<u8>);

    /// Everything that is known of a face, but for `side`.
    fn known(dataset: &dyn Dataset, index: usize) -> Known {
        let mut attributes = dataset.attributes(index);
        attributes.retain(|(name, _)| name != SIDE);
        attributes.sort();
        let person = dataset.person(index).map(|person| dataset.people()[person].clone());
        (dataset.key(index), person, attributes, dataset.face(index).expect("a face").pixels().to_vec())
    }

    fn again(dataset: &dyn Dataset, folder: &Path) -> Box<dyn Dataset> {
        let sides: Vec<Option<bool>> = (0..dataset.len()).map(|index| Some(index % 2 == 0)).collect();
        let written = list(dataset, &sides).expect("a list");
        assert_eq!(written.counts, [dataset.len().div_ceil(2), dataset.len() / 2]);
        std::fs::write(folder.join("split.csv"), written.text).expect("written");
        let read = built::<ListedFaces>(serde_json::json!({ "list": folder.join("split.csv") }));
        assert_eq!(read.len(), dataset.len());
        for index in 0..read.len() {
            assert_eq!(known(&*read, index), known(dataset, index));
            let side = (SIDE.to_string(), if index % 2 == 0 { "gallery" } else { "probe" }.to_string());
            assert!(read.attributes(index).contains(&side));
        }
        read
    }

    #[test]
    fn faces_of_ar_and_of_lists_are_split_with_all_that_is_known_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        for at in [1, 8, 14, 26] {
            image(&folder.path().join(format!("M-001-{at:02}.png")), at);
        }
        let ar = built::<NamedFiles>(serde_json::json!({ "folders": [folder.path()], "naming": "ar" }));
        // And once more: the new side is in the place of the old one.
        let read = again(&*ar, folder.path());
        again(&*read, folder.path());
        let boxes = "path,person,key,x,y,width,height,camera\nM-001-01.png,\"Ann, B\",a,1,2,4.5,4,north\nM-001-08.png,Bob,b,,,,,\n";
        std::fs::write(folder.path().join("boxes.csv"), boxes).expect("written");
        again(&*built::<ListedFaces>(serde_json::json!({ "list": folder.path().join("boxes.csv") })), folder.path());
    }

    #[test]
    fn faces_without_files_are_refused() {
        let drawn =
            built::<SyntheticFaces>(serde_json::json!({ "identities": 1, "images_per_identity": 2, "size": 8 }));
        let error = list(&*drawn, &[Some(true), Some(false)]).err().expect("no files").to_string();
        assert!(error.starts_with("drawn person 0/face 1: expected an image in a file of its own"), "{error}");
    }
}
