//! `data import`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gdrd_core::data::{Augment, Dataset, PackAs, Variant, pack};
use gdrd_core::error::{Error, Result};
use gdrd_core::face::{Face, Kernel};
use gdrd_core::files::check_output;
use gdrd_core::registry::Registry;
use gdrd_core::run::{Assembly, Place};

use super::source::{SkipUnreadable, Source, here, reporter, say_first};
use crate::args::PlaceArguments;
use crate::commands::load;
use crate::progress::Progress;

#[derive(Args)]
pub(crate) struct ImportArguments {
    /// A path, or RECIPE.toml:NAME
    source: String,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Store pixels in the place of images: each face at this height and width, whole faces still
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(4..=1024), conflicts_with = "view")]
    size: Option<u32>,
    /// Store pixels in the place of images: each face as this view of --recipe shows it, such as `low`
    #[arg(long, value_name = "NAME", requires = "recipe")]
    view: Option<String>,
    /// The recipe of --view
    #[arg(long, value_name = "FILE", requires = "view")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    unreadable: SkipUnreadable,
    #[command(flatten)]
    place: PlaceArguments,
}

pub(crate) fn import(wanted: &ImportArguments, registry: &Arc<Registry>) -> Result<()> {
    let place = here(&wanted.place, registry)?;
    let source = Source::whole(&wanted.source, &wanted.unreadable, &place, registry)?;
    check_output(&wanted.out, source.paths.iter().map(PathBuf::as_path))?;
    let dataset = &*source.dataset;
    match (wanted.size, &wanted.view, &wanted.recipe) {
        (Some(size), ..) => {
            let face = |index: usize| dataset.face(index)?.resized(size as usize, Kernel::Bicubic, true);
            let form = PackAs::Faces { face: &face, low_resolution: false };
            written(wanted, &source, &form, &format!("pixels at {size}x{size}"))
        }
        (None, Some(view), Some(recipe)) => {
            let recipe = load(recipe, &[], registry)?;
            in_view(wanted, &source, view, &recipe, &place)
        }
        _ => written(wanted, &source, &PackAs::Images, "images"),
    }
}

fn in_view(
    wanted: &ImportArguments,
    source: &Source,
    view: &str,
    recipe: &gdrd_core::experiment::Experiment,
    place: &Place,
) -> Result<()> {
    let progress = Progress::new();
    let parts = Assembly::new(recipe, place, &progress)?;
    let views = parts.views_over(source.dataset.clone(), &source.fingerprint)?;
    if views.is_random(view)? {
        return Err(Error::recipe(format!(
            "`--view {view}`: it shows a face another way each time, so that none can be stored"
        )));
    }
    let low_resolution = views.downscale(view)?.is_some();
    let seed = recipe.seed();
    let face = |index: usize| -> Result<Face> {
        let variant = (&Augment::none(), Variant { draw: 0, mirrored: false });
        views.face(index, view, variant, &mut seed.stream("import", &[index as u64]))
    };
    drop(progress);
    written(wanted, source, &PackAs::Faces { face: &face, low_resolution }, &format!("pixels in the view {view}"))
}

fn written(wanted: &ImportArguments, source: &Source, form: &PackAs, what: &str) -> Result<()> {
    let made_of = BTreeMap::from([
        ("source".to_string(), source.name.clone()),
        ("fingerprint".to_string(), source.fingerprint.clone()),
        ("stored".to_string(), what.to_string()),
    ]);
    let progress = Progress::new();
    let dataset: &dyn Dataset = &*source.dataset;
    let packing = {
        let report = &mut reporter(&progress, "importing");
        pack(dataset, form, &wanted.out, wanted.unreadable.skip_unreadable, &made_of, report)
    };
    drop(progress);
    let packing = packing?;
    let each = packing.bytes / packing.faces.max(1) as u64;
    say!("{}: {} faces as {what}, {} bytes, {each} a face", wanted.out.display(), packing.faces, packing.bytes);
    source.say_notes();
    if !packing.left_out.is_empty() {
        say!("left out: {}", packing.left_out.len());
        say_first(packing.left_out.into_iter());
    }
    Ok(())
}
