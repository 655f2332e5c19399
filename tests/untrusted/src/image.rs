//! Images.

use gdrd_core::data::{Decoding, decode};
use image::ImageReader;

use crate::refused;

/// Pixels of the images that are decoded here. gdrd's own limit is 64 times as high, which takes seconds.
const PIXELS: u64 = 1 << 20;

/// The bytes of an image of any format.
pub(crate) fn read(bytes: &[u8]) {
    let reader = ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().expect("bytes in memory");
    let size = reader.into_dimensions().unwrap_or_default();
    if u64::from(size.0) * u64::from(size.1) > PIXELS {
        return;
    }
    for exif_orientation in [true, false] {
        if let Some(face) = refused(decode(bytes, Decoding { exif_orientation })) {
            assert_eq!(face.pixels().len(), 3 * face.width() * face.height());
        }
    }
}
