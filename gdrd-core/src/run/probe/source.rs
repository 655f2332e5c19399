//! Where features come from: the outputs of a teacher, or the pixels themselves, pooled to a bounded number of values.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::degrade::Downscale;
use crate::error::{Error, Result};
use crate::face::{Face, FaceBatch};
use crate::teacher::{Output, Shown, Teacher, prepared};

/// Pixels that a teacher sees at once, as in training: 32 faces at 112x112.
const PIXELS: usize = 32 * 112 * 112;

/// One kind of features of a source.
pub(super) struct Tap {
    /// The output; none for the pixels.
    pub(super) output: Option<Output>,
    /// The shape of the output for one face.
    pub(super) shape: Vec<usize>,
    /// The shape after pooling.
    pub(super) pooled: Vec<usize>,
    /// `[height * width, pooled]`, where it is pooled.
    pool: Option<Tensor>,
}

impl Tap {
    /// Features of `shape`. Of a map `[channels, height, width]` with more than `most` values the means of the largest grid of
    /// cells are taken that has no more, but at least of one cell.
    fn new(output: Option<Output>, shape: Vec<usize>, most: usize, device: &Device) -> Result<Self> {
        let plain = Self { output, pooled: shape.clone(), shape, pool: None };
        match plain.shape[..] {
            [channels, height, width] if channels * height * width > most => {
                let side = ((most / channels.max(1)) as f64).sqrt().floor().max(1.0) as usize;
                let (rows, columns) = (side.min(height), side.min(width));
                let pool = cells((height, width), (rows, columns));
                let pool = Some(Tensor::from_vec(pool, (height * width, rows * columns), device)?);
                Ok(Self { pooled: vec![channels, rows, columns], pool, ..plain })
            }
            _ => Ok(plain),
        }
    }

    /// Values for a face.
    pub(super) fn values(&self) -> usize {
        self.pooled.iter().product()
    }

    /// What tables call it.
    pub(super) fn name(&self) -> String {
        match &self.output {
            None => "pixels".to_string(),
            Some(Output::Map(name)) => name.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// `[batch, values]` of an output `[batch, ...]`.
    fn rows(&self, found: &Tensor) -> Result<Tensor> {
        let Some(pool) = &self.pool else { return Ok(found.flatten_from(1)?) };
        let (batch, channels, height, width) = found.dims4()?;
        let pooled = found.reshape((batch * channels, height * width))?.matmul(pool)?;
        Ok(pooled.reshape((batch, self.values()))?)
    }
}

/// The means over a grid of cells, as PyTorch's `AdaptiveAvgPool2d` places them: a matrix `[height * width, rows * columns]`.
fn cells((height, width): (usize, usize), (rows, columns): (usize, usize)) -> Vec<f32> {
    let span = |at: usize, size: usize, parts: usize| at * size / parts..((at + 1) * size).div_ceil(parts);
    let mut pool = vec![0f32; height * width * rows * columns];
    for cell in 0..rows * columns {
        let (down, across) = (span(cell / columns, height, rows), span(cell % columns, width, columns));
        let share = 1.0 / (down.len() * across.len()) as f32;
        for y in down {
            for x in across.clone() {
                pool[(y * width + x) * rows * columns + cell] = share;
            }
        }
    }
    pool
}

/// What is probed: a teacher, or the pixels, shown faces in some views.
pub(super) struct Source {
    teacher: Option<Arc<dyn Teacher>>,
    views: Vec<Option<Downscale>>,
    device: Device,
}

impl Source {
    /// A teacher, to whose views these are done, or the pixels of the first of them.
    pub(super) fn new(teacher: Option<Arc<dyn Teacher>>, views: Vec<Option<Downscale>>, device: &Device) -> Self {
        Self { teacher, views, device: device.clone() }
    }

    /// Every output that it has for faces of `native` pixels, or those maps that are called so.
    ///
    /// # Errors
    /// If it has no map of such a name.
    pub(super) fn taps(&self, maps: &[String], native: usize, most: usize) -> Result<Vec<Tap>> {
        let seen = self.views.first().and_then(Option::as_ref).map_or(native, |small| small.size);
        let Some(teacher) = &self.teacher else {
            return Ok(vec![Tap::new(None, vec![3, seen, seen], most, &self.device)?]);
        };
        let seen = teacher.card().input_size.unwrap_or(seen);
        let all = teacher.maps();
        let outputs = match maps {
            [] => {
                let embedding = teacher.shape(&Output::Embedding, seen).is_ok().then_some(Output::Embedding);
                all.into_iter().map(Output::Map).chain(embedding).collect()
            }
            named => named.iter().map(|name| named_output(name)).collect::<Vec<_>>(),
        };
        let tap = |output: Output| {
            let shape = teacher.shape(&output, seen)?;
            Tap::new(Some(output), shape, most, &self.device)
        };
        outputs.into_iter().map(tap).collect()
    }

    /// The features of faces, `[faces, values]`, tap by tap.
    ///
    /// # Errors
    /// If a face cannot be brought to the source's view, or the teacher fails.
    pub(super) fn features(&self, faces: &[Face], taps: &[Tap]) -> Result<Vec<Tensor>> {
        let mut found: Vec<Vec<Tensor>> = taps.iter().map(|_| Vec::new()).collect();
        let input = self.teacher.as_ref().and_then(|teacher| teacher.card().input_size);
        let side = input.unwrap_or_else(|| faces.first().map_or(1, Face::width)).max(1);
        for batch in faces.chunks((PIXELS / (side * side)).clamp(1, 256)) {
            let shown = self.views.iter().map(|view| self.shown(batch, view.as_ref())).collect::<Result<Vec<_>>>()?;
            let outputs = match &self.teacher {
                None => vec![shown[0].tensor().clone()],
                Some(teacher) => {
                    let outputs: Vec<Output> = taps.iter().filter_map(|tap| tap.output.clone()).collect();
                    teacher.features(&Shown::new(shown)?, &outputs)?
                }
            };
            if outputs.len() != taps.len() {
                return Err(Error::component(format!("expected {} outputs, found {}", taps.len(), outputs.len())));
            }
            for ((rows, tap), output) in found.iter_mut().zip(taps).zip(&outputs) {
                rows.push(tap.rows(output)?.detach());
            }
        }
        found.into_iter().map(|rows| Ok(Tensor::cat(&rows, 0)?)).collect()
    }

    fn shown(&self, faces: &[Face], view: Option<&Downscale>) -> Result<FaceBatch> {
        use rayon::prelude::*;
        let form = |face: &Face| {
            let small = view.map_or_else(|| Ok(face.clone()), |small| small.apply(face))?;
            self.teacher.as_ref().map_or(Ok(small.clone()), |teacher| prepared(teacher.card(), small))
        };
        FaceBatch::from_faces(&faces.par_iter().map(form).collect::<Result<Vec<_>>>()?, &self.device)
    }
}

/// `embedding` and `logits` are no maps, whatever teacher it is.
fn named_output(name: &str) -> Output {
    match name {
        "embedding" => Output::Embedding,
        "logits" => Output::Logits,
        map => Output::Map(map.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_pooled_to_the_largest_grid_that_fits() {
        let pooled =
            |shape: [usize; 3], most| Tap::new(None, shape.to_vec(), most, &Device::Cpu).expect("a tap").pooled;
        assert_eq!(pooled([4, 6, 6], 144), [4, 6, 6]);
        assert_eq!(pooled([4, 6, 6], 143), [4, 5, 5]);
        assert_eq!(pooled([512, 7, 7], 4096), [512, 2, 2]);
        assert_eq!(pooled([512, 7, 7], 100), [512, 1, 1]);
    }

    #[test]
    fn cells_overlap_where_they_do_not_divide_the_map() {
        // 0 1 2 over two cells: 0 1 and 1 2, as PyTorch's adaptive pooling has them.
        let tap = Tap::new(None, vec![2, 1, 3], 4, &Device::Cpu).expect("a tap");
        assert_eq!(tap.pooled, [2, 1, 1], "a grid has as many cells each way");
        let map = Tensor::new(&[[[0f32, 1.0, 5.0]]], &Device::Cpu).expect("a map");
        let pool = Tensor::from_vec(cells((1, 3), (1, 2)), (3, 2), &Device::Cpu).expect("a matrix");
        let found = map.reshape((1, 3)).and_then(|map| map.matmul(&pool)).and_then(|m| m.to_vec2::<f32>());
        assert_eq!(found.expect("means"), [[0.5, 3.0]]);
    }
}
