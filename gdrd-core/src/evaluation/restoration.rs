//! What a denoiser knows of faces: how well it finds the noise at each timestep, and what it restores of a small face.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::{RESAMPLES, mean_interval};
use super::outcome::{Curve, Figure, Matrix, Outcome, Unit, digest_of_items};
use super::{Protocol, ProtocolConfig};
use crate::context::BuildContext;
use crate::data::{Dataset, Degradation, tiled};
use crate::degrade::Downscale;
use crate::embedder::{Denoiser, Embedder};
use crate::error::{Context, Error, Result};
use crate::face::{Face, FaceBatch};
use crate::nn::diffusion::{Diffusion, NoiseSchedule, STEPS, conditioned};
use crate::nn::kernels::put;
use crate::nn::resize_bicubic;
use crate::plugin::{DatasetName, Kind, ViewName};
use crate::seed::{Seed, normal};

/// Faces that the network sees at once.
const BATCH: usize = 32;
/// Faces in the picture.
const COLUMNS: usize = 12;

/// What a student of kind `diffusion-unet` knows of faces that it was not trained on. The noise of a face is the same at every
/// timestep and in every run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restoration {
    /// The dataset's name in the recipe.
    pub data: DatasetName,
    /// How noise grows with the timestep: as in the stage that trained the network.
    #[serde(default)]
    pub schedule: NoiseSchedule,
    /// The view that is the network's condition, as in the stage that trained it; none when left out.
    #[serde(default)]
    pub condition: Option<ViewName>,
    /// Faces that are measured, taken from all over the dataset.
    #[serde(default = "default_faces")]
    #[schemars(range(min = 2, max = 100_000))]
    pub faces: usize,
    /// Timesteps at which the noise is looked for: the middles of as many equal stretches of 0 to 999.
    #[serde(default = "default_timesteps")]
    #[schemars(range(min = 1, max = 100))]
    pub timesteps: usize,
    /// Steps of DDIM in which a face is restored from noise alone.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = STEPS))]
    pub steps: usize,
}

fn default_faces() -> usize {
    128
}

fn default_timesteps() -> usize {
    10
}

fn default_steps() -> usize {
    10
}

impl Kind for Restoration {
    const NAME: &'static str = "restoration";
    const PURPOSE: &'static str =
        "what a diffusion network knows of faces: its loss by timestep, and small faces restored";
}

impl ProtocolConfig for Restoration {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>> {
        let dataset = cx.dataset(&self.data)?;
        if dataset.len() < 2 {
            return Err(Error::data(format!("`data`: expected at least 2 faces, found {}", dataset.len())));
        }
        let condition = match &self.condition {
            None => None,
            Some(name) => {
                let view = cx.part::<dyn Degradation>("view", name)?;
                let small = view.downscale().filter(|_| !view.is_random()).cloned();
                Some(small.ok_or_else(|| {
                    Error::recipe(format!("the view `{name}` brings faces to no size without chance"))
                })?)
            }
        };
        Ok(Box::new(Faces {
            config: self.clone(),
            dataset,
            condition,
            diffusion: Diffusion::new(self.schedule, STEPS)?,
        }))
    }
}

struct Faces {
    config: Restoration,
    dataset: Arc<dyn Dataset>,
    condition: Option<Downscale>,
    diffusion: Diffusion,
}

/// Some faces as the network is trained on them.
struct Sample {
    /// As it restores them.
    whole: FaceBatch,
    /// As its condition.
    small: Option<FaceBatch>,
    /// Standard normal, `[faces, 3, n, n]`.
    noise: Tensor,
}

impl Faces {
    /// The index of one of `count` faces from all over the dataset.
    fn index(&self, at: usize, count: usize) -> usize {
        at * self.dataset.len() / count
    }

    /// The faces of these numbers, of `count` from all over the dataset.
    fn sample(
        &self,
        at: std::ops::Range<usize>,
        count: usize,
        network: &dyn Denoiser,
        device: &Device,
    ) -> Result<Sample> {
        let indices: Vec<usize> = at.map(|at| self.index(at, count)).collect();
        let read = |&index: &usize| self.dataset.face(index).at(|| self.dataset.place(index));
        let faces = indices.iter().map(read).collect::<Result<Vec<Face>>>()?;
        let batch = |form: &dyn Fn(&Face) -> Result<Face>| -> Result<FaceBatch> {
            FaceBatch::from_faces(&faces.iter().map(form).collect::<Result<Vec<_>>>()?, device)
        };
        let whole = batch(&|face| network.whole(face))?;
        let small = self.condition.as_ref().map(|view| batch(&|face| view.apply(face))).transpose()?;
        let size = whole.size();
        let of_face =
            |&index: &usize| normal(&mut Seed(7).stream("restoration", &[index as u64]), 3 * size * size, 1.0);
        let noise: Vec<f32> = indices.iter().flat_map(of_face).collect();
        let noise = put(&Tensor::from_vec(noise, (indices.len(), 3, size, size), &Device::Cpu)?, device)?;
        Ok(Sample { whole, small, noise })
    }

    /// The mean square of what is left of the noise of each face at timestep `t`.
    fn left(&self, network: &dyn Denoiser, sample: &Sample, t: usize) -> Result<Vec<f32>> {
        let Sample { whole, small, noise } = sample;
        let noisy = self.diffusion.q_sample(&whole.tensor().affine(2.0, -1.0)?, &vec![t; whole.len()], noise)?;
        let found = network.denoise(&conditioned(&noisy, small.as_ref())?, &vec![t as f32; whole.len()])?;
        Ok((found - noise)?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1()?)
    }

    /// Faces made of noise and the condition, in `[0, 1]`.
    fn restored(&self, network: &dyn Denoiser, sample: &Sample) -> Result<FaceBatch> {
        let denoise = |x: &Tensor, t: &[f32]| network.denoise(&conditioned(x, sample.small.as_ref())?, t);
        let made = self.diffusion.ddim_sample(&sample.noise, self.config.steps, denoise)?;
        FaceBatch::from_tensor(made.affine(0.5, 0.5)?.clamp(0f32, 1f32)?)
    }

    fn timesteps(&self) -> Vec<usize> {
        let count = self.config.timesteps;
        (0..count).map(|at| (2 * at + 1) * STEPS / (2 * count)).collect()
    }
}

/// The mean square of the difference of each face, values in `[0, 1]`.
fn errors(found: &Tensor, whole: &FaceBatch) -> Result<Vec<f32>> {
    Ok((found - whole.tensor())?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1()?)
}

/// The mean over faces of `-10 log10` of each face's mean square error, with its 95 % interval over faces.
fn psnr(name: &str, errors: &[f32]) -> Result<Figure> {
    let decibels: Vec<f64> = errors.iter().map(|error| -10.0 * f64::from(error.max(1e-10)).log10()).collect();
    let interval = mean_interval(&decibels, RESAMPLES, &mut Seed(7).stream("PSNR interval", &[]))?;
    let mean = decibels.iter().sum::<f64>() / errors.len() as f64;
    Ok(Figure::plain(name, mean, Unit::Plain, errors.len()).between(interval.low, interval.high))
}

impl Protocol for Faces {
    fn measures(&self, embedder: &dyn Embedder) -> bool {
        embedder.denoiser().is_some()
    }

    fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome> {
        let network = denoiser(embedder)?;
        let count = self.config.faces.min(self.dataset.len());
        let timesteps = self.timesteps();
        let mut by_timestep = vec![0f64; timesteps.len()];
        let (mut items, mut restored, mut enlarged) = (Vec::new(), Vec::new(), Vec::new());
        for start in (0..count).step_by(BATCH) {
            cx.report(embedder.name(), start, count)?;
            let sample = self.sample(start..(start + BATCH).min(count), count, network, cx.device())?;
            let mut of_faces = vec![0f64; sample.whole.len()];
            for (sum, &t) in by_timestep.iter_mut().zip(&timesteps) {
                let left = self.left(network, &sample, t)?;
                *sum += left.iter().map(|value| f64::from(*value)).sum::<f64>() / count as f64;
                let share = |value: f32| f64::from(value) / timesteps.len() as f64;
                of_faces.iter_mut().zip(left).for_each(|(of_face, value)| *of_face += share(value));
            }
            items.extend(of_faces);
            if let Some(small) = &sample.small {
                restored.extend(errors(self.restored(network, &sample)?.tensor(), &sample.whole)?);
                let by_filter = resize_bicubic(small.tensor(), sample.whole.size())?.clamp(0f32, 1f32)?;
                enlarged.extend(errors(&by_filter, &sample.whole)?);
            }
        }
        cx.report(embedder.name(), count, count)?;
        let mean = items.iter().sum::<f64>() / items.len() as f64;
        let interval = mean_interval(&items, RESAMPLES, &mut Seed(7).stream("denoising interval", &[]))?;
        let loss = Figure::plain("denoising loss", mean, Unit::Plain, count).between(interval.low, interval.high);
        let mut figures = vec![loss.lower_is_better()];
        if !restored.is_empty() {
            figures.push(psnr("PSNR of restored faces, dB", &restored)?);
            figures.push(psnr("PSNR of enlarged faces, dB", &enlarged)?);
        }
        let shares = self.diffusion.alphas_cumprod();
        let row = |(t, loss): (&usize, &f64)| (t.to_string(), vec![100.0 * shares[*t], 100.0 * *loss]);
        Ok(Outcome {
            what: "faces".into(),
            headline: "denoising loss".into(),
            figures,
            curves: vec![Curve {
                name: "Denoising loss".into(),
                x: "timestep".into(),
                y: "mean square of the noise that is left".into(),
                log_x: false,
                points: timesteps.iter().zip(&by_timestep).map(|(t, loss)| (*t as f64, *loss)).collect(),
                reading: String::new(),
            }],
            matrices: vec![Matrix {
                name: "Denoising loss by timestep; 100 % is knowing nothing".into(),
                columns: ["timestep", "face, %", "loss, %"].map(String::from).to_vec(),
                rows: timesteps.iter().zip(&by_timestep).map(row).collect(),
            }],
            items,
            items_digest: digest_of_items((0..count).map(|at| self.dataset.key(self.index(at, count)))),
        })
    }

    fn picture(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Option<Vec<u8>>> {
        let network = denoiser(embedder)?;
        let count = COLUMNS.min(self.dataset.len());
        let sample = self.sample(0..count, count, network, cx.device())?;
        let restored = self.restored(network, &sample)?.to_faces()?;
        let mut rows: Vec<Vec<Face>> = sample.small.iter().map(FaceBatch::to_faces).collect::<Result<_>>()?;
        rows.extend([restored, sample.whole.to_faces()?]);
        tiled(&rows).map(Some)
    }
}

fn denoiser(embedder: &dyn Embedder) -> Result<&dyn Denoiser> {
    embedder.denoiser().ok_or_else(|| Error::component(format!("{} does not denoise", embedder.name())))
}
