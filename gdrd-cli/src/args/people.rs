//! Arguments of the commands that use a trained student.

use std::path::PathBuf;

use clap::Args;

use super::{Finding, HeldArguments, PlaceArguments, RecipeArguments, size};

/// The student, and from which similarity on a face is recognised.
#[derive(Args)]
pub(crate) struct Operating {
    /// Student file
    #[arg(long, value_name = "FILE")]
    pub(crate) student: PathBuf,
    #[command(flatten)]
    pub(crate) held: HeldArguments,
    /// Take the threshold at which one comparison of strangers in so many is wrong: 0.1, 0.01, 0.001 or 0.0001, as far as the
    /// student's file has them [default: 0.001]
    #[arg(long, value_name = "RATE", conflicts_with = "threshold")]
    pub(crate) rate: Option<f64>,
    /// Take this similarity as the threshold
    #[arg(long, value_name = "COSINE", value_parser = cosine, allow_negative_numbers = true)]
    pub(crate) threshold: Option<f64>,
}

fn cosine(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|number| (-1.0..=1.0).contains(number));
    number.ok_or_else(|| "expected -1 to 1".to_string())
}

#[derive(Args)]
pub(crate) struct WatchArguments {
    /// Folder that photographs come into: of people with `--detector`, and of aligned faces without
    pub(crate) folder: PathBuf,
    /// The gallery's file
    pub(crate) gallery: PathBuf,
    #[command(flatten)]
    pub(crate) operating: Operating,
    #[command(flatten)]
    pub(crate) finding: Finding,
    /// The most people that are named for a face
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) top: usize,
    /// Copy each photograph into the folder of each person on it below this one, or into `unknown`
    #[arg(long, value_name = "DIR")]
    pub(crate) sort: Option<PathBuf>,
    /// Write who was recognised into a file beside each photograph, its name with `.json` behind
    #[arg(long)]
    pub(crate) tag: bool,
    /// Stop once every photograph that is there was looked at; the exit code is 1 if some could not be read
    #[arg(long)]
    pub(crate) once: bool,
    /// Milliseconds between two looks; a file is read when it has not changed between them
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) every: u64,
    /// Print a line of JSON for each face, and one with `error` for each photograph that cannot be read
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct CalibrateArguments {
    /// Student file
    pub(crate) student: PathBuf,
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,
    /// Dataset of the recipe, of people whom the student was not trained on [default: that of `[calibration]`]
    #[arg(long, value_name = "NAME")]
    pub(crate) data: Option<String>,
    /// Sizes of probes in pixels, rising, separated by commas [default: the student's]
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', value_parser = size)]
    pub(crate) sizes: Vec<usize>,
    /// The most faces that are compared, each with each
    #[arg(long, value_name = "COUNT")]
    pub(crate) faces: Option<usize>,
    /// Numbers of faces of a person, rising, separated by commas, that are fused into one and get thresholds of their own [default:
    /// those of `[calibration]`]
    #[arg(long, value_name = "COUNT", value_delimiter = ',')]
    pub(crate) frames: Vec<usize>,
    /// Leave the recipe's protocols out
    #[arg(long)]
    pub(crate) no_evaluation: bool,
    /// Round the weights, and say in the file what that cost
    #[arg(long, value_enum)]
    pub(crate) weights: Option<WeightNumbers>,
    /// The student file to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
}

/// Numbers of 16 bits.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum WeightNumbers {
    /// 8 bits of precision, the range of float32
    Bfloat16,
    /// 11 bits of precision, up to 65504
    Float16,
}

/// Where a model says what becomes of a face's bytes.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Preprocess {
    /// In its nodes: it takes bytes
    Nodes,
    /// In its metadata: it takes numbers from 0 to 1
    Metadata,
}

#[derive(Args)]
pub(crate) struct CompareArguments {
    /// An image of an aligned face; with `--detector` a photograph, whose largest face counts
    pub(crate) a: PathBuf,
    /// Another one
    pub(crate) b: PathBuf,
    #[command(flatten)]
    pub(crate) operating: Operating,
    #[command(flatten)]
    pub(crate) finding: Finding,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct EnrolArguments {
    /// The gallery's file; a new one is made
    pub(crate) gallery: PathBuf,
    /// Folder with a folder for each person: of aligned faces, or with `--detector` of photographs, whose largest face counts
    pub(crate) folder: PathBuf,
    /// Student file
    #[arg(long, value_name = "FILE")]
    pub(crate) student: PathBuf,
    #[command(flatten)]
    pub(crate) held: HeldArguments,
    #[command(flatten)]
    pub(crate) finding: Finding,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ForgetArguments {
    /// The gallery's file
    pub(crate) gallery: PathBuf,
    /// Names
    #[arg(required = true)]
    pub(crate) people: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct SearchArguments {
    /// The gallery's file
    pub(crate) gallery: PathBuf,
    /// Images of aligned faces; with `--detector` photographs, all of whose faces count. All are tried; the exit code is 1 if some
    /// could not be read
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) operating: Operating,
    #[command(flatten)]
    pub(crate) finding: Finding,
    /// The most people that are named for a face
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) top: usize,
    /// The images show one person, such as the frames of a track: fuse their (largest) faces into one, and say who that is
    #[arg(long)]
    pub(crate) fuse: bool,
    /// Print a line of JSON for each face, and one with `error` for each image that cannot be read
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ExportArguments {
    /// Student file
    pub(crate) student: PathBuf,
    /// The model to write
    #[arg(long, value_name = "FILE")]
    pub(crate) onnx: PathBuf,
    /// Where it says what becomes of a face's bytes
    #[arg(long, value_enum, default_value_t = Preprocess::Nodes)]
    pub(crate) preprocess: Preprocess,
}
