//! Named weights: made new for training, or read from a file with every misfit reported at once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use candle_core::{DType, Device, Shape, Tensor, Var};

use super::misfits::Misfits;
use super::weight_file::not_finite;
pub use super::weight_file::{
    check_finite, first_of, is_safetensors, listed, listed_names, looks_like, parse_safetensors, read_safetensors,
};
use crate::error::Result;

/// How a new parameter is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All values equal.
    Constant(f32),
    /// Normal with mean zero.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Uniform in `[-bound, bound]`.
    Uniform {
        /// Largest absolute value.
        bound: f32,
    },
}

/// Draws the values of new parameters: `(name, count, init)`.
pub type Draw = dyn Fn(&str, usize, Init) -> Vec<f32>;

/// Variables and running statistics by name.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// What gradients change.
    pub parameters: BTreeMap<String, Var>,
    /// What training changes without a gradient: running means and variances.
    pub buffers: BTreeMap<String, Var>,
}

impl Variables {
    /// All tensors by name, parameters and buffers together.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.parameters.iter().chain(&self.buffers).map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    }

    /// Overwrites every variable with the tensor of its name.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or is left over; all of them are named and
    /// nothing is overwritten.
    pub fn assign(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut misfits = Misfits::default();
        let all: BTreeMap<&String, &Var> = self.parameters.iter().chain(&self.buffers).collect();
        for (name, var) in &all {
            match tensors.get(*name) {
                None => misfits.missing.push((*name).clone()),
                Some(tensor) => misfits.compare(name, var.shape(), tensor.shape()),
            }
        }
        misfits.unused = tensors.keys().filter(|name| !all.contains_key(name)).cloned().collect();
        misfits.into_result()?;
        for (name, var) in all {
            var.set(&tensors[name].to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(())
    }

    /// Adds the variables of `other`.
    pub fn extend(&mut self, other: Variables) {
        self.parameters.extend(other.parameters);
        self.buffers.extend(other.buffers);
    }
}

/// A place in a tree of named weights, from which layers take theirs.
///
/// The path of names is the layout of the weight file: `weights.pp("layer1").parameter("bias", ..)`
/// is the tensor `layer1.bias`.
#[derive(Clone)]
pub struct Weights {
    source: Rc<Source>,
    path: String,
}

struct Source {
    device: Device,
    kind: Kind,
}

enum Kind {
    New {
        draw: Rc<Draw>,
        made: RefCell<Variables>,
        initial: RefCell<BTreeMap<String, Tensor>>,
        offered: RefCell<BTreeMap<String, Tensor>>,
    },
    File {
        tensors: BTreeMap<String, Tensor>,
        used: RefCell<BTreeSet<String>>,
        misfits: RefCell<Misfits>,
    },
}

impl Weights {
    /// Makes new variables under the names that `build` asks for; `draw` fills them.
    pub fn create<T>(
        device: &Device,
        draw: Rc<Draw>,
        build: impl FnOnce(&Weights) -> Result<T>,
    ) -> Result<(T, Variables)> {
        let kind =
            Kind::New { draw, made: RefCell::default(), initial: RefCell::default(), offered: RefCell::default() };
        let weights = Self { source: Rc::new(Source { device: device.clone(), kind }), path: String::new() };
        let network = build(&weights)?;
        let Kind::New { made, initial, .. } = &weights.source.kind else {
            unreachable!("made as new a few lines above")
        };
        Misfits { unused: initial.take().into_keys().collect(), ..Misfits::default() }.into_result()?;
        Ok((network, made.take()))
    }

    /// Builds a network from tensors of a file. Half and double precision become float32.
    /// Tensors for which `ignored` is true may be left over.
    ///
    /// # Errors
    /// Names every missing, misshapen and left-over tensor, with the nearest names, and every one with a value that is not
    /// finite.
    pub fn read<T>(
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
        ignored: impl Fn(&str) -> bool,
        build: impl FnOnce(&Weights) -> Result<T>,
    ) -> Result<T> {
        let kind = Kind::File { tensors, used: RefCell::default(), misfits: RefCell::default() };
        let weights = Self { source: Rc::new(Source { device: device.clone(), kind }), path: String::new() };
        let network = build(&weights);
        let Kind::File { tensors, used, misfits } = &weights.source.kind else {
            unreachable!("made from a file a few lines above")
        };
        let mut misfits = misfits.take();
        let used = used.borrow();
        misfits.unused = tensors.keys().filter(|name| !used.contains(*name) && !ignored(name)).cloned().collect();
        // A misfit explains a failed build better than the build does.
        misfits.into_result()?;
        network
    }

    /// The subtree `name`.
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        let path = self.full(&name.to_string());
        Self { source: self.source.clone(), path }
    }

    /// The path of this place: what the names of tensors here begin with, before a dot.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The device that tensors are on.
    pub fn device(&self) -> &Device {
        &self.source.device
    }

    /// The trained tensor `name`, float32.
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Tensor> {
        let shape = shape.into();
        match &self.source.kind {
            Kind::New { made, .. } => {
                let var = self.make(name, &shape, init)?;
                let tensor = var.as_tensor().clone();
                made.borrow_mut().parameters.insert(self.full(name), var);
                Ok(tensor)
            }
            Kind::File { .. } => self.find(name, &shape),
        }
    }

    /// The running statistic `name`, float32, which starts at `value`.
    pub fn buffer(&self, name: &str, shape: impl Into<Shape>, value: f32) -> Result<Var> {
        let shape = shape.into();
        match &self.source.kind {
            Kind::New { made, .. } => {
                let var = self.make(name, &shape, Init::Constant(value))?;
                made.borrow_mut().buffers.insert(self.full(name), var.clone());
                Ok(var)
            }
            Kind::File { .. } => Ok(Var::from_tensor(&self.find(name, &shape)?)?),
        }
    }

    /// Lets new variables begin with these tensors, by name below this place, instead of random numbers. Every one must be asked
    /// for in the build, with its own shape.
    pub fn begin_with(&self, tensors: BTreeMap<String, Tensor>) {
        if let Kind::New { initial, .. } = &self.source.kind {
            let full = |(name, tensor): (String, Tensor)| (self.full(&name), tensor);
            initial.borrow_mut().extend(tensors.into_iter().map(full));
        }
    }

    /// Lets new variables begin with those of these tensors that have their names below this place; others may be left over.
    pub fn offer(&self, tensors: BTreeMap<String, Tensor>) {
        if let Kind::New { offered, .. } = &self.source.kind {
            offered.borrow_mut().extend(tensors.into_iter().map(|(name, tensor)| (self.full(&name), tensor)));
        }
    }

    /// Whether the tensors are those of a file, which nobody trains.
    pub fn are_frozen(&self) -> bool {
        matches!(self.source.kind, Kind::File { .. })
    }

    /// Whether a file holds the tensor `name`; new weights hold everything.
    pub fn has(&self, name: &str) -> bool {
        match &self.source.kind {
            Kind::New { .. } => true,
            Kind::File { tensors, .. } => tensors.contains_key(&self.full(name)),
        }
    }

    /// The shape of the tensor `name` of a file; none if there is no such tensor, or the weights are new.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        match &self.source.kind {
            Kind::New { .. } => None,
            Kind::File { tensors, .. } => tensors.get(&self.full(name)).map(Tensor::shape),
        }
    }

    fn full(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    fn make(&self, name: &str, shape: &Shape, init: Init) -> Result<Var> {
        let Kind::New { draw, initial, offered, .. } = &self.source.kind else {
            unreachable!("only called for new weights")
        };
        let full = self.full(name);
        let found = initial.borrow_mut().remove(&full).or_else(|| offered.borrow().get(&full).cloned());
        if let Some(mut tensor) = found {
            if tensor.dims() == [1] && shape.rank() == 1 {
                // A slope that all channels share.
                tensor = tensor.broadcast_as(shape)?;
            }
            let mut misfits = Misfits::default();
            misfits.compare(&full, shape, tensor.shape());
            misfits.into_result()?;
            return Ok(Var::from_tensor(&tensor.to_dtype(DType::F32)?.to_device(&self.source.device)?.copy()?)?);
        }
        let values = draw(&full, shape.elem_count(), init);
        Ok(Var::from_tensor(&Tensor::from_vec(values, shape, &self.source.device)?)?)
    }

    fn find(&self, name: &str, shape: &Shape) -> Result<Tensor> {
        let Kind::File { tensors, used, misfits } = &self.source.kind else {
            unreachable!("only called for weights of a file")
        };
        let full = self.full(name);
        used.borrow_mut().insert(full.clone());
        // Zeros stand in for a misfit so that the build goes on and finds the others; `read`
        // never returns a network that holds them.
        match tensors.get(&full) {
            None => misfits.borrow_mut().missing.push(full),
            Some(tensor) if tensor.shape() != shape => misfits.borrow_mut().compare(&full, shape, tensor.shape()),
            Some(tensor) if shape.dims().contains(&0) => misfits.borrow_mut().empty(&full, tensor.shape()),
            Some(tensor) => {
                let tensor = tensor.to_dtype(DType::F32)?;
                misfits.borrow_mut().not_finite.extend(not_finite(&full, &tensor)?);
                return Ok(tensor.to_device(&self.source.device)?);
            }
        }
        misfits.borrow_mut().stand_in(shape, tensors)?;
        Ok(Tensor::zeros(shape, DType::F32, &self.source.device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(names: &[(&str, usize)]) -> BTreeMap<String, Tensor> {
        let zeros = |n| Tensor::zeros(n, DType::F16, &Device::Cpu).expect("zeros");
        names.iter().map(|(name, n)| (name.to_string(), zeros(*n))).collect()
    }

    #[test]
    fn new_weights_are_named_by_their_path() {
        let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.5; count]);
        let build = |w: &Weights| {
            w.pp("a").pp(0).parameter("weight", (2, 3), Init::Constant(0.0))?;
            w.pp("a").buffer("running_mean", 3, 0.0)
        };
        let (_, made) = Weights::create(&Device::Cpu, draw, build).expect("new weights");
        assert_eq!(made.parameters.keys().collect::<Vec<_>>(), ["a.0.weight"]);
        assert_eq!(made.buffers.keys().collect::<Vec<_>>(), ["a.running_mean"]);
    }

    #[test]
    fn every_misfit_is_named_at_once() {
        let file = tensors(&[("a.weigth", 2), ("b", 3), ("extra", 1), ("skip.me", 1)]);
        let build = |w: &Weights| {
            w.pp("a").parameter("weight", 2, Init::Constant(0.0))?;
            w.parameter("b", 4, Init::Constant(0.0))
        };
        let error = Weights::read(file, &Device::Cpu, |name| name.starts_with("skip"), build).expect_err("misfits");
        let text = error.to_string();
        assert!(text.contains("`a.weight` (nearest in the file: `a.weigth`)"), "{text}");
        assert!(text.contains("`b` expected [4], found [3]"), "{text}");
        assert!(text.contains("`extra`") && !text.contains("skip.me"), "{text}");
    }

    #[test]
    fn half_precision_becomes_float32() {
        let build = |w: &Weights| w.parameter("b", 3, Init::Constant(0.0));
        let tensor = Weights::read(tensors(&[("b", 3)]), &Device::Cpu, |_| false, build).expect("fits");
        assert_eq!(tensor.dtype(), DType::F32);
    }

    #[test]
    fn tensors_without_values_and_beyond_all_memory_are_refused() {
        let read = |size: usize, width: usize| {
            let build = |w: &Weights| w.parameter("b", (size, width), Init::Constant(0.0));
            let file = BTreeMap::from([("b".to_string(), Tensor::zeros((0, 3), DType::F32, &Device::Cpu).expect("t"))]);
            Weights::read(file, &Device::Cpu, |_| false, build).expect_err("no values").to_string()
        };
        assert!(read(0, 3).contains("`b` holds no values: [0, 3]"), "{}", read(0, 3));
        let endless = |w: &Weights| -> Result<()> {
            (0..).try_for_each(|at| w.pp(at).parameter("b", (8, 64), Init::Constant(0.0)).map(drop))
        };
        let text = Weights::read(BTreeMap::new(), &Device::Cpu, |_| false, endless).expect_err("endless").to_string();
        assert!(text.contains("missing:\n  `0.b`"), "{text}");
        let text = read(usize::MAX / 2, 9);
        assert!(text.contains("`b` expected [9223372036854775807, 9], found [0, 3]"), "{text}");
    }

    #[test]
    fn a_network_is_not_built_of_values_that_are_not_finite() {
        let build = |w: &Weights| w.parameter("a", (2, 3), Init::Constant(0.0));
        let values = vec![0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN];
        let bad =
            Tensor::from_vec(values, (2, 3), &Device::Cpu).and_then(|t| t.to_dtype(DType::F16)).expect("a tensor");
        let file = BTreeMap::from([("a".to_string(), bad)]);
        let text = Weights::read(file, &Device::Cpu, |_| false, build).expect_err("NaN").to_string();
        assert!(text.contains("1 with a value that is not finite:\n  `a` at [1, 2] is NaN"), "{text}");
    }
}
