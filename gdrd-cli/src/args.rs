//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::data::DataCommand;

mod detector;
mod held;
mod hub;
mod people;
mod place;
mod serve;

pub(crate) use detector::{Finding, Searching};
pub(crate) use held::HeldArguments;
pub(crate) use hub::{HubCommand, PushArguments};
pub(crate) use people::{
    CalibrateArguments, CompareArguments, EnrolArguments, ExportArguments, ForgetArguments, Operating, Preprocess,
    SearchArguments, WatchArguments, WeightNumbers,
};
pub(crate) use place::PlaceArguments;
pub(crate) use serve::ServeArguments;

/// Distils face recognisers for faces of about 16x16 pixels.
#[derive(Parser)]
#[command(name = "gdrd", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a recipe: its stages, the evaluation, the report
    Train {
        #[command(flatten)]
        recipe: RecipeArguments,
        /// Folder of the run [default: runs/<recipe>-<digest>]
        #[arg(long, value_name = "DIR")]
        run_dir: Option<PathBuf>,
        /// Delete what an earlier run left in the run folder
        #[arg(long)]
        fresh: bool,
        /// Hold the files of the Hub to those of another run's lock.json
        #[arg(long, value_name = "FILE")]
        lock: Option<PathBuf>,
        /// Write event files of TensorBoard into a folder of the run's name below this one, while the run goes
        #[arg(long, value_name = "DIR")]
        tensorboard: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Go on with a run that was stopped, from its newest checkpoint
    Resume {
        /// Folder of the run
        run: PathBuf,
        /// Write event files of TensorBoard into a folder of the run's name below this one, while the run goes
        #[arg(long, value_name = "DIR")]
        tensorboard: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Read every checksum of a run folder, and say whether each number of its report still follows from what lies there
    Verify {
        /// Folder of the run
        run: PathBuf,
        /// Open the data and the teachers too, and evaluate the student again
        #[arg(long)]
        again: bool,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Make one page of runs, `report.html`: tables beside the paper's, curves, embeddings, mistakes, training
    ///
    /// A run leaves such a page of itself; this makes one of several runs side by side, from what lies in their folders. Nothing is
    /// computed again, and the page needs no network and no script.
    Report {
        /// Run folders; the folder of an ablation stands for its finished cells
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Folder of the page [default: runs/report]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Write the tables as `tables.tex` too, for `\usepackage{booktabs}`
        #[arg(long)]
        latex: bool,
        /// Write the tables as `tables.md` too
        #[arg(long)]
        markdown: bool,
        /// Write the logs as event files of TensorBoard into a folder for each run below this one, and, unless something else is
        /// asked for, no page; a run that is not over gives what it has so far
        #[arg(long, value_name = "DIR")]
        tensorboard: Option<PathBuf>,
    },
    /// Say why two runs have two numbers: what differs of all that decides them, likely causes first, and where their logs part
    Diff {
        /// The folder of one run
        first: PathBuf,
        /// The folder of the other run
        second: PathBuf,
        /// Print what differs as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run several recipes with several seeds and compare them in one table
    Ablate {
        /// Recipe files, one for each row
        #[arg(required = true)]
        recipes: Vec<PathBuf>,
        /// Seeds, separated by commas
        #[arg(long, value_delimiter = ',', default_value = "7")]
        seeds: Vec<u64>,
        /// The row that the others are compared with [default: the first]
        #[arg(long, value_name = "NAME")]
        against: Option<String>,
        /// Change a value in every recipe, as in `train`
        #[arg(long = "set", value_name = "KEY=VALUE|@FILE")]
        sets: Vec<String>,
        /// Folder of the table and of the runs
        #[arg(long, value_name = "DIR", default_value = "runs/ablation")]
        run_dir: PathBuf,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Measure a student file, or a recipe's teachers, by a recipe's protocols
    Evaluate {
        #[command(flatten)]
        recipe: RecipeArguments,
        /// Student file; the recipe's teachers are measured when left out
        #[arg(long, value_name = "FILE")]
        student: Option<PathBuf>,
        #[command(flatten)]
        held: HeldArguments,
        /// Write the scores as JSON
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Leave a run folder of the student, with the report and all that it rests on; the recipe's teachers are measured too
        #[arg(long, value_name = "DIR", requires = "student", conflicts_with_all = ["out", "weights"])]
        run_dir: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Write embeddings of images to a safetensors file, or as lines of JSON
    Embed {
        /// Images of aligned faces: JPEG, PNG, BMP, WebP or GIF. All are tried; the exit code is 1 if some could not be read
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// Student file
        #[arg(long, value_name = "FILE", required_unless_present = "recipe", conflicts_with = "recipe")]
        student: Option<PathBuf>,
        #[command(flatten)]
        held: HeldArguments,
        /// Recipe whose teacher embeds
        #[arg(long, value_name = "FILE", requires = "teacher")]
        recipe: Option<PathBuf>,
        /// The teacher's name in the recipe
        #[arg(long, value_name = "NAME", requires = "recipe")]
        teacher: Option<String>,
        /// Change a value in the recipe, as in `train`
        #[arg(long = "set", value_name = "KEY=VALUE|@FILE")]
        sets: Vec<String>,
        /// Bring images to this height and width first, in pixels, as a dataset of this size does; they go from their own size
        /// to what the network takes when left out
        #[arg(long, value_name = "PIXELS", value_parser = size)]
        size: Option<usize>,
        /// Leave images as the camera's sensor had them, whatever their EXIF orientation
        #[arg(long)]
        ignore_orientation: bool,
        /// The file to write: `embeddings` [images, width], rows of unit length; `faces` [images, 32], the sha256 of their
        /// pixels; names in the metadata. It is not written if an image could not be read
        #[arg(long, value_name = "FILE", required_unless_present = "json")]
        out: Option<PathBuf>,
        /// Print a line of JSON for each image: `image`, `embedding` of unit length, `face`, the sha256 of its pixels; or `image` and
        /// `error`
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Say whether two photographs show the same person
    Compare(CompareArguments),
    /// Enrol people in a gallery: a folder for each, with photographs of their face
    ///
    /// Who is in the gallery already is enrolled anew, with the photographs that are in the folder now.
    Enrol(EnrolArguments),
    /// Remove people from a gallery, and from its earlier state beside it
    Forget(ForgetArguments),
    /// Say whom photographs show, of the people in a gallery
    Search(SearchArguments),
    /// Recognise photographs as they come into a folder, until Ctrl-C
    Watch(WatchArguments),
    /// Recognise faces over HTTP, for programs that speak CompreFace's REST interface, and on a page
    ///
    /// docs/serve.md says how it is used.
    Serve(Box<ServeArguments>),
    /// Measure a student file's thresholds, quality model and figures, and write them into a new one
    Calibrate(CalibrateArguments),
    /// Write a student as an ONNX model
    Export(ExportArguments),
    /// Print a script that completes this program's commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command
    Manual {
        /// Folder for the pages
        folder: PathBuf,
    },
    /// Write what a teacher of a recipe says of faces: embedding, logits, feature maps
    ///
    /// The teacher sees what it would see in training: faces behind the recipe's degradation, if that is its view. The
    /// file can be a teacher of kind `precomputed`.
    Features {
        #[command(flatten)]
        recipe: RecipeArguments,
        /// The teacher's name in the recipe
        #[arg(long, value_name = "NAME")]
        teacher: String,
        /// Images of aligned faces: JPEG, PNG, BMP, WebP or GIF
        #[arg(required_unless_present = "data")]
        images: Vec<PathBuf>,
        /// A dataset of the recipe in the place of images
        #[arg(long, value_name = "NAME", conflicts_with = "images")]
        data: Option<String>,
        /// Bring images to this height and width first, in pixels, as a dataset of this size does; they go from their own size
        /// to what the network takes when left out
        #[arg(long, value_name = "PIXELS", value_parser = size, conflicts_with = "data")]
        size: Option<usize>,
        /// Leave images as the camera's sensor had them, whatever their EXIF orientation
        #[arg(long, conflicts_with = "data")]
        ignore_orientation: bool,
        /// A feature map to write; may be given again [default: all of them, and of a recogniser none]
        #[arg(long = "tap", value_name = "NAME")]
        taps: Vec<String>,
        /// Write the mirrored faces too, after the others
        #[arg(long)]
        flip: bool,
        /// The file to write: `embedding` [rows, width], `logits` [rows, identities], each map [rows, channels, height,
        /// width]; `faces` [rows, 32], the sha256 of their pixels; names in the metadata
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Say everything that is wrong with recipes, without building anything
    Check {
        /// Recipe files
        #[arg(required = true)]
        recipes: Vec<PathBuf>,
        /// Change a value in every recipe, as in `train`
        #[arg(long = "set", value_name = "KEY=VALUE|@FILE")]
        sets: Vec<String>,
    },
    /// Show shapes, parameters, bytes and seconds of a recipe, from a few timed steps
    Plan {
        #[command(flatten)]
        recipe: RecipeArguments,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Say what each layer of a teacher knows of who a face is, before anything is trained
    ///
    /// A linear map is fitted in closed form from each feature map (and from the embedding and the pixels) to another teacher's
    /// embedding, and measured on people that it was not fitted to. What comes first is worth distilling.
    Probe(Box<ProbeArguments>),
    /// Look for what is silently wrong
    #[command(subcommand)]
    Doctor(Doctor),
    /// List the plug-ins, or explain one with its options
    Kinds {
        /// A kind, such as `relational-contrastive`
        kind: Option<String>,
        /// A Markdown table of all losses: equation, what each is given, labels, memory
        #[arg(long, conflicts_with = "kind")]
        table: bool,
    },
    /// Print the JSON schema of recipes, for editors
    Schema,
    /// Fetch, verify and list pretrained weights on the Hugging Face Hub
    #[command(subcommand)]
    Hub(HubCommand),
    /// Make datasets, and look into them
    #[command(subcommand)]
    Data(DataCommand),
}

#[derive(Subcommand)]
pub(crate) enum Doctor {
    /// Score plausible ways to feed a teacher (colour order, normalisation, crop, mirror) on labelled pairs, and say when
    /// another one beats the declared one
    Teacher(DoctorTeacher),
}

#[derive(Args)]
pub(crate) struct DoctorTeacher {
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,
    /// The teacher's name in the recipe; every teacher with an embedding when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) teacher: Option<String>,
    /// The dataset of the pairs' faces; that of the first protocol when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) data: Option<String>,
    /// Labelled pairs in the format of LFW's pairs.txt, a few hundred are enough; 400 are drawn when left out
    #[arg(long, value_name = "FILE")]
    pub(crate) pairs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
}

#[derive(Args)]
pub(crate) struct ProbeArguments {
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,
    /// A teacher to probe; may be given again [default: all that have feature maps]
    #[arg(long = "teacher", value_name = "NAME")]
    pub(crate) teachers: Vec<String>,
    /// Probe the layers of a student file, shown faces as it prepares them; with `--teacher`, of both
    #[arg(long, value_name = "FILE")]
    pub(crate) student: Option<PathBuf>,
    /// A view that the teachers are shown, such as `low`; may be given again [default: that which each is shown in training]
    #[arg(long = "view", value_name = "NAME")]
    pub(crate) views: Vec<String>,
    /// A feature map to probe, or `embedding`; may be given again [default: all of them]
    #[arg(long = "map", value_name = "NAME")]
    pub(crate) maps: Vec<String>,
    /// Values of a key of the recipe to probe with, such as teacher.generative.timestep=0,10,50; a key without a dot is an
    /// option of the one `--teacher`. May be given again: all combinations are probed
    #[arg(long = "vary", value_name = "KEY=VALUE,...")]
    pub(crate) vary: Vec<String>,
    /// The teacher whose embedding features are mapped to [default: the only one that has embeddings]
    #[arg(long, value_name = "NAME", conflicts_with = "identity")]
    pub(crate) target: Option<String>,
    /// Map features to who the faces are, a random vector for each person, in the place of a teacher's embedding
    #[arg(long)]
    pub(crate) identity: bool,
    /// The dataset of the faces that maps are fitted to [default: that of the first stage]
    #[arg(long, value_name = "NAME")]
    pub(crate) data: Option<String>,
    /// Faces that maps are fitted to, at most; drawn by the recipe's seed
    #[arg(long, value_name = "COUNT", default_value_t = 6000, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) faces: u32,
    /// Values of a map at most: larger maps are brought to a coarser grid by means, but to no fewer values than channels
    #[arg(long, value_name = "COUNT", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=41_000))]
    pub(crate) values: u32,
    /// Penalty of large weights, in units of the mean diagonal of the features' Gram matrix
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0, value_parser = ridge)]
    pub(crate) ridge: f64,
    /// The protocol that measures [default: the recipe's first; people held out of the data if it has none]
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<String>,
    /// Folder of the results [default: runs/probe-<recipe>]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the results as JSON in the place of the table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
}

/// A penalty that float32 bears.
fn ridge(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|number| (1e-4..=1e6).contains(number));
    number.ok_or_else(|| "expected 0.0001 to 1000000".to_string())
}

#[derive(Args)]
pub(crate) struct RecipeArguments {
    /// Recipe file
    pub(crate) recipe: PathBuf,
    /// Change a value: --set stage.discriminative.loss.relation.weight=2. Or lay a TOML file over the recipe: --set @mine.toml
    #[arg(long = "set", value_name = "KEY=VALUE|@FILE")]
    pub(crate) sets: Vec<String>,
}

/// A height and width in pixels.
pub(crate) fn size(text: &str) -> std::result::Result<usize, String> {
    let size = text.parse().ok().filter(|size| (1..=4096).contains(size));
    size.ok_or_else(|| "expected 1 to 4096 pixels".to_string())
}
