//! A network that restores the large face, before a recogniser of large faces.

use candle_core::Tensor;
use gdrd_core::context::{Bare, BuildContext};
use gdrd_core::error::{Error, Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::{Alignment, Conv2d, ConvConfig, Init, Mode, Preprocessing, Weights, relu, resize_bicubic};
use gdrd_core::student::{Part, Student, StudentCard, StudentConfig};
use serde::{Deserialize, Serialize};

use super::bounds::{MOST_BLOCKS, WIDEST};
use crate::networks::{IresnetStudent, MobileFaceNetStudent, ResnetTrunk};

/// Super-resolution and recognition in a row: an EDSR-like network (Lim et al., CVPRW 2017) restores the large face, and a
/// recogniser embeds that. The backbone is the first of the two and its map the restored face, `[3, size, size]` in `[0, 1]` or a
/// little beyond; the head is the recogniser, whose tensors have the names that they have by themselves, so that `initial_teacher`
/// gives it a teacher's weights, and a stage with `trains = ["backbone"]` leaves them as they are.
///
/// The network works at the size of the small face: a convolution, `blocks` residual blocks of two (no normalisation, scaled by 0.1),
/// one more around which the first one's output is added, and one whose channels are the pixels of the large face (pixel shuffle). What
/// comes out is added to the face enlarged by the bicubic filter, and begins as zero.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SuperResolution {
    /// Height and width of the restored face in pixels, a multiple of the small face's.
    #[cfg_attr(feature = "train", schemars(range(min = 16, max = 512)))]
    pub size: usize,
    /// Channels of the convolutions.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = 65_536)))]
    pub channels: usize,
    /// Residual blocks.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = 1_024)))]
    pub blocks: usize,
    /// The recogniser of the restored face: `kind` and its options, as in `[student]`.
    pub recogniser: RestoredFaceRecogniser,
}

/// What embeds a restored face.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RestoredFaceRecogniser {
    /// A trunk of gdrd.
    ResnetTrunk(ResnetTrunk),
    /// MobileFaceNet.
    #[serde(rename = "mobilefacenet")]
    MobileFaceNet(MobileFaceNetStudent),
    /// ArcFace's iresnet.
    Iresnet(IresnetStudent),
}

impl RestoredFaceRecogniser {
    fn config(&self) -> &dyn StudentConfig {
        match self {
            Self::ResnetTrunk(config) => config,
            Self::MobileFaceNet(config) => config,
            Self::Iresnet(config) => config,
        }
    }
}

impl Default for SuperResolution {
    fn default() -> Self {
        let recogniser = RestoredFaceRecogniser::MobileFaceNet(MobileFaceNetStudent::default());
        Self { size: 112, channels: 32, blocks: 4, recogniser }
    }
}

/// What the names of the restoring network's tensors begin with.
const FRONT: &str = "front";

/// Factor of a residual block's output.
const RESIDUAL: f64 = 0.1;

impl StudentConfig for SuperResolution {
    fn check(&self) -> Vec<Problem> {
        let nested = |problem: Problem| Problem::new("recogniser", format!("`{}`: {}", problem.key, problem.message));
        [
            Problem::within("size", self.size, 16..=512),
            Problem::within("channels", self.channels, 1..=WIDEST),
            Problem::within("blocks", self.blocks, 1..=MOST_BLOCKS),
        ]
        .into_iter()
        .flatten()
        .chain(self.recogniser.config().check().into_iter().map(nested))
        .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (input_size, weights) = (cx.input_size()?, cx.weights()?);
        if !self.size.is_multiple_of(input_size) {
            return Err(Error::component(format!(
                "`size`: expected a multiple of the small face's {input_size} pixels, found {}",
                self.size
            )));
        }
        let recogniser =
            gdrd_core::student::build(self.recogniser.config(), self.size, weights, &Bare(cx.device().clone()))?;
        let embedding = recogniser.card().embedding;
        let front = Front::new(self, self.size / input_size, &weights.pp(FRONT))?;
        let card = StudentCard { input_size, map: [3, self.size, self.size], embedding };
        Ok(Box::new(Network { card, front, recogniser }))
    }
}

/// The restoring network.
struct Front {
    first: Conv2d,
    blocks: Vec<[Conv2d; 2]>,
    after: Conv2d,
    last: Conv2d,
    factor: usize,
}

impl Front {
    fn new(options: &SuperResolution, factor: usize, weights: &Weights) -> Result<Self> {
        let config = ConvConfig { padding: 1, bias: true, ..ConvConfig::default() };
        let width = options.channels;
        let conv = |inputs: usize, name: String| Conv2d::new(inputs, width, 3, config, &weights.pp(name));
        let block = |at: usize| -> Result<[Conv2d; 2]> {
            Ok([conv(width, format!("blocks.{at}.0"))?, conv(width, format!("blocks.{at}.1"))?])
        };
        let zero = Init::Constant(0.0);
        Ok(Self {
            first: conv(3, "first".into())?,
            blocks: (0..options.blocks).map(block).collect::<Result<_>>()?,
            after: conv(width, "after".into())?,
            last: Conv2d::with_init(width, 3 * factor * factor, 3, config, zero, &weights.pp("last"))?,
            factor,
        })
    }

    fn forward(&self, faces: &Tensor) -> Result<Tensor> {
        let first = self.first.forward(&faces.affine(2.0, -1.0)?)?;
        let mut x = first.clone();
        for [one, two] in &self.blocks {
            x = (&x + (two.forward(&relu(&one.forward(&x)?)?)? * RESIDUAL)?)?;
        }
        let detail = shuffled(&self.last.forward(&(self.after.forward(&x)? + first)?)?, self.factor)?;
        Ok((resize_bicubic(faces, detail.dim(3)?)? + detail)?)
    }
}

/// `[batch, c f^2, h, w]` as `[batch, c, h f, w f]`, as PyTorch's `pixel_shuffle`.
fn shuffled(x: &Tensor, factor: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let channels = channels / (factor * factor);
    let parts = x.reshape(&[batch, channels, factor, factor, height, width])?;
    let parts = parts.permute(vec![0, 1, 4, 2, 5, 3])?.contiguous()?;
    Ok(parts.reshape((batch, channels, height * factor, width * factor))?)
}

struct Network {
    card: StudentCard,
    front: Front,
    recogniser: Box<dyn Student>,
}

impl Student for Network {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn input(&self) -> Option<Preprocessing> {
        Some(Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() })
    }

    fn backbone(&self, faces: &FaceBatch, _: Mode) -> Result<Tensor> {
        self.front.forward(faces.tensor())
    }

    fn head(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        let restored = FaceBatch::from_tensor(map.clamp(0f32, 1f32)?)?;
        self.recogniser.head(&self.recogniser.backbone(&restored, mode)?, mode)
    }

    fn part(&self, parameter: &str) -> Part {
        if is_front(parameter) { Part::Backbone } else { Part::Head }
    }

    fn replaces(&self, tensor: &str) -> bool {
        is_front(tensor)
    }
}

fn is_front(tensor: &str) -> bool {
    tensor.strip_prefix(FRONT).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use candle_core::Device;
    use gdrd_core::nn::weights::{Draw, Variables};

    use super::*;

    fn config() -> SuperResolution {
        let trunk = ResnetTrunk {
            channels: vec![4],
            blocks: vec![1],
            strides: vec![2],
            embedding: 5,
            ..ResnetTrunk::default()
        };
        SuperResolution { size: 24, channels: 6, blocks: 2, recogniser: RestoredFaceRecogniser::ResnetTrunk(trunk) }
    }

    fn made(config: &dyn StudentConfig, size: usize) -> Result<(Box<dyn Student>, Variables)> {
        let draw: Rc<Draw> = Rc::new(|name, count, init| match init {
            Init::Constant(value) => vec![value; count],
            _ => (0..count).map(|at| ((name.len() * 31 + at * 7919) % 201) as f32 / 500.0 - 0.2).collect(),
        });
        Weights::create(&Device::Cpu, draw, |w| gdrd_core::student::build(config, size, w, &Bare(Device::Cpu)))
    }

    fn faces() -> FaceBatch {
        let values = (0..2 * 3 * 64).map(|at| ((at * 37 % 101) as f32) / 101.0).collect();
        let tensor = Tensor::from_vec(values, (2, 3, 8, 8), &Device::Cpu).expect("faces");
        FaceBatch::from_tensor(tensor).expect("a batch")
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().and_then(|x| x.to_vec1()).expect("values")
    }

    #[test]
    fn it_begins_as_the_recogniser_of_enlarged_faces_and_learns_through_it() {
        let config = config();
        let (student, variables) = made(&config, 8).expect("a student");
        assert_eq!(student.card().map, [3, 24, 24]);
        let map = student.backbone(&faces(), Mode::Train).expect("a face");
        let enlarged = resize_bicubic(faces().tensor(), 24).expect("a face");
        assert_eq!(values(&map), values(&enlarged));
        let (alone, _) = made(config.recogniser.config(), 24).expect("a recogniser");
        let restored = FaceBatch::from_tensor(enlarged.clamp(0f32, 1f32).expect("clamped")).expect("a batch");
        let expected = alone.head(&alone.backbone(&restored, Mode::Evaluate).expect("a map"), Mode::Evaluate);
        let found = student.head(&map, Mode::Evaluate).expect("an embedding");
        let apart =
            values(&found).into_iter().zip(values(&expected.expect("an embedding"))).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-5);
        // Through the recogniser as it evaluates: the last layer begins as zero, and those before it have no gradient yet.
        let gradients = found.sqr().and_then(|x| x.sum_all()).and_then(|x| x.backward()).expect("gradients");
        let last = &variables.parameters["front.last.weight"];
        let gradient = values(gradients.get(last.as_tensor()).expect("a gradient"));
        assert!(gradient.iter().any(|value| *value != 0.0));
        let parts: BTreeMap<&str, Part> = ["front.first.weight", "backbone.stem.conv.weight", "frontier"]
            .map(|name| (name, student.part(name)))
            .into();
        assert_eq!(parts.into_values().collect::<Vec<_>>(), [Part::Head, Part::Backbone, Part::Head]);
    }

    #[test]
    fn channels_become_pixels() {
        let x = Tensor::arange(0f32, 16.0, &Device::Cpu).and_then(|x| x.reshape((1, 4, 2, 2))).expect("a map");
        let found = values(&shuffled(&x, 2).expect("shuffled"));
        // torch.nn.functional.pixel_shuffle(torch.arange(16.).reshape(1, 4, 2, 2), 2)
        assert_eq!(found, [0., 4., 1., 5., 8., 12., 9., 13., 2., 6., 3., 7., 10., 14., 11., 15.]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let error = made(&config(), 10).err().expect("24 is no multiple of 10").to_string();
        assert!(error.contains("expected a multiple of the small face's 10 pixels, found 24"), "{error}");
        let trunk = ResnetTrunk { channels: Vec::new(), ..ResnetTrunk::default() };
        let problems = SuperResolution { recogniser: RestoredFaceRecogniser::ResnetTrunk(trunk), ..config() }.check();
        assert!(problems.iter().any(|problem| problem.key == "recogniser"), "{problems:?}");
    }
}
