//! NumPy's `.npy` format: a header that is a dictionary in Python's own notation, then the values.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::nn::weights::looks_like;

/// What the file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a `.npy` file of floats: float16, float32 or float64, of either byte order, in C's or Fortran's order of dimensions,
/// written by any version of NumPy. Types stay as they are.
///
/// # Errors
/// If the file cannot be read, is no complete `.npy` file, or holds anything but such floats.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let bytes = gdrd_core::files::read(path).map_err(|e| Error::io(path, e))?;
    parse(&bytes).at(|| format!("`{}`", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Tensor> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        let looks = looks_like(&bytes[..bytes.len().min(512)], bytes.len() as u64);
        let looks = looks.map_or(String::new(), |what| format!("; {what}"));
        return Err(Error::data(format!("not a .npy file{looks}")));
    };
    let cut = || Error::data("not a complete .npy file: it ends within its header");
    let (&[version, _], rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match version {
        1 => rest.split_first_chunk().map(|(length, rest)| (u32::from(u16::from_le_bytes(*length)), rest)),
        2 | 3 => rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length), rest)),
        other => return Err(Error::data(format!("version {other} of the .npy format; expected 1, 2 or 3"))),
    }
    .ok_or_else(cut)?;
    let (header, values) = rest.split_at_checked(length as usize).ok_or_else(cut)?;
    let header = Header::of(&String::from_utf8_lossy(header))?;
    let (dtype, width) = (header.dtype()?, header.width);
    let count = header.shape.iter().try_fold(width, |count, size| count.checked_mul(*size));
    if count != Some(values.len()) {
        return Err(Error::data(format!(
            "not a complete .npy file: {:?} values of {width} bytes do not make {} bytes",
            header.shape,
            values.len()
        )));
    }
    let swapped: Vec<u8>;
    let values = match header.big {
        true => {
            swapped = values.chunks_exact(width).flat_map(|value| value.iter().rev()).copied().collect();
            &swapped
        }
        false => values,
    };
    if !header.fortran || header.shape.len() < 2 {
        return Ok(Tensor::from_raw_buffer(values, dtype, &header.shape, &Device::Cpu)?);
    }
    // The first dimension is the one whose neighbours lie side by side.
    let turned: Vec<usize> = header.shape.iter().rev().copied().collect();
    let dimensions: Vec<usize> = (0..turned.len()).rev().collect();
    Ok(Tensor::from_raw_buffer(values, dtype, &turned, &Device::Cpu)?.permute(dimensions)?.contiguous()?)
}

/// What the header says.
#[derive(Debug, PartialEq)]
struct Header {
    /// Big-endian.
    big: bool,
    kind: char,
    /// Bytes of a value.
    width: usize,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`, whose keys may stand in any order.
    fn of(text: &str) -> Result<Self> {
        let wrong = || Error::data(format!("a .npy header that cannot be read: {}", text.trim_end()));
        let value = |key: &str| {
            let at = ['\'', '"'].iter().find_map(|quote| text.split_once(&format!("{quote}{key}{quote}")));
            Some(at?.1.trim_start().strip_prefix(':')?.trim_start())
        };
        let descr = value("descr").ok_or_else(wrong)?;
        let Some(quote) = descr.chars().next().filter(|c| ['\'', '"'].contains(c)) else {
            return Err(Error::data("records of several fields; expected an array of float16, float32 or float64"));
        };
        let descr = descr[1..].split(quote).next().ok_or_else(wrong)?;
        let fortran = value("fortran_order").ok_or_else(wrong)?;
        let fortran = match (fortran.starts_with("True"), fortran.starts_with("False")) {
            (false, false) => return Err(wrong()),
            (fortran, _) => fortran,
        };
        let shape = value("shape").and_then(|shape| shape.strip_prefix('(')?.split_once(')')).ok_or_else(wrong)?.0;
        let sizes = shape.split(',').map(|size| size.trim().trim_end_matches('L')).filter(|size| !size.is_empty());
        let shape = sizes.map(|size| size.parse().map_err(|_| wrong())).collect::<Result<_>>()?;
        let (order, kind) = match descr.strip_prefix(['<', '>', '=', '|']) {
            Some(kind) => (&descr[..1], kind),
            None => ("=", descr),
        };
        let mut letters = kind.chars();
        let letter = letters.next().ok_or_else(wrong)?;
        let width = letters.as_str().parse().unwrap_or(0);
        Ok(Self { big: order == ">", kind: letter, width, fortran, shape })
    }

    fn dtype(&self) -> Result<DType> {
        let bits = self.width.saturating_mul(8);
        let found = match (self.kind, self.width) {
            ('f', 2) => return Ok(DType::F16),
            ('f', 4) => return Ok(DType::F32),
            ('f', 8) => return Ok(DType::F64),
            ('f', _) => format!("float{bits}"),
            ('i', _) => format!("int{bits}"),
            ('u', _) => format!("uint{bits}"),
            ('c', _) => format!("complex{bits}"),
            ('b', _) => "booleans".into(),
            ('O', _) => "objects of Python, a pickle that is not read".into(),
            ('U' | 'S' | 'a', _) => "texts".into(),
            ('V', 2) => "values of 2 bytes without a type, as bfloat16 is written".into(),
            (kind, width) => format!("values of type `{kind}{width}`"),
        };
        Err(Error::data(format!("expected an array of float16, float32 or float64, found {found}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this version; its header is padded as NumPy pads it.
    fn file(version: u8, header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = [MAGIC, &[version, 0]].concat();
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        [&bytes, header.as_bytes(), values].concat()
    }

    fn header(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}      \n")
    }

    fn rows(bytes: &[u8]) -> Vec<Vec<f64>> {
        let tensor = parse(bytes).expect("an array");
        tensor.to_dtype(DType::F64).and_then(|t| t.to_vec2()).expect("rows")
    }

    #[test]
    fn every_version_byte_order_and_order_of_dimensions_is_read() {
        let values = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        let (c, fortran) =
            (vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]], vec![vec![1.0, 3.0, 5.0], vec![2.0, 4.0, 6.0]]);
        for version in 1..=3 {
            assert_eq!(rows(&file(version, &header("<f4", "False", "(2, 3)"), &little)), c);
            assert_eq!(rows(&file(version, &header(">f4", "False", "(2, 3)"), &big)), c);
            assert_eq!(rows(&file(version, &header("<f4", "True", "(2, 3)"), &little)), fortran);
            assert_eq!(rows(&file(version, &header(">f4", "True", "(2L, 3L)"), &big)), fortran);
        }
        let double: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_be_bytes()).collect();
        assert_eq!(rows(&file(1, &header(">f8", "False", "(2, 3)"), &double)), c);
        // 1 and -2 as float16.
        assert_eq!(rows(&file(1, &header("<f2", "False", "(1, 2)"), &[0, 0x3c, 0, 0xc0])), [[1.0, -2.0]]);
        let reversed = "{\"shape\": (2, 3), \"fortran_order\": False, \"descr\": \"<f4\"}\n";
        assert_eq!(rows(&file(1, reversed, &little)), c);
    }

    #[test]
    fn everything_else_is_named() {
        let refused = |bytes: &[u8], expected: &str| {
            let text = parse(bytes).expect_err(expected).to_string();
            assert!(text.contains(expected), "{text}");
        };
        for (descr, expected) in [
            ("<i8", "found int64"),
            ("|u1", "found uint8"),
            ("<c8", "found complex64"),
            ("<f16", "found float128"),
            ("|b1", "found booleans"),
            ("|O", "found objects of Python"),
            ("<U5", "found texts"),
            ("<V2", "as bfloat16 is written"),
        ] {
            refused(&file(1, &header(descr, "False", "(2, 3)"), &[0; 24]), expected);
        }
        let records = "{'descr': [('x', '<f4'), ('y', '<f4')], 'fortran_order': False, 'shape': (3,), }\n";
        refused(&file(1, records, &[0; 24]), "records of several fields");
        refused(&file(4, &header("<f4", "False", "(2, 3)"), &[0; 24]), "version 4 of the .npy format");
        refused(&file(1, &header("<f4", "False", "(2, 3)"), &[0; 23]), "[2, 3] values of 4 bytes do not make 23 bytes");
        refused(&file(1, &header("<f4", "False", "(2, 3)"), &[0; 25]), "do not make 25 bytes");
        let large = format!("({}, 9)", usize::MAX);
        refused(&file(1, &header("<f4", "False", &large), &[0; 24]), "do not make 24 bytes");
        refused(&file(1, &header("<f4", "Maybe", "(2, 3)"), &[0; 24]), "a .npy header that cannot be read");
        refused(&file(1, &header("<f4", "False", "(-2, 3)"), &[0; 24]), "a .npy header that cannot be read");
        refused(&file(1, "{}", &[]), "a .npy header that cannot be read");
        let whole = file(2, &header("<f4", "False", "(2, 3)"), &[0; 24]);
        (6..40).for_each(|length| refused(&whole[..length], "ends within its header"));
        refused(b"PK\x03\x04", "not a .npy file; it is a zip archive");
        refused(b"", "the file is empty");
    }
}
