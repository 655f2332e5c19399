//! Numbers of a few bits: in runs, as levels and places in a dictionary are written, and as differences.

use super::thrift::Input;
use crate::error::{Error, Result};

/// The number of `width` bits, 64 at most, whose first bit is the bit `at` of `bytes`.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let part = bytes.get(at / 8..(at + width).div_ceil(8))?;
    let mut word = [0; 16];
    word[..part.len()].copy_from_slice(part);
    let number = u128::from_le_bytes(word) >> (at % 8);
    Some((number & ((1 << width) - 1)) as u64)
}

/// The first `count` numbers of `width` bits from runs of one number and runs of packed ones. Writers put as many as there are values.
pub(super) fn runs(bytes: &[u8], width: usize, count: usize) -> Result<Vec<u32>> {
    if width > 32 {
        return Err(Error::data(format!("expected numbers of at most 32 bits, found {width}")));
    }
    let (mut input, mut all) = (Input(bytes), Vec::with_capacity(count));
    while all.len() < count {
        let head = input.varint()?;
        let (left, length) = (count - all.len(), usize::try_from(head >> 1).unwrap_or(usize::MAX));
        if length == 0 {
            return Err(Error::data("a run of no numbers"));
        }
        if head & 1 == 0 {
            let mut word = [0; 4];
            let size = width.div_ceil(8);
            word[..size].copy_from_slice(input.take(size)?);
            all.extend(std::iter::repeat_n(u32::from_le_bytes(word), length.min(left)));
        } else {
            // Groups of eight; the last may be cut where nothing of it is used.
            let packed = input.take(length.saturating_mul(width).min(input.0.len()))?;
            for at in 0..length.saturating_mul(8).min(left) {
                let found = number(packed, at * width, width);
                all.push(found.ok_or_else(|| Error::data("a run of packed numbers is cut"))? as u32);
            }
        }
    }
    Ok(all)
}

/// The numbers of DELTA_BINARY_PACKED that `input` begins with, `most` of them at most. They wrap around.
pub(super) fn differences(input: &mut Input, most: usize) -> Result<Vec<i64>> {
    let (block, parts, said) = (input.varint()?, input.varint()?, input.varint()?);
    let mut last = input.zigzag()?;
    let size = block.checked_div(parts).filter(|size| size * parts == block && *size > 0 && size.is_multiple_of(8));
    let size = size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
        Error::data(format!("expected blocks of a multiple of 8 numbers for each part, found {block} in {parts} parts"))
    })?;
    let count = usize::try_from(said).ok().filter(|count| *count <= most);
    let count = count.ok_or_else(|| Error::data(format!("expected at most {most} numbers, found {said}")))?;
    let mut all = Vec::with_capacity(count);
    all.extend((count > 0).then_some(last));
    while all.len() < count {
        let least = input.zigzag()?;
        for width in input.take(usize::try_from(parts).unwrap_or(usize::MAX))? {
            let (left, width) = (count - all.len(), usize::from(*width));
            if left == 0 {
                // Parts that are not needed have a width and no bytes.
                break;
            }
            if width > 64 {
                return Err(Error::data(format!("expected differences of at most 64 bits, found {width}")));
            }
            let packed = input.take((size / 8).saturating_mul(width).min(input.0.len()))?;
            for at in 0..size.min(left) {
                let found = number(packed, at * width, width).ok_or_else(|| Error::data("its differences are cut"))?;
                last = last.wrapping_add(least).wrapping_add(found as i64);
                all.push(last);
            }
        }
    }
    Ok(all)
}
