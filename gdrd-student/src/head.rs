//! S_h: from a feature map to an embedding.

use candle_core::{D, Tensor};
use gdrd_core::error::{Error, Problem, Result};
use gdrd_core::nn::{BatchNorm, Linear, Mode, Weights, relu};
use serde::{Deserialize, Serialize};

/// The options of a head. The paper says "ReLU fully-connected layers" and no more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeadOptions {
    /// How the map becomes a vector.
    pub pool: Pool,
    /// Widths of fully connected layers with batch normalisation and ReLU before the embedding.
    pub hidden: Vec<usize>,
    /// Whether the embedding is batch-normalised, as in ArcFace's networks.
    pub normalise: bool,
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
        Problem::unless(!self.hidden.contains(&0), "head", || "a hidden layer needs at least one unit".into())
    }
}

pub(crate) struct Head {
    pool: Pool,
    hidden: Vec<(Linear, BatchNorm)>,
    embedding: Linear,
    norm: Option<BatchNorm>,
}

impl Head {
    pub(crate) fn new(options: &HeadOptions, map: [usize; 3], embedding: usize, weights: &Weights) -> Result<Self> {
        let mut width = match options.pool {
            Pool::Flatten => map.iter().product(),
            Pool::Average => map[0],
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
            pool: options.pool,
            hidden,
            embedding: Linear::new(width, embedding, !options.normalise, &weights.pp("embedding"))?,
            norm,
        })
    }

    pub(crate) fn forward(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        if map.rank() != 4 {
            return Err(Error::component(format!(
                "expected a feature map [batch, channels, height, width], found {:?}",
                map.dims()
            )));
        }
        let mut x = match self.pool {
            Pool::Flatten => map.flatten_from(1)?,
            Pool::Average => map.flatten_from(2)?.mean(D::Minus1)?,
        };
        for (linear, norm) in &self.hidden {
            x = relu(&norm.forward(&linear.forward(&x)?, mode)?)?;
        }
        let x = self.embedding.forward(&x)?;
        match &self.norm {
            Some(norm) => norm.forward(&x, mode),
            None => Ok(x),
        }
    }
}
