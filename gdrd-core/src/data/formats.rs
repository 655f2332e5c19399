//! What image files look like from outside: how they begin and where they end.

use image::ImageFormat;

/// The formats that are read, for messages.
pub(super) const READ: &str = "JPEG, PNG, BMP, WebP and GIF";
/// The endings of the names of files that are taken for images.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "webp", "gif"];

/// Whether a file is taken for an image by its name.
pub fn is_image_name(path: &std::path::Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    ENDINGS.contains(&ending.as_str())
}

/// The format that bytes begin as, if it is one that is read.
pub(super) fn known(bytes: &[u8]) -> Option<ImageFormat> {
    Some(match bytes {
        [0xff, 0xd8, ..] => ImageFormat::Jpeg,
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => ImageFormat::Png,
        [b'B', b'M', ..] => ImageFormat::Bmp,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => ImageFormat::WebP,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => ImageFormat::Gif,
        _ => return None,
    })
}

/// What bytes are that are no image that is read, in words.
pub(super) fn describe(bytes: &[u8]) -> String {
    let begins = |with: &[u8]| bytes.starts_with(with);
    let words = bytes.trim_ascii_start().to_ascii_lowercase();
    let named = match bytes {
        [] => "it is empty",
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4).unwrap_or_default() {
            b"avif" | b"avis" => "it is an AVIF image",
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => "it is a HEIC image",
            b"crx " => "it is a raw photo of a camera",
            _ => "it is a film",
        },
        _ if begins(b"\0\x05\x16\x07") || begins(b"\0\x05\x16\0") => {
            "it is an AppleDouble file, which holds what macOS knows of another file"
        }
        _ if begins(b"II*\0") || begins(b"MM\0*") => "it is a TIFF image or a raw photo",
        _ if begins(b"\xff\x0a") || begins(b"\0\0\0\x0cJXL ") => "it is a JPEG XL image",
        _ if begins(b"\0\0\0\x0cjP  ") || begins(b"\xff\x4f\xff\x51") => "it is a JPEG 2000 image",
        _ if begins(b"8BPS") => "it is a Photoshop file",
        _ if begins(b"\0\0\x01\0") => "it is an icon",
        _ if begins(b"qoif") => "it is a QOI image",
        _ if matches!(bytes, [b'P', b'1'..=b'7', b'\n' | b' ' | b'\r' | b'\t', ..]) => "it is a PNM image",
        _ if begins(b"\x76\x2f\x31\x01") => "it is an OpenEXR image",
        _ if begins(b"%PDF") => "it is a PDF",
        _ if begins(b"version https://git-lfs") => "it is a Git LFS pointer: `git lfs pull` gets the file",
        _ if begins(b"PK\x03\x04") || begins(b"\x1f\x8b") => "it is an archive",
        _ if words.starts_with(b"<svg") => "it is an SVG",
        _ if words.starts_with(b"<") => "it is a web page or XML",
        _ => {
            let start = &bytes[..bytes.len().min(12)];
            if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
                let line = String::from_utf8_lossy(start);
                return format!("it is text that begins with `{}`", line.trim().lines().next().unwrap_or_default());
            }
            let start: String = start.iter().map(|b| format!("{b:02x}")).collect();
            return format!("it begins with the bytes `{start}`");
        }
    };
    named.to_string()
}

/// Whether an image reaches its end.
pub(super) fn ends(format: ImageFormat, bytes: &[u8]) -> bool {
    let found = match format {
        ImageFormat::Jpeg => jpeg(&bytes[2..]),
        ImageFormat::Png => png(&bytes[8..]),
        ImageFormat::Gif => gif(bytes),
        ImageFormat::Bmp => bmp(bytes),
        _ => webp(bytes),
    };
    found.is_some()
}

/// Walks from marker to marker, `rest` being behind the first one, until the end of the image.
fn jpeg(mut rest: &[u8]) -> Option<()> {
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
fn png(mut rest: &[u8]) -> Option<()> {
    loop {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let end = rest.get(4..8)? == b"IEND";
        rest = rest.get(length.checked_add(12)?..)?;
        if end {
            return Some(());
        }
    }
}

/// Walks from block to block until the trailer.
fn gif(bytes: &[u8]) -> Option<()> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut rest = bytes.get(13 + table(*bytes.get(10)?)..)?;
    loop {
        let (kind, behind) = rest.split_first()?;
        rest = match kind {
            0x3b => return Some(()),
            0x21 => behind.get(1..)?,
            0x2c => behind.get(10 + table(*behind.get(8)?)..)?,
            _ => return None,
        };
        loop {
            let (length, data) = rest.split_first()?;
            rest = data.get(usize::from(*length)..)?;
            if *length == 0 {
                break;
            }
        }
    }
}

/// The length that stands in the first chunk is there.
fn webp(bytes: &[u8]) -> Option<()> {
    let length = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    bytes.get(..length.checked_add(8)?).map(drop)
}

/// The rows of a bitmap that is not compressed are there; those of others end where the decoder says.
fn bmp(bytes: &[u8]) -> Option<()> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
    let half = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b));
    let (data, header) = (word(10)? as usize, word(14)?);
    let (width, height, bits, compression) = match header {
        12 => (u32::from(half(18)?), u32::from(half(20)?), half(24)?, 0),
        _ => (word(18)?, (word(22)? as i32).unsigned_abs(), half(28)?, word(30)?),
    };
    // 0 and 3 are plain rows, of whole words each.
    let rows = match compression {
        0 | 3 => (width as usize)
            .checked_mul(usize::from(bits))?
            .div_ceil(32)
            .checked_mul(4)?
            .checked_mul(height as usize)?,
        _ => 1,
    };
    bytes.get(..data.checked_add(rows)?).map(drop)
}

/// The checksum of a PNG's chunk.
#[cfg(test)]
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
