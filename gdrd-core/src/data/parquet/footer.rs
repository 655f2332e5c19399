//! What the footer of a Parquet file says: its columns, and where the pages of each lie.

use std::fmt;
use std::ops::Range;

use super::thrift::{Fields, Input, List, Value};
use crate::error::{Context, Error, Result};

/// The most bytes that the names of all columns may have together.
const NAMES: usize = 1 << 20;
/// How deep columns may lie in each other.
const DEPTH: usize = 32;
const MAGIC: &[u8] = b"PAR1";

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Physical(i64);

impl Physical {
    pub(super) const BOOLEAN: Self = Self(0);
    pub(super) const INT32: Self = Self(1);
    pub(super) const INT64: Self = Self(2);
    pub(super) const BYTE_ARRAY: Self = Self(6);
}

impl fmt::Display for Physical {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = ["BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"];
        match usize::try_from(self.0).ok().and_then(|at| names.get(at)) {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

/// A column.
pub(super) struct Column {
    /// The names of what it lies in and its own, with dots between them.
    pub(super) path: String,
    pub(super) kind: Physical,
    /// How many of those may be absent: the level of a value that is there.
    pub(super) levels: u8,
    /// Whether it lies in lists.
    pub(super) repeated: bool,
}

/// A column's part of a group of rows.
pub(super) struct Chunk {
    pub(super) codec: i64,
    /// How many values it has, absent ones included.
    pub(super) values: i64,
    /// Its pages in the file.
    pub(super) bytes: Range<usize>,
}

/// A group of rows.
pub(super) struct Group {
    pub(super) rows: i64,
    /// One for each column.
    pub(super) chunks: Vec<Chunk>,
}

/// What a footer says.
pub(super) struct Footer {
    pub(super) rows: i64,
    pub(super) columns: Vec<Column>,
    pub(super) groups: Vec<Group>,
    /// What the package datasets wrote of its columns, in JSON.
    pub(super) datasets: Option<String>,
}

fn lacks<T>(found: Option<T>, what: &str) -> Result<T> {
    found.ok_or_else(|| Error::data(format!("expected {what}, found none")))
}

impl Footer {
    /// The footer of a file: `PAR1`, the pages, the footer, its length in four bytes, and `PAR1`.
    pub(super) fn read(file: &[u8]) -> Result<Self> {
        let end = file.len().checked_sub(12).filter(|_| file.starts_with(MAGIC) && file.ends_with(MAGIC));
        let Some(end) = end else {
            let what = if file.ends_with(b"PARE") { "an encrypted one" } else { "something else, or a part of one" };
            return Err(Error::data(format!("expected a file between `PAR1` and `PAR1`, found {what}")));
        };
        let said = file[end + 4..].first_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
        let Some(start) = (end + 4).checked_sub(said).filter(|start| *start >= 4) else {
            return Err(Error::data(format!("expected a footer of at most {end} bytes, found one of {said}")));
        };
        Self::of(&file[start..end + 4], start).at(|| format!("the footer, at byte {start}"))
    }

    /// `end` is where the pages end.
    fn of(bytes: &[u8], end: usize) -> Result<Self> {
        let (mut rows, mut columns, mut groups, mut datasets) = (None, None, None, None);
        let mut fields = Fields::new(Input(bytes));
        while let Some(field) = fields.next()? {
            match field {
                (2, Value::List(list)) => columns = Some(schema(list).at(|| "the columns".to_string())?),
                (3, Value::Number(number)) => rows = Some(number),
                (4, Value::List(list)) => groups = Some(list),
                (5, Value::List(list)) => datasets = said_by_datasets(list)?,
                _ => {}
            }
        }
        let columns = lacks(columns, "columns")?;
        let (mut list, mut groups) = (lacks(groups, "groups of rows")?, Vec::new());
        while let Some(fields) = list.next_struct()? {
            groups.push(group(fields, &columns, end).at(|| format!("row group {}", groups.len()))?);
        }
        Ok(Self { rows: lacks(rows, "a number of rows")?, columns, groups, datasets })
    }
}

/// A node of the tree of columns.
#[derive(Default)]
struct Node<'a> {
    name: &'a [u8],
    kind: Option<i64>,
    repetition: i64,
    children: i64,
}

impl<'a> Node<'a> {
    fn read(mut fields: Fields<'a>) -> Result<Self> {
        let mut node = Self::default();
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Number(kind)) => node.kind = Some(kind),
                (3, Value::Number(repetition)) => node.repetition = repetition,
                (4, Value::Bytes(name)) => node.name = name,
                (5, Value::Number(children)) => node.children = children,
                _ => {}
            }
        }
        Ok(node)
    }
}

/// A group of columns whose columns are being read.
struct Above {
    left: i64,
    path: String,
    levels: u8,
    repeated: bool,
}

/// The columns that have values: the tree's leaves, from its nodes in order of depth.
fn schema(mut list: List) -> Result<Vec<Column>> {
    let root = Node::read(lacks(list.next_struct()?, "a first element")?)?;
    let mut above = vec![Above { left: root.children, path: String::new(), levels: 0, repeated: false }];
    let (mut columns, mut named) = (Vec::new(), 0);
    while let Some(last) = above.last_mut() {
        if last.left <= 0 {
            above.pop();
            continue;
        }
        last.left -= 1;
        let node = Node::read(lacks(list.next_struct()?, "as many elements as each says that it has")?)?;
        let name = std::str::from_utf8(node.name).map_err(|_| Error::data("a name that is not UTF-8"))?;
        let path = if last.path.is_empty() { name.to_string() } else { format!("{}.{name}", last.path) };
        let (optional, repeated) = (node.repetition != 0, last.repeated || node.repetition == 2);
        let levels = last.levels + u8::from(optional);
        named += path.len();
        if named > NAMES {
            return Err(Error::data(format!("expected names of at most {NAMES} bytes together, found more")));
        }
        match node.kind {
            _ if node.children > 0 && above.len() == DEPTH => {
                return Err(Error::data(format!("`{path}`: lies more than {DEPTH} deep")));
            }
            _ if node.children > 0 => above.push(Above { left: node.children, path, levels, repeated }),
            Some(kind) => columns.push(Column { path, kind: Physical(kind), levels, repeated }),
            None => {}
        }
    }
    Ok(columns)
}

/// What datasets wrote among the keys and values.
fn said_by_datasets(mut list: List) -> Result<Option<String>> {
    while let Some(mut fields) = list.next_struct()? {
        let (mut key, mut value) = (&[][..], None);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(bytes)) => key = bytes,
                (2, Value::Bytes(bytes)) => value = Some(bytes),
                _ => {}
            }
        }
        if key == b"huggingface" {
            return Ok(value.map(|text| String::from_utf8_lossy(text).into_owned()));
        }
    }
    Ok(None)
}

fn group(mut fields: Fields, columns: &[Column], end: usize) -> Result<Group> {
    let (mut rows, mut list) = (None, None);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::List(chunks)) => list = Some(chunks),
            (3, Value::Number(number)) => rows = Some(number),
            _ => {}
        }
    }
    let (mut list, mut chunks) = (lacks(list, "columns")?, Vec::new());
    while let Some(fields) = list.next_struct()? {
        let Some(column) = columns.get(chunks.len()) else {
            return Err(Error::data(format!("expected {} columns, found more", columns.len())));
        };
        chunks.push(chunk(fields, column, end).at(|| format!("`{}`", column.path))?);
    }
    if chunks.len() < columns.len() {
        return Err(Error::data(format!("expected {} columns, found {}", columns.len(), chunks.len())));
    }
    Ok(Group { rows: lacks(rows, "a number of rows")?, chunks })
}

fn chunk(mut fields: Fields, column: &Column, end: usize) -> Result<Chunk> {
    let mut about = None;
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(_)) => return Err(Error::data("its values lie in another file, which is not read")),
            (3, Value::Struct(fields)) => about = Some(fields),
            (8, _) => return Err(Error::data("it is encrypted, and not read")),
            _ => {}
        }
    }
    let mut about = lacks(about, "where its pages are")?;
    let (mut kind, mut codec, mut values, mut size) = (None, None, None, None);
    let (mut first, mut dictionary) = (None, None);
    while let Some(field) = about.next()? {
        match field {
            (1, Value::Number(number)) => kind = Some(Physical(number)),
            (4, Value::Number(number)) => codec = Some(number),
            (5, Value::Number(number)) => values = Some(number),
            (7, Value::Number(number)) => size = Some(number),
            (9, Value::Number(number)) => first = Some(number),
            // Some writers say 0 where there is none.
            (11, Value::Number(number)) => dictionary = Some(number).filter(|number| *number > 0),
            _ => {}
        }
    }
    let (kind, first, size) = (lacks(kind, "a type")?, lacks(first, "a first page")?, lacks(size, "a size")?);
    if kind != column.kind {
        return Err(Error::data(format!("expected {}, found {kind}", column.kind)));
    }
    let start = dictionary.map_or(first, |dictionary| dictionary.min(first));
    let bytes = usize::try_from(start).ok().zip(usize::try_from(size).ok());
    let bytes = bytes.map(|(start, size)| start..start.saturating_add(size)).filter(|bytes| bytes.end <= end);
    let bytes = bytes.ok_or_else(|| {
        Error::data(format!("expected pages before byte {end}, where they end, found {size} bytes at {start}"))
    })?;
    Ok(Chunk { codec: lacks(codec, "a compression")?, values: lacks(values, "a number of values")?, bytes })
}
