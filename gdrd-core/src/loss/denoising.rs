//! The objective of denoising diffusion, with which a small generative teacher is trained.

use candle_core::{Device, Tensor};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{About, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::context::BuildContext;
use crate::error::Result;
use crate::nn::diffusion::{Diffusion, NoiseSchedule, STEPS};
use crate::nn::kernels::put;
use crate::plugin::Kind;
use crate::seed::normal;

/// `|| noise - U(x_t, t) ||^2` with t uniform in 0..1000 (Ho et al., NeurIPS 2020, Eq. 14).
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Denoising {
    /// How noise grows with t.
    pub schedule: NoiseSchedule,
}

impl Kind for Denoising {
    const NAME: &'static str = "denoising";
    const PURPOSE: &'static str = "a diffusion network predicts the noise in a face";
}

impl LossConfig for Denoising {
    fn needs(&self) -> Needs {
        Needs { denoiser: true, ..Needs::default() }
    }

    fn about(&self) -> About {
        About { equation: "|| noise - U(x_t, t) ||^2", memory: "the network's maps" }
    }

    fn build(&self, _: &BuildContext) -> Result<Box<dyn Loss>> {
        Ok(Box::new(NoisePrediction { schedule: Diffusion::new(self.schedule, STEPS)? }))
    }
}

struct NoisePrediction {
    schedule: Diffusion,
}

impl Loss for NoisePrediction {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let (batch, student) = inputs.denoiser()?;
        let faces = batch.tensor().affine(2.0, -1.0)?;
        let mut stream = inputs.stream()?;
        let steps: Vec<usize> = (0..batch.len()).map(|_| stream.random_range(0..STEPS)).collect();
        let noise = normal(&mut stream, faces.elem_count(), 1.0);
        let noise = put(&Tensor::from_vec(noise, faces.shape(), &Device::Cpu)?, faces.device())?;
        let noisy = self.schedule.q_sample(&faces, &steps, &noise)?;
        let timesteps: Vec<f32> = steps.iter().map(|t| *t as f32).collect();
        let found = student.denoise(&noisy, &timesteps)?;
        Ok((found - noise)?.sqr()?.mean_all()?.into())
    }
}
