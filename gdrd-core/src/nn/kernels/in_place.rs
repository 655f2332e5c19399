//! Tensors changed where they are, value by value, in one pass.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};

use super::buffer::{floats, supported};
use super::team::each_chunk;

/// Values that a thread takes at a time.
const BLOCK: usize = 1 << 14;

/// Replaces each value of `target` by `f(value, a)`, in float32 on the CPU.
///
/// # Errors
/// If `target` is not contiguous, or the shapes differ.
pub fn change2(target: &Tensor, a: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<()> {
    target.inplace_op2(&a.contiguous()?, &Change(f))
}

/// Replaces each value of `target` by `f(value, a, b)`, in float32 on the CPU.
///
/// # Errors
/// As for [`change2`].
pub fn change3(target: &Tensor, a: &Tensor, b: &Tensor, f: impl Fn(f32, f32, f32) -> f32 + Sync) -> Result<()> {
    target.inplace_op3(&a.contiguous()?, &b.contiguous()?, &Change(f))
}

/// Whether [`change2`] and [`change3`] can take these tensors.
pub fn can_change(tensors: &[&Tensor]) -> bool {
    supported(tensors) && tensors[0].is_contiguous()
}

struct Change<F>(F);

impl<F> Change<F> {
    const NAME: &'static str = "gdrd-change";
}

/// The values of a contiguous tensor that are to change.
fn floats_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout, others: &[&[f32]]) -> Result<&'a mut [f32]> {
    let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("values that are changed in place must be contiguous and float32");
    };
    if others.iter().any(|other| other.len() != end - start) {
        bail!("{} values cannot be changed by {:?}", end - start, others.iter().map(|o| o.len()).collect::<Vec<_>>());
    }
    Ok(&mut values[start..end])
}

impl<F: Fn(f32, f32) -> f32 + Sync> InplaceOp2 for Change<F> {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu_fwd(&self, target: &mut CpuStorage, tl: &Layout, a: &CpuStorage, al: &Layout) -> Result<()> {
        let a = floats(a, al)?;
        let target = floats_mut(target, tl, &[a])?;
        each_chunk(target, BLOCK, 1, |at, target| {
            target.iter_mut().zip(&a[at * BLOCK..]).for_each(|(value, a)| *value = (self.0)(*value, *a));
        });
        Ok(())
    }
}

impl<F: Fn(f32, f32, f32) -> f32 + Sync> InplaceOp3 for Change<F> {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        tl: &Layout,
        a: &CpuStorage,
        al: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<()> {
        let (a, b) = (floats(a, al)?, floats(b, bl)?);
        let target = floats_mut(target, tl, &[a, b])?;
        each_chunk(target, BLOCK, 1, |at, target| {
            let (a, b) = (&a[at * BLOCK..], &b[at * BLOCK..]);
            target.iter_mut().zip(a).zip(b).for_each(|((value, a), b)| *value = (self.0)(*value, *a, *b));
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    #[test]
    fn values_change_where_they_are() {
        let [t, a, b] = [1, 2, 3].map(|seed| random((3, 20_000), seed).expect("values"));
        let other = t.copy().expect("a copy");
        let expected = ((&t * &a).expect("product") + &b).expect("sum");
        change3(&t, &a, &b, |t, a, b| t * a + b).expect("changed");
        let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        assert_eq!(flat(&t), flat(&expected));
        change2(&other, &a, |t, a| t - a).expect("changed");
        assert_ne!(flat(&other), flat(&expected));
        assert!(change2(&t, &random(4, 1).expect("values"), |t, _| t).is_err());
        assert!(change2(&t.t().expect("a view"), &a.t().expect("a view"), |t, _| t).is_err());
    }
}
