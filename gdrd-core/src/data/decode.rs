//! Image files to faces; the only place that knows image formats.

use std::path::Path;

use crate::error::{Error, Result};
use crate::face::{Face, Kernel};

/// Reads a JPEG or PNG as a square face of `size` pixels, or of its own size. An image that is not square is cropped to its
/// centre.
///
/// # Errors
/// If the file cannot be read, is truncated, or is no image.
pub fn read_face(path: &Path, size: Option<usize>) -> Result<Face> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    check_whole(path, &bytes)?;
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
    let face = Face::new(side as usize, side as usize, square.into_raw())?;
    size.map_or_else(|| Ok(face.clone()), |size| face.resized(size, Kernel::Bicubic, true))
}

/// Whether a JPEG or PNG reaches its end, without decoding it. Decoders fill the missing part of a truncated JPEG with
/// grey, so this must be asked before.
///
/// # Errors
/// If the file is truncated or neither JPEG nor PNG.
pub(super) fn check_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let whole = match bytes {
        [0xff, 0xd8, rest @ ..] => jpeg_ends(rest),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', rest @ ..] => png_ends(rest),
        _ => {
            let start: String = bytes.iter().take(12).map(|b| format!("{b:02x}")).collect();
            let message = format!("`{}` is not a readable JPEG or PNG: it begins with `{start}`", path.display());
            return Err(Error::data(message));
        }
    };
    match whole {
        Some(()) => Ok(()),
        None => Err(Error::data(format!(
            "`{}` is not a readable JPEG or PNG: it is truncated, after {} bytes its end has not come",
            path.display(),
            bytes.len()
        ))),
    }
}

/// Walks from marker to marker, `rest` being behind the first one, until the end of the image.
fn jpeg_ends(mut rest: &[u8]) -> Option<()> {
    loop {
        // Between segments, and in compressed data, everything up to the next marker is passed over. `ff 00` is a byte
        // of data, `ff d0` to `ff d7` are restarts within it, and any number of `ff` may precede a marker.
        let at = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff))?;
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        if marker == 0xd9 {
            return Some(());
        }
        let length = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
        rest = rest.get(length..)?;
    }
}

/// Walks from chunk to chunk until the last one.
fn png_ends(mut rest: &[u8]) -> Option<()> {
    loop {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let end = rest.get(4..8)? == b"IEND";
        rest = rest.get(length.checked_add(12)?..)?;
        if end {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["cut.png", "cut.jpg"] {
            let path = folder.path().join(name);
            let pixel = |x: u32, y: u32| image::Rgb([(x * 37 % 251) as u8, (y * 91 % 241) as u8, (x * y % 239) as u8]);
            image::RgbImage::from_fn(24, 24, pixel).save(&path).expect("write");
            let bytes = std::fs::read(&path).expect("read");
            check_whole(&path, &bytes).expect("whole");
            check_whole(&path, &[&bytes[..], b"trailing"].concat()).expect("what follows the end is no matter");
            for length in 0..bytes.len() {
                assert!(check_whole(&path, &bytes[..length]).is_err(), "{name} cut to {length} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_truncated_image_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("half.png");
        image::RgbImage::from_pixel(40, 30, image::Rgb([1, 2, 3])).save(&path).expect("write");
        assert_eq!(read_face(&path, Some(16)).expect("whole").pixels()[..3], [1, 2, 3]);
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("write");
        let error = read_face(&path, Some(16)).expect_err("half an image");
        assert!(error.to_string().contains("half.png"), "{error}");
    }
}
