//! serde's view of a recipe: each fault gets the place of its key or value.

use std::collections::BTreeMap;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::{Fault, Step};
use super::node::{Node, Table, Value};
use super::source::Span;
use super::stand_in::StandIn;

/// What is done about a value whose problem is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// Another value is read in its place.
    StandIn,
    /// The value is left out.
    Skip,
}

/// Repairs by the place of the value, a path from the root.
pub(super) type Repairs = BTreeMap<Vec<Step>, Repair>;

/// What all readers of one tree share.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) repairs: &'a Repairs,
}

/// Reads one value.
pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
    pub(super) path: Vec<Step>,
    pub(super) reading: Reading<'a>,
}

impl<'a> Reader<'a> {
    /// The reader of a value below this one.
    fn child(&self, node: &'a Node, step: Step) -> Self {
        Self { node, path: below(&self.path, step), reading: self.reading }
    }

    fn placed<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.at(self.node.span, &self.path))
    }

    /// The values of a table: those that are not left out, and those that stand in.
    fn table(&self, table: &'a Table) -> TableReader<'a> {
        let mut items = Vec::new();
        for (key, entry) in table.iter() {
            let path = below(&self.path, Step::Key(key.to_string()));
            let value = match self.reading.repairs.get(&path) {
                Some(Repair::Skip) => continue,
                Some(Repair::StandIn) => None,
                None => Some(&entry.node),
            };
            items.push(Item { key: key.to_string(), key_span: entry.key_span, path, value });
        }
        for (path, repair) in self.reading.repairs {
            if let (Some((Step::Key(key), parent)), Repair::StandIn) = (path.split_last(), repair)
                && *parent == self.path
                && table.get(key).is_none()
            {
                items.push(Item { key: key.clone(), key_span: table.span, path: path.clone(), value: None });
            }
        }
        TableReader { items: items.into_iter(), value: None, reading: self.reading }
    }

    fn array(&self, nodes: &'a [Node]) -> ArrayReader<'a> {
        let items = nodes.iter().enumerate().filter_map(|(at, node)| {
            let reader = self.child(node, Step::Item(at));
            match self.reading.repairs.get(&reader.path) {
                Some(Repair::Skip) => None,
                Some(Repair::StandIn) => Some((reader, true)),
                None => Some((reader, false)),
            }
        });
        ArrayReader { items: items.collect::<Vec<_>>().into_iter() }
    }
}

fn below(path: &[Step], step: Step) -> Vec<Step> {
    path.iter().cloned().chain([step]).collect()
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.node.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(flag) => visitor.visit_bool(*flag),
            Value::Array(nodes) => {
                let mut items = self.array(nodes);
                visitor.visit_seq(&mut items).and_then(|value| match items.items.len() {
                    0 => Ok(value),
                    left => Err(Fault::custom(format!("{left} values too many"))),
                })
            }
            Value::Table(table) => visitor.visit_map(self.table(table)),
        };
        self.placed(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Table(table) if table.is_empty() => visitor.visit_unit(),
            _ => self.deserialize_struct(name, &[], visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        let (span, path) = (self.node.span, self.path.clone());
        visitor.visit_newtype_struct(self).map_err(|fault| fault.at(span, &path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        // Unknown keys are wrong in every struct, whether or not it says `deny_unknown_fields`.
        if let Value::Table(table) = &self.node.value {
            for item in self.table(table).items {
                if !fields.contains(&item.key.as_str()) {
                    return Err(Fault::unknown_field(&item.key, fields).at(item.key_span, &item.path));
                }
            }
        }
        match &self.node.value {
            // serde would take an array as the fields in their order, which nobody could read.
            Value::Array(_) => {
                let result = Err(Fault::invalid_type(Unexpected::Seq, &"a table"));
                self.placed(result)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let result = match &self.node.value {
            Value::String(name) => visitor.visit_enum(name.as_str().into_deserializer()),
            Value::Table(table) if table.len() == 1 => match self.table(table).items.next() {
                Some(item) => visitor.visit_enum(VariantReader { item, reading: self.reading }),
                None => Err(Fault::custom(format!("expected one of {}", variants.join(", ")))),
            },
            _ => Err(Fault::custom(format!("expected one of {}, found {}", variants.join(", "), self.node.describe()))),
        };
        self.placed(result)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Item<'a> {
    key: String,
    key_span: Span,
    path: Vec<Step>,
    /// None for a value that another stands in for.
    value: Option<&'a Node>,
}

impl<'a> Item<'a> {
    fn read<'de, T: DeserializeSeed<'de>>(self, seed: T, reading: Reading<'a>) -> Result<T::Value, Fault> {
        let span = self.value.map_or(self.key_span, |node| node.span);
        let value = match self.value {
            Some(node) => seed.deserialize(Reader { node, path: self.path.clone(), reading }),
            None => seed.deserialize(StandIn::new()),
        };
        // What a type says after it has read its value, as with `try_from`, has no place yet.
        value.map_err(|fault| fault.at(span, &self.path))
    }
}

struct TableReader<'a> {
    items: std::vec::IntoIter<Item<'a>>,
    value: Option<Item<'a>>,
    reading: Reading<'a>,
}

impl<'de> MapAccess<'de> for TableReader<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let key = seed.deserialize(item.key.as_str().into_deserializer());
        let key = key.map_err(|fault: Fault| fault.at(item.key_span, &item.path))?;
        self.value = Some(item);
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let item = self.value.take().expect("serde asks for a key before its value");
        item.read(seed, self.reading)
    }
}

struct ArrayReader<'a> {
    items: std::vec::IntoIter<(Reader<'a>, bool)>,
}

impl<'de> SeqAccess<'de> for &mut ArrayReader<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((reader, stands_in)) = self.items.next() else { return Ok(None) };
        let (span, path) = (reader.node.span, reader.path.clone());
        let value = if stands_in { seed.deserialize(StandIn::new()) } else { seed.deserialize(reader) };
        value.map(Some).map_err(|fault| fault.at(span, &path))
    }
}

/// An enum value that is written as a table with one key, the name of the variant.
struct VariantReader<'a> {
    item: Item<'a>,
    reading: Reading<'a>,
}

impl<'a> VariantReader<'a> {
    fn content(self) -> Result<Reader<'a>, StandIn> {
        match self.item.value {
            Some(node) => Ok(Reader { node, path: self.item.path, reading: self.reading }),
            None => Err(StandIn::new()),
        }
    }
}

impl<'de> EnumAccess<'de> for VariantReader<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Fault> {
        let name = seed.deserialize(self.item.key.as_str().into_deserializer());
        match name {
            Ok(name) => Ok((name, self)),
            Err(fault) => Err(Fault::at(fault, self.item.key_span, &self.item.path)),
        }
    }
}

impl<'de> VariantAccess<'de> for VariantReader<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        let name = &self.item.key;
        Err(Fault::custom(format!("`{name}` takes no value, expected \"{name}\"")))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.item.read(seed, self.reading)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        match self.content() {
            Ok(reader) => reader.deserialize_tuple(length, visitor),
            Err(stand_in) => stand_in.deserialize_tuple(length, visitor),
        }
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        match self.content() {
            Ok(reader) => reader.deserialize_struct("", fields, visitor),
            Err(stand_in) => stand_in.deserialize_struct("", fields, visitor),
        }
    }
}
