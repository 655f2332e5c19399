//! A student's map beside a teacher's.

use candle_core::{Device, Tensor};

use super::{LossInputs, Offered};
use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::nn::kernels::put;
use crate::nn::{Conv2d, ConvConfig};

/// The average of `map` `[batch, channels, h, w]` over as many equal parts as `size` has pixels, `[batch, channels,
/// size.0, size.1]`; parts that share a pixel where the sizes do not divide, as PyTorch's `adaptive_avg_pool2d`.
///
/// # Errors
/// If the device fails.
pub fn pooled(map: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let (batch, channels, height, width) = map.dims4()?;
    if (height, width) == size {
        return Ok(map.clone());
    }
    // Columns first, then rows: each is a matrix of averages.
    let across = map.reshape((batch * channels * height, width))?.matmul(&averages(width, size.1, map.device())?)?;
    let across = across.reshape((batch * channels, height, size.1))?.transpose(1, 2)?.contiguous()?;
    let down = across.reshape((batch * channels * size.1, height))?.matmul(&averages(height, size.0, map.device())?)?;
    let down = down.reshape((batch * channels, size.1, size.0))?.transpose(1, 2)?.contiguous()?;
    Ok(down.reshape((batch, channels, size.0, size.1))?)
}

/// The matrix `[from, to]` whose columns average parts of `from` values.
fn averages(from: usize, to: usize, device: &Device) -> Result<Tensor> {
    let mut matrix = vec![0f32; from * to];
    for part in 0..to {
        let (start, end) = (part * from / to, ((part + 1) * from).div_ceil(to));
        (start..end).for_each(|at| matrix[at * to + part] = 1.0 / (end - start) as f32);
    }
    Ok(put(&Tensor::from_vec(matrix, (from, to), &Device::Cpu)?, device)?)
}

/// Brings the student's map and a teacher's to one shape: both are averaged to the smaller height and width, and
/// where the channels differ a learned 1x1 convolution brings the student's to the teacher's.
pub(super) struct MapPair {
    connector: Option<Conv2d>,
    size: (usize, usize),
}

impl MapPair {
    /// For the map that was the first need of the loss.
    pub(super) fn new(cx: &BuildContext) -> Result<Self> {
        let Offered { teacher, output, shape } = &cx.stage()?.teachers[0];
        let [channels, height, width] = shape[..] else {
            return Err(Error::component(format!(
                "{output} of teacher `{teacher}`: expected a map (channels, height, width), found {shape:?}"
            )));
        };
        Self::with([channels, height, width], cx)
    }

    /// For a teacher's map of this shape.
    pub(super) fn with(shape: [usize; 3], cx: &BuildContext) -> Result<Self> {
        let map = cx.stage()?.student.map;
        let config = ConvConfig { bias: true, ..ConvConfig::default() };
        let connect = || Conv2d::new(map[0], shape[0], 1, config, &cx.weights()?.pp("connector"));
        let connector = (map[0] != shape[0]).then(connect).transpose()?;
        Ok(Self { connector, size: (map[1].min(shape[1]), map[2].min(shape[2])) })
    }

    /// The student's map and the teacher's, `[batch, channels, height, width]` each.
    pub(super) fn of(&self, inputs: &LossInputs) -> Result<(Tensor, Tensor)> {
        self.between(inputs.map()?, inputs.teacher(0)?)
    }

    /// The same for two maps.
    pub(super) fn between(&self, student: &Tensor, teacher: &Tensor) -> Result<(Tensor, Tensor)> {
        let map = pooled(student, self.size)?;
        let map = match &self.connector {
            Some(connector) => connector.forward(&map)?,
            None => map,
        };
        Ok((map, pooled(teacher, self.size)?))
    }

    /// The height and width of both.
    pub(super) fn size(&self) -> (usize, usize) {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_averaged() {
        let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let map = Tensor::from_vec(values, (1, 2, 3, 4), &Device::Cpu).expect("a map");
        let found = pooled(&map, (2, 2)).and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?)).expect("values");
        // Rows 0 and 1, rows 1 and 2; columns 0 and 1, columns 2 and 3.
        assert_eq!(found, [2.5, 4.5, 6.5, 8.5, 14.5, 16.5, 18.5, 20.5]);
        assert_eq!(pooled(&map, (3, 4)).expect("the same").dims(), map.dims());
    }
}
