//! The values of a page, whichever encoding they have.

use super::bits::{differences, runs};
use super::footer::Physical;
use super::thrift::Input;
use crate::error::{Error, Result};

pub(super) const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const DELTA_BINARY_PACKED: i64 = 5;
const DELTA_LENGTH_BYTE_ARRAY: i64 = 6;
const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;
const BYTE_STREAM_SPLIT: i64 = 9;
const ENCODINGS: [&str; 10] = [
    "PLAIN",
    "GROUP_VAR_INT",
    "PLAIN_DICTIONARY",
    "RLE",
    "BIT_PACKED",
    "DELTA_BINARY_PACKED",
    "DELTA_LENGTH_BYTE_ARRAY",
    "DELTA_BYTE_ARRAY",
    "RLE_DICTIONARY",
    "BYTE_STREAM_SPLIT",
];

/// A value.
#[derive(Clone, Copy)]
pub(super) enum Datum<'a> {
    Bool(bool),
    Number(i64),
    Bytes(&'a [u8]),
}

pub(super) fn is_of_dictionary(encoding: i64) -> bool {
    [PLAIN_DICTIONARY, RLE_DICTIONARY].contains(&encoding)
}

fn unknown(encoding: i64, of: &str) -> Error {
    let named = usize::try_from(encoding).ok().and_then(|at| ENCODINGS.get(at));
    let found = named.map_or(format!("encoding {encoding}"), |name| name.to_string());
    Error::data(format!("{of} in {found}, which is not read"))
}

/// The bytes of the levels that a page of version 1 begins with.
pub(super) fn levels<'a>(input: &mut Input<'a>, encoding: i64) -> Result<&'a [u8]> {
    match encoding {
        RLE => prefixed(input),
        other => Err(unknown(other, "levels")),
    }
}

/// A length in four bytes, and as many bytes.
fn prefixed<'a>(input: &mut Input<'a>) -> Result<&'a [u8]> {
    let length = input.take(4)?.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    input.take(length as usize)
}

/// The next value in PLAIN, but for truth values.
fn plain<'a>(kind: Physical, input: &mut Input<'a>) -> Result<Datum<'a>> {
    Ok(match kind {
        Physical::INT32 => {
            Datum::Number(input.take(4)?.first_chunk().map_or(0, |word| i32::from_le_bytes(*word).into()))
        }
        Physical::INT64 => Datum::Number(input.take(8)?.first_chunk().map_or(0, |word| i64::from_le_bytes(*word))),
        Physical::BYTE_ARRAY => Datum::Bytes(prefixed(input)?),
        other => return Err(Error::data(format!("values of {other}, which are not read"))),
    })
}

/// The values of a dictionary.
pub(super) struct Dictionary<'a> {
    kind: Physical,
    bytes: &'a [u8],
    /// Where each value begins.
    starts: Vec<u32>,
}

impl<'a> Dictionary<'a> {
    /// A dictionary page of this encoding.
    pub(super) fn read(kind: Physical, encoding: i64, bytes: &'a [u8], count: usize) -> Result<Self> {
        // Writers name the plain encoding in two ways here.
        if encoding != PLAIN && encoding != PLAIN_DICTIONARY {
            return Err(unknown(encoding, "a dictionary"));
        }
        // No value of these types is shorter than four bytes.
        let most = bytes.len() / 4;
        if count > most {
            let size = bytes.len();
            return Err(Error::data(format!(
                "expected a dictionary of at most {most} values in {size} bytes, found {count}"
            )));
        }
        let (mut input, mut starts) = (Input(bytes), Vec::with_capacity(count));
        for _ in 0..count {
            starts.push((bytes.len() - input.0.len()) as u32);
            plain(kind, &mut input)?;
        }
        Ok(Self { kind, bytes, starts })
    }

    fn get(&self, at: u32) -> Result<Datum<'a>> {
        let start = self.starts.get(at as usize).ok_or_else(|| {
            Error::data(format!("expected a place in a dictionary of {} values, found {at}", self.starts.len()))
        })?;
        plain(self.kind, &mut Input(&self.bytes[*start as usize..]))
    }
}

/// A number as wide as the column's.
fn narrowed(kind: Physical, number: i64) -> Datum<'static> {
    Datum::Number(if kind == Physical::INT32 { i64::from(number as i32) } else { number })
}

/// Hands the first `count` values of a page, which has `all` at most, to `each`.
pub(super) fn visit(
    kind: Physical,
    encoding: i64,
    bytes: &[u8],
    (count, all): (usize, usize),
    dictionary: Option<&Dictionary>,
    each: &mut dyn FnMut(Datum) -> Result<()>,
) -> Result<()> {
    let mut input = Input(bytes);
    match (encoding, kind) {
        // There may be no bytes for no values.
        _ if count == 0 => Ok(()),
        (PLAIN, Physical::BOOLEAN) => {
            let bytes = input.take(count.div_ceil(8))?;
            (0..count).try_for_each(|at| each(Datum::Bool(bytes[at / 8] >> (at % 8) & 1 == 1)))
        }
        (PLAIN, _) => (0..count).try_for_each(|_| each(plain(kind, &mut input)?)),
        (RLE, Physical::BOOLEAN) => {
            runs(prefixed(&mut input)?, 1, count)?.into_iter().try_for_each(|bit| each(Datum::Bool(bit == 1)))
        }
        (PLAIN_DICTIONARY | RLE_DICTIONARY, _) => {
            let dictionary =
                dictionary.ok_or_else(|| Error::data("it needs a dictionary, and there is none before it"))?;
            let width = input.take(1)?[0].into();
            runs(input.0, width, count)?.into_iter().try_for_each(|at| each(dictionary.get(at)?))
        }
        (DELTA_BINARY_PACKED, Physical::INT32 | Physical::INT64) => {
            let numbers = differences(&mut input, all)?;
            enough(numbers.len(), count)?;
            numbers.into_iter().take(count).try_for_each(|number| each(narrowed(kind, number)))
        }
        (DELTA_LENGTH_BYTE_ARRAY, Physical::BYTE_ARRAY) => {
            let lengths = lengths(&mut input, all)?;
            enough(lengths.len(), count)?;
            lengths.into_iter().take(count).try_for_each(|length| each(Datum::Bytes(input.take(length)?)))
        }
        (DELTA_BYTE_ARRAY, Physical::BYTE_ARRAY) => {
            let (kept, new) = (lengths(&mut input, all)?, lengths(&mut input, all)?);
            enough(kept.len().min(new.len()), count)?;
            // A value begins as the one before it does: no more of it is held than the page has.
            let mut value = Vec::new();
            kept.into_iter().zip(new).take(count).try_for_each(|(kept, new)| {
                let before = value.len();
                if kept > before {
                    return Err(Error::data(format!(
                        "expected at most {before} bytes of the value before it, found {kept}"
                    )));
                }
                value.truncate(kept);
                value.extend_from_slice(input.take(new)?);
                each(Datum::Bytes(&value))
            })
        }
        (BYTE_STREAM_SPLIT, Physical::INT32 | Physical::INT64) => {
            let width = if kind == Physical::INT32 { 4 } else { 8 };
            let stride = bytes.len() / width;
            enough(stride, count)?;
            (0..count).try_for_each(|at| {
                let number =
                    (0..width).fold(0, |number, byte| number | i64::from(bytes[byte * stride + at]) << (8 * byte));
                each(narrowed(kind, number))
            })
        }
        _ => Err(unknown(encoding, &format!("values of {kind}"))),
    }
}

fn enough(found: usize, count: usize) -> Result<()> {
    match found >= count {
        true => Ok(()),
        false => Err(Error::data(format!("expected {count} values, found {found}"))),
    }
}

/// Lengths as differences.
fn lengths(input: &mut Input, most: usize) -> Result<Vec<usize>> {
    let numbers = differences(input, most)?.into_iter();
    let length = |number| usize::try_from(number as i32).map_err(|_| Error::data(format!("a length of {number}")));
    numbers.map(length).collect()
}
