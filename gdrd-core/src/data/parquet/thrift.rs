//! Thrift's compact form, in which the footer of a Parquet file and the headers of its pages are written.
//!
//! Nothing is copied and nothing is made for what the bytes say of themselves: a struct or a list is the bytes that it is in.

use crate::error::{Error, Result};

/// How deep structs and lists may lie in each other; statistics of a column in a footer lie nine deep.
const DEPTH: usize = 32;

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(Error::data(format!("it is cut: expected {count} bytes more, found {}", self.0.len())));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A number, seven bits a byte.
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(Error::data("expected a number of at most ten bytes, found a longer one"))
    }

    /// The same with a sign.
    pub(super) fn zigzag(&mut self) -> Result<i64> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A length of bytes that follow, and them.
    fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Number and kind of the elements of a list.
    fn list(&mut self) -> Result<(u64, u8)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        Ok((count, head & 15))
    }

    /// The kind and the step of a field, or none behind the last one.
    fn field(&mut self) -> Result<Option<(u8, u8)>> {
        let head = self.byte()?;
        let (step, kind) = (head >> 4, head & 15);
        if kind != 0 && step == 0 {
            self.varint()?;
        }
        Ok((kind != 0).then_some((kind, step)))
    }

    /// Passes over a value. In lists and maps, truth values have a byte.
    fn pass(&mut self, kind: u8, listed: bool, depth: usize) -> Result<()> {
        let deeper = depth.checked_sub(1);
        let deeper = deeper.ok_or_else(|| Error::data(format!("structs lie more than {DEPTH} deep in each other")))?;
        match kind {
            1 | 2 if !listed => {}
            1..=3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => drop(self.take(8)?),
            8 => drop(self.text()?),
            9 | 10 => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.pass(kind, true, deeper))?;
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                for _ in 0..count {
                    self.pass(kinds >> 4, true, deeper)?;
                    self.pass(kinds & 15, true, deeper)?;
                }
            }
            12 => {
                while let Some((kind, _)) = self.field()? {
                    self.pass(kind, false, deeper)?;
                }
            }
            13 => drop(self.take(16)?),
            _ => return Err(Error::data(format!("expected a kind of value from 1 to 13, found {kind}"))),
        }
        Ok(())
    }

    /// A value of this kind.
    fn value(&mut self, kind: u8, listed: bool) -> Result<Value<'a>> {
        let before = *self;
        Ok(match kind {
            1 | 2 if !listed => Value::Bool(kind == 1),
            4..=6 => Value::Number(self.zigzag()?),
            8 => Value::Bytes(self.text()?),
            9 => {
                self.pass(kind, listed, DEPTH)?;
                let mut input = before;
                let (left, kind) = input.list()?;
                Value::List(List { input, left, kind })
            }
            12 => {
                self.pass(kind, listed, DEPTH)?;
                Value::Struct(Fields::new(before))
            }
            _ => {
                self.pass(kind, listed, DEPTH)?;
                Value::Other
            }
        })
    }
}

/// What a field or an element is.
pub(super) enum Value<'a> {
    Bool(bool),
    Number(i64),
    Bytes(&'a [u8]),
    List(List<'a>),
    Struct(Fields<'a>),
    Other,
}

/// The fields of a struct.
pub(super) struct Fields<'a> {
    /// What has not been read, and, in the end, what follows the struct.
    pub(super) input: Input<'a>,
    last: i16,
}

impl<'a> Fields<'a> {
    pub(super) fn new(input: Input<'a>) -> Self {
        Self { input, last: 0 }
    }

    /// The number of the next field, and what it is.
    pub(super) fn next(&mut self) -> Result<Option<(i16, Value<'a>)>> {
        let before = self.input;
        let Some((kind, step)) = self.input.field()? else { return Ok(None) };
        self.last = match step {
            0 => {
                let mut number = Input(&before.0[1..]);
                i16::try_from(number.zigzag()?).map_err(|_| Error::data("the number of a field is too large"))?
            }
            step => self.last.wrapping_add(step.into()),
        };
        Ok(Some((self.last, self.input.value(kind, false)?)))
    }
}

/// The elements of a list.
pub(super) struct List<'a> {
    input: Input<'a>,
    left: u64,
    kind: u8,
}

impl<'a> List<'a> {
    pub(super) fn next(&mut self) -> Result<Option<Value<'a>>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.input.value(self.kind, true).map(Some)
    }

    /// The fields of the next element.
    pub(super) fn next_struct(&mut self) -> Result<Option<Fields<'a>>> {
        match self.next()? {
            None => Ok(None),
            Some(Value::Struct(fields)) => Ok(Some(fields)),
            Some(_) => Err(Error::data("expected a list of structs, found one of something else")),
        }
    }
}
