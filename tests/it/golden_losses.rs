//! The losses and their gradients are PyTorch's; `golden/losses/ORIGIN.md` says how the reference was written.

use candle_core::{Device, Tensor, Var};
use gdrd_core::context::BuildContext;
use gdrd_core::loss::{
    ArcFace, Connector, CosFace, CrossEntropy, EmbeddingRegression, FeatureRegression, Labels, LogitDistillation,
    LossConfig, LossInputs, Offered, RelationSimilarity, RelationalContrastive, StageFacts, TeacherLogits,
};
use gdrd_core::nn::Weights;
use gdrd_core::plugin::Workbench;
use gdrd_core::seed::Seed;
use gdrd_core::student::StudentCard;
use gdrd_core::teacher::Output;

use crate::golden::{Golden, formula, trainable};

const LABELS: [usize; 6] = [3, 0, 4, 1, 1, 2];
const IDENTITIES: usize = 5;
const WIDTH: usize = 8;
const WIDE: usize = 12;

/// What the loss gets a gradient for.
enum Wanted {
    Embedding,
    Map,
    Logits,
}

/// One comparison: the loss, what it is given, and the name of its golden values.
struct Case<'a> {
    golden: &'a Golden,
    name: &'a str,
    config: &'a dyn LossConfig,
    wanted: Wanted,
    input: Tensor,
    teacher: Option<(Output, Tensor)>,
    identities: &'a [usize],
}

impl<'a> Case<'a> {
    fn new(golden: &'a Golden, name: &'a str, config: &'a dyn LossConfig, input: Tensor) -> Self {
        Self { golden, name, config, wanted: Wanted::Embedding, input, teacher: None, identities: &LABELS }
    }

    fn taught(mut self, output: Output, tensor: Tensor) -> Self {
        self.teacher = Some((output, tensor));
        self
    }

    /// Compares value, gradient of the input, gradients of the loss's own variables, and the logits where Python has some.
    fn compare(self) {
        let Self { golden, name, config, .. } = self;
        assert!(config.check().is_empty(), "options of `{name}`");
        let input = Var::from_tensor(&self.input).expect("a variable");
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
            teachers: self.teacher.iter().map(offered).collect(),
        };
        let bench = Workbench::new(Device::Cpu);
        let build =
            |weights: &Weights| config.build(&BuildContext::new(&bench).with_weights(weights).with_facts(&facts));
        let with_variables = golden.0.contains_key(&format!("{name}.layout"));
        let (loss, made) = if with_variables {
            trainable(golden, name, build)
        } else {
            let none = std::rc::Rc::new(|name: &str, _, _| panic!("an unexpected variable `{name}`"));
            Weights::create(&Device::Cpu, none, build).expect("a loss")
        };
        let needs = config.needs();
        let people = self.identities.iter().copied().map(Some).collect();
        let labels = Labels::new(people, &mut Ok).expect("labels");
        let inputs = LossInputs {
            map: map.filter(|_| needs.map),
            embedding: embedding.filter(|_| needs.embedding),
            teachers: self.teacher.iter().map(|(_, tensor)| tensor).collect(),
            labels: needs.labels.then_some(&labels),
            centres: golden.0.get(&format!("{name}.centres")).filter(|_| needs.centres),
            logits: logits.filter(|_| needs.logits_of.is_some()),
            denoiser: None,
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
        golden.compare(&format!("{name}.d_{key}"), gradients.get(&input).expect("a gradient of the input"));
        golden.compare_gradients(name, &made, &gradients);
    }
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
    Case::new(&golden, "smoothed", &CrossEntropy { label_smoothing: 0.15 }, embedding()).compare();
}

#[test]
fn margins() {
    let golden = Golden::read("losses");
    let configs: [(&str, &dyn LossConfig); 3] = [
        ("arcface", &ArcFace::default()),
        ("arcface_small", &ArcFace { scale: 16.0, margin: 0.3 }),
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
    Case::new(&golden, "embedding", &regression, wide).taught(Output::Embedding, teacher()).compare();
    Case::new(&golden, "embedding_connected", &regression, embedding()).taught(Output::Embedding, teacher()).compare();
    let similarity = RelationSimilarity::default();
    Case::new(&golden, "relation_similarity", &similarity, embedding()).taught(Output::Embedding, teacher()).compare();
}

#[test]
fn relational_contrastive() {
    let golden = Golden::read("losses");
    // Batches of three leave no choice of negatives; in two of them, some pairs have none and are left out.
    for (name, width, temperature, identities, sum, centre) in [
        ("relational", WIDTH, 0.4, [0, 1, 2], false, false),
        ("relational_sum", WIDTH, 0.4, [0, 0, 1], true, false),
        ("relational_wide", WIDE, 0.1, [0, 1, 2], false, false),
        ("relational_wide_sum", WIDE, 0.1, [2, 1, 1], true, false),
        ("relational_centred", WIDTH, 0.4, [0, 1, 2], false, true),
        ("relational_wide_centred", WIDE, 0.1, [2, 1, 1], false, true),
    ] {
        let partners = None;
        let config =
            RelationalContrastive { teacher: None, temperature, hidden: 10, relation: 7, partners, centre, sum };
        let mut case = Case::new(&golden, name, &config, formula::image("small batch", (3, width)));
        case.identities = &identities;
        case.taught(Output::Embedding, formula::image("teacher", (3, WIDE))).compare();
    }
}
