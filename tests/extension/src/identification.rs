//! A protocol that trains: who of a gallery are the faces of another dataset?

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Tensor, Var};
use gdrd_core::context::BuildContext;
use gdrd_core::data::Dataset;
use gdrd_core::embedder::{Embedder, Embeddings};
use gdrd_core::error::{Error, Result};
use gdrd_core::evaluation::bootstrap::{RESAMPLES, mean_interval};
use gdrd_core::evaluation::outcome::CURVE_POINTS;
use gdrd_core::evaluation::{Curve, Figure, Matrix, Outcome, Protocol, ProtocolConfig, Unit, digest_of_items, embed};
use gdrd_core::loss::cross_entropy;
use gdrd_core::plugin::{DatasetName, Kind};
use gdrd_core::seed::normal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Closed-set identification: a softmax layer is trained on the frozen embeddings of a gallery, and says of each probe who of the
/// gallery it is. Faces that nobody knows, and people who are not in both, are passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identification {
    /// The dataset that the layer learns from.
    gallery: DatasetName,
    /// The dataset of the faces that it is asked about.
    probes: DatasetName,
    /// Steps of gradient descent.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = 1_000_000))]
    steps: usize,
    /// Length of a step.
    #[serde(default = "default_rate")]
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0))]
    learning_rate: f64,
}

fn default_steps() -> usize {
    100
}

fn default_rate() -> f64 {
    0.5
}

impl Kind for Identification {
    const NAME: &'static str = "linear-probe";
    const PURPOSE: &'static str = "who of a gallery a face is, by a softmax layer on embeddings";
}

impl ProtocolConfig for Identification {
    /// Called before anything is trained: data that does not fit is an error here.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>> {
        let (gallery, probes) = (cx.dataset(&self.gallery)?, cx.dataset(&self.probes)?);
        let there = people_of(&*probes);
        let people: Vec<String> = people_of(&*gallery).into_iter().filter(|name| there.contains(name)).collect();
        if people.len() < 2 {
            let (gallery, probes) = (&self.gallery, &self.probes);
            let found = people.len();
            return Err(Error::data(format!("expected two people in both `{gallery}` and `{probes}`, found {found}")));
        }
        Ok(Box::new(Sides {
            config: self.clone(),
            gallery: Side::new(gallery, &people),
            probes: Side::new(probes, &people),
            people: people.len(),
        }))
    }
}

/// The names of the people of whom a dataset has faces, sorted.
fn people_of(dataset: &dyn Dataset) -> Vec<String> {
    let people = (0..dataset.len()).filter_map(|index| dataset.person(index));
    people
        .map(|person| dataset.people()[person].clone())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The faces of one dataset that are asked about, and who they are.
struct Side {
    dataset: Arc<dyn Dataset>,
    faces: Vec<usize>,
    people: Vec<u32>,
}

impl Side {
    fn new(dataset: Arc<dyn Dataset>, people: &[String]) -> Self {
        let person = |index: usize| people.binary_search(&dataset.people()[dataset.person(index)?]).ok();
        let known = (0..dataset.len()).filter_map(|index| Some((index, person(index)? as u32)));
        let (faces, people) = known.unzip();
        Self { dataset, faces, people }
    }

    fn session(&self, at: usize) -> String {
        let found = self.dataset.attributes(self.faces[at]).into_iter().find(|(name, _)| name == "session");
        found.map_or("-".into(), |(_, session)| session)
    }
}

struct Sides {
    config: Identification,
    gallery: Side,
    probes: Side,
    people: usize,
}

impl Protocol for Sides {
    fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome> {
        let of = |side: &Side| tensor(&embed(embedder, &side.dataset, &side.faces, cx)?, cx);
        let (gallery, probes) = (of(&self.gallery)?, of(&self.probes)?);
        let (layer, loss) = self.softmax_layer(&gallery, cx)?;
        let scores = probes.matmul(&layer.t()?)?.to_vec2::<f32>()?;
        // How many people have a higher score than the one that it is.
        let rank = |(scores, &person): (&Vec<f32>, &u32)| {
            scores.iter().filter(|score| **score > scores[person as usize]).count()
        };
        let ranks: Vec<usize> = scores.iter().zip(&self.probes.people).map(rank).collect();
        self.outcome(&ranks, loss, cx)
    }
}

/// How far apart the scores of a softmax layer on unit vectors are.
const SCALE: f64 = 16.0;

impl Sides {
    /// The layer `[people, width]` that gradient descent finds on the gallery's embeddings, and its last loss.
    fn softmax_layer(&self, gallery: &Tensor, cx: &BuildContext) -> Result<(Tensor, f64)> {
        let (width, steps) = (gallery.dim(1)?, self.config.steps);
        let first = normal(&mut cx.seed().stream("softmax layer", &[]), self.people * width, 0.01);
        let layer = Var::from_tensor(&Tensor::from_vec(first, (self.people, width), cx.device())?)?;
        let people = Tensor::new(&self.gallery.people[..], cx.device())?;
        let mut last = f64::NAN;
        for step in 0..steps {
            cx.report("softmax layer", step, steps)?;
            let logits = (gallery.matmul(&layer.as_tensor().t()?)? * SCALE)?;
            let loss = cross_entropy(&logits, &people, 0.0)?;
            last = f64::from(loss.to_scalar::<f32>()?);
            let gradients = loss.backward()?;
            let gradient =
                gradients.get(layer.as_tensor()).ok_or_else(|| Error::component("the layer has no gradient"))?;
            layer.set(&(layer.as_tensor() - (gradient * self.config.learning_rate)?)?)?;
        }
        cx.report("softmax layer", steps, steps)?;
        Ok((layer.as_tensor().detach(), last))
    }

    fn outcome(&self, ranks: &[usize], loss: f64, cx: &BuildContext) -> Result<Outcome> {
        let count = ranks.len();
        let items: Vec<f64> = ranks.iter().map(|rank| f64::from(u8::from(*rank == 0))).collect();
        let interval = mean_interval(&items, RESAMPLES, &mut cx.seed().stream("rank-1 interval", &[]))?;
        let rate = |rank: usize| ranks.iter().filter(|found| **found < rank).count() as f64 / count as f64;
        let points = (1..=self.people.min(CURVE_POINTS)).map(|rank| (rank as f64, 100.0 * rate(rank))).collect();
        let mut sessions: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for (at, rank) in ranks.iter().enumerate() {
            sessions.entry(self.probes.session(at)).or_default()[usize::from(*rank > 0)] += 1.0;
        }
        Ok(Outcome {
            what: "probes".into(),
            headline: "rank-1".into(),
            figures: vec![
                Figure::percent("rank-1", rate(1), count).between(100.0 * interval.low, 100.0 * interval.high),
                Figure::percent("rank-2", rate(2), count),
                Figure::plain("loss of the layer", loss, Unit::Plain, self.gallery.faces.len())
                    .lower_is_better()
                    .aside(),
            ],
            curves: vec![Curve {
                name: "CMC".into(),
                x: "rank".into(),
                y: "identification rate, %".into(),
                log_x: false,
                points,
                reading: String::new(),
            }],
            matrices: vec![Matrix {
                name: "Confusion by session".into(),
                columns: ["session", "right", "confused"].map(String::from).to_vec(),
                rows: sessions.into_iter().map(|(session, counts)| (session, counts.to_vec())).collect(),
            }],
            items,
            items_digest: digest_of_items(self.probes.faces.iter().map(|face| self.probes.dataset.key(*face))),
        })
    }
}

fn tensor(embeddings: &Embeddings, cx: &BuildContext) -> Result<Tensor> {
    let shape = (embeddings.len(), embeddings.width());
    Ok(Tensor::from_vec(embeddings.values().to_vec(), shape, cx.device())?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use gdrd_core::face::Face;
    use gdrd_core::plugin::Workbench;

    use super::*;

    /// Faces of one colour: person 0 is red, person 1 green; person 2 is known and in no other dataset.
    struct Coloured(Vec<String>, Vec<(Option<usize>, [u8; 3])>);

    impl Dataset for Coloured {
        fn len(&self) -> usize {
            self.1.len()
        }

        fn people(&self) -> &[String] {
            &self.0
        }

        fn person(&self, index: usize) -> Option<usize> {
            self.1[index].0
        }

        fn key(&self, index: usize) -> String {
            index.to_string()
        }

        fn attributes(&self, index: usize) -> Vec<(String, String)> {
            vec![("session".into(), if index < 2 { "day" } else { "night" }.into())]
        }

        fn face(&self, index: usize) -> Result<Face> {
            Face::new(1, 1, self.1[index].1.to_vec())
        }
    }

    struct Pixel;

    impl Embedder for Pixel {
        fn name(&self) -> &str {
            "pixel"
        }

        fn width(&self) -> usize {
            3
        }

        fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
            Embeddings::from_rows(
                3,
                faces.iter().flat_map(|face| face.pixels().iter().map(|v| f32::from(*v))).collect(),
            )
        }
    }

    const RED: [u8; 3] = [250, 10, 10];
    const GREEN: [u8; 3] = [10, 250, 10];

    fn bench(gallery: Vec<(Option<usize>, [u8; 3])>, probes: Vec<(Option<usize>, [u8; 3])>) -> Workbench {
        let part = |names: [&str; 3], faces| -> Arc<dyn Dataset> {
            Arc::new(Coloured(names.map(String::from).to_vec(), faces))
        };
        let bench = Workbench::new(Device::Cpu).with("dataset", "known", part(["Red", "Green", "Blue"], gallery));
        // The same people have other numbers here.
        bench.with("dataset", "asked", part(["Green", "Nobody", "Red"], probes))
    }

    fn config() -> Identification {
        serde_json::from_value(serde_json::json!({ "gallery": "known", "probes": "asked" })).expect("options")
    }

    #[test]
    fn probes_are_named_and_confusions_counted() {
        let gallery = vec![(Some(0), RED), (Some(1), GREEN), (Some(2), [0, 0, 9]), (None, RED)];
        let probes = vec![(Some(2), RED), (Some(0), GREEN), (Some(2), GREEN), (Some(0), GREEN), (None, RED)];
        let bench = bench(gallery, probes);
        let cx = BuildContext::new(&bench);
        let outcome = config().build(&cx).and_then(|protocol| protocol.evaluate(&Pixel, &cx)).expect("an outcome");
        outcome.check().expect("a good outcome");
        assert_eq!(outcome.items, [1.0, 1.0, 0.0, 1.0]);
        let headline = outcome.headline().expect("a headline");
        assert_eq!((headline.name.as_str(), headline.value, headline.count), ("rank-1", Some(75.0), 4));
        assert!(headline.low < headline.value && headline.value <= headline.high);
        assert_eq!(outcome.curves[0].points, [(1.0, 75.0), (2.0, 100.0)]);
        let rows = [("day".to_string(), vec![2.0, 0.0]), ("night".to_string(), vec![1.0, 1.0])];
        assert_eq!(outcome.matrices[0].rows, rows);
    }

    #[test]
    fn too_few_people_are_an_error_of_the_build() {
        let bench = bench(vec![(Some(0), RED), (Some(2), RED)], vec![(Some(2), RED), (Some(0), GREEN)]);
        let text = config().build(&BuildContext::new(&bench)).err().expect("no protocol").to_string();
        assert_eq!(text, "expected two people in both `known` and `asked`, found 1");
    }
}
