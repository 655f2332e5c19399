//! What students have in common that are recognisers of large faces: they see small faces blown up.

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::error::{Error, Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::recogniser::{EmbeddingHead, Trunk};
use gdrd_core::nn::{Dropout, Entrance, Inference, Linear, Mode, Plan, Preprocessing, Weights};
use gdrd_core::student::{BACKBONE, LastLinear, Part, Student, StudentCard, named};
use serde::{Deserialize, Serialize};

/// What makes a recogniser's embedding of its last map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RecogniserHead {
    /// What the published network has.
    #[default]
    Teacher,
    /// One fully connected layer of all values of the map.
    Linear,
}

/// The options that both kinds have.
#[derive(Clone, Copy)]
pub(crate) struct Common {
    pub(crate) input: usize,
    pub(crate) preprocessing: Option<Preprocessing>,
    pub(crate) embedding: usize,
    pub(crate) head: RecogniserHead,
    pub(crate) dropout: f64,
    pub(crate) backbone_blocks: Option<usize>,
}

impl Common {
    /// What is wrong with the options, for a network of `blocks` blocks.
    pub(crate) fn check(&self, blocks: usize) -> impl Iterator<Item = Problem> {
        let nested =
            |problem: Problem| Problem::new("preprocessing", format!("`{}`: {}", problem.key, problem.message));
        let preprocessing = self.preprocessing.iter().flat_map(Preprocessing::check).map(nested).collect::<Vec<_>>();
        [
            Problem::within("input", self.input, 32..=512),
            Problem::within("embedding", self.embedding, 1..=16_384),
            Problem::unless((0.0..1.0).contains(&self.dropout), "dropout", || {
                format!("expected at least 0 and below 1, found {}", self.dropout)
            }),
            self.backbone_blocks.and_then(|end| Problem::within("backbone_blocks", end, 1..=blocks)),
        ]
        .into_iter()
        .flatten()
        .chain(preprocessing)
    }
}

/// A recogniser as a student.
pub(crate) struct Recogniser {
    card: StudentCard,
    preprocessing: Preprocessing,
    entrance: Entrance,
    trunk: Trunk,
    /// Blocks of the backbone; the others belong to the head.
    end: usize,
    head: Head,
}

enum Head {
    Own(Box<dyn EmbeddingHead>),
    Linear(Dropout, Linear),
}

impl Recogniser {
    /// The student of these options; `usual` is what the network's layout expects of its input, and `own` makes its own head for
    /// a last map of these channels, height and width.
    pub(crate) fn build(
        options: Common,
        usual: Preprocessing,
        trunk: Trunk,
        own: impl FnOnce([usize; 3], &Weights) -> Result<Box<dyn EmbeddingHead>>,
        cx: &BuildContext,
    ) -> Result<Box<dyn Student>> {
        let (input_size, weights) = (cx.input_size()?, cx.weights()?);
        let preprocessing = options.preprocessing.or(cx.initial_preprocessing()).unwrap_or(usual);
        let map = trunk.output(trunk.len(), options.input);
        let head = match options.head {
            RecogniserHead::Teacher => Head::Own(own(map, weights)?),
            RecogniserHead::Linear => {
                let linear = Linear::new(map.iter().product(), options.embedding, true, &weights.pp(LINEAR))?;
                Head::Linear(Dropout::new(options.dropout, LINEAR), linear)
            }
        };
        let end = options.backbone_blocks.unwrap_or(trunk.len());
        let map = trunk.output(end, options.input);
        Ok(Box::new(Self {
            card: StudentCard { input_size, map, embedding: Some(options.embedding) },
            preprocessing,
            entrance: Entrance::new(input_size, options.input, preprocessing),
            trunk,
            end,
            head,
        }))
    }
}

impl Recogniser {
    /// The name of the map after the first `blocks` blocks.
    fn map_name(&self, blocks: usize) -> String {
        if blocks == self.end { BACKBONE.to_string() } else { format!("blocks.{}", blocks - 1) }
    }

    /// The last map, of the backbone's.
    fn last_map(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        if map.rank() != 4 {
            let found = map.dims();
            return Err(Error::component(format!(
                "expected a feature map [batch, channels, height, width], found {found:?}"
            )));
        }
        self.trunk.forward(self.end..self.trunk.len(), map, mode)
    }
}

/// What the names of the tensors of a head of one layer begin with.
const LINEAR: &str = "head";

impl Student for Recogniser {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn backbone(&self, faces: &FaceBatch, mode: Mode) -> Result<Tensor> {
        self.trunk.forward(0..self.end, &self.entrance.forward(faces)?, mode)
    }

    fn head(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        let map = self.last_map(map, mode)?;
        match &self.head {
            Head::Own(head) => head.forward(&map, mode),
            Head::Linear(dropout, linear) => linear.forward(&dropout.forward(&map.flatten_from(1)?, mode)?),
        }
    }

    fn maps(&self) -> Vec<String> {
        (1..=self.trunk.len()).map(|blocks| self.map_name(blocks)).collect()
    }

    fn features(&self, faces: &FaceBatch, names: &[String], mode: Mode) -> Result<Vec<Tensor>> {
        let mut x = self.entrance.forward(faces)?;
        let mut found = Vec::new();
        for block in 0..self.trunk.len() {
            x = self.trunk.forward(block..block + 1, &x, mode)?;
            let name = self.map_name(block + 1);
            if names.contains(&name) || block + 1 == self.trunk.len() {
                found.push((name, x.clone()));
            }
        }
        named(&found, names)
    }

    fn last_linear(&self) -> Option<LastLinear> {
        let Head::Linear(_, linear) = &self.head else { return None };
        let (outputs, inputs) = linear.weight().dims2().ok()?;
        let name = |of: &str| format!("{LINEAR}.{of}");
        Some(LastLinear { weight: name("weight"), bias: name("bias"), inputs, outputs })
    }

    fn before_last_linear(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        match &self.head {
            Head::Own(_) => Err(Error::component("the head is the teacher's; expected `head = \"linear\"`")),
            Head::Linear(..) => Ok(self.last_map(map, mode)?.flatten_from(1)?),
        }
    }

    fn inference(&self) -> Result<Option<Inference>> {
        let (mut plan, faces) = Plan::new([3, self.card.input_size, self.card.input_size]);
        let x = self.entrance.plan(&mut plan, faces);
        let Some(map) = self.trunk.plan(0..self.trunk.len(), &mut plan, x)? else { return Ok(None) };
        let embedding = match &self.head {
            Head::Own(head) => head.plan(&mut plan, map)?,
            Head::Linear(_, linear) => {
                let x = plan.flatten(map);
                linear.plan(&mut plan, x, None, &gdrd_core::nn::Activation::Identity)?
            }
        };
        Ok(Some(plan.finish(embedding)))
    }

    fn part(&self, parameter: &str) -> Part {
        match self.trunk.block_of(parameter) {
            Some(block) if block < self.end => Part::Backbone,
            _ => Part::Head,
        }
    }

    fn preprocessing(&self) -> Option<Preprocessing> {
        Some(self.preprocessing)
    }

    fn replaces(&self, tensor: &str) -> bool {
        matches!(self.head, Head::Linear(..)) && self.trunk.block_of(tensor).is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::{D, Device};
    use gdrd_core::context::Bare;
    use gdrd_core::face::{Face, Kernel};
    use gdrd_core::nn::iresnet::Iresnet;
    use gdrd_core::nn::mobilefacenet::MobileFaceNet;
    use gdrd_core::nn::weights::{Draw, Variables};
    use gdrd_core::nn::{Init, l2_normalise};
    use gdrd_core::student::StudentConfig;

    use super::*;
    use crate::networks::{IresnetLayout, IresnetStudent, MobileFaceNetLayout, MobileFaceNetStudent};

    /// Numbers that differ by tensor and place, and suit a network of many layers.
    fn drawn(name: &str, count: usize, init: Init) -> Vec<f32> {
        let start = name.bytes().fold(17u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let noise = (0..count as u32).map(|at| (start ^ at.wrapping_mul(2_654_435_761)).wrapping_mul(0x9e37_79b9) >> 8);
        let unit = noise.map(|bits| bits as f32 / (1 << 23) as f32 - 1.0);
        let (centre, spread) = match init {
            Init::Constant(value) => (value, 0.2),
            Init::Normal { std } => (0.0, std),
            Init::Uniform { bound } => (0.0, bound),
        };
        unit.map(|value| centre + spread * value).collect()
    }

    fn made<T>(build: impl FnOnce(&Weights) -> Result<T>) -> (T, Variables) {
        let draw: Rc<Draw> = Rc::new(drawn);
        Weights::create(&Device::Cpu, draw, build).expect("a network")
    }

    fn student(config: &dyn StudentConfig, tensors: Option<&Variables>) -> Box<dyn Student> {
        let build = |weights: &Weights| gdrd_core::student::build(config, 16, weights, &Bare(Device::Cpu));
        match tensors {
            None => made(build).0,
            Some(tensors) => {
                Weights::read(tensors.tensors(), &Device::Cpu, |_| false, build).expect("the names are the layout's")
            }
        }
    }

    /// Small faces, and the same as bytes at 112 pixels.
    fn faces() -> [FaceBatch; 2] {
        let face = |seed: u32| {
            let pixels = (0..3 * 256).map(|at: u32| {
                let (x, y, c) = (at / 3 % 16, at / 48, at % 3);
                let wave = ((x + seed) as f32 / 2.0).sin() + ((y * (c + 1)) as f32 / (2.0 + seed as f32)).cos();
                (128.0 + 60.0 * wave) as u8
            });
            Face::new(16, 16, pixels.collect()).expect("a face")
        };
        let small: Vec<Face> = (0..3).map(face).collect();
        let large: Vec<Face> =
            small.iter().map(|face| face.resized(112, Kernel::Bicubic, true).expect("a face")).collect();
        [small, large].map(|faces| FaceBatch::from_faces(&faces, &Device::Cpu).expect("a batch"))
    }

    fn embedded(student: &dyn Student, faces: &FaceBatch) -> Tensor {
        let map = student.backbone(faces, Mode::Evaluate).expect("a map");
        assert_eq!(map.dims()[1..], student.card().map);
        student.head(&map, Mode::Evaluate).expect("an embedding")
    }

    /// The student with a teacher's weights is the teacher on the face blown up, and its inference form is the student.
    fn is_its_teacher(
        config: &dyn StudentConfig,
        tensors: &Variables,
        preprocessing: Preprocessing,
        teacher: &dyn Fn(&Tensor) -> Tensor,
    ) {
        let [small, large] = faces();
        let student = student(config, Some(tensors));
        let found = embedded(&*student, &small);
        let expected = teacher(&preprocessing.apply(&large).expect("an input"));
        let (a, b) = (l2_normalise(&found).expect("unit"), l2_normalise(&expected).expect("unit"));
        let cosines = (a * b).and_then(|product| product.sum(D::Minus1)?.to_vec1::<f32>()).expect("cosines");
        // The student's faces are not rounded to bytes.
        assert!(cosines.iter().all(|cosine| *cosine > 0.999), "{cosines:?}");
        let Some(network) = student.inference().expect("fits") else { return };
        let values = small.tensor().flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
        let fill = |input: &mut [f32]| {
            input.copy_from_slice(&values);
            Ok(())
        };
        let form = network.run(small.len(), fill, <[f32]>::to_vec).expect("embeddings");
        let found = found.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
        let largest = found.iter().fold(0f32, |most, value| most.max(value.abs()));
        assert!(form.len() == found.len(), "{} values", form.len());
        assert!(form.iter().zip(&found).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{form:?} and {found:?}");
    }

    #[test]
    fn mobilefacenets_with_their_teachers_weights_are_their_teachers() {
        use MobileFaceNetLayout::{FacexZoo, Foamliu, Insightface};
        for (layout, embedding) in [(Foamliu, 128), (Insightface, 8), (FacexZoo, 8)] {
            let config = MobileFaceNetStudent { layout, embedding, scale: 1, ..MobileFaceNetStudent::default() };
            assert!(config.check().is_empty());
            let layout = config.layout();
            let (_, tensors) = made(|weights| MobileFaceNet::new(layout, weights));
            let teacher = MobileFaceNet::read(tensors.tensors(), &Device::Cpu).expect("a teacher");
            is_its_teacher(&config, &tensors, layout.preprocessing(), &|x| teacher.forward(x).expect("an embedding"));
        }
    }

    #[test]
    fn iresnets_with_their_teachers_weights_are_their_teachers() {
        for layout in
            [IresnetLayout::Insightface, IresnetLayout::Cvlface, IresnetLayout::Evolve, IresnetLayout::EvolveSe]
        {
            let depth = if layout == IresnetLayout::EvolveSe { 34 } else { 18 };
            let config = IresnetStudent { layout, depth, embedding: 8, ..IresnetStudent::default() };
            assert!(config.check().is_empty());
            let (_, tensors) = made(|weights| Iresnet::new(config.layout(), weights));
            let teacher = Iresnet::read(tensors.tensors(), &Device::Cpu).expect("a teacher");
            let usual = Preprocessing::default();
            is_its_teacher(&config, &tensors, usual, &|x| teacher.forward(x).expect("an embedding"));
        }
    }

    #[test]
    fn the_head_begins_where_the_option_says() {
        let parts = |config: &MobileFaceNetStudent, names: &[&str]| {
            let student = student(config, None);
            names.iter().map(|name| student.part(name)).collect::<Vec<_>>()
        };
        let foamliu = MobileFaceNetStudent {
            layout: MobileFaceNetLayout::Foamliu,
            embedding: 128,
            ..MobileFaceNetStudent::default()
        };
        let names = ["conv1.0.weight", "dw_conv.bn1.bias", "features.4.conv.2.weight", "features.5.conv.2.weight"];
        let names = [&names[..], &["conv2.0.weight", "gdconv.bn.weight", "bn.bias", "head.weight"]].concat();
        let (backbone, head) = (Part::Backbone, Part::Head);
        assert_eq!(parts(&foamliu, &names), [[backbone; 5].as_slice(), &[head; 3]].concat());
        for (blocks, map, last) in
            [(6, [64, 28, 28], 3), (13, [128, 14, 14], 4), (16, [128, 7, 7], 4), (17, [512, 7, 7], 5)]
        {
            let head = RecogniserHead::Linear;
            let config = MobileFaceNetStudent { backbone_blocks: Some(blocks), head, ..foamliu.clone() };
            let student = student(&config, None);
            assert_eq!(student.card().map, map);
            assert_eq!(names.iter().filter(|name| student.part(name) == backbone).count(), last, "{blocks}");
            assert_eq!(
                names.iter().filter(|name| student.replaces(name)).count(),
                3,
                "its own and the teacher's heads"
            );
        }
        // Other sizes of the input have maps of their own; 3 blocks of an iresnet end where the document says.
        let config = MobileFaceNetStudent { input: 48, ..foamliu };
        let [small, _] = faces();
        assert_eq!(embedded(&*student(&config, None), &small).dims(), [3, 128]);
        let config = IresnetStudent { backbone_blocks: Some(5), input: 64, embedding: 4, ..IresnetStudent::default() };
        assert_eq!(student(&config, None).card().map, [128, 16, 16]);
    }

    #[test]
    fn numbers_out_of_bounds_are_named() {
        let bad = Preprocessing { std: [0.0; 3], ..Preprocessing::default() };
        let wrong = MobileFaceNetStudent {
            layout: MobileFaceNetLayout::Foamliu,
            blocks: [0, 1, 1, 1],
            scale: 0,
            input: 8,
            dropout: 1.0,
            preprocessing: Some(bad),
            backbone_blocks: Some(18),
            ..MobileFaceNetStudent::default()
        };
        let keys: Vec<&str> = wrong.check().iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["embedding", "blocks", "scale", "input", "dropout", "backbone_blocks", "preprocessing"]);
        let wrong = IresnetStudent { depth: 19, ..IresnetStudent::default() };
        assert_eq!(wrong.check()[0].key, "depth");
    }
}
