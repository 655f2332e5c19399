//! How faces are looked for in photographs.

use clap::Args;

/// How a detector looks at photographs unless asked otherwise.
const USUAL: Searching = Searching { score: 0.7, overlap: 0.3, longest_side: 640, enlarge: 1.0, offline: false };

/// How a detector looks at photographs; a command that has these has `--detector` too.
#[derive(Args, Clone)]
pub(crate) struct Searching {
    /// Least score of a face, between 0 and 1
    #[arg(long, value_name = "NUMBER", default_value_t = USUAL.score, requires = "detector")]
    pub(crate) score: f32,
    /// Boxes whose intersection over union is above this are one face, 0 to 1
    #[arg(long, value_name = "NUMBER", default_value_t = USUAL.overlap, requires = "detector")]
    pub(crate) overlap: f32,
    /// Pixels to which the longer side of a larger photograph is reduced for the search, 32 to 8192; faces are cut from the
    /// photograph as it is. More finds smaller faces, and takes longer
    #[arg(long, value_name = "PIXELS", default_value_t = USUAL.longest_side, requires = "detector")]
    pub(crate) longest_side: usize,
    /// How many times a small photograph may be enlarged for the search, 1 to 16, up to LONGEST_SIDE: for faces under 12 pixels
    #[arg(long, value_name = "TIMES", default_value_t = USUAL.enlarge, requires = "detector")]
    pub(crate) enlarge: f32,
    /// Use no network; what is not on this machine is an error
    #[arg(long, requires = "detector")]
    pub(crate) offline: bool,
}

/// The detector of a command that takes photographs or aligned faces.
#[derive(Args, Clone)]
pub(crate) struct Finding {
    /// Detector that finds the faces of photographs: an ONNX file of YuNet or SCRFD with landmarks, or its hf:// address. Without
    /// one, an image is an aligned face. Needs a gdrd built with the feature `align`
    #[arg(long, value_name = "FILE")]
    pub(crate) detector: Option<String>,
    #[command(flatten)]
    pub(crate) searching: Searching,
}
