//! The losses and their gradients are PyTorch's; `golden/losses/ORIGIN.md` says how the reference was written.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use gdrd_core::error::{Error, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::loss::{
    ArcFace, Connector, CosFace, CrossEntropy, EmbeddingRegression, FeatureRegression, LogitDistillation, LossConfig,
    LossContext, LossInputs, RelationSimilarity, RelationalContrastive, TeacherLogits,
};
use gdrd_core::nn::{Mode, Weights};
use gdrd_core::seed::Seed;
use gdrd_core::student::{Student, StudentCard};
use gdrd_core::teacher::Output;

use crate::golden::{Golden, formula, trainable};

const LABELS: [usize; 6] = [3, 0, 4, 1, 1, 2];
const IDENTITIES: usize = 5;
const WIDTH: usize = 8;
const WIDE: usize = 12;
/// The only teacher, and the only other term of the stage.
const TEACHER: &str = "t";
const CLASSIFIER: &str = "identity";

/// A student that has sizes and nothing else.
struct Sizes(StudentCard);

impl Sizes {
    fn new(map: [usize; 3], embedding: usize) -> Self {
        Self(StudentCard { input_size: 16, map, embedding: Some(embedding) })
    }
}

impl Student for Sizes {
    fn card(&self) -> &StudentCard {
        &self.0
    }

    fn backbone(&self, _: &FaceBatch, _: Mode) -> Result<Tensor> {
        Err(Error::component("no loss here runs the student"))
    }

    fn head(&self, _: &Tensor, _: Mode) -> Result<Tensor> {
        Err(Error::component("no loss here runs the student"))
    }
}

struct Around<'a> {
    student: &'a Sizes,
    /// The teacher's output, of which the shape is told.
    teacher: Option<(Output, Tensor)>,
    centres: Option<Tensor>,
}

impl LossContext for Around<'_> {
    fn student(&self) -> &StudentCard {
        &self.student.0
    }

    fn teacher_shape(&self, _: &str, output: &Output) -> Result<Vec<usize>> {
        match &self.teacher {
            Some((offered, tensor)) if offered == output => Ok(tensor.dims()[1..].to_vec()),
            _ => Err(Error::component(format!("the teacher has no {output}"))),
        }
    }

    fn default_map(&self, _: &str) -> Result<Output> {
        Ok(Output::Map("tap".into()))
    }

    fn only_teacher(&self, _: Option<&str>, _: &Output) -> Result<String> {
        Ok(TEACHER.into())
    }

    fn identities(&self) -> Result<usize> {
        Ok(IDENTITIES)
    }

    fn class_centres(&self, _: &str) -> Result<Tensor> {
        self.centres.clone().ok_or_else(|| Error::component("no centres"))
    }

    fn classifiers(&self) -> Vec<String> {
        vec![CLASSIFIER.into()]
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }
}

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
        let (mut map, mut embedding, mut logits) = (None, None, BTreeMap::new());
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
                logits.insert(CLASSIFIER.to_string(), input.as_tensor().clone());
                "logits"
            }
        };
        let student = Sizes::new(shape, width);
        let centres = golden.0.get(&format!("{name}.centres")).cloned();
        let context = Around { student: &student, teacher: self.teacher.clone(), centres };
        let build = |weights: &Weights| config.build(&context, weights);
        let with_variables = golden.0.contains_key(&format!("{name}.layout"));
        let (loss, made) = if with_variables {
            trainable(golden, name, build)
        } else {
            let none = std::rc::Rc::new(|name: &str, _, _| panic!("an unexpected variable `{name}`"));
            Weights::create(&Device::Cpu, none, build).expect("a loss")
        };
        let numbers: Vec<u32> = self.identities.iter().map(|&identity| identity as u32).collect();
        let labels = Tensor::new(numbers, &Device::Cpu).expect("labels");
        let faces = FaceBatch::from_tensor(formula::image("faces", (1, 3, 2, 2))).expect("faces");
        let offered =
            self.teacher.into_iter().map(|(output, tensor)| ((TEACHER.to_string(), output), tensor)).collect();
        let inputs = LossInputs {
            map,
            embedding,
            teachers: &offered,
            labels: Some(&labels),
            identities: self.identities,
            faces: &faces,
            student: &student,
            logits: &logits,
            stream: Seed(7).stream(name, &[]),
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
