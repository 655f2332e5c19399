//! What a command on data works on: a dataset, and who looks at it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use clap::Args;
use gdrd_core::context::{BuildContext, FileCheck, Host, LocalFile};
use gdrd_core::data::{Dataset, is_image_name, is_packed, unreadable_lines};
use gdrd_core::digest;
use gdrd_core::embedder::{Embedder, Embeddings};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::evaluation::embed;
use gdrd_core::files::write_atomically;
use gdrd_core::observe::{Event, tell};
use gdrd_core::plugin::Workbench;
use gdrd_core::registry::Registry;
use gdrd_core::run::{Assembly, Place};
use gdrd_core::teacher::TeacherEmbedder;
use gdrd_student::FaceEncoder;
use serde_json::{Value, json};

use crate::args::PlaceArguments;
use crate::commands::{load, no_run};
use crate::progress::Progress;

/// A dataset that a command line names.
pub(super) struct Source {
    /// As the command line has it.
    pub(super) name: String,
    pub(super) dataset: Arc<dyn Dataset>,
    /// Digest of everything that it is: kind, options, names and bytes of files.
    pub(super) fingerprint: String,
    /// The files and folders that it was made from.
    pub(super) paths: Vec<PathBuf>,
    /// Whether it is a dataset of a recipe, with options of its own.
    pub(super) is_of_recipe: bool,
}

impl Source {
    /// Opens `RECIPE.toml:NAME`, or what lies at a path, of the kind that it looks like. Images that cannot be read are left out of
    /// a path, named by [`Dataset::left_out`]; a recipe has a word of its own on them.
    pub(super) fn open(text: &str, place: &Place, registry: &Registry) -> Result<Self> {
        if let Some((recipe, name)) = recipe_of(text) {
            let recipe = load(recipe, &[], registry)?;
            let progress = Progress::new();
            let parts = Assembly::new(&recipe, place, &progress)?;
            let (dataset, fingerprint) = (parts.context().dataset(name)?, parts.content("dataset", name)?);
            return Ok(Self { name: text.into(), dataset, fingerprint, paths: recipe.paths(), is_of_recipe: true });
        }
        let path = std::path::absolute(text).map_err(|e| Error::io(text, e))?;
        let (kind, options) = guessed(&path)?;
        let config = registry.datasets.from_json(kind, &options)?;
        let progress = Progress::new();
        let host = Telling { bench: Workbench::new(place.device.clone()), progress: &progress };
        let cx = BuildContext::new(&host);
        let dataset: Arc<dyn Dataset> = config.build(&cx)?.into();
        let files: Vec<String> = cx.record().files.into_values().collect();
        let fingerprint = digest::of_value(&(kind, files));
        Ok(Self { name: text.into(), dataset, fingerprint, paths: vec![path], is_of_recipe: false })
    }

    /// The same, where images of a path that cannot be read are an error, unless `wish` is to leave them out.
    pub(super) fn whole(text: &str, wish: &SkipUnreadable, place: &Place, registry: &Registry) -> Result<Self> {
        let source = Self::open(text, place, registry)?;
        wish.judge(&source)?;
        Ok(source)
    }

    /// Says what the dataset has to say of itself: what was passed over or left out. A recipe's was a warning when it was opened.
    pub(super) fn say_notes(&self) {
        if self.is_of_recipe {
            return;
        }
        self.dataset.notes().iter().for_each(|note| say!("note: {}: {note}", self.name));
    }
}

/// What becomes of images that cannot be read.
#[derive(Args)]
pub(super) struct SkipUnreadable {
    /// Leave out images of a path that cannot be read, and name them, instead of ending with an error that names them; a recipe's dataset has
    /// `unreadable` for that
    #[arg(long)]
    pub(super) skip_unreadable: bool,
}

impl SkipUnreadable {
    /// An error that names what was left out of a path against the wish.
    fn judge(&self, source: &Source) -> Result<()> {
        let broken = source.dataset.left_out();
        if self.skip_unreadable || source.is_of_recipe || broken.is_empty() {
            return Ok(());
        }
        Err(Error::data(format!(
            "`{}`: {} of {} images cannot be read; `--skip-unreadable` leaves them out:{}",
            source.name,
            broken.len(),
            source.dataset.len() + broken.len(),
            unreadable_lines(broken)
        )))
    }
}

/// A workbench whose datasets say how far they are.
struct Telling<'a> {
    bench: Workbench,
    progress: &'a Progress,
}

impl Host for Telling<'_> {
    fn device(&self) -> &Device {
        self.bench.device()
    }

    fn report(&self, what: &str, done: usize, total: usize) -> Result<()> {
        tell(self.progress, &Event::Working { what: what.to_string(), done, total })
    }

    fn file(&self, path: &str) -> Result<LocalFile> {
        self.bench.file(path)
    }

    fn fingerprint(&self, files: &[PathBuf], check: &FileCheck<'_>) -> Result<String> {
        self.bench.fingerprint(files, check)
    }
}

/// Recipe and dataset of `RECIPE.toml:NAME`.
fn recipe_of(text: &str) -> Option<(&Path, &str)> {
    let (recipe, name) = text.rsplit_once(':')?;
    recipe.ends_with(".toml").then(|| (Path::new(recipe), name))
}

/// The kind of dataset that a path looks like, with its options. Images that cannot be read are left out and named.
fn guessed(path: &Path) -> Result<(&'static str, Value)> {
    let skip = "skip";
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        if paths.iter().any(|path| path.extension().is_some_and(|ending| ending == "tar")) {
            return Ok(("webdataset", json!({ "shards": [path], "unreadable": skip })));
        }
        if paths.iter().any(|path| path.extension().is_some_and(|ending| ending == "parquet")) {
            return Ok(("parquet", json!({ "files": [path], "unreadable": skip })));
        }
        let kind = if paths.iter().any(|path| is_image_name(path)) { "image-folder" } else { "identity-folders" };
        return Ok((kind, json!({ "folders": [path], "unreadable": skip })));
    }
    let mut first = [0; 8];
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let count = std::io::Read::read(&mut &file, &mut first).map_err(|e| Error::io(path, e))?;
    if is_packed(&first[..count]) {
        return Ok(("packed", json!({ "file": path })));
    }
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    Ok(match ending.as_str() {
        "rec" => ("mxnet-record", json!({ "file": path, "unreadable": skip })),
        "bin" => ("insightface-bin", json!({ "file": path, "unreadable": skip })),
        "tar" => ("webdataset", json!({ "shards": [path], "unreadable": skip })),
        "parquet" => ("parquet", json!({ "files": [path], "unreadable": skip })),
        "csv" => ("listed", json!({ "list": path, "unreadable": skip })),
        _ => {
            return Err(Error::recipe(format!(
                "`{}`: expected a folder, a .rec, .bin, .tar, .parquet, .csv or packed file, or a dataset of a recipe, RECIPE.toml:NAME",
                path.display()
            )));
        }
    })
}

/// Tells `progress` how many faces are done.
pub(super) fn reporter<'a>(progress: &'a Progress, what: &'a str) -> impl FnMut(usize, usize) -> Result<()> + 'a {
    move |done, total| tell(progress, &Event::Working { what: what.to_string(), done, total })
}

/// Who looks at faces.
#[derive(Args)]
pub(super) struct Eyes {
    /// Student file that embeds
    #[arg(long, value_name = "FILE", conflicts_with = "recipe")]
    student: Option<PathBuf>,
    /// Recipe whose teacher embeds
    #[arg(long, value_name = "FILE", requires = "teacher")]
    recipe: Option<PathBuf>,
    /// The teacher's name in the recipe
    #[arg(long, value_name = "NAME", requires = "recipe")]
    teacher: Option<String>,
    /// Change a value in the recipe, as in `train`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl Eyes {
    /// Whether there are some.
    pub(super) fn are_open(&self) -> bool {
        self.student.is_some() || self.teacher.is_some()
    }

    /// The embeddings of all faces of some datasets.
    pub(super) fn look(&self, sources: &[&Source], place: &Place, registry: &Arc<Registry>) -> Result<Vec<Embeddings>> {
        let progress = Progress::new();
        match (&self.student, &self.recipe, &self.teacher) {
            (Some(path), ..) => {
                let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
                let encoder = FaceEncoder::with_kinds(&bytes, &place.device, &**registry);
                all(&encoder.at(|| format!("`{}`", path.display()))?, sources, &progress)
            }
            (None, Some(path), Some(name)) => {
                let recipe = load(path, &self.sets, registry)?;
                let parts = Assembly::new(&recipe, place, &progress)?;
                let teacher = parts.context().teacher(name)?;
                let views = parts.views_of(&*teacher)?;
                all(&TeacherEmbedder::new(name, &*teacher, &place.device)?.with_views(views), sources, &progress)
            }
            _ => Err(Error::recipe("expected `--student FILE`, or `--recipe FILE --teacher NAME`")),
        }
    }
}

fn all(embedder: &dyn Embedder, sources: &[&Source], progress: &Progress) -> Result<Vec<Embeddings>> {
    let host = Told(progress);
    let cx = BuildContext::new(&host);
    let one = |source: &&Source| {
        let indices: Vec<usize> = (0..source.dataset.len()).collect();
        embed(embedder, &source.dataset, &indices, &cx).at(|| format!("`{}`", source.name))
    };
    sources.iter().map(one).collect()
}

/// A host that shows progress.
struct Told<'a>(&'a Progress);

impl gdrd_core::context::Host for Told<'_> {
    fn device(&self) -> &candle_core::Device {
        &candle_core::Device::Cpu
    }

    fn report(&self, what: &str, done: usize, total: usize) -> Result<()> {
        reporter(self.0, what)(done, total)
    }
}

/// Where commands on data work.
pub(super) fn here(arguments: &PlaceArguments, registry: &Arc<Registry>) -> Result<Place> {
    no_run(arguments, registry)
}

/// Writes findings as JSON.
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| Error::data(e.to_string()))?;
    write_atomically(path, &text)
}

/// Says the first lines of many.
pub(super) fn say_first(lines: impl ExactSizeIterator<Item = String>) {
    const SHOWN: usize = 20;
    let more = lines.len().saturating_sub(SHOWN);
    lines.take(SHOWN).for_each(|line| say!("  {line}"));
    if more > 0 {
        say!("  and {more} more; `--out FILE` writes all of them");
    }
}
