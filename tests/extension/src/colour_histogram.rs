//! A teacher without weights: how often each colour is in a face, in several views of it.

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::data::HIGH;
use gdrd_core::error::{Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::plugin::{Kind, ViewName};
use gdrd_core::teacher::{Output, Preprocessing, Shown, Teacher, TeacherCard, TeacherConfig, cannot_offer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The histograms of the colour channels in each view, one after another, as an embedding.
///
/// What stands here is shown by `kinds colour-histogram`, and the fields are the keys of the recipe.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ColourHistogram {
    /// Bins of each channel; the embedding has three times as many values for each view.
    #[schemars(range(min = 1, max = 256))]
    bins: usize,
    /// The views, by their names in the recipe.
    views: Vec<ViewName>,
}

impl Default for ColourHistogram {
    fn default() -> Self {
        Self { bins: 8, views: vec![HIGH.into()] }
    }
}

impl Kind for ColourHistogram {
    const NAME: &'static str = "colour-histogram";
    const PURPOSE: &'static str = "how often each colour is in a face";
}

impl TeacherConfig for ColourHistogram {
    /// A view that the recipe does not have is found without this, and so is a number out of its bounds: the type `ViewName` and
    /// the attribute `range` say what the options are.
    fn check(&self) -> Vec<Problem> {
        let views =
            Problem::unless(!self.views.is_empty(), "views", || "expected at least one view, found none".into());
        views.into_iter().collect()
    }

    fn build(&self, _: &BuildContext) -> Result<Box<dyn Teacher>> {
        let card = TeacherCard {
            input_size: None,
            preprocessing: Preprocessing::none(),
            views: self.views.iter().map(|view| view.to_string()).collect(),
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
            Output::Embedding => Ok(vec![3 * self.bins * self.card.views.len()]),
            other => Err(cannot_offer(other, "`embedding`")),
        }
    }

    /// `shown` has a batch for each of the card's views.
    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let views = shown.views().iter().map(|faces| self.histogram(faces)).collect::<Result<Vec<_>>>()?;
        let all = Tensor::cat(&views, 1)?;
        let offer = |output: &Output| match output {
            Output::Embedding => Ok(all.clone()),
            other => Err(cannot_offer(other, "`embedding`")),
        };
        outputs.iter().map(offer).collect()
    }
}

impl Live {
    /// The shares of the bins, `[batch, 3 * bins]`.
    fn histogram(&self, faces: &FaceBatch) -> Result<Tensor> {
        let values = faces.tensor().flatten_from(2)?.to_vec3::<f32>()?;
        let mut shares = vec![0f32; faces.len() * 3 * self.bins];
        for (row, channel) in values.iter().flatten().enumerate() {
            for value in channel {
                let bin = ((value * self.bins as f32) as usize).min(self.bins - 1);
                shares[row * self.bins + bin] += 1.0 / channel.len() as f32;
            }
        }
        Ok(Tensor::from_vec(shares, (faces.len(), 3 * self.bins), faces.tensor().device())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use gdrd_core::face::Face;
    use gdrd_core::plugin::Workbench;

    use super::*;

    #[test]
    fn views_stand_one_after_another() {
        let config = ColourHistogram { bins: 2, views: vec![HIGH.into(), "tiny".into()] };
        let bench = Workbench::new(Device::Cpu);
        let teacher = config.build(&BuildContext::new(&bench)).expect("a teacher");
        let batch = |width: usize, pixels: &[[u8; 3]]| {
            let face = Face::new(width, width, pixels.concat()).expect("a face");
            FaceBatch::from_faces(&[face], &Device::Cpu).expect("a batch")
        };
        let high = batch(2, &[[255, 0, 0], [255, 0, 0], [0, 0, 0], [0, 255, 0]]);
        let shown = Shown::new(vec![high, batch(1, &[[0, 0, 200]])]).expect("two views");
        let found = teacher.features(&shown, &[Output::Embedding]).expect("an embedding");
        let expected = [0.5, 0.5, 0.75, 0.25, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(found[0].to_vec2::<f32>().expect("values"), [expected]);
        assert_eq!(teacher.shape(&Output::Embedding, 2).expect("a shape"), [12]);
        assert!(teacher.features(&shown, &[Output::Logits]).is_err());
    }
}
