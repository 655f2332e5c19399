//! The student of the paper: the convolutional layers of a ResNet-18 without its stem's reduction.

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::{Activation, Alignment, ConvNorm, Inference, Mode, Plan, Preprocessing};
use gdrd_core::student::{BACKBONE, LastLinear, Student, StudentCard, StudentConfig};
use serde::{Deserialize, Serialize};

use super::blocks::{BasicBlock, Downsample, conv_norm};
use super::bounds::{MOST_BLOCKS, MOST_STRIDE, WIDEST};
use super::head::{Head, HeadOptions};

/// A 3x3 stem and stages of basic blocks. The defaults are the paper's student at 16x16 (15.3 M parameters): channels 128,
/// 256 and 512 at 16, 8 and 4 pixels, and a fully connected layer to 512 values.
///
/// The paper gives the channels and the embedding; stem, strides and the number of blocks are our reading of "convolutional
/// layers of ResNet18".
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ResnetTrunk {
    /// Channels of each stage; the stem has those of the first.
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = WIDEST))))]
    pub channels: Vec<usize>,
    /// Basic blocks of each stage.
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = MOST_BLOCKS))))]
    pub blocks: Vec<usize>,
    /// Stride of the first block of each stage.
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = MOST_STRIDE))))]
    pub strides: Vec<usize>,
    /// Stride of the stem; 1 for small faces.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = MOST_STRIDE)))]
    pub stem_stride: usize,
    /// How stages of stride 2 halve their map, the head's too.
    pub downsample: Downsample,
    /// Whether the last block ends in a ReLU. Without it the feature map has negative values too, as a diffusion
    /// encoder's has.
    pub last_relu: bool,
    /// Values in an embedding.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub embedding: usize,
    /// The head.
    pub head: HeadOptions,
}

impl Default for ResnetTrunk {
    fn default() -> Self {
        Self {
            channels: vec![128, 256, 512],
            blocks: vec![2, 2, 2],
            strides: vec![1, 2, 2],
            stem_stride: 1,
            downsample: Downsample::Stride,
            last_relu: true,
            embedding: 512,
            head: HeadOptions::default(),
        }
    }
}

impl StudentConfig for ResnetTrunk {
    fn check(&self) -> Vec<Problem> {
        let stages = self.channels.len();
        let same = self.blocks.len() == stages && self.strides.len() == stages;
        [
            Problem::unless(stages > 0, "channels", || "expected at least one stage, found none".into()),
            Problem::all_within("channels", &self.channels, 1..=WIDEST),
            Problem::unless(same, "blocks", || {
                let (blocks, strides) = (self.blocks.len(), self.strides.len());
                format!("expected as many `blocks` and `strides` as `channels`, {stages}, found {blocks} and {strides}")
            }),
            Problem::all_within("blocks", &self.blocks, 1..=MOST_BLOCKS),
            Problem::all_within("strides", &self.strides, 1..=MOST_STRIDE),
            Problem::unless(
                self.downsample == Downsample::Stride || self.strides.iter().all(|s| *s <= 2),
                "downsample",
                || format!("`wavelet` halves a map: expected strides of 1 and 2, found {:?}", self.strides),
            ),
            Problem::within("stem_stride", self.stem_stride, 1..=MOST_STRIDE),
            Problem::within("embedding", self.embedding, 1..=WIDEST),
            self.head.check(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (input_size, weights) = (cx.input_size()?, cx.weights()?);
        let backbone = weights.pp("backbone");
        let mut size = input_size.div_ceil(self.stem_stride);
        let stem = conv_norm(3, self.channels[0], 3, self.stem_stride, Activation::Relu, &backbone.pp("stem"))?;
        let mut stages = Vec::new();
        let mut inputs = self.channels[0];
        for (stage, &outputs) in self.channels.iter().enumerate() {
            let (stride, count) = (self.strides[stage], self.blocks[stage]);
            let place = backbone.pp(format!("stage{stage}"));
            if stride == 2 {
                self.downsample.check([size, size])?;
            }
            stages.push(BasicBlock::stage(inputs, outputs, (stride, self.downsample), count, &place)?);
            (inputs, size) = (outputs, size.div_ceil(stride));
        }
        if let (Some(last), false) = (stages.last_mut().and_then(|stage| stage.last_mut()), self.last_relu) {
            last.second.activation = Activation::Identity;
        }
        let map = [inputs, size, size];
        let head = Head::reduced_by(self.downsample, &self.head, map, self.embedding, &weights.pp("head"))?;
        let card = StudentCard { input_size, map, embedding: Some(self.embedding) };
        Ok(Box::new(Network { card, stem, stages, head }))
    }
}

struct Network {
    card: StudentCard,
    stem: ConvNorm,
    stages: Vec<Vec<BasicBlock>>,
    head: Head,
}

impl Student for Network {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn input(&self) -> Option<Preprocessing> {
        Some(Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() })
    }

    fn backbone(&self, faces: &FaceBatch, mode: Mode) -> Result<Tensor> {
        // [0, 1] to [-1, 1], the range of the recognisers and diffusion models that students learn from.
        let x = faces.tensor().affine(2.0, -1.0)?;
        let mut x = self.stem.forward(&x, None, mode)?;
        for block in self.stages.iter().flatten() {
            x = block.forward(&x, mode)?;
        }
        Ok(x)
    }

    fn maps(&self) -> Vec<String> {
        let inner = (0..self.stages.len() - 1).map(|at| format!("stage{at}"));
        let backbone = std::iter::once("stem".to_string()).chain(inner).chain([BACKBONE.to_string()]);
        backbone.chain(self.head.map_names()).collect()
    }

    fn features(&self, faces: &FaceBatch, names: &[String], mode: Mode) -> Result<Vec<Tensor>> {
        let x = faces.tensor().affine(2.0, -1.0)?;
        let mut x = self.stem.forward(&x, None, mode)?;
        let mut found = vec![x.clone()];
        for stage in &self.stages {
            for block in stage {
                x = block.forward(&x, mode)?;
            }
            found.push(x.clone());
        }
        self.head.with_maps(&x, self.maps(), found, names)
    }

    fn head(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.forward(map, mode)
    }

    fn last_linear(&self) -> Option<LastLinear> {
        self.head.last_linear("head")
    }

    fn before_last_linear(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.before_last(map, mode)
    }

    fn inference(&self) -> Result<Option<Inference>> {
        let (mut plan, faces) = Plan::new([3, self.card.input_size, self.card.input_size]);
        let x = plan.affine(faces, 2.0, -1.0);
        let mut x = self.stem.plan(&mut plan, x, None)?;
        for block in self.stages.iter().flatten() {
            x = block.plan(&mut plan, x)?;
        }
        let embedding = self.head.plan(&mut plan, x)?;
        Ok(Some(plan.finish(embedding)))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::{DType, Device};
    use gdrd_core::context::Bare;
    use gdrd_core::nn::weights::Draw;
    use gdrd_core::nn::{Conv2d, Weights};

    use super::*;
    use crate::networks::Pool;

    fn build(config: &ResnetTrunk, size: usize) -> (Box<dyn Student>, usize) {
        let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.01; count]);
        let (student, made) =
            Weights::create(&Device::Cpu, draw, |w| gdrd_core::student::build(config, size, w, &Bare(Device::Cpu)))
                .expect("student");
        (student, made.parameters.values().map(|v| v.elem_count()).sum())
    }

    #[test]
    fn the_default_is_the_papers_student() {
        let (student, parameters) = build(&ResnetTrunk::default(), 16);
        assert_eq!(student.card().map, [512, 4, 4]);
        assert_eq!((parameters as f64 / 1e5).round(), 153.0, "{parameters}");
    }

    #[test]
    fn shapes_follow_the_options() {
        let config = ResnetTrunk {
            channels: vec![4, 6],
            blocks: vec![1, 1],
            strides: vec![2, 2],
            embedding: 5,
            head: HeadOptions { hidden: vec![7], ..HeadOptions::default() },
            ..ResnetTrunk::default()
        };
        let (student, _) = build(&config, 16);
        let faces = Tensor::zeros((2, 3, 16, 16), DType::F32, &Device::Cpu).expect("faces");
        let map = student.backbone(&FaceBatch::from_tensor(faces).expect("batch"), Mode::Train).expect("map");
        assert_eq!(map.dims()[1..], student.card().map);
        assert_eq!(student.head(&map, Mode::Train).expect("embedding").dims(), [2, 5]);
    }

    #[test]
    fn stages_of_the_head_halve_the_map_and_belong_to_the_head() {
        let head = HeadOptions { channels: vec![6, 7], blocks: 2, ..HeadOptions::default() };
        let config = ResnetTrunk {
            channels: vec![4],
            blocks: vec![1],
            strides: vec![1],
            embedding: 5,
            head,
            ..ResnetTrunk::default()
        };
        let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.01; count]);
        let (student, made) =
            Weights::create(&Device::Cpu, draw, |w| gdrd_core::student::build(&config, 10, w, &Bare(Device::Cpu)))
                .expect("student");
        assert_eq!(student.card().map, [4, 10, 10]);
        assert_eq!(made.parameters["head.stage1.1.first.conv.weight"].dims(), [7, 7, 3, 3]);
        // 10 pixels become 5, then 3.
        assert_eq!(made.parameters["head.embedding.weight"].dims(), [5, 7 * 3 * 3]);
        let map = Tensor::zeros((2, 4, 10, 10), DType::F32, &Device::Cpu).expect("map");
        assert_eq!(student.head(&map, Mode::Train).expect("embedding").dims(), [2, 5]);
    }

    /// For heads of every kind, what the layers give one by one.
    #[test]
    fn the_inference_form_gives_the_same_embeddings() {
        let heads = [
            HeadOptions::default(),
            HeadOptions { pool: Pool::Average, dropout: 0.4, normalise: true, ..HeadOptions::default() },
            HeadOptions { channels: vec![6], hidden: vec![9, 8], ..HeadOptions::default() },
        ];
        let ways = [Downsample::Stride, Downsample::Wavelet];
        for (head, downsample) in heads.into_iter().flat_map(|head| ways.map(|way| (head.clone(), way))) {
            let (channels, blocks, strides) = (vec![12, 20], vec![2, 1], vec![1, 2]);
            let config =
                ResnetTrunk { channels, blocks, strides, downsample, embedding: 7, head, ..ResnetTrunk::default() };
            // Something else for each parameter and each of its values.
            let draw: Rc<Draw> = Rc::new(|name, count, _| {
                let least = if name.ends_with("running_var") { 0.5 } else { -0.2 };
                (0..count).map(|at| ((name.len() * 31 + at * 7919) % 201) as f32 / 500.0 + least).collect()
            });
            let (_, made) =
                Weights::create(&Device::Cpu, draw, |w| gdrd_core::student::build(&config, 12, w, &Bare(Device::Cpu)))
                    .expect("student");
            let student = Weights::read(
                made.tensors(),
                &Device::Cpu,
                |_| false,
                |w| gdrd_core::student::build(&config, 12, w, &Bare(Device::Cpu)),
            )
            .expect("student");
            let network = student.inference().expect("fits").expect("a form");
            for images in [2, 1, 5] {
                let faces = Tensor::rand(0f32, 1.0, (images, 3, 12, 12), &Device::Cpu).expect("faces");
                let input = faces.flatten_all().and_then(|faces| faces.to_vec1::<f32>()).expect("values");
                let map =
                    student.backbone(&FaceBatch::from_tensor(faces).expect("batch"), Mode::Evaluate).expect("map");
                let expected =
                    student.head(&map, Mode::Evaluate).and_then(|e| Ok(e.flatten_all()?.to_vec1::<f32>()?));
                let fill = |to: &mut [f32]| {
                    to.copy_from_slice(&input);
                    Ok(())
                };
                let found = network.run(images, fill, <[f32]>::to_vec).expect("embeddings");
                let expected = expected.expect("embeddings");
                let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
                assert_eq!(found.len(), expected.len());
                assert!(
                    found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest),
                    "{config:?}: {found:?}, expected {expected:?}"
                );
            }
        }
    }

    #[test]
    fn the_low_band_of_haars_transform_halves_the_map() {
        let config = ResnetTrunk {
            channels: vec![4, 6],
            blocks: vec![1, 2],
            strides: vec![1, 2],
            downsample: Downsample::Wavelet,
            embedding: 5,
            head: HeadOptions { channels: vec![7], ..HeadOptions::default() },
            ..ResnetTrunk::default()
        };
        let (student, parameters) = build(&config, 16);
        let by_stride = build(&ResnetTrunk { downsample: Downsample::Stride, ..config.clone() }, 16);
        assert_eq!(
            (student.card().map, parameters),
            (by_stride.0.card().map, by_stride.1),
            "the transform is not learnt"
        );
        let low = Conv2d::haar_low(1, &Device::Cpu).expect("a transform");
        let x = Tensor::arange(0f32, 16.0, &Device::Cpu).and_then(|x| x.reshape((1, 1, 4, 4))).expect("a map");
        let y = low.forward(&x).and_then(|y| Ok(y.flatten_all()?.to_vec1::<f32>()?)).expect("the low band");
        // Half of 0 + 1 + 4 + 5, and so on.
        assert_eq!(y, [5.0, 9.0, 21.0, 25.0]);

        let odd = |size| {
            Weights::create(&Device::Cpu, Rc::new(|_, count, _| vec![0.01; count]), |w| {
                gdrd_core::student::build(&config, size, w, &Bare(Device::Cpu))
            })
        };
        let error = odd(10).err().expect("the head's stage has 5 pixels").to_string();
        assert!(error.contains("even height and width, found 5x5"), "{error}");
        let strides = ResnetTrunk { strides: vec![1, 3], ..config.clone() };
        assert!(strides.check()[0].message.contains("expected strides of 1 and 2, found [1, 3]"));
    }

    #[test]
    fn dropout_is_of_training_alone_and_has_bounds() {
        let head = HeadOptions { dropout: 0.5, ..HeadOptions::default() };
        let config =
            ResnetTrunk { channels: vec![4], blocks: vec![1], strides: vec![1], head, ..ResnetTrunk::default() };
        let (student, _) = build(&config, 8);
        let map = Tensor::ones((2, 4, 8, 8), DType::F32, &Device::Cpu).expect("map");
        let embed = |mode| student.head(&map, mode).and_then(|e| Ok(e.to_vec2::<f32>()?));
        let used = embed(Mode::Evaluate).expect("embeddings");
        assert_eq!(used[0], used[1]);
        assert!(embed(Mode::Train).is_err(), "there is no step to draw for");
        let _pass = gdrd_core::nn::Pass::step(1).set();
        let trained = embed(Mode::Train).expect("embeddings");
        assert_ne!(trained[0], trained[1]);
        for rate in [1.0, -0.1, f64::NAN] {
            let head = HeadOptions { dropout: rate, ..HeadOptions::default() };
            assert!(head.check().expect("a problem").message.contains("at least 0 and below 1, found"), "{rate}");
        }
    }

    #[test]
    fn maps_are_those_on_the_way_to_the_embedding() {
        let head = HeadOptions { channels: vec![5, 7], blocks: 2, ..HeadOptions::default() };
        let (channels, blocks, strides) = (vec![3, 4], vec![1, 2], vec![1, 2]);
        let config = ResnetTrunk { channels, blocks, strides, embedding: 6, head, ..ResnetTrunk::default() };
        let (student, _) = build(&config, 16);
        let names = student.maps();
        assert_eq!(names, ["stem", "stage0", "backbone", "head.stage0", "head.stage1"]);
        let faces = Tensor::rand(0f32, 1.0, (2, 3, 16, 16), &Device::Cpu).expect("faces");
        let faces = FaceBatch::from_tensor(faces).expect("a batch");
        let maps = student.features(&faces, &names, Mode::Evaluate).expect("maps");
        let shapes: Vec<&[usize]> = maps.iter().map(|map| &map.dims()[1..]).collect();
        assert_eq!(shapes, [[3, 16, 16], [3, 16, 16], [4, 8, 8], [5, 4, 4], [7, 2, 2]]);
        let values = |map: &Tensor| map.flatten_all().and_then(|map| map.to_vec1::<f32>()).expect("values");
        let backbone = student.backbone(&faces, Mode::Evaluate).expect("a map");
        assert!(values(&backbone) == values(&maps[2]));
        let last = student.before_last_linear(&backbone, Mode::Evaluate).expect("features");
        assert!(values(&last) == values(&maps[4]), "a head without hidden layers embeds its last map");
        let text = student.features(&faces, &["neck".into()], Mode::Evaluate).expect_err("no such map").to_string();
        assert!(text.contains("`neck`; there are [\"stem\""), "{text}");
    }

    #[test]
    fn uneven_lists_are_a_problem() {
        let config = ResnetTrunk { blocks: vec![2], ..ResnetTrunk::default() };
        assert!(config.check()[0].message.contains("found 1 and 3"));
    }
}
