//! The kernels on an NVIDIA GPU: cuDNN for convolutions and both of their gradients, and one launch for each pass of what stands
//! between them (`layers.cu`, compiled by NVRTC for the GPU that is there).
//!
//! The functions here are called by those of the same names one module above, which have checked the shapes; `no_cuda.rs` has
//! them for builds without the feature. Everything runs on
//! the one stream of the device and nothing waits for it.

mod activation;
mod conv;
mod cudnn;
mod graph;
mod module;
mod norm;
mod optimizer;
mod profile;
mod storage;
mod upload;

use candle_core::{DType, Result, Tensor};

pub(super) use activation::{add_relu, global_average_pool, prelu, relu, relu6, silu};
pub(super) use conv::conv2d;
pub(super) use module::{compute_capability, name, open};
pub(super) use norm::{batch_norm_relu_train, batch_norm_train, epilogue, group_norm, scale_shift};
pub(super) use optimizer::{move_average, sgd, squares};
pub(super) use upload::{Staging, put};

use super::precision::Precision;
use super::shape::ConvShape;

/// Whether the kernels can take these tensors: float32 on one GPU, not empty, and short enough for 32-bit places.
pub(super) fn supported(tensors: &[&Tensor]) -> bool {
    let fits = |t: &Tensor| t.dtype() == DType::F32 && (1..1 << 31).contains(&t.elem_count());
    tensors.iter().all(|t| t.device().is_cuda() && t.device().same_device(tensors[0].device()) && fits(t))
}

/// `x weight^T` for `x [b, c]` and `weight [o, c]` in the precision that is set; the result is float32.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match Precision::now() {
        Precision::Float32 => x.matmul(&weight.t()?),
        // A convolution of maps of one pixel: what candle's products round to is a setting of the whole process.
        Precision::Tf32 => {
            let shape = ConvShape::linear(x.dims2()?, weight.dims2()?)?;
            let (x, weight) = (x.unsqueeze(2)?.unsqueeze(3)?, weight.unsqueeze(2)?.unsqueeze(3)?);
            conv2d(&x, &weight, shape)?.squeeze(3)?.squeeze(2)
        }
        Precision::Bfloat16 => {
            let (x, weight) = (x.to_dtype(DType::BF16)?, weight.to_dtype(DType::BF16)?);
            x.matmul(&weight.t()?)?.to_dtype(DType::F32)
        }
    }
}
