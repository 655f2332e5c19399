//! Optimisers, schedules and a whole stage move as PyTorch's do; `golden/optimizers/ORIGIN.md` says how.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use gdrd_core::context::BuildContext;
use gdrd_core::data::{Augment, Dataset, LOW, Views};
use gdrd_core::degrade::Downscale;
use gdrd_core::error::Result;
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::loss::{Loss, LossInputs, LossValue, Needs, cross_entropy};
use gdrd_core::nn::kernels::Precision;
use gdrd_core::nn::{Linear, Mode};
use gdrd_core::observe::{Event, Recorder};
use gdrd_core::plugin::Workbench;
use gdrd_core::seed::Seed;
use gdrd_core::student::{Part, Student, StudentCard};
use gdrd_core::trainer::{
    AdamW, Alone, Cosine, OptimizerConfig, Outcome, Schedule, Sgd, Stage, StageOptions, StepSchedule, TeacherFeatures,
    Term,
};
use gdrd_tests::on_cpu;

use crate::golden::{Golden, formula, trainable};

#[test]
fn optimizers() {
    let golden = Golden::read("optimizers");
    let sgd = |momentum, weight_decay, nesterov| Sgd { momentum, weight_decay, nesterov };
    let configs: [(&str, &dyn OptimizerConfig); 6] = [
        ("sgd_plain", &sgd(0.0, 0.0, false)),
        ("sgd", &Sgd::default()),
        ("sgd_decay", &sgd(0.7, 0.3, false)),
        ("sgd_nesterov", &sgd(0.9, 0.1, true)),
        ("adamw", &AdamW::default()),
        ("adamw_options", &AdamW { beta1: 0.8, beta2: 0.95, eps: 1e-3, weight_decay: 0.4 }),
    ];
    for (name, config) in configs {
        let var = |key: &str| Var::from_tensor(&formula::image(key, (3, 4))).expect("a variable");
        let parameters = BTreeMap::from(["a", "b"].map(|key| (key.to_string(), var(key))));
        let mut optimizer = on_cpu(|cx| config.build(cx)).expect("an optimiser");
        for step in 0..5 {
            // One variable has no gradient at one step, as when a term of the objective leaves it out.
            let with_gradient = parameters.keys().filter(|key| *key != "b" || step != 2);
            let gradient = |key: &String| (key.clone(), formula::image(&format!("gradient {key} {step}"), (3, 4)));
            let gradients = with_gradient.map(gradient).collect();
            optimizer.step(&parameters, &gradients, &|_| 0.1 / f64::from(1 + step)).expect("a step");
            for (key, var) in &parameters {
                golden.compare(&format!("{name}.{step}.{key}"), var);
            }
        }
    }
}

#[test]
fn schedules() {
    let golden = Golden::read("optimizers");
    let cases: [(&str, &dyn Schedule); 4] = [
        ("step", &StepSchedule::default()),
        ("step_other", &StepSchedule { milestones: vec![0.25, 0.3], gamma: 0.5 }),
        ("cosine", &Cosine::default()),
        ("cosine_end", &Cosine { end: 0.1 }),
    ];
    for (name, schedule) in cases {
        let expected = golden.numbers(&format!("schedule.{name}"));
        for (step, rate) in expected.iter().enumerate() {
            let found = schedule.factor(step as f64 / expected.len() as f64);
            assert!((found - rate).abs() < 1e-12, "{name} at step {step}: expected {rate}, found {found}");
        }
    }
}

/// Six faces of 4x4 pixels, two of each person.
struct Six(Vec<Face>, Vec<String>);

impl Six {
    fn new() -> Self {
        let bytes = formula::bytes("stage faces", 6 * 48);
        let faces = bytes.chunks(48).map(|pixels| Face::new(4, 4, pixels.to_vec()).expect("48 bytes")).collect();
        Self(faces, ["Ann", "Bob", "Cy"].map(String::from).to_vec())
    }
}

impl Dataset for Six {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn people(&self) -> &[String] {
        &self.1
    }

    fn person(&self, index: usize) -> Option<usize> {
        Some(index / 2)
    }

    fn key(&self, index: usize) -> String {
        format!("face {index}")
    }

    fn face(&self, index: usize) -> Result<Face> {
        Ok(self.0[index].clone())
    }
}

/// A head on the pixels.
struct Shallow(StudentCard, Linear);

impl Student for Shallow {
    fn card(&self) -> &StudentCard {
        &self.0
    }

    fn backbone(&self, faces: &FaceBatch, _: Mode) -> Result<Tensor> {
        Ok(faces.tensor().clone())
    }

    fn head(&self, map: &Tensor, _: Mode) -> Result<Tensor> {
        self.1.forward(&map.flatten_from(1)?)
    }
}

struct Classifier(Linear);

impl Loss for Classifier {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        Ok(cross_entropy(&self.0.forward(inputs.embedding()?)?, inputs.labels()?.known(), 0.0)?.into())
    }
}

#[test]
fn a_stage() {
    let golden = Golden::read("optimizers");
    let (losses, norms) = (golden.numbers("stage.losses"), golden.numbers("stage.norms"));
    let views = Views::new(Arc::new(Six::new()), "six");
    let views = views.with(LOW, Arc::new(Downscale { size: 4, ..Downscale::default() }), "low");
    // One batch a step, two halves of it, and the maps of a frozen backbone from memory: the same mathematics.
    for (trains, accumulate) in [
        (vec![Part::Backbone, Part::Head], 1),
        (vec![Part::Backbone, Part::Head], 2),
        (vec![Part::Head], 1),
        (vec![Part::Head], 3),
    ] {
        let ((head, classifier), made) = trainable(&golden, "stage", |weights| {
            let head = Linear::new(48, 5, true, &weights.pp("head"))?;
            Ok((head, Linear::new(5, 3, true, &weights.pp("loss"))?))
        });
        let card = StudentCard { input_size: 4, map: [3, 4, 4], embedding: Some(5) };
        let options = StageOptions {
            trains,
            steps: Some(losses.len() as u64),
            batch_size: 6 / accumulate,
            accumulate,
            learning_rate: 0.5,
            clip_norm: Some(0.4),
            augment: Augment::none(),
            ..StageOptions::default()
        };
        assert!(options.check().is_empty());
        let mut stage = Stage {
            name: "stage",
            options: &options,
            student: &Shallow(card, head),
            trained: made.parameters.clone(),
            buffers: made.buffers.clone(),
            terms: vec![Term {
                name: "identity".into(),
                weight: 1.0,
                loss: Box::new(Classifier(classifier)),
                needs: Needs { embedding: true, labels: true, ..Needs::default() },
                teachers: Vec::new(),
                logits_of: None,
                centres: None,
            }],
            teachers: TeacherFeatures::default(),
            optimizer: Sgd { momentum: 0.9, weight_decay: 0.01, nesterov: true }
                .build(&BuildContext::new(&Workbench::new(Device::Cpu)))
                .expect("an optimiser"),
            schedule: Box::new(Cosine::default()),
            exchange: &Alone,
            views: &views,
            view: LOW.into(),
            seed: Seed(7),
            workers: 1,
            device: &Device::Cpu,
            precision: Precision::Float32,
            checkpoint_steps: 500,
            map_memory: 0,
        };
        let recorder = Recorder::default();
        let outcome = stage.run(0, &recorder, &mut |_, _, _| Ok(())).expect("a stage");
        assert_eq!(outcome, Outcome::Finished);
        let steps: Vec<(f64, f64)> = recorder.events().iter().filter_map(loss_and_norm).collect();
        assert_eq!(steps.len(), losses.len());
        for (step, (found, expected)) in steps.iter().zip(losses.iter().zip(&norms)).enumerate() {
            assert!((found.0 / expected.0 - 1.0).abs() < 1e-5, "loss at {step}: {} for {}", found.0, expected.0);
            assert!((found.1 / expected.1 - 1.0).abs() < 1e-5, "norm at {step}: {} for {}", found.1, expected.1);
        }
        for (name, var) in &made.parameters {
            golden.compare(&format!("stage.after.{name}"), var);
        }
    }
}

fn loss_and_norm(event: &Event) -> Option<(f64, f64)> {
    match event {
        Event::StepDone { loss, gradient_norm, .. } => Some((*loss, *gradient_norm)),
        _ => None,
    }
}
