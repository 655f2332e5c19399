//! Images to the bytes of files.

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};
use crate::face::Face;

/// The bytes of a PNG file, which loses nothing.
///
/// # Errors
/// If a side is longer than PNG has numbers for.
pub fn png(image: &Face) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (image.width() as u32, image.height() as u32);
    let written = PngEncoder::new(&mut bytes).write_image(image.pixels(), width, height, ExtendedColorType::Rgb8);
    written.map_err(|e| Error::data(format!("an image of {width}x{height} pixels as PNG: {e}")))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Decoding, decode};

    #[test]
    fn what_is_written_is_read() {
        let image = Face::new(5, 3, (0..45).map(|i| 5 * i).collect()).expect("45 bytes");
        assert_eq!(decode(&png(&image).expect("a PNG"), Decoding::default()).expect("read"), image);
    }
}
