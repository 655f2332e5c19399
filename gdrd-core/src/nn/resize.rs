//! Bicubic resizing of feature maps as two matrix products, differentiable and on any device.

use candle_core::{Device, Tensor};

use super::kernels::{Filter, put};
use crate::error::Result;

/// `x` `[batch, channels, n, n]` at `size`x`size`, by the cubic filter with a = -0.5 and antialiasing, as PIL's `BICUBIC`
/// without its rounding to bytes.
pub fn resize_bicubic(x: &Tensor, size: usize) -> Result<Tensor> {
    resize(x, size, Ok)
}

/// The same of values in `[0, 1]`, to which each of the two directions is clipped, as bytes are.
pub(super) fn resize_faces(x: &Tensor, size: usize) -> Result<Tensor> {
    resize(x, size, |x| Ok(x.clamp(0f32, 1f32)?))
}

fn resize(x: &Tensor, size: usize, after: impl Fn(Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if (height, width) == (size, size) {
        return Ok(x.clone());
    }
    let columns = matrix(width, size, x.device())?;
    let rows = matrix(height, size, x.device())?;
    let x = after(x.reshape((batch * channels * height, width))?.matmul(&columns.t()?)?)?;
    let x = x.reshape((batch * channels, height, size))?.transpose(1, 2)?.contiguous()?;
    let x = after(x.reshape((batch * channels * size, height))?.matmul(&rows.t()?)?)?;
    let x = x.reshape((batch * channels, size, size))?.transpose(1, 2)?.contiguous()?;
    Ok(x.reshape((batch, channels, size, size))?)
}

/// Row `o` holds the weights of the inputs for output `o`, `[to, from]`.
fn matrix(from: usize, to: usize, device: &Device) -> Result<Tensor> {
    let mut values = vec![0f32; to * from];
    values.chunks_exact_mut(from).enumerate().for_each(|(output, row)| weights(from, to, output, row));
    Ok(put(&Tensor::from_vec(values, (to, from), &Device::Cpu)?, device)?)
}

/// The same with only the weights that are not zero.
pub(super) fn cubic_filter(from: usize, to: usize) -> Filter {
    let mut row = vec![0f32; from];
    let taps = (0..to).map(|output| {
        weights(from, to, output, &mut row);
        let first = row.iter().position(|weight| *weight != 0.0).unwrap_or(0);
        let last = row.iter().rposition(|weight| *weight != 0.0).unwrap_or(0);
        (first, row[first..=last].to_vec())
    });
    let taps = taps.collect();
    Filter { from, taps }
}

/// The weight of each input for an output.
fn weights(from: usize, to: usize, output: usize, row: &mut [f32]) {
    let step = from as f64 / to as f64;
    let (widen, centre) = (step.max(1.0), (output as f64 + 0.5) * step);
    let weights: Vec<f64> = (0..from).map(|input| cubic((input as f64 + 0.5 - centre) / widen)).collect();
    let sum: f64 = weights.iter().sum();
    row.iter_mut().zip(&weights).for_each(|(value, weight)| *value = (weight / sum) as f32);
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => A * (((x - 5.0) * x + 8.0) * x - 4.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::{Face, FaceBatch, Kernel};

    #[test]
    fn it_agrees_with_the_resizing_of_bytes() {
        // Of middling brightness: bytes are clipped where the filter overshoots, floats are not.
        let pixels = (0..3 * 16 * 16).map(|i: u32| 64 + (i.wrapping_mul(2_654_435_761) >> 25) as u8).collect();
        let face = Face::new(16, 16, pixels).expect("a face");
        for size in [8, 16, 40] {
            let bytes =
                FaceBatch::from_faces(&[face.resized(size, Kernel::Bicubic, true).expect("face")], &Device::Cpu);
            let small = FaceBatch::from_faces(std::slice::from_ref(&face), &Device::Cpu).expect("batch");
            let float = resize_bicubic(small.tensor(), size).expect("resized").clamp(0f32, 1f32).expect("clamped");
            let gap = (bytes.expect("batch").tensor() - float).expect("gap").abs().expect("size");
            let most = gap.flatten_all().and_then(|t| t.max(0)).and_then(|t| t.to_scalar::<f32>()).expect("most");
            // Bytes are rounded twice, once for each direction.
            assert!(most < 2.0 / 255.0, "{size}: {most}");
        }
    }
}
