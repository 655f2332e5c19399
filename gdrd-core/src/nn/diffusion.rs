//! The diffusion process around a denoiser: noise levels, noising, and plain DDIM sampling.

use std::f64::consts::FRAC_PI_2;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::kernels::put;
use super::resize_bicubic;
use crate::error::{Error, Result};
use crate::face::FaceBatch;

/// Timesteps of every public face model.
pub const STEPS: usize = 1000;

/// How the noise grows over the timesteps; the betas are those of guided-diffusion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NoiseSchedule {
    /// Betas from 0.0001 to 0.02 for 1000 steps, scaled for other numbers (Ho et al. 2020).
    #[default]
    Linear,
    /// A cosine for the share of the image (Nichol and Dhariwal 2021).
    Cosine,
}

impl NoiseSchedule {
    /// The variance that each of `steps` timesteps adds.
    fn betas(self, steps: usize) -> Vec<f64> {
        let count = steps as f64;
        match self {
            Self::Linear => {
                let (first, last) = (0.1 / count, 20.0 / count);
                let step = (last - first) / (count - 1.0).max(1.0);
                (0..steps).map(|t| first + step * t as f64).collect()
            }
            Self::Cosine => {
                let share = |t: f64| ((t / count + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
                (0..steps).map(|t| (1.0 - share(t as f64 + 1.0) / share(t as f64)).min(0.999)).collect()
            }
        }
    }
}

/// What a network is shown: the noisy images `x` `[batch, c, h, w]` in `[-1, 1]`, and behind them, where there is a condition, its
/// three channels, enlarged to the same square by the bicubic filter.
///
/// # Errors
/// If the condition has another number of faces, or the images are not square.
pub fn conditioned(x: &Tensor, condition: Option<&FaceBatch>) -> Result<Tensor> {
    let Some(condition) = condition else { return Ok(x.clone()) };
    let enlarged = resize_bicubic(condition.tensor(), x.dim(3)?)?.affine(2.0, -1.0)?;
    Ok(Tensor::cat(&[x, &enlarged], 1)?)
}

/// A Gaussian diffusion process: `x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise`, `a_t` the share of the image at `t`.
#[derive(Clone, Debug)]
pub struct Diffusion {
    alphas_cumprod: Vec<f64>,
}

impl Diffusion {
    /// The process of `schedule` with timesteps 0 to `steps - 1`; the public models have 1000 steps.
    ///
    /// # Errors
    /// If there are fewer than 21 steps: the linear schedule's last beta would pass 1.
    pub fn new(schedule: NoiseSchedule, steps: usize) -> Result<Self> {
        if steps < 21 {
            return Err(Error::recipe(format!("a diffusion process needs at least 21 timesteps, found {steps}")));
        }
        let mut share = 1.0;
        let shrink = |beta: f64| {
            share *= 1.0 - beta;
            share
        };
        Ok(Self { alphas_cumprod: schedule.betas(steps).into_iter().map(shrink).collect() })
    }

    /// Number of timesteps.
    pub fn steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The share of the image's variance that is left at each timestep: decreases from almost 1 to almost 0.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// The noisy images of `x0` `[batch, c, h, w]` in `[-1, 1]`: image i at timestep `t[i]`, with `noise` (standard normal,
    /// the shape of `x0`).
    ///
    /// # Errors
    /// If there is not one timestep for each image, or one is out of range.
    pub fn q_sample(&self, x0: &Tensor, t: &[usize], noise: &Tensor) -> Result<Tensor> {
        let batch = x0.dim(0)?;
        if t.len() != batch {
            return Err(Error::component(format!("expected {batch} timesteps, found {}", t.len())));
        }
        let shares: Vec<f64> = t.iter().map(|t| self.share(*t)).collect::<Result<_>>()?;
        let column = |f: fn(f64) -> f64, device: &Device| {
            let values = shares.iter().map(|share| f(*share) as f32).collect();
            put(&Tensor::from_vec(values, (batch, 1, 1, 1), &Device::Cpu)?, device)
        };
        let signal = x0.broadcast_mul(&column(f64::sqrt, x0.device())?)?;
        let noise = noise.broadcast_mul(&column(|share| (1.0 - share).sqrt(), x0.device())?)?;
        Ok((signal + noise)?)
    }

    /// Images from `noise` `[batch, c, h, w]` (standard normal) by `steps` evenly spaced steps of DDIM without fresh noise
    /// (Song et al. 2021, eta 0), in `[-1, 1]`.
    ///
    /// `denoise(x_t, timesteps)` predicts the noise in its first `c` channels; further channels (a learnt variance)
    /// are not used. The predicted image is kept in `[-1, 1]`, as guided-diffusion does.
    ///
    /// # Errors
    /// If `steps` is zero or more than the process has, or `denoise` fails.
    pub fn ddim_sample(
        &self,
        noise: &Tensor,
        steps: usize,
        mut denoise: impl FnMut(&Tensor, &[f32]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (batch, channels, _, _) = noise.dims4()?;
        let timesteps = self.spaced(steps)?;
        let mut x = noise.clone();
        for (index, t) in timesteps.iter().enumerate().rev() {
            let share = self.share(*t)?;
            let share_after = if index == 0 { 1.0 } else { self.share(timesteps[index - 1])? };
            let predicted = denoise(&x, &vec![*t as f32; batch])?.narrow(1, 0, channels)?.detach();
            let image = ((&x - (predicted * (1.0 - share).sqrt())?)? * (1.0 / share.sqrt()))?.clamp(-1f32, 1f32)?;
            // The noise that fits the image after it was kept in range.
            let noise = ((&x - (&image * share.sqrt())?)? * (1.0 / (1.0 - share).sqrt()))?;
            x = ((image * share_after.sqrt())? + (noise * (1.0 - share_after).sqrt())?)?;
        }
        Ok(x)
    }

    /// `steps` timesteps from the first to the last; a single one is the last.
    fn spaced(&self, steps: usize) -> Result<Vec<usize>> {
        let last = self.steps() - 1;
        if steps == 0 || steps > self.steps() {
            return Err(Error::component(format!("expected 1 to {} sampling steps, found {steps}", last + 1)));
        }
        if steps == 1 {
            return Ok(vec![last]);
        }
        let stride = last as f64 / (steps - 1) as f64;
        Ok((0..steps).map(|index| (index as f64 * stride).round() as usize).collect())
    }

    fn share(&self, t: usize) -> Result<f64> {
        let found = self.alphas_cumprod.get(t).copied();
        found.ok_or_else(|| Error::component(format!("expected timesteps 0 to {}, found {t}", self.steps() - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().and_then(|x| x.to_vec1()).expect("values")
    }

    fn image() -> Tensor {
        let values = (0..24).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_vec(values, (2, 3, 2, 2), &Device::Cpu).expect("an image")
    }

    #[test]
    fn an_image_fades_from_whole_to_none() {
        for schedule in [NoiseSchedule::Linear, NoiseSchedule::Cosine] {
            let diffusion = Diffusion::new(schedule, 1000).expect("a process");
            let shares = diffusion.alphas_cumprod();
            assert!(shares[0] > 0.999 && shares[999] < 1e-4, "{schedule:?}");
            assert!(shares.windows(2).all(|pair| pair[1] < pair[0]), "{schedule:?}");
        }
        let linear = Diffusion::new(NoiseSchedule::Linear, 1000).expect("a process");
        assert!((linear.alphas_cumprod()[0] - 0.9999).abs() < 1e-12);
    }

    #[test]
    fn noise_has_the_variance_that_the_image_lost() {
        let diffusion = Diffusion::new(NoiseSchedule::Linear, 100).expect("a process");
        let (x0, noise) = (image(), (image() * -0.5).expect("noise"));
        let noisy = values(&diffusion.q_sample(&x0, &[0, 60], &noise).expect("noisy images"));
        for (i, (noisy, x0)) in noisy.iter().zip(values(&x0)).enumerate() {
            let share = diffusion.alphas_cumprod()[if i < 12 { 0 } else { 60 }];
            let expected = x0 * (share.sqrt() - 0.5 * (1.0 - share).sqrt()) as f32;
            assert!((noisy - expected).abs() < 1e-6);
        }
        assert!(diffusion.q_sample(&x0, &[0], &noise).is_err() && diffusion.q_sample(&x0, &[0, 100], &noise).is_err());
    }

    #[test]
    fn a_denoiser_that_knows_the_image_finds_it() {
        let diffusion = Diffusion::new(NoiseSchedule::Cosine, 100).expect("a process");
        let x0 = image();
        let know = |x: &Tensor, t: &[f32]| -> Result<Tensor> {
            let share = diffusion.alphas_cumprod()[t[0] as usize];
            let noise = ((x - (&x0 * share.sqrt())?)? * (1.0 / (1.0 - share).sqrt()))?;
            Ok(Tensor::cat(&[&noise, &noise], 1)?)
        };
        let noise = image().flip(&[0]).expect("noise");
        for steps in [1, 7, 100] {
            let found = diffusion.ddim_sample(&noise, steps, know).expect("a sample");
            assert!(values(&found).iter().zip(values(&x0)).all(|(a, b)| (a - b).abs() < 1e-3), "{steps} steps");
        }
    }
}
