//! Image files to faces; the only place that knows image formats.

use std::path::Path;

use crate::error::{Error, Result};
use crate::face::{Face, Kernel};

/// Reads a JPEG or PNG as a square face of `size` pixels. An image that is not square is cropped to its centre.
///
/// # Errors
/// If the file cannot be read, is truncated, or is no image.
pub fn read_face(path: &Path, size: usize) -> Result<Face> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let image = image::load_from_memory(&bytes)
        .map_err(|e| Error::data(format!("`{}` is not a readable JPEG or PNG: {e}", path.display())))?
        .into_rgb8();
    let (width, height) = (image.width(), image.height());
    let side = width.min(height);
    let square = if width == height {
        image
    } else {
        image::imageops::crop_imm(&image, (width - side) / 2, (height - side) / 2, side, side).to_image()
    };
    Face::new(side as usize, side as usize, square.into_raw())?.resized(size, Kernel::Bicubic, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_image_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("half.png");
        image::RgbImage::from_pixel(40, 30, image::Rgb([1, 2, 3])).save(&path).expect("write");
        assert_eq!(read_face(&path, 16).expect("whole").pixels()[..3], [1, 2, 3]);
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("write");
        let error = read_face(&path, 16).expect_err("half an image");
        assert!(error.to_string().contains("half.png"), "{error}");
    }
}
