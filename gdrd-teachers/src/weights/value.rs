//! The values of a pickle, side by side; they refer to each other by their places.

use std::borrow::Cow;

/// The place of a value.
pub(super) type Id = usize;

/// A value of a pickle.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// None, a truth value, a fraction, bytes, or anything else that is of no interest here; what it is, in words.
    Plain(&'static str),
    Int(i64),
    /// An integer beyond 64 bits: its bytes, the lowest first.
    Long(&'a [u8]),
    Text(Cow<'a, str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
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
pub(super) struct Pickle<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) root: Id,
    /// Bytes up to its end.
    pub(super) length: usize,
}

impl<'a> Pickle<'a> {
    pub(super) fn of(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }

    /// The entries of a dictionary whose keys are texts.
    pub(super) fn entries(&self, id: Id) -> impl Iterator<Item = (&str, Id)> {
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
    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.of(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }
}
