//! Faces: 8-bit images as they are read, and batches of them as networks see them.

use candle_core::{Device, Tensor};
use fast_image_resize as fir;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

mod buffer;
mod warp;

pub use buffer::Layout;
pub use warp::Warp;

/// An 8-bit RGB image of one face: `height` rows of `width` pixels, three bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// How pixels are weighted when a face changes its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The nearest pixel.
    Nearest,
    /// The mean of the covered area.
    Box,
    /// Triangle filter.
    Bilinear,
    /// Cubic filter with a = -0.5 (Catmull-Rom), as PIL's `BICUBIC`.
    #[default]
    Bicubic,
    /// Windowed sinc with three lobes.
    Lanczos3,
}

/// A face whose luminance deviates by less from its mean shows nothing: one step of 8 bits.
pub(crate) const LEAST_CONTRAST: f64 = 1.0 / 255.0;

/// The standard deviation of some values.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

impl Face {
    /// A face from its pixels, row by row, RGB.
    ///
    /// # Errors
    /// If there are not `3 * width * height` bytes, or a side is zero.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        let needed = width.checked_mul(height).and_then(|count| count.checked_mul(3));
        if width == 0 || height == 0 || needed != Some(pixels.len()) {
            let needed = needed.map_or("more than there can be".into(), |count| count.to_string());
            return Err(Error::data(format!(
                "a face of {width}x{height} pixels needs {needed} bytes (RGB), found {}",
                pixels.len()
            )));
        }
        Ok(Self { width, height, pixels })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes: row by row, RGB.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The luminance of each pixel, row by row, in `[0, 1]`.
    pub(crate) fn luminance(&self) -> Vec<f64> {
        let luma =
            |rgb: &[u8]| (0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2])) / 255.0;
        self.pixels.chunks_exact(3).map(luma).collect()
    }

    /// Whether it shows nothing: its luminance deviates by less than one step of 8 bits from its mean.
    pub fn is_blank(&self) -> bool {
        deviation(&self.luminance()) < LEAST_CONTRAST
    }

    /// The mirror image (left and right exchanged).
    pub fn flipped(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for row in self.pixels.chunks_exact(3 * self.width) {
            for pixel in row.chunks_exact(3).rev() {
                pixels.extend_from_slice(pixel);
            }
        }
        Self { pixels, ..*self }
    }

    /// The face moved by `(dx, dy)` pixels; border pixels are repeated where nothing moves in.
    pub fn shifted(&self, dx: i32, dy: i32) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        let from = |at: usize, by: i32, len: usize| (at as i64 - i64::from(by)).clamp(0, len as i64 - 1) as usize;
        for y in 0..self.height {
            let row = from(y, dy, self.height) * self.width;
            for x in 0..self.width {
                let start = 3 * (row + from(x, dx, self.width));
                pixels.extend_from_slice(&self.pixels[start..start + 3]);
            }
        }
        Self { pixels, ..*self }
    }

    /// The largest square in the middle of the face.
    pub fn centre_square(&self) -> Self {
        let side = self.width.min(self.height);
        if self.width == self.height {
            return self.clone();
        }
        let (left, top) = ((self.width - side) / 2, (self.height - side) / 2);
        let rows = self.pixels.chunks_exact(3 * self.width).skip(top).take(side);
        let pixels = rows.flat_map(|row| &row[3 * left..3 * (left + side)]).copied().collect();
        Self { width: side, height: side, pixels }
    }

    /// Itself, if it is square: resized to a square, another face would be distorted.
    ///
    /// # Errors
    /// If it is not.
    pub fn square(&self) -> Result<&Self> {
        if self.width == self.height {
            return Ok(self);
        }
        Err(Error::data(format!(
            "expected a square face, found {}x{} pixels; crop it to the face first",
            self.width, self.height
        )))
    }

    /// The face at `size`x`size` pixels. With `antialias` the filter widens with the reduction, as in PIL; without, it
    /// has the support of the source's pixel grid. `Bilinear` is then as in OpenCV; `Bicubic` is not, whose cubic has
    /// a = -0.75 there and repeats the border, where this one leaves out what is not there. A face that has that size
    /// already is returned as it is.
    ///
    /// # Errors
    /// If the size is 0, or so large that the face would have more than 64 megapixels.
    pub fn resized(&self, size: usize, kernel: Kernel, antialias: bool) -> Result<Self> {
        self.resized_to(size, size, kernel, antialias)
    }

    /// The image at `width`x`height` pixels, as [`resized`](Face::resized) weights them; a photograph need not be square.
    ///
    /// # Errors
    /// If a side is 0, or the image, or this one with the new rows alone, would have more than 64 megapixels.
    pub fn resized_to(&self, width: usize, height: usize, kernel: Kernel, antialias: bool) -> Result<Self> {
        if self.width == width && self.height == height {
            return Ok(self.clone());
        }
        let failed = |e: &dyn std::fmt::Display| {
            Error::data(format!("resizing {}x{} to {width}x{height}: {e}", self.width, self.height))
        };
        let side = |side: usize| u32::try_from(side).map_err(|e| failed(&e));
        let filter = match kernel {
            Kernel::Nearest => None,
            Kernel::Box => Some(fir::FilterType::Box),
            Kernel::Bilinear => Some(fir::FilterType::Bilinear),
            Kernel::Bicubic => Some(fir::FilterType::CatmullRom),
            Kernel::Lanczos3 => Some(fir::FilterType::Lanczos3),
        };
        let algorithm = match (filter, antialias) {
            (None, _) => fir::ResizeAlg::Nearest,
            (Some(filter), true) => fir::ResizeAlg::Convolution(filter),
            (Some(filter), false) => fir::ResizeAlg::Interpolation(filter),
        };
        let options = fir::ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        // The typed calls compile for this one pixel type; the untyped ones would for all of the crate's.
        type Pixels = fir::pixels::U8x3;
        // Rows first: the crate would begin with columns, and bytes between the two are rounded and clipped.
        let mut face = self.clone();
        for (width, height) in [(width, self.height), (width, height)] {
            let count = buffer::bounded(width, height).map_err(|e| failed(&e))?;
            let (from, to) = ((side(face.width)?, side(face.height)?), (side(width)?, side(height)?));
            let source = fir::images::TypedImageRef::<Pixels>::from_buffer(from.0, from.1, &face.pixels);
            let source = source.map_err(|e| failed(&e))?;
            let mut pixels = vec![0; 3 * count];
            let mut target =
                fir::images::TypedImage::<Pixels>::from_buffer(to.0, to.1, &mut pixels).map_err(|e| failed(&e))?;
            fir::Resizer::new().resize_typed(&source, &mut target, &options).map_err(|e| failed(&e))?;
            drop(target);
            face = Self::new(width, height, pixels)?;
        }
        Ok(face)
    }

    /// Writes the face as `[3, size, size]`, values in `[0, 1]`.
    ///
    /// # Errors
    /// If the face or `out` does not have that size.
    pub fn write(&self, size: usize, out: &mut [f32]) -> Result<()> {
        let plane = size.saturating_mul(size);
        if out.len() != plane.saturating_mul(3) {
            return Err(Error::data(format!(
                "expected room for {} values, found {}",
                plane.saturating_mul(3),
                out.len()
            )));
        }
        if self.width != size || self.height != size {
            return Err(Error::data(format!(
                "faces of one batch must all be {size}x{size}, found {}x{}",
                self.width, self.height
            )));
        }
        for (at, pixel) in self.pixels.chunks_exact(3).enumerate() {
            for channel in 0..3 {
                out[channel * plane + at] = f32::from(pixel[channel]) / 255.0;
            }
        }
        Ok(())
    }
}

/// A batch of square faces as a tensor `[batch, 3, size, size]`, RGB, float32, values in `[0, 1]`.
#[derive(Clone, Debug)]
pub struct FaceBatch(Tensor);

impl FaceBatch {
    /// A batch from faces that all have the same square size.
    ///
    /// # Errors
    /// If there are none, or their sizes differ or are not square.
    pub fn from_faces(faces: &[Face], device: &Device) -> Result<Self> {
        let Some(first) = faces.first() else {
            return Err(Error::data("a batch needs at least one face"));
        };
        // Whoever is as wide but not as high is found below.
        let size = first.square()?.width;
        let mut values = vec![0f32; faces.len() * 3 * size * size];
        for (face, out) in faces.iter().zip(values.chunks_exact_mut(3 * size * size)) {
            face.write(size, out)?;
        }
        Ok(Self(Tensor::from_vec(values, (faces.len(), 3, size, size), device)?))
    }

    /// A batch from a tensor that has the right shape.
    ///
    /// # Errors
    /// If the shape is not `[batch, 3, size, size]`.
    pub fn from_tensor(tensor: Tensor) -> Result<Self> {
        match tensor.dims() {
            [_, 3, height, width] if height == width => Ok(Self(tensor)),
            found => Err(Error::data(format!("expected faces [batch, 3, size, size], found {found:?}"))),
        }
    }

    /// The faces as images, each value rounded to a byte: what [`FaceBatch::from_faces`] was given.
    pub fn to_faces(&self) -> Result<Vec<Face>> {
        let size = self.size();
        let bytes = self.0.permute((0, 2, 3, 1))?.flatten_from(1)?.to_vec2::<f32>()?.into_iter();
        let byte = |value: f32| (value * 255.0).round() as u8;
        bytes.map(|row| Face::new(size, size, row.into_iter().map(byte).collect())).collect()
    }

    /// The tensor, `[batch, 3, size, size]`.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Number of faces.
    pub fn len(&self) -> usize {
        self.0.dims()[0]
    }

    /// Whether there is no face.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height and width in pixels.
    pub fn size(&self) -> usize {
        self.0.dims()[3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Face {
        Face::new(4, 4, (0..48).collect()).expect("48 bytes")
    }

    #[test]
    fn a_face_of_the_wrong_length_is_refused() {
        let error = Face::new(4, 4, vec![0; 47]).expect_err("47 bytes");
        assert!(error.to_string().contains("needs 48 bytes (RGB), found 47"), "{error}");
    }

    #[test]
    fn one_colour_shows_nothing() {
        assert!(Face::new(1, 1, vec![9, 80, 200]).expect("a pixel").is_blank() && !ramp().is_blank());
        // Noise of the last bit is no face either.
        let noise = (0..768).map(|at| 127 + (at / 3 * 7 % 11 % 2) as u8).collect();
        assert!(Face::new(16, 16, noise).expect("a face").is_blank());
    }

    #[test]
    fn flipping_twice_gives_the_face_back() {
        assert_ne!(ramp().flipped(), ramp());
        assert_eq!(ramp().flipped().flipped(), ramp());
    }

    #[test]
    fn a_shift_repeats_the_border() {
        let shifted = ramp().shifted(1, 0);
        assert_eq!(shifted.pixels()[..6], [0, 1, 2, 0, 1, 2]);
        assert_eq!(ramp().shifted(0, -1).pixels()[..3], [12, 13, 14]);
    }

    #[test]
    fn antialiasing_averages_and_interpolation_does_not() {
        // One white column in eight: the mean survives antialiasing, and is lost or kept by chance without.
        let pixels = (0..64).flat_map(|i| [if i % 8 == 0 { 255 } else { 0 }; 3]).collect();
        let face = Face::new(8, 8, pixels).expect("192 bytes");
        let small = face.resized(2, Kernel::Box, true).expect("resize");
        assert_eq!(small.pixels()[0], 64);
        let sharp = face.resized(2, Kernel::Bilinear, false).expect("resize");
        assert_eq!(sharp.pixels()[0], 0);
    }

    #[test]
    fn a_batch_gives_its_faces_back() {
        let all = Face::new(16, 16, (0..768).map(|i| i as u8).collect()).expect("every byte");
        let faces = [all.clone(), all.flipped()];
        let batch = FaceBatch::from_faces(&faces, &Device::Cpu).expect("batch");
        assert_eq!(batch.to_faces().expect("faces"), faces);
    }

    #[test]
    fn batches_are_planar_and_scaled() {
        let batch = FaceBatch::from_faces(&[ramp(), ramp()], &Device::Cpu).expect("batch");
        assert_eq!(batch.tensor().dims(), [2, 3, 4, 4]);
        let values = batch.tensor().flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        assert_eq!(values[0], 0.0);
        assert_eq!(values[1], 3.0 / 255.0);
        assert_eq!(values[16], 1.0 / 255.0);
    }
}
