//! MATLAB's files of versions 5 to 7.2, as far as lists of faces need them: arrays of numbers, texts, and cells of texts.
//!
//! A header of 128 bytes, then elements: a type and a length as `u32` (or, of up to four bytes, both in one word), the bytes, and
//! zeros up to a multiple of 8. Type 14 is a matrix, whose elements are flags, dimensions, name and values; type 15 is an element
//! that is compressed by zlib.

use std::collections::BTreeMap;
use std::io::Read;

use crate::error::{Error, Result};

/// The variables that can be used.
pub(super) struct Mat {
    pub(super) variables: BTreeMap<String, Variable>,
}

/// A variable.
#[derive(Debug, PartialEq)]
pub(super) enum Variable {
    /// An array of numbers, column by column.
    Numbers(Vec<f64>),
    /// Cells of texts, or the rows of an array of characters.
    Texts(Vec<String>),
    /// Cells of texts in several rows and columns, column by column.
    Columns(Vec<Vec<String>>),
    /// Something else.
    Other,
}

/// The most bytes that compressed elements may become, all together: ten times TinyFace's lists would fit.
const UNPACKED: u64 = 64 << 20;
const HEADER: usize = 128;

impl Mat {
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(b"MATLAB 7.3") || bytes.starts_with(b"\x89HDF") {
            return Err(Error::data(
                "a file of MATLAB 7.3, which is HDF5 and is not read; save it again with `save(..., '-v7')`, or by scipy.io.savemat",
            ));
        }
        let header = bytes.get(..HEADER).filter(|header| header.starts_with(b"MATLAB"));
        let Some(header) = header else {
            let found = match is_of_version_4(bytes) {
                true => "one of version 4; save it again with `save(..., '-v7')`, or by scipy.io.savemat",
                false => "something else",
            };
            return Err(Error::data(format!("expected a file of MATLAB 5 to 7.2, found {found}")));
        };
        if &header[124..] != b"\0\x01IM" {
            return Err(Error::data(format!(
                "expected version 0x0100 in little-endian order (`IM`), found {:02x?}",
                &header[124..]
            )));
        }
        let (mut rest, mut left, mut variables) = (&bytes[HEADER..], UNPACKED, BTreeMap::new());
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let place = |error: Error| error.at(format!("element at byte {at}"));
            // A matrix at the end may lack its padding.
            let (kind, data, behind) = element(rest).map_err(place)?;
            let held;
            let data = match kind {
                15 => {
                    let mut unpacked = Vec::new();
                    let mut reader = flate2::read::ZlibDecoder::new(data).take(left + 1);
                    reader
                        .read_to_end(&mut unpacked)
                        .map_err(|e| place(Error::data(format!("cannot be unpacked: {e}"))))?;
                    left = left.checked_sub(unpacked.len() as u64).ok_or_else(|| {
                        place(Error::data(format!("more than {UNPACKED} bytes when unpacked, as no list of faces has")))
                    })?;
                    held = unpacked;
                    let (kind, data, _) = element(&held).map_err(place)?;
                    (kind == 14).then_some(data)
                }
                14 => Some(data),
                _ => None,
            };
            if let Some(data) = data {
                let (name, variable) = matrix(data, true).map_err(place)?;
                variables.insert(name, variable);
            }
            rest = behind;
        }
        Ok(Self { variables })
    }
}

/// Whether bytes begin as a matrix of version 4 does, which has no header of its file: a word of decimal digits that say the order of
/// bytes, the form of numbers and the kind of matrix; rows; columns; whether there is an imaginary part; the length of the name; the
/// name and a zero.
fn is_of_version_4(bytes: &[u8]) -> bool {
    let number = |at: usize, of: fn([u8; 4]) -> u32| Some(of(*bytes.get(4 * at..)?.first_chunk()?));
    let fits = |order: u32, of: fn([u8; 4]) -> u32| -> Option<bool> {
        let (kind, imaginary, length) = (number(0, of)?, number(3, of)?, number(4, of)? as usize);
        let digits = [kind / 1000, kind / 100 % 10, kind / 10 % 10, kind % 10];
        let is_kind = digits[0] == order && digits[1] == 0 && digits[2] <= 5 && digits[3] <= 2;
        let name = bytes.get(20..20usize.checked_add(length)?)?;
        let is_name = name.split_last().is_some_and(|(end, name)| *end == 0 && name.iter().all(u8::is_ascii_graphic));
        Some(is_kind && imaginary <= 1 && is_name && length > 1)
    };
    fits(0, u32::from_le_bytes) == Some(true) || fits(1, u32::from_be_bytes) == Some(true)
}

/// Type and bytes of the element that `bytes` begin with, and what follows.
fn element(bytes: &[u8]) -> Result<(u32, &[u8], &[u8])> {
    let cut = || Error::data("it is cut");
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let first = word(0).ok_or_else(cut)?;
    if first >> 16 != 0 {
        // A short one: length and type in one word.
        let length = (first >> 16) as usize;
        let data = bytes.get(4..8).ok_or_else(cut)?.get(..length);
        return Ok((first & 0xffff, data.ok_or_else(cut)?, &bytes[8..]));
    }
    let length = word(4).ok_or_else(cut)? as usize;
    let end = length.checked_add(8).filter(|end| *end <= bytes.len()).ok_or_else(cut)?;
    // What is compressed is not padded.
    let next = if first == 15 { end } else { end.next_multiple_of(8).min(bytes.len()) };
    Ok((first, &bytes[8..end], &bytes[next..]))
}

/// Name and value of a matrix; cells lie in no other cells here.
fn matrix(bytes: &[u8], outermost: bool) -> Result<(String, Variable)> {
    let wrong = |what: &str| Error::data(format!("no matrix: expected {what}"));
    let (kind, flags, rest) = element(bytes)?;
    let class = flags.first().copied().filter(|_| kind == 6 && flags.len() == 8).ok_or_else(|| wrong("its flags"))?;
    let (kind, sizes, rest) = element(rest)?;
    if kind != 5 || !sizes.len().is_multiple_of(4) || sizes.len() > 32 * 4 {
        return Err(wrong("its dimensions"));
    }
    let sizes: Vec<usize> = sizes
        .as_chunks()
        .0
        .iter()
        .map(|size| usize::try_from(i32::from_le_bytes(*size)).map_err(|_| wrong("dimensions from 0")))
        .collect::<Result<_>>()?;
    let count = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let count = count.ok_or_else(|| wrong("dimensions that can be counted"))?;
    let (_, name, mut rest) = element(rest)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let variable = match class {
        // Cells.
        1 if outermost => {
            let mut texts = Vec::new();
            for _ in 0..count {
                let (kind, cell, behind) = element(rest)?;
                rest = behind;
                let text = if kind == 14 { matrix(cell, false)?.1 } else { Variable::Other };
                match text {
                    Variable::Texts(mut one) if one.len() == 1 => texts.append(&mut one),
                    _ => return Ok((name, Variable::Other)),
                }
            }
            match sizes[..] {
                [rows, columns] if rows > 1 && columns > 1 => {
                    Variable::Columns(texts.chunks(rows).map(<[String]>::to_vec).collect())
                }
                _ => Variable::Texts(texts),
            }
        }
        // Characters: a text in each row.
        4 if sizes.len() == 2 => {
            let (kind, data, _) = element(rest)?;
            let letters: Vec<char> = match kind {
                16 => String::from_utf8_lossy(data).chars().collect(),
                4 | 17 => {
                    let units = data.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
                    char::decode_utf16(units).map(|letter| letter.unwrap_or('\u{fffd}')).collect()
                }
                1 | 2 => data.iter().map(|byte| char::from(*byte)).collect(),
                _ => return Ok((name, Variable::Other)),
            };
            if letters.len() != count {
                return Err(wrong(&format!("{count} characters, found {}", letters.len())));
            }
            // Column by column; a cell of no letters has no row.
            let rows = if count == 0 { 1 } else { sizes[0] };
            let row = |row: usize| letters.iter().skip(row).step_by(rows).collect::<String>().trim_end().to_string();
            Variable::Texts((0..rows).map(row).collect())
        }
        6..=15 => {
            let (kind, data, _) = element(rest)?;
            let values = numbers(kind, data);
            match values {
                Some(values) if values.len() == count => Variable::Numbers(values),
                Some(values) => return Err(wrong(&format!("{count} numbers, found {}", values.len()))),
                None => Variable::Other,
            }
        }
        _ => Variable::Other,
    };
    Ok((name, variable))
}

/// Numbers as they are stored: whole ones often take less than their class says.
fn numbers(kind: u32, data: &[u8]) -> Option<Vec<f64>> {
    fn all<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
    }
    Some(match kind {
        1 => all(data, |b: [u8; 1]| f64::from(i8::from_le_bytes(b))),
        2 => all(data, |b: [u8; 1]| f64::from(b[0])),
        3 => all(data, |b| f64::from(i16::from_le_bytes(b))),
        4 => all(data, |b| f64::from(u16::from_le_bytes(b))),
        5 => all(data, |b| f64::from(i32::from_le_bytes(b))),
        6 => all(data, |b| f64::from(u32::from_le_bytes(b))),
        7 => all(data, |b| f64::from(f32::from_le_bytes(b))),
        9 => all(data, f64::from_le_bytes),
        12 => all(data, |b| i64::from_le_bytes(b) as f64),
        13 => all(data, |b| u64::from_le_bytes(b) as f64),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn array(class: u8, sizes: [i32; 2], name: &str, values: &[u8]) -> Vec<u8> {
        let flags = part(6, &[class, 0, 0, 0, 0, 0, 0, 0]);
        let sizes = part(5, &sizes.map(i32::to_le_bytes).concat());
        part(14, &[flags, sizes, part(1, name.as_bytes()), values.to_vec()].concat())
    }

    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"MATLAB 5.0 MAT-file".to_vec();
        bytes.resize(124, b' ');
        bytes.extend(b"\0\x01IM");
        bytes.extend(elements.concat());
        bytes
    }

    #[test]
    fn numbers_texts_and_cells_are_read() {
        // Two rows of three characters, column by column; a short element of two bytes.
        let rows = array(4, [2, 3], "rows", &part(16, b"adbecf"));
        let short = [(2u32 << 16 | 2).to_le_bytes(), [7, 9, 0, 0]].concat();
        let numbers = array(6, [2, 1], "ids", &short);
        let cell = |text: &str| array(4, [1, text.len() as i32], "", &part(16, text.as_bytes()));
        let cells = array(1, [2, 1], "set", &[cell("a.jpg"), cell("bc.jpg")].concat());
        let four: Vec<u8> = ["a", "b", "c", "d"].map(cell).concat();
        let (square, row) = (array(1, [2, 2], "square", &four), array(1, [1, 4], "row", &four));
        let mat = Mat::read(&file(&[rows, numbers, cells, square, row])).expect("a file");
        let texts = |texts: &[&str]| Variable::Texts(texts.iter().map(|text| text.to_string()).collect());
        assert_eq!(mat.variables["rows"], texts(&["abc", "def"]));
        assert_eq!(mat.variables["ids"], Variable::Numbers(vec![7.0, 9.0]));
        assert_eq!(mat.variables["set"], texts(&["a.jpg", "bc.jpg"]));
        assert_eq!(mat.variables["row"], texts(&["a", "b", "c", "d"]));
        let column = |texts: [&str; 2]| texts.map(String::from).to_vec();
        assert_eq!(mat.variables["square"], Variable::Columns(vec![column(["a", "b"]), column(["c", "d"])]));
    }

    #[test]
    fn other_versions_and_damage_are_refused() {
        let said = |bytes: &[u8]| Mat::read(bytes).err().expect("refused").to_string();
        assert!(said(b"MATLAB 7.3 MAT-file").contains("MATLAB 7.3, which is HDF5"));
        assert!(said(b"PK").contains("expected a file of MATLAB 5 to 7.2, found something else"));
        let old = |words: [[u8; 4]; 5]| [&words.concat()[..], b"ids\0\0\0\0\0\0\0\xf0?"].concat();
        let little = old([0u32, 1, 1, 0, 4].map(u32::to_le_bytes));
        for bytes in [&little, &old([1000u32, 1, 1, 0, 4].map(u32::to_be_bytes))] {
            assert!(
                said(bytes).contains("found one of version 4; save it again with `save(..., '-v7')`"),
                "{}",
                said(bytes)
            );
        }
        assert!(said(&little[..21]).contains("found something else"));
        let mut big = file(&[]);
        big[124..].copy_from_slice(b"\x01\0MI");
        assert!(said(&big).contains("little-endian"));
        let whole = file(&[array(6, [1, 1], "a", &part(9, &[0; 8]))]);
        for length in HEADER + 1..whole.len() {
            assert!(said(&whole[..length]).starts_with("element at byte 128: "), "{length}");
        }
        assert!(said(&file(&[array(6, [i32::MAX, i32::MAX], "a", &part(9, &[0; 8]))])).contains("numbers, found 1"));
        assert!(said(&file(&[array(4, [1, 9], "a", &part(16, b"abc"))])).contains("expected 9 characters, found 3"));
    }
}
