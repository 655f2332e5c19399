//! A student: patches of a face that fully connected layers mix (Tolstikhin et al., NeurIPS 2021).

use candle_core::{D, Tensor};
use gdrd_core::context::BuildContext;
use gdrd_core::error::{Error, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::{BatchNorm, Conv2d, ConvConfig, Linear, Mode, Weights, relu};
use gdrd_core::plugin::Kind;
use gdrd_core::student::{Student, StudentCard, StudentConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A small MLP-Mixer: patches become vectors, and each block mixes first places and then channels.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mixer {
    /// Height and width of a patch, in pixels; the view's size is a multiple of it.
    #[schemars(range(min = 1, max = 64))]
    patch: usize,
    /// Values of a patch.
    #[schemars(range(min = 1, max = 4096))]
    channels: usize,
    /// Blocks.
    #[schemars(range(min = 1, max = 64))]
    blocks: usize,
    /// Values between the two layers of a mixture.
    #[schemars(range(min = 1, max = 16384))]
    hidden: usize,
    /// Values in an embedding.
    #[schemars(range(min = 1, max = 4096))]
    embedding: usize,
}

impl Default for Mixer {
    fn default() -> Self {
        Self { patch: 4, channels: 32, blocks: 2, hidden: 64, embedding: 64 }
    }
}

impl Kind for Mixer {
    const NAME: &'static str = "mixer";
    const PURPOSE: &'static str = "a small MLP-Mixer";
}

impl StudentConfig for Mixer {
    /// Every tensor comes from `cx.weights()`: new ones are drawn, those of a student file are read, and one that does not fit is
    /// an error with its name.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (input_size, weights) = (cx.input_size()?, cx.weights()?);
        if !input_size.is_multiple_of(self.patch) {
            let patch = self.patch;
            return Err(Error::component(format!("`patch`: expected a divisor of {input_size} pixels, found {patch}")));
        }
        let side = input_size / self.patch;
        let backbone = weights.pp("backbone");
        let config = ConvConfig { stride: self.patch, bias: true, ..ConvConfig::default() };
        let patches = Conv2d::new(3, self.channels, self.patch, config, &backbone.pp("patches"))?;
        let block = |at| Block::new(self, side * side, &backbone.pp("blocks").pp(at));
        let blocks = (0..self.blocks).map(block).collect::<Result<_>>()?;
        let head = Linear::new(self.channels, self.embedding, true, &weights.pp("head"))?;
        let card = StudentCard { input_size, map: [self.channels, side, side], embedding: Some(self.embedding) };
        Ok(Box::new(Network { card, patches, blocks, head }))
    }
}

/// Two fully connected layers.
struct Mixture {
    first: Linear,
    second: Linear,
}

impl Mixture {
    fn new(width: usize, hidden: usize, weights: &Weights) -> Result<Self> {
        let first = Linear::new(width, hidden, true, &weights.pp("first"))?;
        Ok(Self { first, second: Linear::new(hidden, width, true, &weights.pp("second"))? })
    }

    /// `[rows, width]` to the same.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.second.forward(&relu(&self.first.forward(x)?)?)
    }
}

struct Block {
    norms: [BatchNorm; 2],
    places: Mixture,
    channels: Mixture,
}

impl Block {
    fn new(config: &Mixer, places: usize, weights: &Weights) -> Result<Self> {
        let norm = |name| BatchNorm::new(config.channels, &weights.pp(name));
        Ok(Self {
            norms: [norm("norm0")?, norm("norm1")?],
            places: Mixture::new(places, config.hidden, &weights.pp("places"))?,
            channels: Mixture::new(config.channels, config.hidden, &weights.pp("channels"))?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let y = self.norms[0].forward(x, mode)?.reshape((batch * channels, height * width))?;
        let x = (x + self.places.forward(&y)?.reshape(x.dims())?)?;
        let y = self.norms[1].forward(&x, mode)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let y = self.channels.forward(&y.reshape((batch * height * width, channels))?)?;
        let y = y.reshape((batch, height * width, channels))?.transpose(1, 2)?.contiguous()?;
        Ok((&x + y.reshape(x.dims())?)?)
    }
}

struct Network {
    card: StudentCard,
    patches: Conv2d,
    blocks: Vec<Block>,
    head: Linear,
}

impl Student for Network {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn backbone(&self, faces: &FaceBatch, mode: Mode) -> Result<Tensor> {
        let x = self.patches.forward(&faces.tensor().affine(2.0, -1.0)?)?;
        self.blocks.iter().try_fold(x, |x, block| block.forward(&x, mode))
    }

    fn head(&self, map: &Tensor, _: Mode) -> Result<Tensor> {
        self.head.forward(&map.flatten_from(2)?.mean(D::Minus1)?)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::Device;
    use gdrd_core::face::Face;
    use gdrd_core::plugin::Workbench;
    use gdrd_core::seed::Seed;
    use gdrd_core::student::build;

    use super::*;

    #[test]
    fn a_network_from_its_tensors_is_the_same_network() {
        let config = Mixer { channels: 6, hidden: 5, embedding: 7, ..Mixer::default() };
        let bench = Workbench::new(Device::Cpu);
        let faces: Vec<Face> = (0..3)
            .map(|n| Face::new(16, 16, (0..768).map(|i| (i * (n + 3)) as u8).collect()).expect("a face"))
            .collect();
        let faces = FaceBatch::from_faces(&faces, &Device::Cpu).expect("a batch");
        let embed = |student: &dyn Student| {
            let map = student.backbone(&faces, Mode::Evaluate).expect("a map");
            assert_eq!(map.dims()[1..], student.card().map);
            student.head(&map, Mode::Evaluate).and_then(|t| Ok(t.to_vec2::<f32>()?)).expect("embeddings")
        };
        let draw = Rc::new(|name: &str, count, init| Seed(7).draw(name, count, init));
        let (student, variables) =
            Weights::create(&Device::Cpu, draw, |weights| build(&config, 16, weights, &bench)).expect("a student");
        let new = embed(&*student);
        assert_eq!((new.len(), new[0].len()), (3, 7));
        student.backbone(&faces, Mode::Train).expect("a map");
        assert_ne!(embed(&*student), new, "running statistics move");
        let read =
            Weights::read(variables.tensors(), &Device::Cpu, |_| false, |weights| build(&config, 16, weights, &bench));
        let (read, trained) = (embed(&*read.expect("a student")), embed(&*student));
        let gap = read.iter().flatten().zip(trained.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap < 1e-4, "{gap}");
    }

    #[test]
    fn a_size_that_patches_do_not_fill_is_refused() {
        let bench = Workbench::new(Device::Cpu);
        let draw = Rc::new(|name: &str, count, init| Seed(7).draw(name, count, init));
        let made = Weights::create(&Device::Cpu, draw, |weights| build(&Mixer::default(), 18, weights, &bench));
        let text = made.err().expect("no student").to_string();
        assert!(text.contains("`patch`: expected a divisor of 18 pixels, found 4"), "{text}");
    }
}
