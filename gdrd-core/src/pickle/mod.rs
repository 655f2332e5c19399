//! Pickles of Python as plain values; nothing that they name is run.
//!
//! The values lie side by side and refer to each other by their places. Protocols 0 to 5 are read, as Python 2 and 3 write them.

use std::borrow::Cow;

mod escapes;
mod machine;

/// The place of a value.
pub type Id = usize;

/// A value of a pickle.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    /// None, a fraction, or anything else that is of no interest here; what it is, in words.
    Plain(&'static str),
    /// A truth value.
    Bool(bool),
    /// Bytes, and strings of Python 2 that are no text.
    Bytes(Cow<'a, [u8]>),
    /// An integer of 64 bits.
    Int(i64),
    /// An integer beyond 64 bits: its bytes, the lowest first.
    Long(&'a [u8]),
    /// A text.
    Text(Cow<'a, str>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    /// A dictionary: keys and values.
    Dict(Vec<(Id, Id)>),
    /// A class or function, by module and name.
    Named(Cow<'a, str>, Cow<'a, str>),
    /// What a class or function would make of arguments.
    Call(Id, Id),
    /// What the file around the pickle holds under this name: a storage.
    Outside(Id),
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle<'a> {
    /// All values.
    pub values: Vec<Value<'a>>,
    /// The place of the value that was pickled.
    pub root: Id,
    /// Bytes up to its end.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// A value.
    ///
    /// # Panics
    /// If it is no place of a value.
    pub fn of(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }

    /// Every value.
    pub fn all(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }

    /// The entries of a dictionary whose keys are texts.
    pub fn entries(&self, id: Id) -> impl Iterator<Item = (&str, Id)> {
        let items = match self.of(id) {
            Value::Dict(items) => items.as_slice(),
            _ => &[],
        };
        items.iter().filter_map(|(key, value)| match self.of(*key) {
            Value::Text(key) => Some((key.as_ref(), *value)),
            _ => None,
        })
    }

    /// The values of a tuple.
    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.of(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }
}
