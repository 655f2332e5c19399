//! A folder with two packs of drawn faces and a recipe that uses every plug-in of the crate.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gdrd_core::context::BuildContext;
use gdrd_core::data::{DatasetConfig, SyntheticFaces};
use gdrd_core::plugin::Workbench;
use gdrd_extension_example::{Entry, to_bytes};
use tempfile::TempDir;

/// Every plug-in of the crate at once. The student's embedding is as wide as the teacher's, so that the loss `direction` has no
/// variables of its own.
pub(crate) const RECIPE: &str = r#"
format = 1
stages = ["distil"]

[data.gallery]
kind = "faces-pack"
file = "gallery.pack"

[data.probes]
kind = "faces-pack"
file = "probes.pack"

[degradation]
kind = "camera"
step = 8.0

[view.tiny]
kind = "camera"
blur = 2
downscale = { size = 8 }

[teacher.colours]
kind = "colour-histogram"
bins = 4
views = ["high", "tiny"]

[student]
kind = "mixer"
channels = 16
hidden = 32
embedding = 24

[stage.distil]
data = "gallery"
steps = 40
batch_size = 12
learning_rate = 0.01
optimizer.kind = "adamw"

[stage.distil.loss.colours]
kind = "huber"
delta = 0.5

[stage.distil.loss.direction]
kind = "embedding-regression"

[evaluate.identification]
kind = "linear-probe"
gallery = "gallery"
probes = "probes"
"#;

const PEOPLE: usize = 6;
const IMAGES: usize = 8;

/// Images of six people, eight each; drawn once for all tests.
fn drawn() -> &'static [Entry] {
    static DRAWN: OnceLock<Vec<Entry>> = OnceLock::new();
    DRAWN.get_or_init(|| {
        let config = SyntheticFaces {
            identities: PEOPLE,
            images_per_identity: IMAGES,
            first_identity: 0,
            size: 32,
            fixed_appearance: false,
            ..SyntheticFaces::default()
        };
        let bench = Workbench::new(candle_core::Device::Cpu);
        let faces = config.build(&BuildContext::new(&bench)).expect("faces");
        let entry = |index: usize| {
            let person = faces.person(index).expect("all are known");
            // The last person is somebody whom nobody knows.
            let who = faces.people()[person].replace(' ', "_");
            // As LFW numbers its images.
            let name = format!("{who}_{:04}", index % IMAGES + 1);
            let known = (person + 1 < PEOPLE).then_some(who);
            let session = if index.is_multiple_of(2) { "indoors" } else { "outdoors" };
            let image = png(faces.face(index).expect("a face").pixels(), 32);
            Entry { image, person: known, name, session: session.into() }
        };
        (0..faces.len()).map(entry).collect()
    })
}

fn png(pixels: &[u8], size: u32) -> Vec<u8> {
    let image = image::RgbImage::from_raw(size, size, pixels.to_vec()).expect("as many pixels");
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    bytes.into_inner()
}

/// The names of two people who are known.
pub(crate) fn two_people() -> [String; 2] {
    [0, IMAGES].map(|at| drawn()[at].person.clone().expect("somebody known"))
}

/// The folder.
pub(crate) struct Bench(TempDir);

/// How the program ended and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    /// A folder with `gallery.pack`, `probes.pack` and `all.toml`.
    pub(crate) fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a folder"));
        let of = |gallery: bool| {
            let here = |(at, _): &(usize, &Entry)| (at % IMAGES < 5) == gallery;
            drawn().iter().enumerate().filter(here).map(|(_, entry)| entry.clone()).collect::<Vec<_>>()
        };
        bench.write("gallery.pack", to_bytes(&of(true)));
        bench.write("probes.pack", to_bytes(&of(false)));
        bench.write("all.toml", RECIPE);
        bench
    }

    /// Writes the pack `name` again, with another first image.
    pub(crate) fn change_an_image(&self, name: &str) {
        let gallery = name == "gallery.pack";
        let mut faces: Vec<Entry> = drawn().to_vec();
        faces[if gallery { 0 } else { 5 }].image = png(&[90; 3 * 32 * 32], 32);
        let here = |(at, _): &(usize, Entry)| (at % IMAGES < 5) == gallery;
        let faces: Vec<Entry> = faces.into_iter().enumerate().filter(here).map(|(_, entry)| entry).collect();
        self.write(name, to_bytes(&faces));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a file");
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes an image of a drawn face.
    pub(crate) fn write_image(&self, name: &str, at: usize) {
        self.write(name, &drawn()[at].image);
    }

    /// Runs the program in the folder.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_program(Path::new(env!("CARGO_BIN_EXE_gdrd-extension-example")), arguments)
    }

    /// Runs the program at `path` in the folder.
    pub(crate) fn run_program(&self, path: &Path, arguments: &[&str]) -> Said {
        let output =
            Command::new(path).current_dir(self.0.path()).args(arguments).output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs the program, which must succeed.
    #[track_caller]
    pub(crate) fn good(&self, arguments: &[&str]) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:#?}");
        said
    }

    /// The values of a loss term, step by step, of a run.
    pub(crate) fn term(&self, run: &str, name: &str) -> Vec<f64> {
        let metrics = self.text(&format!("{run}/metrics.jsonl"));
        let value = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["terms"][name].as_f64().unwrap_or_else(|| panic!("no term `{name}` in {line}"))
        };
        metrics.lines().map(value).collect()
    }

    /// The names of the files and folders in `folder` for which `keep` holds.
    pub(crate) fn names(&self, folder: &str, keep: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.path(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| keep(name)).collect()
    }
}
