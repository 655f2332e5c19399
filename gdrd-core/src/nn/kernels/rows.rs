//! Products of many rows with many others, such as the similarities of embeddings, which are looked at and not kept.

use candle_core::{Result, bail};

use super::dense::{Left, STRIP, multiply_strip, pack_rows, packed_len};
use super::instructions::Instructions;
use super::product::panel_here;
use super::scratch::{self, Values};

/// Rows of one width, in the order in which the product reads them: packed once, multiplied with any number of others.
pub struct PackedRows {
    rows: usize,
    width: usize,
    /// Panels of as many rows as a block of the product has columns; within one, value by value, row by row.
    values: Values,
    /// Those that it is packed for.
    instructions: Instructions,
}

impl PackedRows {
    /// Packs `rows`, each of `width` values.
    ///
    /// # Errors
    /// If they are not whole rows.
    pub fn new(rows: &[f32], width: usize) -> Result<Self> {
        check(rows, width)?;
        let count = rows.len() / width;
        let mut values = Values::zeros(packed_len(count, width));
        pack_rows(rows, width, &mut values);
        Ok(Self { rows: count, width, values, instructions: Instructions::now() })
    }

    /// Calls `f` with the number of each row of `left` and its scalar products with all packed rows, in order. The calling thread
    /// does it alone; a product's sum has the same order whatever the other rows are.
    ///
    /// # Errors
    /// If `left` is not whole rows of this width.
    pub fn products(&self, left: &[f32], mut f: impl FnMut(usize, &[f32])) -> Result<()> {
        check(left, self.width)?;
        if self.rows == 0 {
            (0..left.len() / self.width).for_each(|at| f(at, &[]));
            return Ok(());
        }
        let sizes = [left.len() / self.width, self.rows, self.width];
        let left = Left { values: left, transposed: false };
        self.instructions.scope(|| {
            let stride = self.rows.next_multiple_of(panel_here());
            let mut products = scratch::take(STRIP * stride);
            for first in (0..sizes[0]).step_by(STRIP) {
                multiply_strip(&left, first, &self.values, sizes, &mut products);
                let rows = (first..sizes[0]).zip(products.chunks_exact(stride)).take(STRIP);
                rows.for_each(|(at, row)| f(at, &row[..self.rows]));
            }
        })
    }
}

fn check(values: &[f32], width: usize) -> Result<()> {
    if width == 0 || !values.len().is_multiple_of(width) {
        bail!("expected rows of {width} values, found {} values", values.len());
    }
    Ok(())
}

impl std::fmt::Debug for PackedRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedRows").field("rows", &self.rows).field("width", &self.width).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, flat, on_each_level, random};
    use super::*;

    /// Whole strips and panels, parts of them, and none.
    #[test]
    fn products_follow_the_definition() {
        for (lefts, rights, width) in [(1, 1, 1), (3, 33, 7), (49, 64, 16), (100, 5, 130), (0, 4, 3), (4, 0, 3)] {
            let [left, right] = [(lefts, 1), (rights, 2)]
                .map(|(rows, seed)| flat(&random((rows.max(1), width), seed).expect("rows"))[..rows * width].to_vec());
            let mut expected = Vec::new();
            for left in left.chunks_exact(width) {
                let dot = |right: &[f32]| left.iter().zip(right).map(|(a, b)| a * b).sum::<f32>();
                expected.extend(right.chunks_exact(width).map(dot));
            }
            on_each_level(|| {
                let (mut found, mut numbers) = (Vec::new(), Vec::new());
                let mut take = |at: usize, row: &[f32]| {
                    numbers.push(at);
                    found.extend_from_slice(row);
                };
                PackedRows::new(&right, width).expect("packed").products(&left, &mut take).expect("multiplied");
                assert_eq!(numbers, (0..lefts).collect::<Vec<_>>());
                assert_close(&[found], std::slice::from_ref(&expected), 1e-5);
            });
        }
    }

    /// What was packed with other instructions is multiplied with those.
    #[test]
    fn a_packed_form_keeps_its_instructions() {
        let rows = flat(&random((40, 24), 3).expect("rows"));
        let sums = |packed: &PackedRows| {
            let mut all = Vec::new();
            packed.products(&rows, |_, row| all.extend_from_slice(row)).expect("multiplied");
            all
        };
        on_each_level(|| {
            let packed = PackedRows::new(&rows, 24).expect("packed");
            let here = sums(&packed);
            assert!(here == Instructions::Portable.scope(|| sums(&packed)).expect("every machine has it"));
        });
    }

    #[test]
    fn parts_of_rows_are_refused() {
        assert!(PackedRows::new(&[0.0; 5], 2).is_err() && PackedRows::new(&[], 0).is_err());
        assert!(PackedRows::new(&[0.0; 4], 2).and_then(|packed| packed.products(&[0.0; 3], |_, _| ())).is_err());
    }
}
