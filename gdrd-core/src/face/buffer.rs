//! Faces from what other programs have in memory.

use super::Face;
use crate::error::{Error, Result};

/// The order of a buffer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One byte a pixel.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV has it.
    Bgr,
    /// Red, green, blue and a byte that is not looked at.
    Rgba,
    /// Blue, green, red and a byte that is not looked at, as cameras and screens have it.
    Bgra,
}

impl Layout {
    /// Bytes of a pixel, and which of them are red, green and blue.
    fn channels(self) -> (usize, [usize; 3]) {
        match self {
            Self::Grey => (1, [0; 3]),
            Self::Rgb => (3, [0, 1, 2]),
            Self::Bgr => (3, [2, 1, 0]),
            Self::Rgba => (4, [0, 1, 2]),
            Self::Bgra => (4, [2, 1, 0]),
        }
    }
}

/// The most pixels of a buffer, or of a face that is made of another: 64 megapixels, as of an image file.
const MOST_PIXELS: usize = 64 << 20;

/// The number of pixels, if there may be so many.
pub(super) fn bounded(width: usize, height: usize) -> Result<usize> {
    let count = width.checked_mul(height).filter(|count| (1..=MOST_PIXELS).contains(count));
    count.ok_or_else(|| Error::data(format!("expected 1 to {MOST_PIXELS} pixels, found {width}x{height}")))
}

#[cfg(feature = "image")]
impl TryFrom<&image::DynamicImage> for Face {
    type Error = Error;

    /// The image as a face; what is transparent is taken as it is.
    fn try_from(image: &image::DynamicImage) -> Result<Self> {
        bounded(image.width() as usize, image.height() as usize)?;
        let rgb = image.to_rgb8();
        Self::new(rgb.width() as usize, rgb.height() as usize, rgb.into_raw())
    }
}

impl Face {
    /// A face from a camera's or a decoder's buffer, whose rows begin `stride` bytes apart; what is transparent is taken as it is.
    ///
    /// ```
    /// use gdrd_core::face::{Face, Layout};
    ///
    /// // Two grey rows of two pixels, and two bytes that no one needs after each.
    /// let face = Face::from_buffer(&[10, 20, 0, 0, 30, 40, 0, 0], 2, 2, 4, Layout::Grey)?;
    /// assert_eq!(face.pixels(), [10, 10, 10, 20, 20, 20, 30, 30, 30, 40, 40, 40]);
    /// # Ok::<(), gdrd_core::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a side is zero, there are more than 64 megapixels, rows overlap, or the buffer ends too early.
    pub fn from_buffer(buffer: &[u8], width: usize, height: usize, stride: usize, layout: Layout) -> Result<Self> {
        let count = bounded(width, height)?;
        let (bytes, channels) = layout.channels();
        let row = width * bytes;
        // The last row needs no bytes behind its pixels.
        let needed = stride.checked_mul(height - 1).and_then(|before| before.checked_add(row));
        if stride < row || needed.is_none_or(|needed| needed > buffer.len()) {
            return Err(Error::data(format!(
                "{width}x{height} pixels {layout:?} of {bytes} bytes each, rows {stride} bytes apart, do not fit a buffer of {} bytes",
                buffer.len()
            )));
        }
        let mut pixels = Vec::with_capacity(3 * count);
        for row in buffer.chunks(stride).take(height).map(|line| &line[..row]) {
            row.chunks_exact(bytes).for_each(|pixel| pixels.extend(channels.map(|channel| pixel[channel])));
        }
        Self::new(width, height, pixels)
    }

    /// A face from RGB values in `[0, 1]`, row by row.
    ///
    /// # Errors
    /// If a value is not a number or outside, a side is zero, there are more than 64 megapixels, or there are not
    /// `3 * width * height` values.
    pub fn from_floats(values: &[f32], width: usize, height: usize) -> Result<Self> {
        let count = 3 * bounded(width, height)?;
        if values.len() != count {
            let found = values.len();
            return Err(Error::data(format!("{width}x{height} pixels need {count} values (RGB), found {found}")));
        }
        if let Some(at) = values.iter().position(|value| !(0.0..=1.0).contains(value)) {
            let (row, column) = (at / 3 / width, at / 3 % width);
            return Err(Error::data(format!(
                "pixel ({column}, {row}): expected values from 0 to 1, found {}",
                values[at]
            )));
        }
        Self::new(width, height, values.iter().map(|value| (value * 255.0).round() as u8).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::{FaceBatch, Kernel};

    #[test]
    fn buffers_of_every_layout_and_stride_become_faces() {
        for (layout, pixel) in [
            (Layout::Rgb, vec![1, 2, 3]),
            (Layout::Bgr, vec![3, 2, 1]),
            (Layout::Rgba, vec![1, 2, 3, 9]),
            (Layout::Bgra, vec![3, 2, 1, 9]),
        ] {
            let row = [pixel.repeat(5), vec![77; 3]].concat();
            let buffer = row.repeat(4);
            let face = |length: usize, stride| Face::from_buffer(&buffer[..length], 5, 4, stride, layout);
            let whole = face(buffer.len() - 3, row.len()).expect("the last row needs no more");
            assert_eq!((whole.width(), whole.height(), whole.pixels()), (5, 4, &[1, 2, 3].repeat(20)[..]));
            assert!(face(buffer.len() - 4, row.len()).is_err() && face(buffer.len(), row.len() - 4).is_err());
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused_and_nothing_panics() {
        for side in [0, usize::MAX, usize::MAX / 3, 20_000] {
            assert!(Face::new(side, side, vec![0; 3]).is_err(), "{side}");
            assert!(Face::from_buffer(&[0; 12], side, side, side, Layout::Grey).is_err(), "{side}");
            assert!(Face::from_floats(&[0.0; 12], side, side).is_err(), "{side}");
        }
        assert!(Face::from_buffer(&[0; 12], 1, 2, usize::MAX, Layout::Rgb).is_err());
        let two = Face::from_buffer(&[7; 6], 1, 2, 3, Layout::Rgb).expect("two pixels");
        for side in [0, usize::MAX, usize::MAX / 2, 1 << 32, 20_000] {
            for (width, height) in [(side, side), (side, 1 << 20), (1 << 20, side)] {
                let text = two.resized_to(width, height, Kernel::Bilinear, false).expect_err("too large").to_string();
                assert!(text.contains(&format!("resizing 1x2 to {width}x{height}: expected 1 to ")), "{text}");
            }
            assert!(two.resized(side, Kernel::Nearest, true).is_err(), "{side}");
        }
        // Neither may what lies between the rows and the columns be too large, nor a batch of what is no square.
        let tall = Face::new(1, 1 << 20, vec![7; 3 << 20]).expect("a column");
        assert!(tall.resized_to(1 << 20, 1, Kernel::Nearest, false).is_err());
        let wide = Face::new(1 << 20, 1, vec![7; 3 << 20]).expect("a row");
        assert!(FaceBatch::from_faces(&[wide], &candle_core::Device::Cpu).is_err());
        let large = Face::from_buffer(&vec![7; 20_000 * 300], 20_000, 300, 20_000, Layout::Grey).expect("6 megapixels");
        let small = large.centre_square().resized(16, Kernel::Bicubic, true).expect("a face");
        assert_eq!(small.pixels()[0], 7);
        let tiny = Face::from_buffer(&[9], 1, 1, 1, Layout::Grey).expect("a pixel");
        assert_eq!(tiny.resized(16, Kernel::Bicubic, true).expect("a face").pixels()[300], 9);
    }

    #[test]
    fn floats_that_are_no_numbers_are_named() {
        let mut values = [0.5f32; 12];
        assert_eq!(Face::from_floats(&values, 2, 2).expect("a face").pixels()[0], 128);
        for wrong in [f32::NAN, f32::INFINITY, -0.1, 255.0] {
            values[7] = wrong;
            let text = Face::from_floats(&values, 2, 2).expect_err("no colour").to_string();
            assert!(text.contains("pixel (0, 1): expected values from 0 to 1, found"), "{text}");
        }
    }
}
