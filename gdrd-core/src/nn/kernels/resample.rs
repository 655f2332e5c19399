//! Faces at another size, by the same weights in both directions.

use super::scratch;
use super::team::each_chunk;

/// For each output of a row, the first input that it is made of, and the weights of that and the next ones.
#[derive(Clone, Debug)]
pub(in super::super) struct Filter {
    pub(in super::super) from: usize,
    pub(in super::super) taps: Vec<(usize, Vec<f32>)>,
}

impl Filter {
    /// Writes square maps of `from` pixels as square maps of as many as there are taps: rows first, then columns, each clipped to
    /// `[0, 1]` as bytes are, then `finish` of the map's number and the value. `source` says which map of `x` each is made of. In parallel over maps.
    pub(in super::super) fn write(
        &self,
        x: &[f32],
        source: impl Fn(usize) -> usize + Sync,
        out: &mut [f32],
        finish: impl Fn(usize, f32) -> f32 + Sync,
    ) {
        let (from, to) = (self.from, self.taps.len());
        each_chunk(out, to * to, 1, |at, out| {
            let map = &x[source(at) * from * from..][..from * from];
            let mut wide = scratch::take(from * to);
            for (row, wide) in map.chunks_exact(from).zip(wide.chunks_exact_mut(to)) {
                for (value, (first, weights)) in wide.iter_mut().zip(&self.taps) {
                    *value =
                        row[*first..].iter().zip(weights).map(|(x, weight)| x * weight).sum::<f32>().clamp(0.0, 1.0);
                }
            }
            for (line, (first, weights)) in out.chunks_exact_mut(to).zip(&self.taps) {
                line.fill(0.0);
                for (row, weight) in wide[first * to..].chunks_exact(to).zip(weights) {
                    line.iter_mut().zip(row).for_each(|(value, x)| *value += x * weight);
                }
                line.iter_mut().for_each(|value| *value = finish(at, value.clamp(0.0, 1.0)));
            }
        });
    }
}
