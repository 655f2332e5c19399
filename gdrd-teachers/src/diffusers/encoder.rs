//! The encoder half of diffusers' image networks, as a source of features.

use std::collections::BTreeMap;

use candle_core::Tensor;
use gdrd_core::error::{Error, Result};
use gdrd_core::nn::{Conv2d, GroupNorm, Weights};
use gdrd_core::recipe::diagnostic::suggest;

use super::blocks::{Attention, Halve, Norms, Residual, conv1, conv3};

/// What the networks differ in.
#[derive(Clone, Debug)]
pub(super) struct Layout<'a> {
    pub(super) in_channels: usize,
    /// Channels of each level; each level halves the size.
    pub(super) channels: &'a [usize],
    /// Whether each level has attention.
    pub(super) attention: Vec<bool>,
    pub(super) middle_attention: bool,
    /// Residual blocks of each level.
    pub(super) layers: usize,
    /// Channels of an attention head; one head if there are none.
    pub(super) head_channels: Option<usize>,
    pub(super) norms: Norms,
    /// Border of the strided convolutions.
    pub(super) padding: usize,
    /// Width of the time embedding, where the network has a time.
    pub(super) time: Option<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Convolution(Conv2d),
    Residual(Box<Residual>),
    Attention(Attention),
    Halve(Halve),
    /// Normalisation and SiLU.
    Norm(GroupNorm),
    /// The first half of the channels.
    Mean,
}

/// Steps in a row. A step, and the last step of a block, can be tapped by its name.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoder {
    steps: Vec<(Step, usize)>,
    places: Vec<(String, usize)>,
}

impl Encoder {
    /// `conv_in`, `down_blocks` and `mid_block`.
    pub(super) fn new(layout: &Layout, weights: &Weights) -> Result<Self> {
        let mut made = Self::default();
        let mut channels = layout.channels[0];
        made.push("conv_in", channels, Step::Convolution(conv3(layout.in_channels, channels, &weights.pp("conv_in"))?));
        for (level, &outputs) in layout.channels.iter().enumerate() {
            let block = format!("down_blocks.{level}");
            for layer in 0..layout.layers {
                made.residual(&format!("{block}.resnets.{layer}"), channels, outputs, layout, weights)?;
                channels = outputs;
                if layout.attention[level] {
                    made.attention(&format!("{block}.attentions.{layer}"), channels, layout, weights)?;
                }
            }
            if level + 1 < layout.channels.len() {
                let name = format!("{block}.downsamplers.0");
                made.push(&name, channels, Step::Halve(Halve::new(channels, layout.padding, &weights.pp(&name))?));
            }
            made.name(block);
        }
        made.residual("mid_block.resnets.0", channels, channels, layout, weights)?;
        if layout.middle_attention {
            made.attention("mid_block.attentions.0", channels, layout, weights)?;
        }
        made.residual("mid_block.resnets.1", channels, channels, layout, weights)?;
        made.name("mid_block".into());
        Ok(made)
    }

    /// Adds an autoencoder's way from the middle to `latent`, the mean of `latents` channels. `quant` are the weights of
    /// its last convolution, if it has one.
    pub(super) fn add_latent(
        &mut self,
        latents: usize,
        norms: Norms,
        weights: &Weights,
        quant: Option<&Weights>,
    ) -> Result<()> {
        let channels = self.steps.last().map_or(0, |(_, channels)| *channels);
        self.push("conv_act", channels, Step::Norm(norms.layer(channels, &weights.pp("conv_norm_out"))?));
        let conv = conv3(channels, 2 * latents, &weights.pp("conv_out"))?;
        self.push("conv_out", 2 * latents, Step::Convolution(conv));
        if let Some(quant) = quant {
            self.push("quant_conv", 2 * latents, Step::Convolution(conv1(2 * latents, 2 * latents, quant)?));
        }
        self.push("latent", latents, Step::Mean);
        Ok(())
    }

    fn residual(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        layout: &Layout,
        weights: &Weights,
    ) -> Result<()> {
        let residual = Residual::new(inputs, outputs, layout.time, layout.norms, &weights.pp(name))?;
        self.push(name, outputs, Step::Residual(Box::new(residual)));
        Ok(())
    }

    fn attention(&mut self, name: &str, channels: usize, layout: &Layout, weights: &Weights) -> Result<()> {
        let heads = layout.head_channels.map_or(1, |width| channels / width);
        self.push(name, channels, Step::Attention(Attention::new(channels, heads, layout.norms, &weights.pp(name))?));
        Ok(())
    }

    fn push(&mut self, name: &str, channels: usize, step: Step) {
        self.steps.push((step, channels));
        self.name(name.to_string());
    }

    /// Gives the last step a name.
    fn name(&mut self, name: String) {
        self.places.push((name, self.steps.len() - 1));
    }

    /// The names of all taps, in the order of the network.
    pub(super) fn maps(&self) -> Vec<String> {
        self.places.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The step that a tap names.
    fn place(&self, tap: &str) -> Result<usize> {
        let found = self.places.iter().find(|(name, _)| name == tap);
        found.map(|(_, step)| *step).ok_or_else(|| {
            let hint = suggest(tap, self.places.iter().map(|(name, _)| name.as_str()));
            Error::component(format!("there is no feature map `{tap}`; {hint}"))
        })
    }

    /// `[channels, height, width]` of a tap for a square input of `input_size` pixels; nothing is run.
    ///
    /// # Errors
    /// If there is no such tap, or the input is too small to be halved so often.
    pub(super) fn tap_shape(&self, tap: &str, input_size: usize) -> Result<[usize; 3]> {
        let place = self.place(tap)?;
        let mut size = input_size;
        for (step, _) in &self.steps[..=place] {
            if let Step::Halve(halve) = step {
                size = halve.size(size);
            }
        }
        if size == 0 {
            return Err(Error::component(format!("an input of {input_size} pixels vanishes before `{tap}`")));
        }
        Ok([self.steps[place].1, size, size])
    }

    /// The features at `wanted`, in its order, of `x` `[batch, in_channels, h, w]`. Steps after the last tap are not run.
    ///
    /// # Errors
    /// If there is no such tap.
    pub(super) fn taps(&self, x: &Tensor, time: Option<&Tensor>, wanted: &[&str]) -> Result<Vec<Tensor>> {
        let places = wanted.iter().map(|tap| self.place(tap)).collect::<Result<Vec<_>>>()?;
        let last = places.iter().max().map_or(0, |last| last + 1);
        let mut found = BTreeMap::new();
        let mut h = x.clone();
        for (at, (step, channels)) in self.steps[..last].iter().enumerate() {
            h = match step {
                Step::Convolution(conv) => conv.forward(&h)?,
                Step::Residual(residual) => residual.forward(&h, time)?,
                Step::Attention(attention) => attention.forward(&h)?,
                Step::Halve(halve) => halve.forward(&h)?,
                Step::Norm(norm) => norm.forward_silu(&h, None)?,
                Step::Mean => h.narrow(1, 0, *channels)?.contiguous()?,
            };
            if places.contains(&at) {
                found.insert(at, h.clone());
            }
        }
        Ok(places.iter().map(|place| found[place].clone()).collect())
    }
}
