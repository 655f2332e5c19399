//! ArcFace's residual network as a discriminative teacher (the paper's T_d).

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

pub use gdrd_core::nn::iresnet::{Iresnet, Layout, Naming};

/// An iresnet of depth 18, 34, 50, 100, 152 or 200 in one of the layouts that are published: insightface's `.pth` files (the
/// paper's teacher is `ms1mv3_arcface_r50_fp16.pth`), CVLface's safetensors in both of its layouts, and face.evoLVe's and
/// InsightFace_Pytorch's IR and IR-SE. The names in the file tell which, and how deep.
///
/// Where the file also has the class weights of the margin head, as insightface's own checkpoints (`checkpoint_gpu_0.pt`)
/// do, the teacher offers logits: `logit_scale` times the cosines of the embedding with the class weights. Its maps are
/// `blocks.0`, `blocks.1` and so on, after each block, and `backbone`, the last of them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IresnetTeacher {
    /// The weights: safetensors, or a state dict that PyTorch has saved, or a checkpoint that holds one.
    pub weights: RecipePath,
    /// Which state dict of the file is meant, where it holds several: the key that it lies under, such as `state_dict_ema`.
    #[serde(default)]
    pub key: Option<String>,
    /// The class weights of the margin head where they have a file of their own, such as CVLface's `classifier_rank0.pt`.
    #[serde(default)]
    pub class_weights: Option<RecipePath>,
    /// Factor of the cosines that are the logits; 64 in insightface's, CVLface's and AdaFace's training.
    #[serde(default = "default_logit_scale")]
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub logit_scale: f64,
    /// What the network expects of its input: RGB, mean and std 0.5 of values in `[0, 1]` unless said otherwise. AdaFace's
    /// own checkpoints need `colour = "bgr"`, FaceX-Zoo's `colour = "bgr"` and a std of 128/255.
    #[serde(default)]
    pub preprocessing: Preprocessing,
}

impl Kind for IresnetTeacher {
    const NAME: &'static str = "iresnet";
    const PURPOSE: &'static str =
        "ArcFace's iresnet 18 to 200 in insightface's, CVLface's and face.evoLVe's layouts (the paper's T_d)";
}

impl TeacherConfig for IresnetTeacher {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let options = Options {
            weights: &self.weights,
            key: self.key.as_deref(),
            class_weights: self.class_weights.as_ref(),
            logit_scale: self.logit_scale,
            preprocessing: None,
        };
        Recogniser::open(&options, cx, |tensors| Ok((Iresnet::read(tensors, cx.device())?, self.preprocessing)))
    }
}

impl Network for Iresnet {
    const INPUT_SIZE: usize = gdrd_core::nn::iresnet::INPUT_SIZE;

    fn width(&self) -> usize {
        self.layout().embedding
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
