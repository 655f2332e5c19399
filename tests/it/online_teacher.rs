//! EKD's terms, whose network is a student's kind: value by hand from what the network gives, gradients by finite differences.

use std::collections::BTreeMap;
use std::rc::Rc;

use candle_core::{Device, Tensor, Var};
use gdrd_core::context::BuildContext;
use gdrd_core::face::FaceBatch;
use gdrd_core::loss::{EvolvingTeacher, Labels, LossConfig, LossInputs, LossValue, StageFacts};
use gdrd_core::nn::weights::Variables;
use gdrd_core::nn::{Mode, Weights};
use gdrd_core::plugin::Workbench;
use gdrd_core::seed::{Seed, normal};
use gdrd_core::student::StudentCard;
use gdrd_tests::registry;

const FACES: usize = 6;
const PEOPLE: usize = 3;
const LABELS: [usize; FACES] = [0, 1, 2, 0, 1, 2];
const SIZE: usize = 8;

fn drawn(name: &str, shape: &[usize]) -> Tensor {
    let values = normal(&mut Seed(7).stream(name, &[]), shape.iter().product(), 1.0);
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
}

fn faces() -> FaceBatch {
    let pixels = drawn("faces", &[FACES, 3, SIZE, SIZE]).affine(0.1, 0.5).and_then(|x| x.clamp(0f32, 1f32));
    FaceBatch::from_tensor(pixels.expect("pixels")).expect("faces")
}

/// The teacher that is trained along: maps of 6x4x4 where the student has 5x4x4, and an embedding of 7 values.
fn network() -> BTreeMap<String, serde_json::Value> {
    let options = serde_json::json!({
        "kind": "resnet-trunk", "channels": [6], "blocks": [1], "strides": [2], "embedding": 7,
    });
    options.as_object().expect("a table").clone().into_iter().collect()
}

/// The terms at this map and these logits of the student, built anew.
fn terms(config: &EvolvingTeacher, map: &Tensor, logits: &Tensor) -> (LossValue, Variables) {
    let facts = StageFacts {
        name: "stage".into(),
        student: StudentCard { input_size: SIZE, map: [5, 4, 4], embedding: Some(7) },
        people: PEOPLE,
        images: vec![2; PEOPLE],
        faces: FACES,
        teachers: Vec::new(),
        views: vec![SIZE],
    };
    let bench = Workbench::new(Device::Cpu).with_service(registry());
    let build = |weights: &Weights| config.build(&BuildContext::new(&bench).with_weights(weights).with_facts(&facts));
    let draw = Rc::new(|name: &str, count, init| Seed(7).draw(name, count, init));
    let (loss, made) = Weights::create(&Device::Cpu, draw, build).expect("a loss");
    let labels = Labels::new(LABELS.map(Some).to_vec(), &mut Ok).expect("labels");
    let faces = faces();
    let inputs = LossInputs {
        map: Some(map),
        logits: Some(logits),
        labels: Some(&labels),
        views: vec![&faces],
        stream: Some(Seed(7).stream("step", &[0])),
        ..LossInputs::default()
    };
    (loss.compute(&inputs).expect("a value"), made)
}

fn number(value: &LossValue) -> f64 {
    f64::from(value.value.to_scalar::<f32>().expect("a number"))
}

fn rows(x: &Tensor) -> Vec<Vec<f64>> {
    x.to_dtype(candle_core::DType::F64).and_then(|x| x.to_vec2()).expect("rows")
}

fn log_softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let sum: f64 = row.iter().map(|x| (x / temperature).exp()).sum();
    row.iter().map(|x| x / temperature - sum.ln()).collect()
}

#[test]
fn the_value_is_that_of_its_equation() {
    let (map, logits) = (drawn("map", &[FACES, 5, 4, 4]), drawn("logits", &[FACES, PEOPLE]));
    let config =
        EvolvingTeacher { network: network(), logits: 0.7, temperature: 3.0, map: 0.4, ..EvolvingTeacher::default() };
    let (value, made) = terms(&config, &map, &logits);

    // The same network with the same weights, by itself.
    let bench = Workbench::new(Device::Cpu).with_service(registry());
    let build = |weights: &Weights| {
        let cx = BuildContext::new(&bench).with_weights(weights);
        cx.student(network().into_iter().collect(), SIZE, &weights.pp("teacher"))
    };
    let draw = Rc::new(|name: &str, count, init| Seed(7).draw(name, count, init));
    let (teacher, _) = Weights::create(&Device::Cpu, draw, build).expect("a network");
    let shown = teacher.backbone(&faces(), Mode::Train).expect("a map");
    let embedding = teacher.head(&shown, Mode::Train).expect("embeddings");
    let weight = made.parameters["classifier.weight"].as_tensor();
    let bias = made.parameters["classifier.bias"].as_tensor();
    let known = embedding.matmul(&weight.t().expect("2-d")).and_then(|x| x.broadcast_add(bias)).expect("logits");

    let (known, of_student) = (rows(&known), rows(&logits));
    let mut expected = 0.0;
    for face in 0..FACES {
        expected -= log_softmax(&known[face], 1.0)[LABELS[face]] / FACES as f64;
        let (t, s) = (log_softmax(&known[face], 3.0), log_softmax(&of_student[face], 3.0));
        let divergence: f64 = t.iter().zip(&s).map(|(t, s)| t.exp() * (t - s)).sum();
        expected += 0.7 * 9.0 * divergence / FACES as f64;
    }
    // The connector is a product of every pixel's channels.
    let flat = |x: &Tensor, channels: usize| {
        let pixels = x.permute((0, 2, 3, 1)).and_then(|x| x.reshape((FACES * 16, channels)));
        pixels.expect("pixels")
    };
    let connector = made.parameters["connector.weight"].as_tensor().reshape((6, 5)).expect("a matrix");
    let bias = made.parameters["connector.bias"].as_tensor();
    let follows =
        flat(&map, 5).matmul(&connector.t().expect("2-d")).and_then(|x| x.broadcast_add(bias)).expect("a map");
    let (follows, target) = (rows(&follows), rows(&flat(&shown, 6)));
    let squares: f64 = follows.iter().flatten().zip(target.iter().flatten()).map(|(a, b)| (a - b).powi(2)).sum();
    expected += 0.4 * squares / (FACES * 16 * 6) as f64;
    assert!((number(&value) - expected).abs() < 1e-5 * expected, "{} and {expected}", number(&value));
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-2;
    let config = EvolvingTeacher { network: network(), ..EvolvingTeacher::default() };
    let map = Var::from_tensor(&drawn("map", &[FACES, 5, 4, 4])).expect("a variable");
    let logits = Var::from_tensor(&drawn("logits", &[FACES, PEOPLE])).expect("a variable");
    let (value, made) = terms(&config, &map, &logits);
    let gradients = value.value.backward().expect("gradients");
    for (name, var) in &made.parameters {
        assert!(gradients.get(var.as_tensor()).is_some(), "`{name}` has no gradient");
    }
    for (wanted, places) in [(&map, (0..480).step_by(37).collect::<Vec<_>>()), (&logits, (0..FACES * PEOPLE).collect())]
    {
        let found = gradients.get(wanted).and_then(|x| x.flatten_all().ok()).and_then(|x| x.to_vec1::<f32>().ok());
        let found = found.expect("a gradient");
        let largest = found.iter().fold(0f32, |most, value| most.max(value.abs()));
        assert!(largest > 0.0);
        let given = wanted.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
        let at = |place: usize, step: f64| {
            let mut moved = given.clone();
            moved[place] += step as f32;
            let moved = Tensor::from_vec(moved, wanted.shape(), &Device::Cpu).expect("a tensor");
            let is_map = wanted.rank() == 4;
            number(&terms(&config, if is_map { &moved } else { &map }, if is_map { &logits } else { &moved }).0)
        };
        for place in places {
            let expected = (at(place, STEP) - at(place, -STEP)) / (2.0 * STEP);
            let found = f64::from(found[place]);
            assert!(
                (found - expected).abs() < 0.02 * f64::from(largest),
                "{place}: {found}, by differences {expected}"
            );
        }
    }
}

#[test]
fn the_teacher_learns_from_the_identities_alone() {
    let (map, logits) = (drawn("map", &[FACES, 5, 4, 4]), drawn("logits", &[FACES, PEOPLE]));
    let gradients = |logit_weight, map_weight| {
        let config =
            EvolvingTeacher { network: network(), logits: logit_weight, map: map_weight, ..EvolvingTeacher::default() };
        let (value, made) = terms(&config, &map, &logits);
        let found = value.value.backward().expect("gradients");
        let of = |(name, var): (&String, &Var)| {
            let gradient = found.get(var.as_tensor())?.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
            Some((name.clone(), gradient))
        };
        let learns = made.parameters.iter().filter(|(name, _)| !name.starts_with("connector"));
        learns.filter_map(of).collect::<BTreeMap<_, _>>()
    };
    let alone = gradients(0.0, 0.0);
    assert!(alone.len() > 4 && alone.values().flatten().any(|value| *value != 0.0));
    assert_eq!(gradients(1.0, 1.0), alone);
}
