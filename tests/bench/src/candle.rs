//! The student made of candle's own layers, with the names of its file.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module, ModuleT, VarBuilder, linear, linear_no_bias};
use gdrd_core::context::{Bare, BuildContext};
use gdrd_core::face::FaceBatch;
use gdrd_core::trainer::{OptimizerConfig, Sgd};
use gdrd_student::networks::ResnetTrunk;

use crate::faces::{Inputs, weights};
use crate::{Case, Iteration, Result, Values};

/// What candle's layers fail with.
type Found<T> = candle_core::Result<T>;

struct ConvNorm(Conv2d, BatchNorm);

impl ConvNorm {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, at: &VarBuilder) -> Found<Self> {
        let config = Conv2dConfig { stride, padding: kernel / 2, ..Conv2dConfig::default() };
        let conv = candle_nn::conv2d_no_bias(inputs, outputs, kernel, config, at.pp("conv"))?;
        Ok(Self(conv, candle_nn::batch_norm(outputs, 1e-5, at.pp("bn"))?))
    }

    fn forward(&self, x: &Tensor, train: bool) -> Found<Tensor> {
        self.1.forward_t(&self.0.forward(x)?, train)
    }
}

struct Block {
    first: ConvNorm,
    second: ConvNorm,
    shortcut: Option<ConvNorm>,
    relu: bool,
}

impl Block {
    fn new(inputs: usize, outputs: usize, stride: usize, at: &VarBuilder) -> Found<Self> {
        let shortcut = || ConvNorm::new(inputs, outputs, 1, stride, &at.pp("shortcut"));
        Ok(Self {
            first: ConvNorm::new(inputs, outputs, 3, stride, &at.pp("first"))?,
            second: ConvNorm::new(outputs, outputs, 3, 1, &at.pp("second"))?,
            shortcut: (stride > 1 || inputs != outputs).then(shortcut).transpose()?,
            relu: true,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Found<Tensor> {
        let y = self.second.forward(&self.first.forward(x, train)?.relu()?, train)?;
        let y = match &self.shortcut {
            Some(shortcut) => (y + shortcut.forward(x, train)?)?,
            None => (y + x)?,
        };
        if self.relu { y.relu() } else { Ok(y) }
    }
}

struct Student {
    stem: ConvNorm,
    blocks: Vec<Block>,
    hidden: Vec<(Linear, BatchNorm)>,
    embedding: Linear,
    norm: Option<BatchNorm>,
}

impl Student {
    fn new(options: &ResnetTrunk, size: usize, at: &VarBuilder) -> Found<Self> {
        let (backbone, head) = (at.pp("backbone"), at.pp("head"));
        let mut inputs = options.channels[0];
        let stem = ConvNorm::new(3, inputs, 3, 1, &backbone.pp("stem"))?;
        let (mut blocks, mut size) = (Vec::new(), size);
        let mut stage = |outputs, stride: usize, count, at: VarBuilder| -> Found<()> {
            for block in 0..count {
                let stride = if block == 0 { stride } else { 1 };
                blocks.push(Block::new(inputs, outputs, stride, &at.pp(block))?);
                inputs = outputs;
            }
            size = size.div_ceil(stride);
            Ok(())
        };
        for (index, &outputs) in options.channels.iter().enumerate() {
            stage(outputs, options.strides[index], options.blocks[index], backbone.pp(format!("stage{index}")))?;
        }
        for (index, &outputs) in options.head.channels.iter().enumerate() {
            stage(outputs, 2, options.head.blocks, head.pp(format!("stage{index}")))?;
        }
        let last: usize = options.blocks.iter().sum();
        blocks[last - 1].relu = options.last_relu;
        let (mut width, mut hidden) = (inputs * size * size, Vec::new());
        for (index, &units) in options.head.hidden.iter().enumerate() {
            let place = head.pp("hidden").pp(index);
            let norm = candle_nn::batch_norm(units, 1e-5, place.pp("bn"))?;
            hidden.push((linear_no_bias(width, units, place.pp("fc"))?, norm));
            width = units;
        }
        let norm = || candle_nn::batch_norm(options.embedding, 1e-5, head.pp("norm"));
        let last = if options.head.normalise { linear_no_bias } else { linear };
        Ok(Self {
            stem,
            blocks,
            hidden,
            embedding: last(width, options.embedding, head.pp("embedding"))?,
            norm: options.head.normalise.then(norm).transpose()?,
        })
    }

    fn forward(&self, faces: &FaceBatch, train: bool) -> Found<Tensor> {
        let mut x = self.stem.forward(&faces.tensor().affine(2.0, -1.0)?, train)?.relu()?;
        for block in &self.blocks {
            x = block.forward(&x, train)?;
        }
        x = x.flatten_from(1)?;
        for (linear, norm) in &self.hidden {
            x = norm.forward_t(&linear.forward(&x)?, train)?.relu()?;
        }
        let x = self.embedding.forward(&x)?;
        match &self.norm {
            Some(norm) => norm.forward_t(&x, train),
            None => Ok(x),
        }
    }
}

fn options(case: &Case) -> Result<ResnetTrunk> {
    Ok(serde_json::from_value(case.network.options.clone())?)
}

/// Embeddings of unit length.
pub(crate) fn embedding(case: &Case) -> Result<Iteration> {
    let faces = Inputs::read(case)?.faces;
    let tensors: HashMap<String, Tensor> = weights(case)?.into_iter().collect();
    let place = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let student = Student::new(&options(case)?, case.network.size, &place)?;
    Ok(Box::new(move || {
        let rows = student.forward(&FaceBatch::from_faces(&faces, &Device::Cpu)?, false)?;
        let lengths = rows.sqr()?.sum_keepdim(1)?.sqrt()?;
        Ok(Values::Known(rows.broadcast_div(&lengths)?.flatten_all()?.to_vec1()?))
    }))
}

/// The same step as gdrd's; candle's own optimiser has no momentum, so that gdrd's takes the step.
pub(crate) fn training(case: &Case) -> Result<Iteration> {
    let Inputs { faces, labels, .. } = Inputs::read(case)?;
    let mut variables = BTreeMap::new();
    for (name, tensor) in weights(case)? {
        variables.insert(name, Var::from_tensor(&tensor)?);
    }
    let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let place = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let options = options(case)?;
    let student = Student::new(&options, case.network.size, &place)?;
    let identities = variables["classifier.bias"].elem_count();
    let classifier = linear(options.embedding, identities, place.pp("classifier"))?;
    let (mut optimizer, rate) = (Sgd::default().build(&BuildContext::new(&Bare(Device::Cpu)))?, case.rate);
    Ok(Box::new(move || {
        let embedding = student.forward(&FaceBatch::from_faces(&faces, &Device::Cpu)?, true)?;
        let loss = candle_nn::loss::cross_entropy(&classifier.forward(&embedding)?, &labels)?;
        let found = loss.backward()?;
        let gradient = |(name, var): (&String, &Var)| found.get(var.as_tensor()).map(|g| (name.clone(), g.detach()));
        let gradients: BTreeMap<_, _> = variables.iter().filter_map(gradient).collect();
        optimizer.step(&variables, &gradients, &|_| rate)?;
        Ok(Values::Known(vec![loss.to_scalar()?]))
    }))
}
