//! The pages of a column: their headers, and their bytes as they were before they were compressed.
//!
//! A file says itself how long its pages become. [`most`] bounds that by what lies in the file. Who reads a value holds a page and a
//! dictionary of that length, where the values of the dictionary begin, and the value: four times it at most, and some bytes for each
//! row of the group, of which the file has no more than bytes.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};
use std::ops::Range;

use super::bits::runs;
use super::footer::{Chunk, Column};
use super::thrift::{Fields, Input, Value};
use super::values::{Datum, Dictionary, is_of_dictionary, levels, visit};
use crate::error::{Context, Error, Result};

/// How long a page may become whatever it is in the file. Writers begin a new one after 1 MB as a rule, but some not before 1,024 values.
const SMALL: usize = 64 << 20;
/// How many times its length in the file a longer page may become: images, which are compressed themselves, hardly become longer.
const TIMES: usize = 4;

const UNCOMPRESSED: i64 = 0;
const SNAPPY: i64 = 1;
const GZIP: i64 = 2;
const CODECS: [&str; 8] = ["no compression", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW"];

const DATA: i64 = 0;
const DICTIONARY: i64 = 2;
const DATA_2: i64 = 3;

/// A page as it lies in the file.
struct Page<'a> {
    /// Where its header begins.
    at: usize,
    kind: i64,
    /// Its length before it was compressed.
    length: usize,
    bytes: &'a [u8],
    /// How many values it has, absent ones included.
    values: usize,
    encoding: i64,
    /// How levels are written, in version 1.
    levels: i64,
    /// Bytes of the levels that stand before the compressed ones, in version 2.
    apart: usize,
    /// Whether its values are compressed, in version 2.
    compressed: bool,
}

fn number(value: Option<i64>, what: &str) -> Result<usize> {
    let found = || value.map_or("none".to_string(), |value| value.to_string());
    let fits = value.and_then(|value| u32::try_from(value).ok());
    Ok(fits.ok_or_else(|| Error::data(format!("expected {what}, found {}", found())))? as usize)
}

impl<'a> Page<'a> {
    /// The page that `input` begins with, and what follows it.
    fn read(input: Input<'a>, at: usize) -> Result<(Self, Input<'a>)> {
        let (mut kind, mut length, mut size, mut about) = (None, None, None, None);
        let mut fields = Fields::new(input);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Number(number)) => kind = Some(number),
                (2, Value::Number(number)) => length = Some(number),
                (3, Value::Number(number)) => size = Some(number),
                (5 | 7 | 8, Value::Struct(fields)) => about = Some(fields),
                _ => {}
            }
        }
        let mut rest = fields.input;
        let bytes = rest.take(number(size, "a size")?)?;
        let kind = kind.ok_or_else(|| Error::data("expected a kind of page, found none"))?;
        let (mut values, mut encoding, mut levels, mut before, mut apart) = (None, None, None, None, None);
        let mut compressed = true;
        while let Some(field) = about.as_mut().map(Fields::next).transpose()?.flatten() {
            match (kind, field) {
                (_, (1, Value::Number(number))) => values = Some(number),
                (DATA | DICTIONARY, (2, Value::Number(number))) => encoding = Some(number),
                (DATA, (3, Value::Number(number))) => levels = Some(number),
                (DATA_2, (4, Value::Number(number))) => encoding = Some(number),
                (DATA_2, (5, Value::Number(number))) => apart = Some(number),
                (DATA_2, (6, Value::Number(number))) => before = Some(number),
                (DATA_2, (7, Value::Bool(said))) => compressed = said,
                _ => {}
            }
        }
        let mut page = Self {
            at,
            kind,
            length: number(length, "a length before compression")?,
            bytes,
            values: 0,
            encoding: encoding.unwrap_or(-1),
            levels: levels.unwrap_or(-1),
            apart: 0,
            compressed,
        };
        if [DATA, DICTIONARY, DATA_2].contains(&kind) {
            page.values = number(values, "a number of values")?;
        }
        if kind == DATA_2 {
            page.apart = number(apart, "a length of levels")?;
            if before.is_some_and(|length| length != 0) {
                return Err(Error::data("it has levels of repetition, which belong to lists"));
            }
        }
        Ok((page, rest))
    }

    fn place(&self) -> String {
        format!("page at byte {}", self.at)
    }

    /// Its levels, if they stand apart, and what else it has, both as they were before compression.
    fn unpacked(&self, codec: i64) -> Result<(&'a [u8], Cow<'a, [u8]>)> {
        let mut input = Input(self.bytes);
        let levels = input.take(self.apart)?;
        let Some(length) = self.length.checked_sub(self.apart) else {
            let (length, apart) = (self.length, self.apart);
            return Err(Error::data(format!("expected levels of at most {length} bytes, found {apart}")));
        };
        let unpacked = match length {
            _ if codec == UNCOMPRESSED || !self.compressed => Cow::Borrowed(input.0),
            0 => Cow::Borrowed(&[][..]),
            _ => Cow::Owned(unpack(codec, input.0, length)?),
        };
        Ok((levels, unpacked))
    }
}

/// How long a page of `size` bytes in the file may become: no codec does more than `ratio` times as much.
fn most(size: usize, ratio: usize) -> usize {
    size.saturating_mul(ratio).min(TIMES.saturating_mul(size).saturating_add(SMALL))
}

fn unpack(codec: i64, bytes: &[u8], length: usize) -> Result<Vec<u8>> {
    let ratio = match codec {
        // A copy of 64 bytes takes three.
        SNAPPY => 22,
        // A copy of 258 bytes takes two bits.
        GZIP => 1032,
        other => {
            let named = usize::try_from(other).ok().and_then(|at| CODECS.get(at));
            let found = named.map_or(format!("compression {other}"), |name| name.to_string());
            return Err(Error::data(format!("expected {}, {} or {}, found {found}", CODECS[0], CODECS[1], CODECS[2])));
        }
    };
    let (size, most) = (bytes.len(), most(bytes.len(), ratio));
    if length > most {
        return Err(Error::data(format!("expected at most {most} bytes from {size} compressed ones, found {length}")));
    }
    let wrong =
        |found: String| Error::data(format!("expected {length} bytes from {size} compressed ones, found {found}"));
    let mut unpacked = vec![0; length];
    if codec == SNAPPY {
        let found = snap::raw::Decoder::new().decompress(bytes, &mut unpacked).map_err(|e| wrong(e.to_string()))?;
        return if found == length { Ok(unpacked) } else { Err(wrong(found.to_string())) };
    }
    let mut reader = flate2::read::MultiGzDecoder::new(bytes);
    reader.read_exact(&mut unpacked).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => wrong("fewer".into()),
        _ => wrong(e.to_string()),
    })?;
    match reader.read(&mut [0]).map_err(|e| wrong(e.to_string()))? {
        0 => Ok(unpacked),
        _ => Err(wrong("more".into())),
    }
}

/// Hands the values of these rows of a column's chunk, which has `count`, to `each`, none where a value is absent. Pages that have
/// none of the rows are not unpacked.
///
/// # Errors
/// If a page is damaged, would become longer than [`most`], or has more values than there are rows; if rows are missing; what `each` says.
pub(super) fn values(
    file: &[u8],
    (column, chunk, count): (&Column, &Chunk, usize),
    rows: Range<usize>,
    each: &mut dyn FnMut(Option<Datum>) -> Result<()>,
) -> Result<()> {
    let (mut input, mut seen, mut pages, mut named) = (Input(&file[chunk.bytes.clone()]), 0, Vec::new(), None);
    while seen < rows.end && !input.0.is_empty() {
        let at = chunk.bytes.end - input.0.len();
        let (page, rest) = Page::read(input, at).at(|| format!("page at byte {at}"))?;
        input = rest;
        match page.kind {
            DATA | DATA_2 => {
                let (left, values) = (count - seen, page.values);
                if values > left {
                    let message = format!("expected at most {left} values, as many as rows are left, found {values}");
                    return Err(Error::data(message).at(page.place()));
                }
                let first = seen;
                seen += values;
                if seen > rows.start {
                    pages.push((first, page));
                }
            }
            DICTIONARY if named.is_some() => return Err(Error::data("a second dictionary").at(page.place())),
            DICTIONARY => named = Some(page),
            // An index of pages, or something of a later version.
            _ => {}
        }
    }
    if seen < rows.end {
        return Err(Error::data(format!("it ends after {seen} of {count} rows")));
    }
    let named = named.filter(|_| pages.iter().any(|(_, page)| is_of_dictionary(page.encoding)));
    let unpacked = named.as_ref().map(|page| page.unpacked(chunk.codec).at(|| page.place())).transpose()?;
    let dictionary = named
        .as_ref()
        .zip(unpacked.as_ref())
        .map(|(page, (_, bytes))| Dictionary::read(column.kind, page.encoding, bytes, page.values).at(|| page.place()));
    let dictionary = dictionary.transpose()?;
    for (first, page) in pages {
        let wanted = rows.start.saturating_sub(first)..page.values.min(rows.end - first);
        of_page(&page, column, chunk.codec, wanted, dictionary.as_ref(), each).at(|| page.place())?;
    }
    Ok(())
}

/// The same for some rows of a page.
fn of_page(
    page: &Page,
    column: &Column,
    codec: i64,
    rows: Range<usize>,
    dictionary: Option<&Dictionary>,
    each: &mut dyn FnMut(Option<Datum>) -> Result<()>,
) -> Result<()> {
    let (apart, unpacked) = page.unpacked(codec)?;
    let mut input = Input(&unpacked);
    // Which rows up to the last one have a value; nothing stands there if all have.
    let mut present = Vec::new();
    if column.levels > 0 {
        let bytes = match page.kind {
            DATA_2 => apart,
            _ => levels(&mut input, page.levels)?,
        };
        let found = runs(bytes, column.levels.ilog2() as usize + 1, rows.end)?;
        present.extend(found.into_iter().map(|level| level == u32::from(column.levels)));
    }
    let is_there = |row: usize| present.get(row).is_none_or(|there| *there);
    let count = if column.levels > 0 { present.iter().filter(|there| **there).count() } else { rows.end };
    let mut row = 0;
    let absent = |row: &mut usize, each: &mut dyn FnMut(Option<Datum>) -> Result<()>| -> Result<()> {
        while *row < rows.end && !is_there(*row) {
            if rows.contains(row) {
                each(None)?;
            }
            *row += 1;
        }
        Ok(())
    };
    visit(column.kind, page.encoding, input.0, (count, page.values), dictionary, &mut |datum| {
        absent(&mut row, each)?;
        if rows.contains(&row) {
            each(Some(datum))?;
        }
        row += 1;
        Ok(())
    })?;
    absent(&mut row, each)
}
