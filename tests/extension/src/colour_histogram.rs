//! A teacher without weights: how often each colour is in a face.

use candle_core::{Device, Tensor};
use gdrd_core::error::{Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::plugin::Kind;
use gdrd_core::teacher::{Output, Preprocessing, Teacher, TeacherCard, TeacherConfig, View, cannot_offer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The histogram of each colour channel as an embedding.
///
/// What stands here is shown by `kinds colour-histogram`, and the fields are the keys of the recipe.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ColourHistogram {
    /// Bins of each channel; the embedding has three times as many values.
    bins: usize,
}

impl Default for ColourHistogram {
    fn default() -> Self {
        Self { bins: 8 }
    }
}

impl Kind for ColourHistogram {
    const NAME: &'static str = "colour-histogram";
    const PURPOSE: &'static str = "how often each colour is in a face";
}

impl TeacherConfig for ColourHistogram {
    /// Called by `gdrd check`: nothing may touch the disk here.
    fn check(&self) -> Vec<Problem> {
        Problem::unless(self.bins > 0, "bins", || "expected at least 1, found 0".into()).into_iter().collect()
    }

    fn build(&self, _: &Device) -> Result<Box<dyn Teacher>> {
        let card = TeacherCard {
            input_size: None,
            preprocessing: Preprocessing::none(),
            view: View::High,
            // Stored features are found by this text: it must tell of everything that changes them.
            digest: format!("colour-histogram 1, {} bins", self.bins),
            default_map: None,
        };
        Ok(Box::new(Live { card, bins: self.bins }))
    }
}

struct Live {
    card: TeacherCard,
    bins: usize,
}

impl Teacher for Live {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        match output {
            Output::Embedding => Ok(vec![3 * self.bins]),
            other => Err(cannot_offer(other, "`embedding`")),
        }
    }

    fn features(&self, faces: &FaceBatch, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let values = faces.tensor().flatten_from(2)?.to_vec3::<f32>()?;
        let mut counts = vec![0f32; faces.len() * 3 * self.bins];
        for (row, channel) in values.iter().flatten().enumerate() {
            for value in channel {
                let bin = ((value * self.bins as f32) as usize).min(self.bins - 1);
                counts[row * self.bins + bin] += 1.0 / channel.len() as f32;
            }
        }
        let histogram = Tensor::from_vec(counts, (faces.len(), 3 * self.bins), faces.tensor().device())?;
        let offer = |output: &Output| match output {
            Output::Embedding => Ok(histogram.clone()),
            other => Err(cannot_offer(other, "`embedding`")),
        };
        outputs.iter().map(offer).collect()
    }
}
