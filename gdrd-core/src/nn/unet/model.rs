//! The whole U-Net: a denoiser.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::block::{Block, Resize, Step, attention, conv3, residual, zero_conv3};
use super::config::UnetConfig;
use super::encoder::{UnetEncoder, plain};
use super::patch::scattered;
use crate::error::{Error, Result};
use crate::nn::{Conv2d, GroupNorm, Weights};

/// Encoder, decoder and output convolution; new ones predict zero.
#[derive(Clone, Debug)]
pub struct Unet {
    encoder: UnetEncoder,
    output_blocks: Vec<Block>,
    out_norm: GroupNorm,
    out_conv: Conv2d,
}

impl Unet {
    /// Takes all weights of the network.
    ///
    /// # Errors
    /// If the options do not fit each other.
    pub fn new(config: &UnetConfig, weights: &Weights) -> Result<Self> {
        let encoder = UnetEncoder::new(config, weights)?;
        let mut skips: Vec<usize> = config.input_blocks().iter().map(|block| block.channels()).collect();
        let mut channels = config.middle_channels();
        let mut output_blocks = Vec::new();
        for level in (0..config.channel_mult.len()).rev() {
            for index in 0..=config.blocks(level) {
                let place = weights.pp("output_blocks").pp(output_blocks.len());
                let inputs = channels + skips.pop().unwrap_or(0);
                channels = config.channels(level);
                let mut steps = vec![residual(inputs, channels, Resize::Keep, config, &place.pp(0))?];
                if config.attends(level) {
                    steps.push(attention(channels, config, &place.pp(steps.len()))?);
                }
                if level > 0 && index == config.blocks(level) {
                    let place = place.pp(steps.len());
                    steps.push(if config.resblock_updown {
                        residual(channels, channels, Resize::Up, config, &place)?
                    } else {
                        Step::DoubleConvolution(conv3(channels, channels, 1, &place.pp("conv"))?)
                    });
                }
                output_blocks.push(Block(steps));
            }
        }
        let out = weights.pp("out");
        Ok(Self {
            encoder,
            output_blocks,
            out_norm: GroupNorm::new(config.norm_groups, channels, &out.pp(0))?,
            out_conv: zero_conv3(channels, config.out_channels * config.patch.pow(2), &out.pp(2))?,
        })
    }

    /// The network from the tensors of a checkpoint, as [`UnetEncoder::read`] takes the encoder; the class embedding is dropped.
    ///
    /// # Errors
    /// If the options do not fit each other, or the tensors do not fit the options.
    pub fn read(config: &UnetConfig, tensors: BTreeMap<String, Tensor>, device: &Device) -> Result<Self> {
        let tensors = plain(tensors).filter(|(name, _)| !name.starts_with("label_emb.")).collect();
        Weights::read(tensors, device, |_| false, |weights| Self::new(config, weights))
    }

    /// The encoder; it shares this network's weights.
    pub fn encoder(&self) -> &UnetEncoder {
        &self.encoder
    }

    /// The options.
    pub fn config(&self) -> &UnetConfig {
        self.encoder.config()
    }

    /// The prediction for the noisy images `x` `[batch, in_channels, h, w]` at `timesteps` (0 to 999; one for all images,
    /// or one for each): `[batch, out_channels, h, w]`.
    ///
    /// # Errors
    /// If a side is not a multiple of `patch * 2^(levels - 1)`, or the input has another shape.
    pub fn forward(&self, x: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        let time = self.encoder.embed(x, timesteps)?;
        let multiple = self.config().patch << (self.config().channel_mult.len() - 1);
        let (_, _, h, w) = x.dims4()?;
        if h % multiple != 0 || w % multiple != 0 {
            return Err(Error::component(format!("expected sides that are multiples of {multiple}, found {h}x{w}")));
        }
        let (mut skips, mut h) = self.encoder.all(x, &time)?;
        for block in &self.output_blocks {
            let skip = skips.pop().ok_or_else(|| Error::component("more output blocks than input blocks"))?;
            h = block.forward(&Tensor::cat(&[h, skip], 1)?, &time)?;
        }
        scattered(&self.out_conv.forward(&self.out_norm.forward_silu(&h, None)?)?, self.config().patch)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::DType;

    use super::super::Tap;
    use super::*;
    use crate::nn::Init;
    use crate::nn::weights::{Draw, Variables};

    fn small(resblock_updown: bool) -> UnetConfig {
        UnetConfig {
            image_size: 16,
            model_channels: 8,
            channel_mult: vec![1, 2, 2],
            num_res_blocks: vec![1, 1, 2].into(),
            attention_resolutions: vec![8],
            num_head_channels: Some(4),
            norm_groups: 4,
            resblock_updown,
            ..UnetConfig::openai_64()
        }
    }

    /// A network with a condition, that sees squares of 2x2 pixels.
    fn patched() -> UnetConfig {
        let attention_resolutions = vec![4];
        UnetConfig { in_channels: 6, patch: 2, attention_resolutions, ..small(false) }
    }

    fn new(config: &UnetConfig) -> (Unet, Variables) {
        let draw: Rc<Draw> = Rc::new(|name, count, init| match init {
            Init::Constant(value) => vec![value; count],
            Init::Normal { std: size } | Init::Uniform { bound: size } => {
                (0..count).map(|i| size * ((i * 7 + name.len() * 3) as f32).sin()).collect()
            }
        });
        Weights::create(&Device::Cpu, draw, |weights| Unet::new(config, weights)).expect("a network")
    }

    fn image(size: usize) -> Tensor {
        seen(3, size)
    }

    fn seen(channels: usize, size: usize) -> Tensor {
        let values = (0..2 * channels * size * size).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::from_vec(values, (2, channels, size, size), &Device::Cpu).expect("an image")
    }

    #[test]
    fn taps_have_the_shapes_that_were_foretold() {
        for (config, sizes) in [(small(false), [16, 9, 4]), (small(true), [16, 9, 4]), (patched(), [16, 18, 8])] {
            let (unet, _) = new(&config);
            let blocks = config.input_blocks().len();
            let wanted: Vec<Tap> = (0..blocks).map(Tap::Input).chain([Tap::Middle]).collect();
            for size in sizes {
                let found = unet.encoder().taps(&seen(config.in_channels, size), &[0.0], &wanted).expect("taps");
                for (tap, found) in wanted.iter().zip(found) {
                    let (c, h, w) = config.tap_shape(*tap, size).expect("a shape");
                    assert_eq!(found.dims(), [2, c, h, w], "{tap} at {size}");
                }
            }
        }
    }

    #[test]
    fn new_networks_predict_zero_and_every_parameter_learns() {
        for config in [small(false), small(true), patched()] {
            let (unet, variables) = new(&config);
            let (x, timesteps) = (seen(config.in_channels, 8), [3.0, 500.0]);
            let y = unet.forward(&x, &timesteps).expect("a prediction");
            assert_eq!(y.dims(), [2, 6, 8, 8]);
            assert_eq!(y.abs().and_then(|y| y.max_all()).and_then(|y| y.to_scalar::<f32>()).expect("zero"), 0.0);
            // Away from the zeros of a new network nothing may be cut off from the loss.
            for (name, var) in &variables.parameters {
                let values = (0..var.elem_count()).map(|i| 0.3 * ((i + name.len()) as f32).cos()).collect();
                let values = Tensor::from_vec(values, var.shape(), &Device::Cpu).expect("values");
                var.set(&values).expect("set");
            }
            let y = unet.forward(&x, &timesteps).expect("a prediction");
            let gradients = (y.sqr().and_then(|y| y.mean_all()).expect("loss")).backward().expect("gradients");
            for (name, var) in &variables.parameters {
                let gradient = gradients.get(var).unwrap_or_else(|| panic!("`{name}` has no gradient"));
                let size = gradient.abs().and_then(|g| g.max_all()).and_then(|g| g.to_scalar::<f32>()).expect("size");
                assert!(size > 0.0 && size.is_finite(), "`{name}` has gradient {size}");
            }
        }
    }

    #[test]
    fn patches_want_sides_that_they_divide() {
        let (unet, _) = new(&patched());
        let error = unet.encoder().taps(&seen(6, 9), &[0.0], &[Tap::Middle]).expect_err("an odd side").to_string();
        assert!(error.contains("a multiple of 2 pixels (`patch`), found 9"), "{error}");
        let error = unet.forward(&seen(6, 12), &[0.0]).expect_err("too few halvings").to_string();
        assert!(error.contains("multiples of 8, found 12x12"), "{error}");
        assert!(unet.forward(&image(8), &[0.0]).is_err(), "no condition");
        let odd = UnetConfig { patch: 3, ..patched() };
        assert!(odd.check().expect_err("odd").to_string().contains("`patch` 3 does not divide `image_size` 16"));
    }

    #[test]
    fn the_public_face_models_have_their_number_of_parameters() {
        // From the size of the published file: 639.15 MB of float32.
        for (config, tensors, total) in
            [(UnetConfig::pgdiff_512(), 630, 159_788_454), (UnetConfig::difface_256(), 456, 124_056_710)]
        {
            let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.0; count]);
            let (_, made) = Weights::create(&Device::Cpu, draw, |w| Unet::new(&config, w)).expect("a network");
            assert_eq!(made.parameters.len(), tensors);
            assert_eq!(made.parameters.values().map(|var| var.elem_count()).sum::<usize>(), total);
        }
    }

    #[test]
    fn checkpoints_are_read_with_their_prefix_and_without_their_decoder() {
        let config = small(false);
        let (_, variables) = new(&config);
        let mut tensors: std::collections::BTreeMap<String, Tensor> =
            variables.tensors().into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
        UnetEncoder::read(&config, tensors.clone(), &Device::Cpu).expect("fits");
        tensors.insert("module.extra".into(), Tensor::zeros(1, DType::F32, &Device::Cpu).expect("zeros"));
        let error = UnetEncoder::read(&config, tensors, &Device::Cpu).expect_err("one too many").to_string();
        assert!(error.contains("`extra`"), "{error}");
    }
}
