//! What `cuda` offers, in a build without that feature: no tensor is on a GPU, so nothing but [`supported`] is ever called.

use candle_core::{Device, Result, Tensor, Var, bail};

use super::channels::Channels;
use super::epilogue::EpilogueActivation;
use super::shape::ConvShape;

fn missing<T>() -> Result<T> {
    bail!("this program was built without the feature `cuda`")
}

pub(super) fn supported(_: &[&Tensor]) -> bool {
    false
}

pub(super) fn open(ordinal: usize) -> Result<Device> {
    // Candle says what is missing.
    Device::new_cuda(ordinal)
}

pub(super) fn name(_: &Device) -> Result<Option<String>> {
    Ok(None)
}

pub(super) fn compute_capability(_: &Device) -> Result<Option<(i32, i32)>> {
    Ok(None)
}

pub(super) fn conv2d(_: &Tensor, _: &Tensor, _: ConvShape) -> Result<Tensor> {
    missing()
}

pub(super) fn linear(_: &Tensor, _: &Tensor) -> Result<Tensor> {
    missing()
}

pub(super) fn relu(_: &Tensor) -> Result<Tensor> {
    missing()
}

pub(super) fn relu6(_: &Tensor) -> Result<Tensor> {
    missing()
}

pub(super) fn add_relu(_: &Tensor, _: &Tensor) -> Result<Tensor> {
    missing()
}

pub(super) fn prelu(_: &Tensor, _: &Tensor) -> Result<Tensor> {
    missing()
}

pub(super) fn silu(_: &Tensor) -> Result<Tensor> {
    missing()
}

pub(super) fn global_average_pool(_: &Tensor) -> Result<Tensor> {
    missing()
}

/// A result and the statistics of a batch.
type Normalised = (Tensor, Tensor, Tensor);

pub(super) fn batch_norm_train(_: &Tensor, _: &Tensor, _: &Tensor, _: Channels, _: f64) -> Result<Normalised> {
    missing()
}

pub(super) fn batch_norm_relu_train(
    _: &Tensor,
    _: &Tensor,
    _: &Tensor,
    _: Option<&Tensor>,
    _: Channels,
    _: f64,
) -> Result<Normalised> {
    missing()
}

pub(super) fn scale_shift(_: &Tensor, _: &Tensor, _: &Tensor, _: Channels) -> Result<Tensor> {
    missing()
}

pub(super) fn group_norm(_: &Tensor, _: usize, _: f64, _: &Tensor, _: &Tensor, _: bool) -> Result<Tensor> {
    missing()
}

pub(super) fn epilogue(
    _: &Tensor,
    _: (Option<&Tensor>, Option<&Tensor>),
    _: Option<&Tensor>,
    _: EpilogueActivation<'_>,
    _: Option<&Tensor>,
) -> Result<Tensor> {
    missing()
}

pub(super) fn move_average(_: &Var, _: &Tensor, _: f64, _: f64) -> Result<()> {
    missing()
}

pub(super) fn sgd(_: &Var, _: &Tensor, _: &Tensor, _: [f64; 3], _: bool) -> Result<()> {
    missing()
}

pub(super) fn squares(_: &[&Tensor]) -> Result<Tensor> {
    missing()
}

pub(super) fn put(_: &Tensor, _: &Device) -> Result<Tensor> {
    missing()
}

/// Nobody has one.
pub(super) enum Staging {}

impl Staging {
    pub(super) fn new(_: &Device) -> Result<Self> {
        missing()
    }

    pub(super) fn put(&mut self, _: &Tensor) -> Result<Tensor> {
        match *self {}
    }

    pub(super) fn arrive(&mut self) -> Result<()> {
        match *self {}
    }
}
