//! The objective of denoising diffusion, with which a small generative teacher is trained.

use candle_core::{Device, Tensor};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{About, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::context::BuildContext;
use crate::error::Result;
use crate::nn::diffusion::{Diffusion, NoiseSchedule, STEPS, conditioned};
use crate::nn::kernels::put;
use crate::plugin::{Kind, ViewName};
use crate::seed::normal;

/// `|| noise - U(x_t, t) ||^2` with t uniform in 0..1000 (Ho et al., NeurIPS 2020, Eq. 14). With a condition, `U(x_t, c, t)`: the
/// network sees the face in another view beside the noisy one and learns to restore it (Saharia et al., "Image
/// Super-Resolution via Iterative Refinement", 2021).
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Denoising {
    /// How noise grows with t.
    pub schedule: NoiseSchedule,
    /// The view that is the condition, such as `low`; it is brought to the size of the student's view by the bicubic filter and
    /// given as three more channels, so the network needs `in_channels = 6`. None when left out.
    pub condition: Option<ViewName>,
}

impl Kind for Denoising {
    const NAME: &'static str = "denoising";
    const PURPOSE: &'static str = "a diffusion network predicts the noise in a face";
}

impl LossConfig for Denoising {
    fn needs(&self) -> Needs {
        let views = self.condition.iter().map(ViewName::to_string).collect();
        Needs { denoiser: true, views, ..Needs::default() }
    }

    fn about(&self) -> About {
        About { equation: "|| noise - U(x_t, t) ||^2", memory: "the network's maps" }
    }

    fn build(&self, _: &BuildContext) -> Result<Box<dyn Loss>> {
        Ok(Box::new(NoisePrediction {
            schedule: Diffusion::new(self.schedule, STEPS)?,
            is_conditional: self.condition.is_some(),
        }))
    }
}

struct NoisePrediction {
    schedule: Diffusion,
    is_conditional: bool,
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
        let condition = if self.is_conditional { Some(inputs.view(0)?) } else { None };
        let timesteps: Vec<f32> = steps.iter().map(|t| *t as f32).collect();
        let found = student.denoise(&conditioned(&noisy, condition)?, &timesteps)?;
        Ok((found - noise)?.sqr()?.mean_all()?.into())
    }
}
