//! S_h: from a feature map to an embedding.

use candle_core::{D, Tensor};
use gdrd_core::error::{Error, Problem, Result};
use gdrd_core::nn::{Activation, BatchNorm, Dropout, Linear, Map, Mode, Plan, Weights, relu};
use gdrd_core::student::{LastLinear, named};
use serde::{Deserialize, Serialize};

use super::blocks::{BasicBlock, Downsample};
use super::bounds::{MOST_BLOCKS, WIDEST};

/// The options of a head. The paper says "ReLU fully-connected layers" and no more, and not where the backbone ends: the
/// default ends it after the last convolution.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeadOptions {
    /// Channels of convolutional stages that belong to the head, each of which halves the map; none by default.
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = WIDEST))))]
    pub channels: Vec<usize>,
    /// Basic blocks of each of these stages.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = MOST_BLOCKS)))]
    pub blocks: usize,
    /// How the map becomes a vector.
    pub pool: Pool,
    /// Widths of fully connected layers with batch normalisation and ReLU before the embedding.
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = WIDEST))))]
    pub hidden: Vec<usize>,
    /// Share of the values before the last fully connected layer that a training step leaves out, 0 to below 1; 0.4 is usual
    /// for recognisers.
    #[cfg_attr(feature = "train", schemars(range(min = 0), extend("exclusiveMaximum" = 1)))]
    pub dropout: f64,
    /// Whether the embedding is batch-normalised, as in ArcFace's networks.
    pub normalise: bool,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self {
            channels: Vec::new(),
            blocks: 1,
            pool: Pool::default(),
            hidden: Vec::new(),
            dropout: 0.0,
            normalise: false,
        }
    }
}

/// How a feature map becomes a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// All values, channel by channel.
    #[default]
    Flatten,
    /// The mean of each channel.
    Average,
}

impl HeadOptions {
    /// What is wrong with the options.
    pub fn check(&self) -> Option<Problem> {
        let problem = Problem::all_within("channels", &self.channels, 1..=WIDEST)
            .or_else(|| Problem::within("blocks", self.blocks, 1..=MOST_BLOCKS))
            .or_else(|| Problem::all_within("hidden", &self.hidden, 1..=WIDEST))
            .or_else(|| {
                Problem::unless((0.0..1.0).contains(&self.dropout), "dropout", || {
                    format!("expected at least 0 and below 1, found {}", self.dropout)
                })
            })?;
        Some(Problem::new("head", format!("`{}`: {}", problem.key, problem.message)))
    }
}

pub(crate) struct Head {
    blocks: Vec<BasicBlock>,
    /// Blocks of each of its stages.
    depth: usize,
    pool: Pool,
    hidden: Vec<(Linear, BatchNorm)>,
    dropout: Dropout,
    embedding: Linear,
    norm: Option<BatchNorm>,
}

impl Head {
    pub(crate) fn new(options: &HeadOptions, map: [usize; 3], embedding: usize, weights: &Weights) -> Result<Self> {
        Self::reduced_by(Downsample::Stride, options, map, embedding, weights)
    }

    /// A head whose convolutional stages halve the map so.
    pub(crate) fn reduced_by(
        downsample: Downsample,
        options: &HeadOptions,
        map: [usize; 3],
        embedding: usize,
        weights: &Weights,
    ) -> Result<Self> {
        let [mut channels, mut height, mut width] = map;
        let mut blocks = Vec::new();
        for (at, &outputs) in options.channels.iter().enumerate() {
            let place = weights.pp(format!("stage{at}"));
            downsample.check([height, width])?;
            blocks.extend(BasicBlock::stage(channels, outputs, (2, downsample), options.blocks, &place)?);
            (channels, height, width) = (outputs, height.div_ceil(2), width.div_ceil(2));
        }
        let mut width = match options.pool {
            Pool::Flatten => channels * height * width,
            Pool::Average => channels,
        };
        let mut hidden = Vec::new();
        for (at, &units) in options.hidden.iter().enumerate() {
            let layer = weights.pp("hidden").pp(at);
            // Normalisation brings its own offset.
            hidden.push((Linear::new(width, units, false, &layer.pp("fc"))?, BatchNorm::new(units, &layer.pp("bn"))?));
            width = units;
        }
        let norm = options.normalise.then(|| BatchNorm::new(embedding, &weights.pp("norm"))).transpose()?;
        Ok(Self {
            blocks,
            depth: options.blocks,
            pool: options.pool,
            hidden,
            dropout: Dropout::new(options.dropout, "head.embedding"),
            embedding: Linear::new(width, embedding, !options.normalise, &weights.pp("embedding"))?,
            norm,
        })
    }

    /// The last layer, whose variables lie below `place`; none if its values are normalised after it.
    pub(crate) fn last_linear(&self, place: &str) -> Option<LastLinear> {
        let (outputs, inputs) = self.embedding.weight().dims2().ok()?;
        let name = |of: &str| format!("{place}.embedding.{of}");
        self.norm.is_none().then(|| LastLinear { weight: name("weight"), bias: name("bias"), inputs, outputs })
    }

    /// The maps after each of its convolutional stages, as it evaluates.
    fn maps(&self, map: &Tensor) -> Result<Vec<Tensor>> {
        let mut map = map.clone();
        let mut maps = Vec::new();
        for blocks in self.blocks.chunks(self.depth) {
            for block in blocks {
                map = block.forward(&map, Mode::Evaluate)?;
            }
            maps.push(map.clone());
        }
        Ok(maps)
    }

    /// The maps that are called `wanted`, of those of a backbone, the last of which is `map`, and of the head; `names` are of all in
    /// their order. The head's are made only where one is wanted.
    pub(crate) fn with_maps(
        &self,
        map: &Tensor,
        names: Vec<String>,
        mut backbone: Vec<Tensor>,
        wanted: &[String],
    ) -> Result<Vec<Tensor>> {
        if wanted.iter().any(|name| !names[..backbone.len()].contains(name)) {
            backbone.extend(self.maps(map)?);
        }
        let found: Vec<(String, Tensor)> = names.into_iter().zip(backbone).collect();
        named(&found, wanted)
    }

    /// The names of the head's maps.
    pub(crate) fn map_names(&self) -> impl Iterator<Item = String> {
        (0..self.blocks.len() / self.depth).map(|at| format!("head.stage{at}"))
    }

    /// What the last layer is given, `[batch, inputs]`.
    pub(crate) fn before_last(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        if map.rank() != 4 {
            return Err(Error::component(format!(
                "expected a feature map [batch, channels, height, width], found {:?}",
                map.dims()
            )));
        }
        let mut map = map.clone();
        for block in &self.blocks {
            map = block.forward(&map, mode)?;
        }
        let mut x = match self.pool {
            Pool::Flatten => map.flatten_from(1)?,
            Pool::Average => map.flatten_from(2)?.mean(D::Minus1)?,
        };
        for (linear, norm) in &self.hidden {
            x = relu(&norm.forward(&linear.forward(&x)?, mode)?)?;
        }
        self.dropout.forward(&x, mode)
    }

    pub(crate) fn forward(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = self.embedding.forward(&self.before_last(map, mode)?)?;
        match &self.norm {
            Some(norm) => norm.forward(&x, mode),
            None => Ok(x),
        }
    }

    pub(crate) fn plan(&self, plan: &mut Plan, map: Map) -> Result<Map> {
        let mut map = map;
        for block in &self.blocks {
            map = block.plan(plan, map)?;
        }
        let mut x = match self.pool {
            Pool::Flatten => plan.flatten(map),
            Pool::Average => plan.average(map),
        };
        for (linear, norm) in &self.hidden {
            x = linear.plan(plan, x, Some(norm), &Activation::Relu)?;
        }
        self.embedding.plan(plan, x, self.norm.as_ref(), &Activation::Identity)
    }
}
