//! Fast float32 kernels for the CPU, as candle operations with gradients; with the feature `cuda` for NVIDIA GPUs too (`cuda`).
//!
//! Maps of very small faces are small and have many channels, which candle's own kernels serve
//! badly. The functions here take and give ordinary candle tensors (`[batch, channel, height,
//! width]`, contiguous or not) and take part in `backward`. On another device or in another
//! type they fall back to candle's own operations.
//!
//! Results do not depend on the number of threads: work is split over outputs, and sums run
//! over chunks whose size depends on the shape alone.
#![allow(unsafe_code, reason = "threads write disjoint parts of one output; products and vector loads take pointers")]
#![allow(clippy::needless_range_loop, reason = "rows and columns of small matrices read best by their indices")]

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod backward;
mod buffer;
mod bytes;
mod chain;
mod channels;
mod conv;
mod convolution;
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod cuda;
mod dense;
mod depthwise;
mod direct;
mod epilogue;
mod frozen;
mod gpu;
mod group_norm;
mod im2col;
mod in_place;
mod instructions;
mod joint;
mod methods;
mod norm;
mod norm_relu;
pub(super) mod pixels;
mod pool;
mod precision;
mod product;
mod resample;
mod residual;
mod rows;
mod scratch;
mod sgd;
mod shape;
mod sigmoid;
mod simd;
mod team;
#[cfg(test)]
pub(super) mod testing;
mod transpose;
mod winograd;

pub use activation::{add_relu, prelu, relu, relu6, silu};
pub use backward::backward;
pub use chain::{BatchStatistics, Link, LinkActivation, conv_chain};
pub(super) use conv::linear_is_convolution;
pub use conv::{conv2d, linear};
pub use epilogue::EpilogueActivation;
pub(super) use frozen::takes_pixels;
pub use frozen::{FrozenConv, WeightPrecision};
pub(super) use gpu::epilogue_on_gpu;
#[cfg(feature = "train")]
pub(crate) use gpu::{Upload, squares};
pub use gpu::{cuda_device, device_name, move_average, put};
pub use group_norm::group_norm;
pub use in_place::{can_change, change2, change3};
pub use instructions::{Instructions, processor};
pub use norm::{batch_norm_train, scale_shift};
pub use norm_relu::batch_norm_relu_train;
pub(super) use pool::averages;
pub use pool::global_average_pool;
pub use precision::{Precision, Restore};
pub(super) use resample::Filter;
pub use residual::residual_block;
pub use rows::PackedRows;
pub(super) use scratch::take as scratch;
pub use sgd::{SgdStep, sgd};
pub use team::{Awake, keep_awake, let_candle_sleep};
pub(super) use team::{each_alone, threads};
