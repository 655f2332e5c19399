//! MobileFaceNet as a discriminative teacher (Chen et al., CCBR 2018).

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::error::Result;
use gdrd_core::nn::recogniser::Trunk;
use gdrd_core::nn::{Map, Plan};
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use gdrd_core::teacher::{Preprocessing, Teacher, TeacherConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::recogniser::{Network, Options, Recogniser, default_logit_scale};

pub use gdrd_core::nn::mobilefacenet::{Layout, MobileFaceNet};

/// A MobileFaceNet in one of the layouts that are published: foamliu's (128 values, ImageNet normalisation), insightface's
/// `mbf` (512 values, inputs in `[-1, 1]`), or the one that FaceX-Zoo, face.evoLVe and InsightFace_Pytorch share. The names in
/// the file tell which. Its maps are `blocks.0`, `blocks.1` and so on, after each block, and `backbone`, the last of them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MobileFaceNetTeacher {
    /// The weights: safetensors, or a state dict that PyTorch has saved, or a checkpoint that holds one.
    pub weights: RecipePath,
    /// Which state dict of the file is meant, where it holds several: the key that it lies under, such as `state_dict_ema`.
    #[serde(default)]
    pub key: Option<String>,
    /// The class weights of the margin head where they have a file of their own; see kind `iresnet`.
    #[serde(default)]
    pub class_weights: Option<RecipePath>,
    /// Factor of the cosines that are the logits, where the teacher has class weights.
    #[serde(default = "default_logit_scale")]
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub logit_scale: f64,
    /// What the network expects of its input; that of the layout when left out: RGB, then ImageNet's mean and std for
    /// foamliu's and 0.5 and 0.5 for insightface's; BGR, then 0.5 and 128/255 for FaceX-Zoo's. face.evoLVe's weights, whose
    /// names are FaceX-Zoo's, want RGB, 0.5 and 0.5.
    #[serde(default)]
    pub preprocessing: Option<Preprocessing>,
}

impl Kind for MobileFaceNetTeacher {
    const NAME: &'static str = "mobilefacenet";
    const PURPOSE: &'static str = "MobileFaceNet at 112x112, in foamliu's, insightface's and FaceX-Zoo's layouts";
}

impl TeacherConfig for MobileFaceNetTeacher {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let options = Options {
            weights: &self.weights,
            key: self.key.as_deref(),
            class_weights: self.class_weights.as_ref(),
            logit_scale: self.logit_scale,
            preprocessing: self.preprocessing,
        };
        Recogniser::open(&options, cx, |tensors| {
            let network = MobileFaceNet::read(tensors, cx.device())?;
            let usual = network.layout().preprocessing();
            Ok((network, usual))
        })
    }
}

impl Network for MobileFaceNet {
    const INPUT_SIZE: usize = gdrd_core::nn::mobilefacenet::INPUT_SIZE;

    fn width(&self) -> usize {
        self.layout().embedding()
    }

    fn trunk(&self) -> &Trunk {
        self.trunk()
    }

    fn head(&self, map: &Tensor) -> Result<Tensor> {
        self.head(map)
    }

    fn plan_head(&self, plan: &mut Plan, map: Map) -> Result<Map> {
        self.plan_head(plan, map)
    }
}
