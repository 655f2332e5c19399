//! The losses and their gradients are PyTorch's; `golden/losses/ORIGIN.md` says how the reference was written.

use std::rc::Rc;

use candle_core::{Device, Tensor, Var};
use gdrd_core::context::BuildContext;
use gdrd_core::error::Result;
use gdrd_core::loss::{
    ArcFace, Classes, Connector, CosFace, CrossEntropy, Distance, EmbeddingDistance, EmbeddingRegression,
    FeatureRegression, Labels, LogitDistillation, LossConfig, LossInputs, Negatives, Offered, RelationSimilarity,
    RelationalContrastive, StageFacts, TeacherLogits,
};
use gdrd_core::nn::weights::Variables;
use gdrd_core::nn::{Init, Weights};
use gdrd_core::plugin::Workbench;
use gdrd_core::seed::Seed;
use gdrd_core::student::StudentCard;
use gdrd_core::teacher::Output;

use crate::golden::{Golden, formula};

pub(crate) const LABELS: [usize; 6] = [3, 0, 4, 1, 1, 2];
pub(crate) const IDENTITIES: usize = 5;
pub(crate) const WIDTH: usize = 8;
pub(crate) const WIDE: usize = 12;

/// What the loss gets a gradient for.
pub(crate) enum Wanted {
    Embedding,
    Map,
    Logits,
}

/// One comparison: the loss, what it is given, and the name of its golden values.
pub(crate) struct Case<'a> {
    pub(crate) golden: &'a Golden,
    pub(crate) name: &'a str,
    pub(crate) config: &'a dyn LossConfig,
    pub(crate) wanted: Wanted,
    pub(crate) input: Tensor,
    pub(crate) teacher: Option<(Output, Tensor)>,
    pub(crate) identities: &'a [usize],
    /// Faces of `input`, `teacher` and `identities` that are a batch before the one that is compared.
    pub(crate) before: usize,
    /// Largest difference, relative to the largest value, where float32 needs more than others do.
    pub(crate) tolerance: Option<f64>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(golden: &'a Golden, name: &'a str, config: &'a dyn LossConfig, input: Tensor) -> Self {
        Self {
            golden,
            name,
            config,
            wanted: Wanted::Embedding,
            input,
            teacher: None,
            identities: &LABELS,
            before: 0,
            tolerance: None,
        }
    }

    pub(crate) fn taught(mut self, output: Output, tensor: Tensor) -> Self {
        self.teacher = Some((output, tensor));
        self
    }

    /// Compares value, gradient of the input, gradients of the loss's own variables, and the logits where Python has some.
    pub(crate) fn compare(self) {
        let Self { golden, name, config, before, .. } = self;
        assert!(config.check().is_empty(), "options of `{name}`");
        let rest = |x: &Tensor| x.narrow(0, before, x.dims()[0] - before).expect("the batch that is compared");
        let input = Var::from_tensor(&rest(&self.input)).expect("a variable");
        let teachers: Vec<Tensor> = self.teacher.iter().map(|(_, tensor)| rest(tensor)).collect();
        let (mut map, mut embedding, mut logits) = (None, None, None);
        let (mut shape, mut width) = ([6, 4, 4], WIDTH);
        let key = match self.wanted {
            Wanted::Embedding => {
                width = self.input.dims()[1];
                embedding = Some(input.as_tensor());
                "embedding"
            }
            Wanted::Map => {
                shape = self.input.dims()[1..].try_into().expect("a map");
                map = Some(input.as_tensor());
                "map"
            }
            Wanted::Logits => {
                logits = Some(input.as_tensor());
                "logits"
            }
        };
        let offered = |(output, tensor): &(Output, Tensor)| Offered {
            teacher: "t".into(),
            output: output.clone(),
            shape: tensor.dims()[1..].to_vec(),
        };
        let facts = StageFacts {
            name: "stage".into(),
            student: StudentCard { input_size: 16, map: shape, embedding: Some(width) },
            people: IDENTITIES,
            images: vec![2; IDENTITIES],
            faces: 2 * IDENTITIES,
            teachers: self.teacher.iter().map(offered).collect(),
            views: Vec::new(),
        };
        let bench = Workbench::new(Device::Cpu);
        let build =
            |weights: &Weights| config.build(&BuildContext::new(&bench).with_weights(weights).with_facts(&facts));
        let (loss, made) = built(golden, name, build);
        let needs = config.needs();
        let labels = |from: usize, to: usize| {
            let people = self.identities[from..to].iter().copied().map(Some).collect();
            Labels::new(people, &mut Ok).expect("labels")
        };
        if before > 0 {
            let first = |x: &Tensor| x.narrow(0, 0, before).expect("the batch before");
            let (embedding, labels) = (first(&self.input), labels(0, before));
            let teachers: Vec<Tensor> = self.teacher.iter().map(|(_, tensor)| first(tensor)).collect();
            let inputs = LossInputs {
                embedding: Some(&embedding),
                teachers: teachers.iter().collect(),
                labels: needs.labels.then_some(&labels),
                stream: Some(Seed(7).stream(name, &[0])),
                ..LossInputs::default()
            };
            loss.compute(&inputs).expect("a value");
        }
        let labels = labels(before, self.identities.len());
        let inputs = LossInputs {
            map: map.filter(|_| needs.map),
            embedding: embedding.filter(|_| needs.embedding),
            teachers: teachers.iter().collect(),
            labels: needs.labels.then_some(&labels),
            centres: golden.0.get(&format!("{name}.centres")).filter(|_| needs.centres),
            logits: logits.filter(|_| needs.logits_of.is_some()),
            denoiser: None,
            views: Vec::new(),
            embeddings_of: Vec::new(),
            stream: Some(Seed(7).stream(name, &[])),
        };
        let found = loss.compute(&inputs).expect("a value");
        golden.compare(&format!("{name}.value"), &found.value);
        let logits = golden.0.contains_key(&format!("{name}.logits"));
        assert_eq!(found.logits.is_some(), logits, "logits of `{name}`");
        if let Some(logits) = &found.logits {
            golden.compare(&format!("{name}.logits"), logits);
        }
        let gradients = found.value.backward().expect("gradients");
        let (key, found) = (format!("{name}.d_{key}"), gradients.get(&input).expect("a gradient of the input"));
        match self.tolerance {
            Some(tolerance) => golden.compare_within(&key, found, tolerance),
            None => golden.compare(&key, found),
        }
        golden.compare_gradients(name, &made, &gradients);
    }
}

/// A loss whose parameters have the formula's values, and whose buffers are as a run begins; checks that Python has
/// the same names and shapes.
fn built<T>(golden: &Golden, name: &str, build: impl Fn(&Weights) -> Result<T>) -> (T, Variables) {
    let draw = |_: &str, count, init| match init {
        Init::Constant(value) => vec![value; count],
        _ => vec![0.0; count],
    };
    let (loss, made) = Weights::create(&Device::Cpu, Rc::new(draw), build).expect("a loss");
    let parameters = Variables { parameters: made.parameters.clone(), ..Variables::default() };
    let (tensors, layout) = formula::tensors(&parameters);
    match golden.0.contains_key(&format!("{name}.layout")) {
        true => assert_eq!(layout, golden.number(&format!("{name}.layout")), "names and shapes of `{name}`"),
        false => assert!(tensors.is_empty(), "unexpected variables of `{name}`: {:?}", tensors.keys()),
    }
    parameters.assign(&tensors).expect("the same names and shapes");
    (loss, made)
}

fn embedding() -> Tensor {
    formula::image("embedding", (6, WIDTH))
}

fn teacher() -> Tensor {
    formula::image("teacher", (6, WIDE))
}

#[test]
fn cross_entropy() {
    let golden = Golden::read("losses");
    Case::new(&golden, "cross_entropy", &CrossEntropy::default(), embedding()).compare();
    Case::new(
        &golden,
        "smoothed",
        &CrossEntropy { classes: Classes { label_smoothing: 0.15, ..Classes::default() } },
        embedding(),
    )
    .compare();
}

#[test]
fn margins() {
    let golden = Golden::read("losses");
    let configs: [(&str, &dyn LossConfig); 3] = [
        ("arcface", &ArcFace::default()),
        ("arcface_small", &ArcFace { scale: 16.0, margin: 0.3, ..ArcFace::default() }),
        ("cosface", &CosFace::default()),
    ];
    for (name, config) in configs {
        let input = golden.get(&format!("{name}.embedding")).clone();
        Case::new(&golden, name, config, input).compare();
    }
}

#[test]
fn logit_distillation() {
    let golden = Golden::read("losses");
    let student = (formula::image("student logits", (6, IDENTITIES)) * 5.0).expect("logits");
    let centres = LogitDistillation::default();
    let mut case = Case::new(&golden, "centres", &centres, student.clone());
    case.wanted = Wanted::Logits;
    case.taught(Output::Embedding, teacher()).compare();
    let offered =
        LogitDistillation { teacher_logits: TeacherLogits::Offered, temperature: 2.5, ..LogitDistillation::default() };
    let mut case = Case::new(&golden, "offered", &offered, student);
    case.wanted = Wanted::Logits;
    let logits = (formula::image("teacher logits", (6, IDENTITIES)) * 7.0).expect("logits");
    case.taught(Output::Logits, logits).compare();
}

#[test]
fn feature_regression() {
    let golden = Golden::read("losses");
    for (name, channels, sum, standardise) in [
        ("feature_mean", 6, false, false),
        ("feature_sum", 6, true, false),
        ("feature_connected", 4, true, false),
        ("feature_standardised", 6, false, true),
    ] {
        for connector in [Connector::Auto, if channels == 6 { Connector::None } else { Connector::Linear }] {
            let config = FeatureRegression { connector, standardise, sum, ..FeatureRegression::default() };
            let mut case = Case::new(&golden, name, &config, formula::image("map", (3, channels, 4, 4)));
            case.wanted = Wanted::Map;
            case.taught(Output::Map("tap".into()), formula::image("target", (3, 6, 4, 4))).compare();
        }
    }
}

#[test]
fn embeddings_and_their_similarities() {
    let golden = Golden::read("losses");
    let wide = formula::image("wide embedding", (6, WIDE));
    let regression = EmbeddingRegression::default();
    Case::new(&golden, "embedding", &regression, wide.clone()).taught(Output::Embedding, teacher()).compare();
    Case::new(&golden, "embedding_connected", &regression, embedding()).taught(Output::Embedding, teacher()).compare();
    for (name, distance, unit_length) in [
        ("embedding_squared", EmbeddingDistance::Squared, true),
        ("embedding_squared_raw", EmbeddingDistance::Squared, false),
        ("embedding_smooth", EmbeddingDistance::SmoothL1, true),
    ] {
        let config = EmbeddingRegression { distance, unit_length, beta: 0.2, ..EmbeddingRegression::default() };
        Case::new(&golden, name, &config, wide.clone()).taught(Output::Embedding, teacher()).compare();
    }
    let smooth = RelationSimilarity { distance: Distance::SmoothL1, beta: 0.3, ..RelationSimilarity::default() };
    let queue = RelationSimilarity { queue: 4, ..RelationSimilarity::default() };
    for (name, config, before) in [
        ("relation_similarity", &RelationSimilarity::default(), 0),
        ("relation_similarity_smooth", &smooth, 0),
        ("relation_similarity_queue", &queue, 2),
    ] {
        let case = Case::new(&golden, name, config, embedding()).taught(Output::Embedding, teacher());
        Case { before, ..case }.compare();
    }
}

#[test]
fn relational_contrastive() {
    let golden = Golden::read("losses");
    let literal = RelationalContrastive { hidden: 10, relation: 7, centre: false, ..RelationalContrastive::default() };
    let sum = RelationalContrastive { sum: true, ..literal.clone() };
    let wide = |other: &RelationalContrastive| RelationalContrastive { temperature: 0.1, ..other.clone() };
    let centred = RelationalContrastive { centre: true, ..literal.clone() };
    let plain = RelationalContrastive { unit_length: false, ..centred.clone() };
    let scores = RelationalContrastive { centre_scores: true, ..literal.clone() };
    let connected = RelationalContrastive { connector: true, ..literal.clone() };
    let any = RelationalContrastive { negatives: Negatives::AnyPair, ..literal.clone() };
    let queue = RelationalContrastive { queue: 5, ..literal.clone() };
    // Batches of three leave no choice of negatives; in two of them, some pairs have none and are left out.
    let cases: [(&str, usize, &[usize], RelationalContrastive); 11] = [
        ("relational", WIDTH, &[0, 1, 2], literal.clone()),
        ("relational_sum", WIDTH, &[0, 0, 1], sum.clone()),
        ("relational_wide", WIDE, &[0, 1, 2], wide(&literal)),
        ("relational_wide_sum", WIDE, &[2, 1, 1], wide(&sum)),
        ("relational_centred", WIDTH, &[0, 1, 2], centred.clone()),
        ("relational_wide_centred", WIDE, &[2, 1, 1], wide(&centred)),
        ("relational_plain", WIDTH, &[0, 1, 2], plain),
        ("relational_scores", WIDTH, &[0, 1, 2], scores),
        ("relational_connected", WIDTH, &[0, 1, 2], connected),
        ("relational_any", WIDTH, &[0, 1], any),
        ("relational_queue", WIDTH, &[0, 1, 2], queue),
    ];
    for (name, width, identities, config) in cases {
        let faces = identities.len();
        let mut case = Case::new(&golden, name, &config, formula::image("small batch", (faces, width)));
        case.identities = identities;
        case.before = usize::from(config.queue > 0);
        case.taught(Output::Embedding, formula::image("teacher", (faces, WIDE))).compare();
    }
}
