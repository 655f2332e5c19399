//! MXNet's RecordIO.
//!
//! A record is the word `0xced7230a`, a word whose upper three bits say which part of a record this is (0 all of it, 1 the first,
//! 2 one in the middle, 3 the last) and whose lower 29 say how many bytes follow, the bytes, and zeros up to a multiple of 4. The
//! parts of a record are joined with the word `0xced7230a` between them, which had to be taken out of it. Its bytes are a header of
//! 24, `flag: u32, label: f32, id: u64, id2: u64`, then `flag` labels more, `f32` each, and then an image. All is little-endian.
//! `.idx` beside it is text: the key of each record, a tab, and the byte at which it begins.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// What every record begins with.
pub(super) const MAGIC: u32 = 0xced7_230a;
/// The most bytes that a record may have; images of faces have a few thousand.
const LARGEST: usize = 256 << 20;
const HEADER: usize = 24;

/// What stands before the image of a record.
pub(super) struct Header {
    /// The label, or the first of several.
    pub(super) label: f32,
    /// The second of several.
    pub(super) second: Option<f32>,
    /// Where the image begins in the record.
    pub(super) image: usize,
}

/// The keys and first bytes of an `.idx`, in the order of the keys.
pub(super) fn index_of(text: &[u8]) -> Result<Vec<(u64, u64)>> {
    let text = std::str::from_utf8(text)
        .map_err(|e| Error::data(format!("expected lines of text, found other bytes at {}", e.valid_up_to())))?;
    let mut index = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let entry =
            line.split_once('\t').and_then(|(key, start)| Some((key.parse().ok()?, start.trim().parse().ok()?)));
        index.push(entry.ok_or_else(|| {
            Error::data(format!("line {}: expected a key, a tab and a byte, found `{}`", at + 1, shown(line)))
        })?);
    }
    index.sort_unstable();
    match index.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(Error::data(format!("two records have the key {}", pair[0].0))),
        None => Ok(index),
    }
}

fn shown(line: &str) -> String {
    line.chars().take(60).collect()
}

/// Where records begin, found one after the other.
pub(super) fn scanned(map: &[u8]) -> Result<Vec<(u64, u64)>> {
    let (mut index, mut at) = (Vec::new(), 0);
    while at < map.len() {
        index.push((index.len() as u64, at as u64));
        at = parts(map, at as u64)?.1;
    }
    Ok(index)
}

/// The parts of the record that begins at `start`, and where the next one begins.
fn parts(map: &[u8], start: u64) -> Result<(Vec<&[u8]>, usize)> {
    let cut = |at: usize| Error::data(format!("the record at byte {start} is cut: nothing is left at byte {at}"));
    let mut at = usize::try_from(start).ok().filter(|at| *at < map.len()).ok_or_else(|| cut(map.len()))?;
    let (mut parts, mut total) = (Vec::new(), 0);
    loop {
        let words = map.get(at..at + 8).ok_or_else(|| cut(map.len()))?;
        let word = |at: usize| u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        if word(0) != MAGIC {
            return Err(Error::data(format!(
                "expected a record at byte {at}, which begins with {MAGIC:#x}, found {:#x}",
                word(0)
            )));
        }
        let (part, length) = (word(4) >> 29, (word(4) & ((1 << 29) - 1)) as usize);
        let fits = match part {
            0 | 1 => parts.is_empty(),
            2 | 3 => !parts.is_empty(),
            _ => false,
        };
        if !fits {
            let expected = if parts.is_empty() { "0 or 1" } else { "2 or 3" };
            return Err(Error::data(format!(
                "the record at byte {start}: expected a part of kind {expected} at byte {at}, found {part}"
            )));
        }
        total += length;
        if total > LARGEST {
            return Err(Error::data(format!("the record at byte {start} has more than {LARGEST} bytes")));
        }
        let bytes = map.get(at + 8..at + 8 + length).ok_or_else(|| cut(map.len()))?;
        parts.push(bytes);
        // The zeros of the last record may be missing.
        at = (at + 8 + length.next_multiple_of(4)).min(map.len());
        if part == 0 || part == 3 {
            return Ok((parts, at));
        }
    }
}

/// The bytes of the record that begins at `start`.
pub(super) fn record_at(map: &[u8], start: u64) -> Result<Cow<'_, [u8]>> {
    let (parts, _) = parts(map, start)?;
    Ok(match parts.as_slice() {
        [one] => Cow::Borrowed(*one),
        several => Cow::Owned(several.join(&MAGIC.to_le_bytes()[..])),
    })
}

/// Reads what stands before the image.
pub(super) fn header(record: &[u8]) -> Result<Header> {
    let short =
        || Error::data(format!("expected a header of {HEADER} bytes and its labels, found {} bytes", record.len()));
    let word = |at: usize| Some(*record.get(at..)?.first_chunk::<4>()?);
    let flag = u32::from_le_bytes(word(0).ok_or_else(short)?) as usize;
    let end = flag.checked_mul(4).and_then(|labels| labels.checked_add(HEADER)).filter(|end| *end <= record.len());
    let image = end.ok_or_else(short)?;
    let label = |at: usize| word(at).map(f32::from_le_bytes);
    let first = if flag > 0 { label(HEADER) } else { label(4) };
    let second = if flag > 1 { label(HEADER + 4) } else { None };
    Ok(Header { label: first.ok_or_else(short)?, second, image })
}
