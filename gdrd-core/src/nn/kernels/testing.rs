//! What the tests of the kernels share.

use candle_core::{Device, Result, Shape, Tensor, Var};

/// Values in -1..1 that look random and are the same everywhere.
pub(super) fn random(shape: impl Into<Shape>, seed: u64) -> Result<Tensor> {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let values: Vec<f32> = (0..shape.elem_count())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The result of `f` and the gradients of a weighted sum of it, flattened.
pub(super) fn gradients(inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Vec<f32>> {
    let run = || -> Result<Vec<Vec<f32>>> {
        let vars = inputs.iter().map(|t| Var::from_tensor(t)).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = f(&tensors)?;
        let grads = (&y * random(y.dims().to_vec(), 77)?)?.sum_all()?.backward()?;
        let mut all = vec![y.flatten_all()?.to_vec1()?];
        for var in &vars {
            let grad = grads.get(var).ok_or_else(|| candle_core::Error::Msg("no gradient".into()))?;
            all.push(grad.flatten_all()?.to_vec1()?);
        }
        Ok(all)
    };
    run().expect("a result and its gradients")
}

/// Fails where a value differs by more than `tolerance` times the largest value of its tensor.
pub(super) fn assert_close(ours: &[Vec<f32>], theirs: &[Vec<f32>], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len());
    for (which, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours.len(), theirs.len(), "tensor {which}");
        let scale = theirs.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
            assert!((a - b).abs() <= tolerance * scale, "tensor {which} at {at}: {a} and {b}, largest {scale}");
        }
    }
}
