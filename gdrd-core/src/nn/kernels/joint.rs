//! Any number of tensors as one argument of an operation: candle's have three at most.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};

use super::backward::hand_over;

/// Where an operation leaves the gradients of joined tensors.
#[derive(Clone)]
pub(super) struct JointGradients(Arc<Mutex<Vec<Option<Tensor>>>>);

impl JointGradients {
    /// Leaves those of all joined tensors, in their order, and returns what the operation gives as the gradient of the joint. A tensor
    /// that tracks operations needs one.
    pub(super) fn leave(&self, gradients: Vec<Option<Tensor>>) -> Result<Tensor> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gradients;
        Tensor::zeros(1, DType::F32, &Device::Cpu)
    }

    fn take(&self, at: usize) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at).and_then(Option::take)
    }
}

/// A tensor that follows from all of `tensors` and holds none of their values: an operation that has it as an argument keeps the
/// tensors itself, and [leaves](JointGradients::leave) their gradients.
pub(super) fn join(tensors: &[&Tensor]) -> Result<(Tensor, JointGradients)> {
    let gradients = JointGradients(Arc::default());
    let mut joint = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
    for (at, tensor) in tensors.iter().enumerate() {
        joint = joint.apply_op2(tensor, Join { gradients: gradients.clone(), at })?;
    }
    Ok((joint, gradients))
}

/// One more tensor beside those that are joined already.
struct Join {
    gradients: JointGradients,
    at: usize,
}

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "gdrd-join"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(1)))
    }

    fn bwd(
        &self,
        before: &Tensor,
        tensor: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let own = tensor.track_op().then(|| self.gradients.take(self.at)).flatten();
        let own = own.and_then(|gradient| hand_over(tensor, gradient));
        Ok((before.track_op().then(|| grad.clone()), own))
    }
}
