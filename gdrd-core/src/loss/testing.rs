//! What tests of losses share: a loss alone, and its gradient against finite differences.

use std::rc::Rc;

use candle_core::{Device, Tensor, Var};

use super::{Labels, LossConfig, LossInputs, Offered, StageFacts};
use crate::context::BuildContext;
use crate::nn::Weights;
use crate::nn::weights::Variables;
use crate::plugin::Workbench;
use crate::seed::Seed;
use crate::student::StudentCard;
use crate::teacher::Output;

/// A batch for a loss: two faces of each of three people, embeddings of 5 values, and a teacher's of 7.
pub(super) struct Trial {
    embedding: Tensor,
    teacher: Tensor,
    centres: Tensor,
    labels: Labels,
}

impl Trial {
    pub(super) fn new() -> Self {
        let drawn = |name: &str, rows: usize, width: usize| {
            let values = crate::seed::normal(&mut Seed(7).stream(name, &[]), rows * width, 1.0);
            Tensor::from_vec(values, (rows, width), &Device::Cpu).expect("a tensor")
        };
        let people = [0, 1, 2, 0, 1, 2].map(Some).to_vec();
        let labels = Labels::new(people, &mut Ok).expect("labels");
        let centres = crate::nn::l2_normalise(&drawn("centres", 3, 7)).expect("unit vectors");
        Self { embedding: drawn("embedding", 6, 5), teacher: drawn("teacher", 6, 7), centres, labels }
    }

    /// The value for these embeddings, of a loss that is built anew, so that nothing is left of a step before.
    fn value(&self, config: &dyn LossConfig, embedding: &Tensor) -> (Tensor, Variables) {
        let needs = config.needs();
        let offered = Offered { teacher: "t".into(), output: Output::Embedding, shape: vec![7] };
        let facts = StageFacts {
            name: "stage".into(),
            student: StudentCard { input_size: 16, map: [4, 4, 4], embedding: Some(5) },
            people: 3,
            images: vec![2; 3],
            faces: 6,
            teachers: needs.teachers.iter().map(|_| offered.clone()).collect(),
            views: Vec::new(),
        };
        let bench = Workbench::new(Device::Cpu);
        let build =
            |weights: &Weights| config.build(&BuildContext::new(&bench).with_weights(weights).with_facts(&facts));
        let draw = Rc::new(|name: &str, count, init| Seed(7).draw(name, count, init));
        let (loss, made) = Weights::create(&Device::Cpu, draw, build).expect("a loss");
        let inputs = LossInputs {
            embedding: Some(embedding),
            teachers: needs.teachers.iter().map(|_| &self.teacher).collect(),
            labels: needs.labels.then_some(&self.labels),
            centres: needs.centres.then_some(&self.centres),
            // The embeddings that are moved, so that what comes of them by this way is in the gradient too.
            embeddings_of: needs.embeddings_of.iter().map(|_| embedding).collect(),
            stream: Some(Seed(7).stream("step", &[0])),
            ..LossInputs::default()
        };
        (loss.compute(&inputs).expect("a value").value, made)
    }

    /// Compares the gradient of the embeddings with central differences of the value, and sees that each variable has
    /// a gradient.
    #[track_caller]
    pub(super) fn check(&self, config: &dyn LossConfig) {
        const STEP: f32 = 1e-2;
        let input = Var::from_tensor(&self.embedding).expect("a variable");
        let (value, made) = self.value(config, input.as_tensor());
        let gradients = value.backward().expect("gradients");
        for (name, var) in &made.parameters {
            assert!(gradients.get(var.as_tensor()).is_some(), "`{name}` has no gradient");
        }
        let found = gradients.get(&input).expect("a gradient of the embeddings").flatten_all();
        let found = found.and_then(|t| t.to_vec1::<f32>()).expect("values");
        let values = self.embedding.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        let at = |place: usize, step: f32| {
            let mut moved = values.clone();
            moved[place] += step;
            let moved = Tensor::from_vec(moved, self.embedding.shape(), &Device::Cpu).expect("a tensor");
            self.value(config, &moved).0.to_scalar::<f32>().expect("a number")
        };
        let largest = found.iter().fold(0f32, |most, value| most.max(value.abs()));
        assert!(largest > 0.0, "nothing pulls at the embeddings");
        for (place, found) in found.iter().enumerate() {
            let expected = (at(place, STEP) - at(place, -STEP)) / (2.0 * STEP);
            assert!((found - expected).abs() < 0.02 * largest, "value {place}: {found}, by differences {expected}");
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let trial = Trial::new();
    trial.check(&super::EmbeddingRegression::default());
    trial.check(&super::HybridOrder { quadruples: 50, ..super::HybridOrder::default() });
    trial.check(&super::SelectiveRegression::default());
    trial.check(&super::RelationSimilarity { queue: 8, ..super::RelationSimilarity::default() });
    trial.check(&super::RelationalContrastive { hidden: 8, relation: 4, ..super::RelationalContrastive::default() });
    trial.check(&super::Octuplet::default());
    trial.check(&super::Octuplet { high: Some("high".into()), ..super::Octuplet::default() });
    trial.check(&super::Siamese { margin: 2.0, streams: vec!["high".into()] });
    trial.check(&super::Triplet { margin: 2.0, ..super::Triplet::default() });
}
