//! Values that Python wrote, and how they are compared; `golden/*/ORIGIN.md` says which code made them.

pub(crate) mod formula;

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use gdrd_core::error::Result;
use gdrd_core::nn::Weights;
use gdrd_core::nn::kernels::processor;
use gdrd_core::nn::weights::{Draw, Variables, read_safetensors};

/// Largest difference, relative to the largest value: a product on the tile unit is exact to about 2^-17, and networks have many
/// in a row.
fn tolerance() -> f64 {
    if processor() == "amx" { 5e-5 } else { 2e-5 }
}

/// The tensors of `golden/<subject>/values.safetensors`, by name.
pub(crate) struct Golden(pub(crate) BTreeMap<String, Tensor>);

impl Golden {
    pub(crate) fn read(subject: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(subject).join("values.safetensors");
        Self(read_safetensors(&path).expect("golden values"))
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden value `{name}`"))
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.get(name).to_vec1::<i64>().expect("numbers")[0]
    }

    pub(crate) fn numbers(&self, name: &str) -> Vec<f64> {
        self.get(name).to_vec1::<f64>().expect("numbers")
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.get(name).flatten_all().and_then(|t| t.to_vec1::<u8>()).expect("bytes")
    }

    pub(crate) fn compare(&self, name: &str, found: &Tensor) {
        self.compare_within(name, found, tolerance());
    }

    /// The same for a network that needs another tolerance.
    pub(crate) fn compare_within(&self, name: &str, found: &Tensor, tolerance: f64) {
        let expected = self.get(name);
        assert_eq!(found.dims(), expected.dims(), "`{name}`");
        let largest = |x: &Tensor| {
            let x = x.to_dtype(DType::F64).and_then(|x| x.abs()).and_then(|x| x.flatten_all()).and_then(|x| x.max(0));
            x.and_then(|x| x.to_scalar::<f64>()).expect("a number")
        };
        let error = largest(&(found - expected).expect("a difference")) / largest(expected);
        assert!(error < tolerance, "`{name}`: relative error {error:.1e}");
    }

    /// Compares the gradient of every parameter with `<name>.grad.<parameter>`; none may be missing on either side.
    pub(crate) fn compare_gradients(&self, name: &str, made: &Variables, found: &GradStore) {
        let start = format!("{name}.grad.");
        let expected: Vec<&str> = self.0.keys().filter_map(|key| key.strip_prefix(&start)).collect();
        let with_gradient = made.parameters.iter().filter(|(_, var)| found.get(var.as_tensor()).is_some());
        assert_eq!(with_gradient.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected, "gradients of `{name}`");
        for parameter in expected {
            let gradient = found.get(made.parameters[parameter].as_tensor()).expect("found above");
            self.compare(&format!("{start}{parameter}"), gradient);
        }
    }
}

/// A network, or anything else with weights, whose variables have the formula's values; checks that Python has the same
/// names and shapes.
pub(crate) fn trainable<T>(golden: &Golden, name: &str, new: impl Fn(&Weights) -> Result<T>) -> (T, Variables) {
    let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.0; count]);
    let (network, made) = Weights::create(&Device::Cpu, draw, new).expect("a network");
    let (tensors, layout) = formula::tensors(&made);
    assert_eq!(layout, golden.number(&format!("{name}.layout")), "names and shapes of `{name}`");
    made.assign(&tensors).expect("the same names and shapes");
    (network, made)
}
