//! Layers that students and teachers share.

pub mod kernels;
