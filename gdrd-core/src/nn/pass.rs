//! What a pass through a network that is trained does beside its arithmetic.
//!
//! A layer does not know the step that it is computed for. As with [`Precision`](super::kernels::Precision), whoever computes a step
//! says so to its thread: runs beside each other, each on a thread of its own, do not see each other's.

use std::cell::Cell;
use std::marker::PhantomData;

/// How layers in [`Mode::Train`](super::Mode::Train) draw and how their running statistics move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// What dropout leaves out.
    pub(super) dropout: LeaveOut,
    /// Share of the running statistics that a batch replaces.
    pub(super) momentum: f64,
}

/// What dropout leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaveOut {
    /// Nobody has said.
    Unknown,
    /// Nothing.
    Nothing,
    /// What this key decides.
    By(u64),
}

thread_local! {
    static NOW: Cell<Pass> = const { Cell::new(Pass { dropout: LeaveOut::Unknown, momentum: MOMENTUM }) };
}

/// PyTorch's default.
const MOMENTUM: f64 = 0.1;

impl Pass {
    /// A step of training: equal keys leave out the same values, and a batch replaces a tenth of the running statistics.
    pub fn step(key: u64) -> Self {
        Self { dropout: LeaveOut::By(key), momentum: MOMENTUM }
    }

    /// A batch that running statistics are estimated from, after so many others: nothing is left out, and the statistics become
    /// the mean over all of them, whatever they were before the first.
    pub fn statistics(before: u64) -> Self {
        Self { dropout: LeaveOut::Nothing, momentum: 1.0 / (before as f64 + 1.0) }
    }

    /// What holds on this thread.
    pub(super) fn now() -> Self {
        NOW.get()
    }

    /// Makes it hold on this thread until the guard is dropped; then what was there before.
    pub fn set(self) -> PassGuard {
        PassGuard { before: NOW.replace(self), on_this_thread: PhantomData }
    }
}

/// Brings back the pass that was there before.
#[must_use = "the pass lasts as long as this value"]
#[derive(Debug)]
pub struct PassGuard {
    before: Pass,
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for PassGuard {
    fn drop(&mut self) {
        NOW.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::{Device, Tensor};

    use super::super::weights::Draw;
    use super::super::{BatchNorm, Init, Mode, Weights};
    use super::*;

    #[test]
    fn passes_nest_and_belong_to_their_thread() {
        let outer = Pass::step(1).set();
        let inner = Pass::statistics(3).set();
        assert_eq!(Pass::now().momentum, 0.25);
        assert_eq!(std::thread::spawn(|| Pass::now().dropout).join().expect("a thread"), LeaveOut::Unknown);
        drop(inner);
        assert_eq!(Pass::now(), Pass::step(1));
        drop(outer);
        assert_eq!(Pass::now().dropout, LeaveOut::Unknown);
    }

    #[test]
    fn estimated_statistics_are_means_over_batches() {
        let draw: Rc<Draw> = Rc::new(|_, count, init| match init {
            Init::Constant(value) => vec![value; count],
            other => panic!("{other:?}"),
        });
        let (norm, made) = Weights::create(&Device::Cpu, draw, |w| BatchNorm::new(1, w)).expect("a layer");
        made.buffers["running_mean"].set(&Tensor::new(&[100f32], &Device::Cpu).expect("values")).expect("set");
        for (before, batch) in [[1f32, 3.0], [5.0, 11.0], [0.0, 2.0]].iter().enumerate() {
            let _pass = Pass::statistics(before as u64).set();
            let x = Tensor::new(batch, &Device::Cpu).and_then(|x| x.reshape((2, 1))).expect("x");
            norm.forward(&x, Mode::Train).expect("y");
        }
        let value = |name: &str| made.buffers[name].to_vec1::<f32>().expect("values")[0];
        // Means 2, 8 and 1; unbiased variances 2, 18 and 2.
        assert!((value("running_mean") - 11.0 / 3.0).abs() < 1e-5, "{}", value("running_mean"));
        assert!((value("running_var") - 22.0 / 3.0).abs() < 1e-5, "{}", value("running_var"));
    }
}
