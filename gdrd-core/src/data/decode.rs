//! Image files to faces; the only place that knows image formats.

use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::formats::{self, READ};
use crate::error::{Context, Error, Result};
use crate::face::{Face, Kernel};

/// The most pixels that an image may have: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;
/// The most bytes that an image file may have.
pub const MAX_BYTES: u64 = 256 << 20;

/// How the bytes of an image become pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Whether an image is turned and mirrored as its EXIF orientation says, as every viewer does. If not, pixels stay as the
    /// camera's sensor had them.
    pub exif_orientation: bool,
}

impl Default for Decoding {
    fn default() -> Self {
        Self { exif_orientation: true }
    }
}

/// Decodes an image at its own size, square or not. The format is known by the bytes: JPEG, PNG, BMP, WebP or GIF, of which the
/// first frame is taken. What is transparent lies on black; 16 bits are rounded to 8.
///
/// # Errors
/// If the bytes are none of these, end too early, are damaged, or are more than [`MAX_PIXELS`] pixels.
pub fn decode(bytes: &[u8], how: Decoding) -> Result<Face> {
    let failed = |e: image::ImageError| unreadable(&e.to_string());
    let mut decoder = decoder(bytes)?;
    // Metadata that cannot be read says nothing.
    let exif = if how.exif_orientation { decoder.exif_metadata().ok().flatten() } else { None };
    let orientation =
        exif.and_then(|exif| Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif)));
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    let image = if image.color().has_alpha() { on_black(&image.into_rgba8()) } else { image.into_rgb8() };
    Face::new(image.width() as usize, image.height() as usize, image.into_raw())
}

/// The decoder of an image that reaches its end and is not too large.
fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_> {
    let format = check_whole(bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(16 * MAX_PIXELS);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| unreadable(&e.to_string()))?;
    let (width, height) = decoder.dimensions();
    match u64::from(width) * u64::from(height) > MAX_PIXELS {
        true => Err(unreadable(&format!(
            "it has {width}x{height} pixels, more than the {} megapixels that gdrd reads",
            MAX_PIXELS >> 20
        ))),
        false => Ok(decoder),
    }
}

/// Whether an image begins and ends as one and is not too large; its pixels are not looked at.
///
/// # Errors
/// As [`decode`], but for damage between beginning and end.
pub(super) fn check_image(bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(&format!("it has more than {MAX_BYTES} bytes")));
    }
    decoder(bytes).map(drop)
}

/// Reads an image file as [`decode`] does.
///
/// # Errors
/// As [`decode`], with the path; and if the file cannot be read or has more than [`MAX_BYTES`] bytes.
pub fn read_image(path: &Path, how: Decoding) -> Result<Face> {
    read_bytes(path).and_then(|bytes| decode(&bytes, how)).at(|| format!("`{}`", path.display()))
}

/// Reads an image file as a square face of `size` pixels, in one bicubic step from its own size, up or down; or of its own size. An image that is not square is cropped to its centre.
///
/// # Errors
/// As [`read_image`].
pub fn read_face(path: &Path, size: Option<usize>) -> Result<Face> {
    let face = read_image(path, Decoding::default())?.centre_square();
    match size {
        Some(size) => face.resized(size, Kernel::Bicubic, true),
        None => Ok(face),
    }
}

/// Reads an image file as a square face of at most `size` pixels, with its choice of decoding; a smaller one stays as it is, see
/// [`Dataset::size`](super::Dataset::size). Whoever asks a dataset for a face says where it lies.
pub(super) fn read_square(path: &Path, size: Option<usize>, how: Decoding) -> Result<Face> {
    squared(decode(&read_bytes(path)?, how)?, size)
}

/// The middle of a face, of at most `size` pixels.
pub(super) fn squared(face: Face, size: Option<usize>) -> Result<Face> {
    let face = face.centre_square();
    match size {
        Some(size) if face.width() > size => face.resized(size, Kernel::Bicubic, true),
        _ => Ok(face),
    }
}

/// The bytes of a file that may be an image; whoever calls says which file.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::files::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(Error::io_without_place)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(&format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The format of an image that reaches its end, without decoding it. Decoders fill the missing part of a truncated image with
/// grey, so this must be asked before.
///
/// # Errors
/// If the bytes are truncated or no format that gdrd reads.
pub(super) fn check_whole(bytes: &[u8]) -> Result<ImageFormat> {
    let Some(format) = formats::known(bytes) else {
        return Err(unreadable(&format!("{}; gdrd reads {READ}", formats::describe(bytes))));
    };
    match formats::ends(format, bytes) {
        true => Ok(format),
        false => Err(unreadable(&format!("it is truncated, after {} bytes its end has not come", bytes.len()))),
    }
}

fn unreadable(why: &str) -> Error {
    Error::data(format!("not a readable image: {why}"))
}

/// Lays an image on black: each colour times its share, rounded.
fn on_black(image: &image::RgbaImage) -> image::RgbImage {
    let share = |colour: u8, alpha: u8| ((u32::from(colour) * u32::from(alpha) + 127) / 255) as u8;
    let pixel = |x, y| {
        let image::Rgba([r, g, b, alpha]) = *image.get_pixel(x, y);
        image::Rgb([share(r, alpha), share(g, alpha), share(b, alpha)])
    };
    image::RgbImage::from_fn(image.width(), image.height(), pixel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: u32, height: u32) -> image::RgbImage {
        let pixel = |x: u32, y: u32| image::Rgb([(x * 37 % 251) as u8, (y * 91 % 241) as u8, (x * y % 239) as u8]);
        image::RgbImage::from_fn(width, height, pixel)
    }

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).expect("encoded");
        bytes.into_inner()
    }

    const ALL: [ImageFormat; 5] =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif];

    #[test]
    fn every_truncation_is_found() {
        for format in ALL {
            let bytes = encoded(pattern(24, 24), format);
            assert_eq!(check_whole(&bytes).expect("whole"), format);
            check_whole(&[&bytes[..], b"trailing"].concat()).expect("what follows the end is no matter");
            for length in 0..bytes.len() {
                assert!(check_whole(&bytes[..length]).is_err(), "{format:?} cut to {length} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn all_formats_are_read_at_their_own_size() {
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let face = decode(&encoded(pattern(24, 17), format), Decoding::default()).expect("read");
            assert_eq!((face.width(), face.height()), (24, 17));
            assert_eq!(face.pixels(), pattern(24, 17).as_raw(), "{format:?} loses nothing");
        }
        let flat = image::RgbImage::from_pixel(9, 7, image::Rgb([200, 100, 50]));
        for format in [ImageFormat::Jpeg, ImageFormat::Gif] {
            let face = decode(&encoded(flat.clone(), format), Decoding::default()).expect("read");
            assert_eq!((face.width(), face.height()), (9, 7));
            assert!(face.pixels().iter().zip(flat.as_raw()).all(|(a, b)| a.abs_diff(*b) < 4), "{format:?}");
        }
    }

    #[test]
    fn what_is_transparent_lies_on_black() {
        let pixels = [[255, 200, 100, 255], [255, 200, 100, 0], [255, 200, 100, 128], [0, 0, 0, 7]];
        let image = image::RgbaImage::from_raw(2, 2, pixels.concat()).expect("four pixels");
        let expected = [255, 200, 100, 0, 0, 0, 128, 100, 50, 0, 0, 0];
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let face = decode(&encoded(image.clone(), format), Decoding::default()).expect("read");
            assert_eq!(face.pixels(), expected, "{format:?}");
        }
        let grey = image::GrayAlphaImage::from_raw(2, 1, vec![80, 255, 80, 0]).expect("two pixels");
        let face = decode(&encoded(grey, ImageFormat::Png), Decoding::default()).expect("read");
        assert_eq!(face.pixels(), [80, 80, 80, 0, 0, 0]);
    }

    /// A JPEG with this EXIF orientation.
    fn turned(orientation: u8) -> Vec<u8> {
        // Blocks of one colour survive JPEG: red in the upper left, blue in the lower right, black elsewhere.
        let colour = |x: u32, y: u32| match (x < 16, y < 8) {
            (true, true) => image::Rgb([250, 0, 0]),
            (false, false) => image::Rgb([0, 0, 250]),
            _ => image::Rgb([0, 0, 0]),
        };
        let jpeg = encoded(image::RgbImage::from_fn(32, 16, colour), ImageFormat::Jpeg);
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let length = (exif.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn exif_orientation_is_obeyed_unless_told_otherwise() {
        // Where red (r) and blue (b) are, by quarters, row by row.
        let quarters = |face: &Face| -> String {
            let (w, h) = (face.width(), face.height());
            let at = |x: usize, y: usize| {
                let pixel = &face.pixels()[3 * (y * w + x)..][..3];
                if pixel[0] > 200 {
                    'r'
                } else if pixel[2] > 200 {
                    'b'
                } else {
                    '.'
                }
            };
            [(w / 4, h / 4), (3 * w / 4, h / 4), (w / 4, 3 * h / 4), (3 * w / 4, 3 * h / 4)]
                .map(|(x, y)| at(x, y))
                .iter()
                .collect()
        };
        let expected = ["r..b", ".rb.", "b..r", ".br.", "r..b", ".rb.", "b..r", ".br."];
        for (orientation, expected) in (1..=8).zip(expected) {
            let face = decode(&turned(orientation), Decoding::default()).expect("read");
            assert_eq!(quarters(&face), expected, "orientation {orientation}");
            assert_eq!(face.width(), if orientation < 5 { 32 } else { 16 }, "orientation {orientation}");
            let plain = decode(&turned(orientation), Decoding { exif_orientation: false }).expect("read");
            assert_eq!((quarters(&plain).as_str(), plain.width()), ("r..b", 32));
        }
        decode(&turned(77), Decoding::default()).expect("an orientation that there is not is none");
    }

    #[test]
    fn a_face_of_the_right_size_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        // The name says nothing.
        let path = folder.path().join("small.jpg");
        std::fs::write(&path, encoded(pattern(16, 16), ImageFormat::Png)).expect("written");
        assert_eq!(read_face(&path, Some(16)).expect("read").pixels(), pattern(16, 16).as_raw());
        let wide = folder.path().join("wide.png");
        std::fs::write(&wide, encoded(pattern(40, 30), ImageFormat::Png)).expect("written");
        let face = read_image(&wide, Decoding::default()).expect("read").centre_square();
        assert_eq!((face.width(), face.height(), face.pixels()[0]), (30, 30, 185));
    }

    #[test]
    fn what_is_no_image_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("half.png");
        let bytes = encoded(pattern(40, 30), ImageFormat::Png);
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
        let error = read_face(&path, Some(16)).expect_err("half an image").to_string();
        assert!(error.contains("half.png`: not a readable image: it is truncated"), "{error}");
        for (bytes, expected) in [
            (&b""[..], "it is empty"),
            (b"\0\x05\x16\x07\0\x02\0\0", "AppleDouble"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "it is an AVIF image"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "it is a HEIC image"),
            (b"II*\0\x08\0\0\0", "it is a TIFF image"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (b"<html>", "it is a web page"),
            (b"abcdefgh", "it is text that begins with `abcdefgh`"),
            (b"a = 1\nb = 2\n", "it is text that begins with `a = 1`"),
            (b"ab\x01\xff", "it begins with the bytes `616201ff`"),
        ] {
            let error = decode(bytes, Decoding::default()).expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains("gdrd reads JPEG, PNG, BMP, WebP and GIF"), "{error}");
        }
    }

    #[test]
    fn an_image_that_would_fill_the_memory_is_refused() {
        // A PNG of 60,000 x 60,000 pixels, in words; and a large one that is within bounds.
        let mut bytes = encoded(pattern(4, 4), ImageFormat::Png);
        bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let crc = formats::crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = decode(&bytes, Decoding::default()).expect_err("too large").to_string();
        assert!(error.contains("60000x60000 pixels, more than the 64 megapixels that gdrd reads"), "{error}");
        let large = encoded(image::GrayImage::new(8192, 8192), ImageFormat::Png);
        assert_eq!(decode(&large, Decoding::default()).expect("64 megapixels").width(), 8192);
    }
}
