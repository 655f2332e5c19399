//! MobileNets as students (Howard et al., 2017 and ICCV 2019).

use candle_core::{D, Tensor};
use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::{
    Activation, Alignment, BatchNorm, Conv2d, ConvConfig, ConvNorm, Inference, Mode, Plan, Preprocessing, Weights, relu,
};
use gdrd_core::student::{BACKBONE, LastLinear, Student, StudentCard, StudentConfig, named};
use serde::{Deserialize, Serialize};

use crate::bounds::WIDEST;
use crate::head::{Head, HeadOptions};

/// A MobileNet for small faces: the published network whose first strides are left out, since a face of 16 pixels has nothing to give
/// away. The backbone ends where the published network averages its map.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MobileNet {
    /// Which of the published networks it is.
    pub version: MobileNetVersion,
    /// What channels are multiplied by; they are rounded to multiples of 8, as in the published code.
    #[cfg_attr(feature = "train", schemars(range(min = 0.125, max = 4)))]
    pub width: f64,
    /// How many of the five layers with stride 2 keep it: the last ones. 2 makes maps of 4x4 pixels of faces of 16, all 5 are the
    /// published network.
    #[cfg_attr(feature = "train", schemars(range(min = 0, max = 5)))]
    pub reductions: usize,
    /// Values in an embedding.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub embedding: usize,
    /// The head.
    pub head: HeadOptions,
}

/// The published networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MobileNetVersion {
    /// MobileNetV1: depthwise and pointwise convolutions with ReLU, 3.2 M parameters.
    V1,
    /// MobileNetV3-Small: inverted residual blocks with squeeze and excitation, 0.93 M parameters.
    #[default]
    V3Small,
    /// MobileNetV3-Large, 3.0 M parameters.
    V3Large,
}

impl Default for MobileNet {
    fn default() -> Self {
        Self {
            version: MobileNetVersion::default(),
            width: 1.0,
            reductions: 2,
            embedding: 512,
            head: HeadOptions::default(),
        }
    }
}

/// A row of the papers' tables.
#[derive(Clone, Copy)]
struct Row {
    kernel: usize,
    /// Channels between the first and the last convolution; none where there is no first.
    expanded: usize,
    outputs: usize,
    squeezes: bool,
    /// Hard swish in the place of ReLU.
    swish: bool,
    stride: usize,
}

const fn row(kernel: usize, expanded: usize, outputs: usize, squeezes: bool, swish: bool, stride: usize) -> Row {
    Row { kernel, expanded, outputs, squeezes, swish, stride }
}

/// Table 1 of the first paper: a depthwise 3x3 and a pointwise convolution each.
const V1: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// Table 2 of the third paper.
const V3_SMALL: [Row; 11] = [
    row(3, 16, 16, true, false, 2),
    row(3, 72, 24, false, false, 2),
    row(3, 88, 24, false, false, 1),
    row(5, 96, 40, true, true, 2),
    row(5, 240, 40, true, true, 1),
    row(5, 240, 40, true, true, 1),
    row(5, 120, 48, true, true, 1),
    row(5, 144, 48, true, true, 1),
    row(5, 288, 96, true, true, 2),
    row(5, 576, 96, true, true, 1),
    row(5, 576, 96, true, true, 1),
];

/// Table 1 of the third paper.
const V3_LARGE: [Row; 15] = [
    row(3, 16, 16, false, false, 1),
    row(3, 64, 24, false, false, 2),
    row(3, 72, 24, false, false, 1),
    row(5, 72, 40, true, false, 2),
    row(5, 120, 40, true, false, 1),
    row(5, 120, 40, true, false, 1),
    row(3, 240, 80, false, true, 2),
    row(3, 200, 80, false, true, 1),
    row(3, 184, 80, false, true, 1),
    row(3, 184, 80, false, true, 1),
    row(3, 480, 112, true, true, 1),
    row(3, 672, 112, true, true, 1),
    row(5, 672, 160, true, true, 2),
    row(5, 960, 160, true, true, 1),
    row(5, 960, 160, true, true, 1),
];

/// Layers of each published network whose stride is 2, the stem's among them.
const REDUCTIONS: usize = 5;

impl StudentConfig for MobileNet {
    fn check(&self) -> Vec<Problem> {
        [
            Problem::within("width", self.width, 0.125..=4.0),
            Problem::within("reductions", self.reductions, 0..=REDUCTIONS),
            Problem::within("embedding", self.embedding, 1..=WIDEST),
            self.head.check(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (input_size, weights) = (cx.input_size()?, cx.weights()?);
        let backbone = weights.pp("backbone");
        let (mut size, mut left) = (input_size, REDUCTIONS);
        // The layers with stride 2 come in their order, and the first ones have lost it.
        let mut stride = |published: usize| {
            if published == 1 {
                return 1;
            }
            left -= 1;
            let kept = if left < self.reductions { published } else { 1 };
            size = size.div_ceil(kept);
            kept
        };
        let wide = |channels: usize| divisible(channels as f64 * self.width);
        let at = |block: usize| backbone.pp("blocks").pp(block);
        let (mut inputs, swish) = match self.version {
            MobileNetVersion::V1 => (wide(32), false),
            MobileNetVersion::V3Small | MobileNetVersion::V3Large => (wide(16), true),
        };
        let stem = Layer::new((3, inputs), 3, stride(2), 1, Some(swish), &backbone.pp("stem"))?;
        let mut blocks = Vec::new();
        let rows: &[Row] = match self.version {
            MobileNetVersion::V1 => &[],
            MobileNetVersion::V3Small => &V3_SMALL,
            MobileNetVersion::V3Large => &V3_LARGE,
        };
        for row in rows {
            let (expanded, outputs) = (wide(row.expanded), wide(row.outputs));
            blocks.push(Block::inverted(*row, (inputs, expanded, outputs), stride(row.stride), &at(blocks.len()))?);
            inputs = outputs;
        }
        if self.version == MobileNetVersion::V1 {
            for (channels, published) in V1 {
                blocks.push(Block::separable((inputs, wide(channels)), stride(published), &at(blocks.len()))?);
                inputs = wide(channels);
            }
        }
        let last = match self.version {
            MobileNetVersion::V1 => None,
            MobileNetVersion::V3Small | MobileNetVersion::V3Large => {
                let outputs = 6 * inputs;
                let last = Layer::new((inputs, outputs), 1, 1, 1, Some(true), &backbone.pp("last"))?;
                inputs = outputs;
                Some(last)
            }
        };
        let map = [inputs, size, size];
        let head = Head::new(&self.head, map, self.embedding, &weights.pp("head"))?;
        let card = StudentCard { input_size, map, embedding: Some(self.embedding) };
        Ok(Box::new(Network { card, stem, blocks, last, head }))
    }
}

/// The multiple of 8 next to a number of channels, and never less than nine tenths of it.
fn divisible(channels: f64) -> usize {
    let near = (((channels + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (near as f64) < 0.9 * channels { near + 8 } else { near }
}

/// A convolution that keeps the size at stride 1, its normalisation, and ReLU or hard swish.
struct Layer {
    conv: ConvNorm,
    swish: bool,
}

impl Layer {
    /// `swish` is whether its activation is hard swish and not ReLU; none where there is no activation.
    fn new(
        (inputs, outputs): (usize, usize),
        kernel: usize,
        stride: usize,
        groups: usize,
        swish: Option<bool>,
        weights: &Weights,
    ) -> Result<Self> {
        let config = ConvConfig { stride, padding: kernel / 2, groups, bias: false };
        let conv = Conv2d::new(inputs, outputs, kernel, config, &weights.pp("conv"))?;
        let activation = if swish == Some(false) { Activation::Relu } else { Activation::Identity };
        let conv = ConvNorm::new(conv, BatchNorm::new(outputs, &weights.pp("bn"))?, activation);
        Ok(Self { conv, swish: swish == Some(true) })
    }

    fn forward(&self, x: &Tensor, add: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let x = self.conv.forward(x, add, mode)?;
        if self.swish { Ok((&x * hard_sigmoid(&x)?)?) } else { Ok(x) }
    }
}

/// `min(max(x + 3, 0), 6) / 6`.
fn hard_sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(Activation::Relu6.forward(&x.affine(1.0, 3.0)?)?.affine(1.0 / 6.0, 0.0)?)
}

/// A factor for each channel, by two layers from the channels' means (squeeze and excitation, Hu et al., CVPR 2018).
struct Squeeze {
    down: Conv2d,
    up: Conv2d,
}

impl Squeeze {
    fn new(channels: usize, weights: &Weights) -> Result<Self> {
        let config = ConvConfig { bias: true, ..ConvConfig::default() };
        let between = divisible(channels as f64 / 4.0);
        Ok(Self {
            down: Conv2d::new(channels, between, 1, config, &weights.pp("down"))?,
            up: Conv2d::new(between, channels, 1, config, &weights.pp("up"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let means = x.flatten_from(2)?.mean_keepdim(D::Minus1)?.unsqueeze(D::Minus1)?;
        let scale = hard_sigmoid(&self.up.forward(&relu(&self.down.forward(&means)?)?)?)?;
        Ok(x.broadcast_mul(&scale)?)
    }
}

struct Block {
    expand: Option<Layer>,
    depthwise: Layer,
    squeeze: Option<Squeeze>,
    project: Layer,
    is_residual: bool,
}

impl Block {
    /// A block of MobileNetV3.
    fn inverted(
        row: Row,
        (inputs, expanded, outputs): (usize, usize, usize),
        stride: usize,
        weights: &Weights,
    ) -> Result<Self> {
        let expand = || Layer::new((inputs, expanded), 1, 1, 1, Some(row.swish), &weights.pp("expand"));
        let channels = (expanded, expanded);
        Ok(Self {
            expand: (expanded != inputs).then(expand).transpose()?,
            depthwise: Layer::new(channels, row.kernel, stride, expanded, Some(row.swish), &weights.pp("depthwise"))?,
            squeeze: row.squeezes.then(|| Squeeze::new(expanded, &weights.pp("squeeze"))).transpose()?,
            project: Layer::new((expanded, outputs), 1, 1, 1, None, &weights.pp("project"))?,
            // As published: a stride that was left out gives no shortcut.
            is_residual: row.stride == 1 && inputs == outputs,
        })
    }

    /// A block of MobileNetV1.
    fn separable((inputs, outputs): (usize, usize), stride: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            expand: None,
            depthwise: Layer::new((inputs, inputs), 3, stride, inputs, Some(false), &weights.pp("depthwise"))?,
            squeeze: None,
            project: Layer::new((inputs, outputs), 1, 1, 1, Some(false), &weights.pp("project"))?,
            is_residual: false,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut y = match &self.expand {
            Some(expand) => self.depthwise.forward(&expand.forward(x, None, mode)?, None, mode)?,
            None => self.depthwise.forward(x, None, mode)?,
        };
        if let Some(squeeze) = &self.squeeze {
            y = squeeze.forward(&y)?;
        }
        self.project.forward(&y, self.is_residual.then_some(x), mode)
    }
}

struct Network {
    card: StudentCard,
    stem: Layer,
    blocks: Vec<Block>,
    last: Option<Layer>,
    head: Head,
}

impl Network {
    /// The map of the stem, of each block, and of the last layer.
    fn all(&self, faces: &FaceBatch, mode: Mode, mut each: impl FnMut(&Tensor)) -> Result<Tensor> {
        let mut x = self.stem.forward(&faces.tensor().affine(2.0, -1.0)?, None, mode)?;
        each(&x);
        for block in &self.blocks {
            x = block.forward(&x, mode)?;
            each(&x);
        }
        if let Some(last) = &self.last {
            x = last.forward(&x, None, mode)?;
            each(&x);
        }
        Ok(x)
    }
}

impl Student for Network {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn input(&self) -> Option<Preprocessing> {
        Some(Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() })
    }

    fn backbone(&self, faces: &FaceBatch, mode: Mode) -> Result<Tensor> {
        self.all(faces, mode, |_| ())
    }

    fn maps(&self) -> Vec<String> {
        let inner = self.blocks.len() - usize::from(self.last.is_none());
        let blocks = (0..inner).map(|at| format!("blocks.{at}"));
        let backbone = std::iter::once("stem".to_string()).chain(blocks).chain([BACKBONE.to_string()]);
        backbone.chain(self.head.map_names()).collect()
    }

    fn features(&self, faces: &FaceBatch, names: &[String]) -> Result<Vec<Tensor>> {
        let mut found = Vec::new();
        let map = self.all(faces, Mode::Evaluate, |map| found.push(map.clone()))?;
        found.extend(self.head.maps(&map)?);
        let found: Vec<(String, Tensor)> = self.maps().into_iter().zip(found).collect();
        named(&found, names)
    }

    fn head(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.forward(map, mode)
    }

    fn last_linear(&self) -> Option<LastLinear> {
        self.head.last_linear("head")
    }

    fn before_last_linear(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.before_last(map, mode)
    }

    fn inference(&self) -> Result<Option<Inference>> {
        if self.last.is_some() {
            // Squeezing and hard swish have no inference form.
            return Ok(None);
        }
        let (mut plan, faces) = Plan::new([3, self.card.input_size, self.card.input_size]);
        let x = plan.affine(faces, 2.0, -1.0);
        let mut x = self.stem.conv.plan(&mut plan, x, None)?;
        for block in &self.blocks {
            x = block.depthwise.conv.plan(&mut plan, x, None)?;
            x = block.project.conv.plan(&mut plan, x, None)?;
        }
        let embedding = self.head.plan(&mut plan, x)?;
        Ok(Some(plan.finish(embedding)))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::{DType, Device};
    use gdrd_core::context::Bare;
    use gdrd_core::nn::weights::{Draw, Variables};

    use super::*;

    fn build(config: &MobileNet, size: usize) -> (Box<dyn Student>, Variables) {
        let draw: Rc<Draw> = Rc::new(|name, count, _| match name.ends_with("running_var") {
            true => vec![1.0; count],
            false => (0..count).map(|at| ((name.len() * 31 + at * 7919) % 201) as f32 / 500.0 - 0.2).collect(),
        });
        Weights::create(&Device::Cpu, draw, |w| gdrd_core::student::build(config, size, w, &Bare(Device::Cpu)))
            .expect("student")
    }

    #[test]
    fn the_backbones_have_as_many_parameters_as_the_published_ones() {
        use MobileNetVersion::{V1, V3Large, V3Small};
        for (version, expected) in [(V1, 3_206_976), (V3Small, 927_008), (V3Large, 2_971_952)] {
            let (_, made) = build(&MobileNet { version, ..MobileNet::default() }, 16);
            let backbone = made.parameters.iter().filter(|(name, _)| name.starts_with("backbone."));
            assert_eq!(backbone.map(|(_, var)| var.elem_count()).sum::<usize>(), expected, "{version:?}");
        }
    }

    #[test]
    fn the_last_strides_are_kept() {
        use MobileNetVersion::{V1, V3Large, V3Small};
        for (version, channels) in [(V1, 512), (V3Small, 288), (V3Large, 480)] {
            for (reductions, pixels) in [(0, 16), (2, 4), (5, 1)] {
                let config = MobileNet { version, width: 0.5, reductions, embedding: 5, ..MobileNet::default() };
                let (student, _) = build(&config, 16);
                assert_eq!(student.card().map, [channels, pixels, pixels], "{version:?}");
                let faces = Tensor::zeros((2, 3, 16, 16), DType::F32, &Device::Cpu).expect("faces");
                let map = student.backbone(&FaceBatch::from_tensor(faces).expect("batch"), Mode::Train).expect("map");
                assert_eq!(map.dims()[1..], student.card().map);
                assert_eq!(student.head(&map, Mode::Train).expect("embedding").dims(), [2, 5]);
            }
        }
    }

    #[test]
    fn the_inference_form_gives_the_same_embeddings() {
        let config = MobileNet { version: MobileNetVersion::V1, width: 0.25, embedding: 7, ..MobileNet::default() };
        let (_, made) = build(&config, 16);
        let new = |w: &Weights| gdrd_core::student::build(&config, 16, w, &Bare(Device::Cpu));
        let student = Weights::read(made.tensors(), &Device::Cpu, |_| false, new).expect("student");
        let network = student.inference().expect("fits").expect("a form");
        let faces = Tensor::rand(0f32, 1.0, (3, 3, 16, 16), &Device::Cpu).expect("faces");
        let input = faces.flatten_all().and_then(|faces| faces.to_vec1::<f32>()).expect("values");
        let map = student.backbone(&FaceBatch::from_tensor(faces).expect("batch"), Mode::Evaluate).expect("map");
        let expected = student.head(&map, Mode::Evaluate).and_then(|e| Ok(e.flatten_all()?.to_vec1::<f32>()?));
        let fill = |to: &mut [f32]| {
            to.copy_from_slice(&input);
            Ok(())
        };
        let (found, expected) = (network.run(3, fill, <[f32]>::to_vec).expect("embeddings"), expected.expect("those"));
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest > 0.0 && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
    }

    #[test]
    fn channels_are_multiples_of_eight() {
        assert_eq!([12.0, 11.9, 3.0, 66.0, 36.0].map(divisible), [16, 16, 8, 64, 40]);
    }
}
