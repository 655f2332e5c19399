//! A reader of pickles that makes plain values of them. Nothing that a pickle names is called, imported or looked up.
//!
//! Every instruction makes at most one value, and texts stay where they are in the file, so that memory is bounded by the
//! pickle's own length. Values lie side by side and refer to each other by their places, so that no depth of nesting can
//! exhaust the stack.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Id, Pickle, Value, escapes};

/// What is wrong with a pickle, as a sentence; whoever reads it knows what it was to be.
type Result<T> = std::result::Result<T, String>;

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begins with; protocols 0 to 5.
    ///
    /// # Errors
    /// If it is cut or no pickle.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        let mut machine = Machine { bytes, at: 0, values, stack, marks, memo, copied: 0 };
        while !machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { values: machine.values, root, length: machine.at })
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Entries that were taken over from one value into another.
    copied: usize,
}

fn broken(what: impl std::fmt::Display) -> String {
    format!("the pickle cannot be read: {what}")
}

/// Bytes of a class's name.
const LONGEST: usize = 256;

/// Classes that are dictionaries.
const DICTS: [&str; 4] = ["OrderedDict", "defaultdict", "Counter", "dict"];

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| broken(format!("it ends at byte {}", self.bytes.len())))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A number of `bytes` bytes, the lowest first.
    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// As many bytes as a number of `bytes` bytes says.
    fn counted(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let count = self.number(bytes)?;
        self.take(usize::try_from(count).map_err(broken)?)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(length.map_or(rest.len() + 1, |length| length + 1))?;
        Ok(line[..line.len() - 1].trim_ascii_end())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn text(&mut self, bytes: &'a [u8]) {
        self.push(Value::Text(String::from_utf8_lossy(bytes)));
    }

    /// What Python 2 calls a string: a text, or bytes that are none.
    fn string(&mut self, bytes: Cow<'a, [u8]>) {
        let value = match bytes {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(|text| Value::Text(text.into())).ok(),
            Cow::Owned(ref bytes) => std::str::from_utf8(bytes).map(|text| Value::Text(text.to_string().into())).ok(),
        };
        self.push(value.unwrap_or(Value::Bytes(bytes)));
    }

    fn pop(&mut self) -> Result<Id> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= bottom {
            return Err(broken(format!("nothing is left for the instruction before byte {}", self.at)));
        }
        self.stack.pop().ok_or_else(|| broken("an empty stack"))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| broken("an empty stack"))
    }

    /// The values above the last mark.
    fn marked(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| broken("a mark is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<Id>>>()?;
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn add(&mut self, to: Id, items: &[Id]) {
        if let Value::List(list) = &mut self.values[to] {
            list.extend_from_slice(items);
        }
    }

    /// Entries of a dictionary; what stands for one but is none keeps its entries to itself.
    fn set(&mut self, to: Id, items: &[Id]) {
        if let Value::Dict(dict) = &mut self.values[to] {
            dict.extend(items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)));
        }
    }

    fn name(&self, id: Id) -> Result<Cow<'a, str>> {
        match &self.values[id] {
            Value::Text(text) if text.len() <= LONGEST => Ok(text.clone()),
            _ => Err(broken("a class whose name is no text, or a long one")),
        }
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<()> {
        let is_dict = matches!(&self.values[callable], Value::Named(module, name)
            if ["collections", "builtins", "__builtin__"].contains(&module.as_ref()) && DICTS.contains(&name.as_ref()));
        if !is_dict {
            self.push(Value::Call(callable, arguments));
            return Ok(());
        }
        // Python 2 makes an `OrderedDict` of a list of pairs.
        let pairs = match &self.values[arguments] {
            Value::Tuple(items) => items.first().copied(),
            _ => None,
        };
        let pairs: Vec<(Id, Id)> = match pairs.map(|id| &self.values[id]) {
            Some(Value::Dict(items)) => items.clone(),
            Some(Value::List(items)) => items.iter().filter_map(|id| self.pair(*id)).collect(),
            _ => Vec::new(),
        };
        self.copied += pairs.len();
        if self.copied > self.bytes.len() {
            return Err(broken("it makes more of itself than it holds"));
        }
        self.push(Value::Dict(pairs));
        Ok(())
    }

    fn pair(&self, id: Id) -> Option<(Id, Id)> {
        match &self.values[id] {
            Value::Tuple(items) | Value::List(items) => Some((*items.first()?, *items.get(1)?)),
            _ => None,
        }
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        let id = self.memo.get(&key).copied().ok_or_else(|| broken(format!("nothing was kept as {key}")))?;
        self.stack.push(id);
        Ok(())
    }

    fn decimal(&mut self) -> Result<i64> {
        let line = String::from_utf8_lossy(self.line()?);
        line.trim_end_matches('L').parse().map_err(|_| broken(format!("`{line}` is no number of 64 bits")))
    }

    fn key(&mut self) -> Result<u64> {
        u64::try_from(self.decimal()?).map_err(broken)
    }

    /// A number of this many bytes, in two's complement.
    fn long(&mut self, bytes: &'a [u8]) {
        let value = match bytes.last() {
            Some(_) if bytes.len() > 8 => Value::Long(bytes),
            Some(high) => {
                let fill = if high & 0x80 == 0 { 0 } else { -1i64 };
                Value::Int(bytes.iter().rev().fold(fill, |number, byte| number << 8 | i64::from(*byte)))
            }
            None => Value::Int(0),
        };
        self.push(value);
    }

    /// Obeys one instruction; whether it was the last.
    fn step(&mut self) -> Result<bool> {
        let instruction = self.take(1)?[0];
        match instruction {
            b'.' => return Ok(true),
            // The protocol; frames, which only help a reader to plan.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::Plain("None")),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' => {
                // Protocols 0 and 1 write truth values so.
                let value = match self.bytes[self.at..] {
                    [b'0', truth @ (b'0' | b'1'), b'\n', ..] => {
                        self.at += 3;
                        Value::Bool(truth == b'1')
                    }
                    _ => Value::Int(self.decimal()?),
                };
                self.push(value);
            }
            b'L' => {
                let number = self.decimal()?;
                self.push(Value::Int(number));
            }
            b'J' => {
                let number = self.number(4)? as u32 as i32;
                self.push(Value::Int(number.into()));
            }
            b'K' | b'M' => {
                let number = self.number(if instruction == b'K' { 1 } else { 2 })?;
                self.push(Value::Int(number as i64));
            }
            0x8a | 0x8b => {
                let bytes = self.counted(if instruction == 0x8a { 1 } else { 4 })?;
                self.long(bytes);
            }
            b'F' => {
                self.line()?;
                self.push(Value::Plain("a fraction"));
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Plain("a fraction"));
            }
            b'S' => {
                let line = self.line()?;
                self.string(escapes::string(line.get(1..line.len().saturating_sub(1)).unwrap_or_default()));
            }
            b'V' => {
                let line = self.line()?;
                self.push(Value::Text(escapes::raw_unicode(line)));
            }
            b'U' | b'T' => {
                let bytes = self.counted(if instruction == b'U' { 1 } else { 4 })?;
                self.string(bytes.into());
            }
            0x8c | b'X' => {
                let bytes = self.counted(if instruction == b'X' { 4 } else { 1 })?;
                self.text(bytes);
            }
            0x8d => {
                let bytes = self.counted(8)?;
                self.text(bytes);
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let bytes = self.counted(match instruction {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                })?;
                self.push(Value::Bytes(bytes.into()));
            }
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => self.tuple(usize::from(instruction - 0x84))?,
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items));
            }
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'l' | 0x91 => {
                let items = self.marked()?;
                self.push(Value::List(items));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.marked()?;
                self.push(Value::Dict(Vec::new()));
                self.set(self.values.len() - 1, &items);
            }
            b'a' => {
                let item = self.pop()?;
                self.add(self.top()?, &[item]);
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                self.add(self.top()?, &items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(self.top()?, &[key, value]);
            }
            b'u' => {
                let items = self.marked()?;
                self.set(self.top()?, &items);
            }
            b'c' | b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let named = Value::Named(String::from_utf8_lossy(module), String::from_utf8_lossy(name));
                let items = if instruction == b'i' { Some(self.marked()?) } else { None };
                self.push(named);
                if let Some(items) = items {
                    self.push(Value::Tuple(items));
                    let (arguments, class) = (self.pop()?, self.pop()?);
                    self.call(class, arguments)?;
                }
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let named = Value::Named(self.name(module)?, self.name(name)?);
                self.push(named);
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)?;
            }
            0x92 => {
                let (_, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(class, arguments)?;
            }
            b'o' => {
                let items = self.marked()?;
                let class = *items.first().ok_or_else(|| broken("an object without a class"))?;
                self.push(Value::Tuple(items[1..].to_vec()));
                let arguments = self.pop()?;
                self.call(class, arguments)?;
            }
            // The attributes of an object, which are none of its entries.
            b'b' => drop(self.pop()?),
            b'P' => {
                let line = self.line()?;
                self.text(line);
                let name = self.pop()?;
                self.push(Value::Outside(name));
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Outside(name));
            }
            b'p' => {
                let key = self.key()?;
                self.remember(key)?;
            }
            b'q' | b'r' => {
                let key = self.number(if instruction == b'q' { 1 } else { 4 })?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'g' => {
                let key = self.key()?;
                self.recall(key)?;
            }
            b'h' | b'j' => {
                let key = self.number(if instruction == b'h' { 1 } else { 4 })?;
                self.recall(key)?;
            }
            other => return Err(broken(format!("unknown instruction {other:#04x} at byte {}", self.at - 1))),
        }
        Ok(false)
    }
}
