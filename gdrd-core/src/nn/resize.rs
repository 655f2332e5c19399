//! Bicubic resizing of feature maps as two matrix products, differentiable and on any device.

use candle_core::{Device, Tensor};

use super::kernels::put;
use crate::error::Result;

/// `x` `[batch, channels, n, n]` at `size`x`size`, by the cubic filter with a = -0.5 and antialiasing, as PIL's `BICUBIC`
/// without its rounding to bytes.
pub fn resize_bicubic(x: &Tensor, size: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if (height, width) == (size, size) {
        return Ok(x.clone());
    }
    let columns = matrix(width, size, x.device())?;
    let rows = matrix(height, size, x.device())?;
    let x = x.reshape((batch * channels * height, width))?.matmul(&columns.t()?)?;
    let x = x.reshape((batch * channels, height, size))?.transpose(1, 2)?.contiguous()?;
    let x = x.reshape((batch * channels * size, height))?.matmul(&rows.t()?)?;
    let x = x.reshape((batch * channels, size, size))?.transpose(1, 2)?.contiguous()?;
    Ok(x.reshape((batch, channels, size, size))?)
}

/// Row `o` holds the weights of the inputs for output `o`, `[to, from]`.
fn matrix(from: usize, to: usize, device: &Device) -> Result<Tensor> {
    let step = from as f64 / to as f64;
    let widen = step.max(1.0);
    let mut values = vec![0f32; to * from];
    for (output, row) in values.chunks_exact_mut(from).enumerate() {
        let centre = (output as f64 + 0.5) * step;
        let weights: Vec<f64> = (0..from).map(|input| cubic((input as f64 + 0.5 - centre) / widen)).collect();
        let sum: f64 = weights.iter().sum();
        row.iter_mut().zip(&weights).for_each(|(value, weight)| *value = (weight / sum) as f32);
    }
    Ok(put(&Tensor::from_vec(values, (to, from), &Device::Cpu)?, device)?)
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
