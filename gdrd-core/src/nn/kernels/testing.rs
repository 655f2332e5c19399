//! What the tests of the kernels share.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

use candle_core::{Device, Result, Shape, Tensor, Var};

use super::instructions::{Instructions, OnThread};
use super::shape::ConvShape;

/// The system's allocator, which counts what each thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// How often `f` asks for memory on this thread.
pub(in super::super) fn allocations(f: impl FnOnce()) -> usize {
    let before = ASKED.get();
    f();
    ASKED.get() - before
}

/// Runs `check` with every level of instructions that this machine has; a failure says with which.
pub(in super::super) fn on_each_level(check: impl Fn()) {
    struct Says(Instructions);
    impl Drop for Says {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let _ = writeln!(std::io::stderr(), "with the instructions `{}`:", self.0.name());
            }
        }
    }
    for level in Instructions::available() {
        let _says = Says(level);
        level.scope(&check).expect("the machine has it");
    }
}

/// Runs `f` on one of so many threads, with the instructions of the calling one.
pub(in super::super) fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let instructions = OnThread::now();
    pool.install(|| {
        let _entered = instructions.enter();
        f()
    })
}

/// The values of a tensor.
pub(super) fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("values")
}

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

/// `(x, weight, stride, padding, groups)`: odd sizes, primes, batch one, wide maps, every path.
type Case = ((usize, usize, usize, usize), (usize, usize, usize, usize), usize, usize, usize);
pub(super) const CONVOLUTIONS: [Case; 28] = [
    ((2, 3, 16, 16), (8, 3, 3, 3), 1, 1, 1),
    ((1, 16, 8, 8), (32, 16, 3, 3), 1, 1, 1),
    ((5, 17, 4, 4), (19, 17, 3, 3), 1, 1, 1),
    ((3, 33, 7, 11), (31, 33, 3, 3), 1, 1, 1),
    ((3, 16, 13, 5), (16, 16, 3, 3), 1, 0, 1),
    ((2, 7, 6, 9), (5, 7, 3, 3), 1, 2, 1),
    ((2, 8, 3, 3), (8, 8, 3, 3), 1, 1, 1),
    ((3, 16, 16, 16), (24, 16, 3, 3), 2, 1, 1),
    ((2, 5, 7, 9), (7, 5, 3, 3), 2, 1, 1),
    ((2, 16, 8, 8), (24, 16, 1, 1), 2, 0, 1),
    ((3, 13, 5, 7), (11, 13, 1, 1), 1, 0, 1),
    ((2, 12, 9, 9), (8, 6, 3, 3), 1, 1, 2),
    ((2, 12, 8, 8), (12, 1, 3, 3), 2, 1, 12),
    ((2, 18, 9, 9), (18, 2, 3, 3), 1, 1, 9),
    ((2, 8, 7, 7), (8, 4, 3, 3), 2, 1, 2),
    ((3, 6, 7, 7), (6, 1, 7, 7), 1, 0, 6),
    ((1, 5, 11, 6), (5, 1, 3, 3), 1, 1, 5),
    ((2, 3, 9, 7), (4, 3, 5, 2), 3, 2, 1),
    ((3, 19, 9, 7), (21, 19, 3, 3), 2, 1, 1),
    ((2, 40, 7, 7), (33, 40, 1, 1), 1, 0, 1),
    ((1, 16, 4, 4), (48, 16, 3, 3), 1, 1, 1),
    ((2, 24, 9, 9), (32, 24, 5, 5), 2, 2, 1),
    ((17, 17, 8, 8), (19, 17, 3, 3), 2, 1, 1),
    ((12, 24, 15, 13), (40, 24, 3, 3), 2, 1, 1),
    // Few channels for many.
    ((2, 3, 9, 7), (70, 3, 3, 3), 2, 1, 1),
    ((3, 2, 6, 5), (97, 2, 3, 2), 1, 2, 1),
    // More than one chunk.
    ((41, 96, 16, 16), (32, 96, 3, 3), 1, 1, 1),
    ((41, 96, 16, 16), (32, 96, 3, 3), 2, 1, 1),
];

/// The definition of a convolution, in float64.
pub(super) fn convolution(x: &[f32], w: &[f32], s: &ConvShape) -> Vec<f32> {
    let mut out = Vec::with_capacity(s.output_len());
    for at in 0..s.output_len() {
        let (image, o) = (at / s.out_plane() / s.outputs, at / s.out_plane() % s.outputs);
        let (oy, ox) = (at % s.out_plane() / s.out_width(), at % s.out_width());
        let mut sum = 0f64;
        for c in 0..s.group_inputs() {
            for tap in 0..s.taps() {
                let y = (oy * s.stride + tap / s.kernel_w).wrapping_sub(s.padding);
                let x_at = (ox * s.stride + tap % s.kernel_w).wrapping_sub(s.padding);
                if y < s.height && x_at < s.width {
                    let channel = o / s.group_outputs() * s.group_inputs() + c;
                    let value = x[(image * s.inputs + channel) * s.plane() + y * s.width + x_at];
                    sum += f64::from(value) * f64::from(w[(o * s.group_inputs() + c) * s.taps() + tap]);
                }
            }
        }
        out.push(sum as f32);
    }
    out
}
