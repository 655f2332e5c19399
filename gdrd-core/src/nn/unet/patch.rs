//! Squares of pixels as positions with more channels, and back.

use candle_core::Tensor;

use crate::error::Result;

/// `x` `[batch, c, h, w]` as `[batch, c * side^2, h / side, w / side]`, as PyTorch's `pixel_unshuffle`; `side` must divide both.
pub(super) fn gathered(x: &Tensor, side: usize) -> Result<Tensor> {
    if side == 1 {
        return Ok(x.clone());
    }
    let (batch, channels, h, w) = x.dims4()?;
    let (rows, columns) = (h / side, w / side);
    let apart = x.reshape(vec![batch, channels, rows, side, columns, side])?.permute([0, 1, 3, 5, 2, 4])?;
    Ok(apart.reshape((batch, channels * side * side, rows, columns))?)
}

/// What [`gathered`] was given.
pub(super) fn scattered(x: &Tensor, side: usize) -> Result<Tensor> {
    if side == 1 {
        return Ok(x.clone());
    }
    let (batch, channels, rows, columns) = x.dims4()?;
    let channels = channels / (side * side);
    let apart = x.reshape(vec![batch, channels, side, side, rows, columns])?.permute([0, 1, 4, 2, 5, 3])?;
    Ok(apart.reshape((batch, channels, rows * side, columns * side))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn patches_have_the_order_of_pytorch_and_come_back() {
        let x = Tensor::arange(0f32, 32.0, &Device::Cpu).and_then(|x| x.reshape((1, 2, 4, 4))).expect("x");
        let found = gathered(&x, 2).expect("patches");
        assert_eq!(found.dims(), [1, 8, 2, 2]);
        // torch.nn.functional.pixel_unshuffle(torch.arange(32.).reshape(1, 2, 4, 4), 2)[0, [0, 1, 6]]
        let rows = found.squeeze(0).and_then(|x| x.flatten_from(1)).and_then(|x| x.to_vec2::<f32>()).expect("rows");
        assert_eq!(rows[0], [0.0, 2.0, 8.0, 10.0]);
        assert_eq!(rows[1], [1.0, 3.0, 9.0, 11.0]);
        assert_eq!(rows[6], [20.0, 22.0, 28.0, 30.0]);
        let back = scattered(&found, 2).and_then(|x| Ok(x.flatten_all()?.to_vec1::<f32>()?)).expect("pixels");
        assert_eq!(back, x.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("pixels"));
    }
}
