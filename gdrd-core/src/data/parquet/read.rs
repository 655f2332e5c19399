//! Reading, by the crate `parquet` without Arrow.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;
use serde_json::Value;

use super::super::encoded::{Encoded, Look, Names, Opened};
use super::super::identity_folders::visible;
use super::super::{Attribute, Dataset, composed};
use super::ParquetImages;
use crate::context::BuildContext;
use crate::error::{Context, Error, Result};
use crate::files::Mapped;
use crate::nn::weights::first_of;
use crate::recipe::RecipePath;

pub(super) fn build(config: &ParquetImages, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
    let column = config.image.clone().unwrap_or_default();
    let mut all = Rows { files: Vec::new(), rows: Vec::new(), column };
    let mut names = Names::default();
    for written in &config.files {
        let paths = match written.as_path().is_dir() {
            true => {
                visible(written.as_path())?.into_iter().filter(|path| is_parquet(path)).map(RecipePath::from).collect()
            }
            false => vec![written.clone()],
        };
        if paths.is_empty() {
            return Err(Error::data(format!("`{written}` holds no `.parquet`")));
        }
        for path in paths {
            let path = cx.file(&path)?.path;
            guarded(|| config.read(&path, &mut all, &mut names)).at(|| format!("`{}`", path.display()))?;
        }
    }
    if all.rows.is_empty() {
        let files: Vec<String> = all.files.iter().map(|file| format!("`{}`", file.path.display())).collect();
        return Err(Error::data(format!(
            "{}: expected at least one row, found none",
            first_of(files.len(), files.into_iter())
        )));
    }
    let look = Look::new(config.size, config.exif_orientation, config.low_resolution);
    Ok(Box::new(Opened::checked(cx, all, names.people, look, config.unreadable)?))
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"))
}

/// A memory map as the crate wants it.
struct Map(Mapped);

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

type Reader = SerializedFileReader<Bytes>;

struct Open {
    path: PathBuf,
    reader: Reader,
    /// The column of the images' bytes.
    image: usize,
}

struct Row {
    file: usize,
    group: usize,
    /// In its group.
    row: usize,
    /// In the file.
    number: usize,
    person: Option<usize>,
    key: String,
    attributes: Vec<Attribute>,
}

struct Rows {
    files: Vec<Open>,
    rows: Vec<Row>,
    /// The column of images that the recipe names, if it does.
    column: String,
}

/// What is read; a damaged file that makes the crate panic is an error too.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(Error::data("it cannot be read as a Parquet file: it is damaged")))
}

fn failed(error: &parquet::errors::ParquetError) -> Error {
    Error::data(format!("it cannot be read as a Parquet file: {error}"))
}

impl ParquetImages {
    /// Adds the rows of a file.
    fn read(&self, path: &Path, all: &mut Rows, names: &mut Names) -> Result<()> {
        let map = Mapped::open(path)?;
        let bytes = map.len();
        let reader = Reader::new(Bytes::from_owner(Map(map))).map_err(|e| failed(&e))?;
        let about = reader.metadata().file_metadata();
        let schema = about.schema_descr();
        let features = about.key_value_metadata().into_iter().flatten().find(|entry| entry.key == "huggingface");
        let features: Value = features
            .and_then(|entry| serde_json::from_str(entry.value.as_deref()?).ok())
            .map(|said: Value| said["info"]["features"].clone())
            .unwrap_or_default();
        let image = image_column(schema, self.image.as_deref(), &features)?;
        let counts = rows_of_groups(&reader, image, bytes)?;
        let person = match self.person.as_str() {
            "none" => None,
            name => Some(Told::new(schema, name, &features).at(|| "`person`".to_string())?),
        };
        let attributes = self.attributes.iter().map(|name| Told::new(schema, name, &features));
        let attributes = attributes.collect::<Result<Vec<_>>>().at(|| "`attributes`".to_string())?;
        let (file, mut number) = (all.files.len(), 0);
        for (group, rows) in counts.into_iter().enumerate() {
            let of = |told: &Told| told.values(&reader, group);
            let people = person.as_ref().map(of).transpose()?;
            let attributes = attributes.iter().map(of).collect::<Result<Vec<_>>>()?;
            for row in 0..rows {
                let of = |values: &Vec<Option<String>>| values.get(row).cloned().flatten();
                let person = match &people {
                    None => None,
                    Some(people) => Some(of(people).ok_or_else(|| {
                        let column = &self.person;
                        Error::data(format!(
                            "row {number}: `{column}` says nothing; expected who it is, or `person = \"none\"`"
                        ))
                    })?),
                };
                let person = person.map(|name| composed(&name));
                let key = format!("{}/{}", person.as_deref().unwrap_or("-"), all.rows.len());
                let known = self.attributes.iter().zip(&attributes);
                let attributes = known.filter_map(|(name, values)| Some((name.clone(), of(values)?))).collect();
                let person = person.map(|name| names.number(&name));
                all.rows.push(Row { file, group, row, number, person, key, attributes });
                number += 1;
            }
        }
        all.files.push(Open { path: path.to_path_buf(), reader, image });
        Ok(())
    }
}

/// How many rows each group has, as the footer says, before anything is made for each of them.
fn rows_of_groups(reader: &Reader, image: usize, bytes: usize) -> Result<Vec<usize>> {
    let groups = reader.metadata().row_groups().iter().enumerate();
    let rows = groups.map(|(at, group)| {
        let (rows, images) = (group.num_rows(), group.column(image).num_values());
        let count = usize::try_from(rows).ok().filter(|_| rows == images);
        count.ok_or_else(|| {
            Error::data(format!("row group {at}: expected as many rows as images, {images}, found {rows}"))
        })
    });
    let rows = rows.collect::<Result<Vec<usize>>>()?;
    let said = reader.metadata().file_metadata().num_rows();
    let sum = rows.iter().fold(0u64, |sum, rows| sum.saturating_add(*rows as u64));
    if i64::try_from(sum) != Ok(said) {
        return Err(Error::data(format!("expected {said} rows, as the footer says, found {sum} in its row groups")));
    }
    // Images are no shorter than a byte, but for what a dictionary says many times.
    if sum > bytes as u64 {
        return Err(Error::data(format!("expected at most {bytes} rows, one for each byte of the file, found {sum}")));
    }
    Ok(rows)
}

/// The columns of a file, for messages.
fn columns(schema: &SchemaDescriptor) -> String {
    let names: Vec<String> = schema.columns().iter().map(|column| format!("`{}`", column.path().string())).collect();
    names.join(", ")
}

/// The column of the bytes of images, by the name of theirs or as the only one.
fn image_column(schema: &SchemaDescriptor, wanted: Option<&str>, features: &Value) -> Result<usize> {
    let that_fit = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let columns = schema.columns().iter().enumerate();
        columns.filter(|(_, column)| fits(&column.path().string())).map(|(at, _)| at).collect()
    };
    let column = |path: &'_ str| path.strip_suffix(".bytes").unwrap_or(path).to_string();
    let found = match wanted {
        Some(wanted) => that_fit(&|path| path == wanted || column(path) == wanted),
        // What datasets says of its columns, or, where it says nothing, what an image looks like.
        None => match that_fit(&|path| features[column(path)]["_type"] == "Image") {
            none if none.is_empty() => that_fit(&|path| path.ends_with(".bytes")),
            found => found,
        },
    };
    let [at] = found.as_slice() else {
        let expected = wanted.map_or("one column of images".to_string(), |name| format!("a column `{name}` of images"));
        let hint = if found.len() > 1 { "; `image` names one" } else { "" };
        return Err(Error::data(format!("expected {expected}, found the columns {}{hint}", columns(schema))));
    };
    let column = schema.column(*at);
    if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 {
        let (name, found) = (column.path().string(), column.physical_type());
        let list = if column.max_rep_level() > 0 { " in lists" } else { "" };
        return Err(Error::data(format!("`{name}`: expected an image a row, as bytes, found {found}{list}")));
    }
    Ok(*at)
}

/// A column whose values are told as text.
struct Told {
    at: usize,
    /// The names of numbers, where datasets wrote some.
    names: Vec<String>,
}

impl Told {
    fn new(schema: &SchemaDescriptor, name: &str, features: &Value) -> Result<Self> {
        let at = schema.columns().iter().position(|column| column.path().string() == name);
        let at = at
            .ok_or_else(|| Error::data(format!("expected a column `{name}`, found the columns {}", columns(schema))))?;
        let column = schema.column(at);
        let told = [Type::BOOLEAN, Type::INT32, Type::INT64, Type::BYTE_ARRAY];
        if !told.contains(&column.physical_type()) || column.max_rep_level() > 0 {
            let (found, list) = (column.physical_type(), if column.max_rep_level() > 0 { " in lists" } else { "" });
            return Err(Error::data(format!("`{name}`: expected whole numbers or text, found {found}{list}")));
        }
        let names = features[name]["names"].as_array().into_iter().flatten();
        Ok(Self { at, names: names.filter_map(|name| name.as_str().map(String::from)).collect() })
    }

    /// The column's values in a group of rows.
    fn values(&self, reader: &Reader, group: usize) -> Result<Vec<Option<String>>> {
        let rows = reader.get_row_group(group).map_err(|e| failed(&e))?;
        let number = |value: i64| match usize::try_from(value).ok().and_then(|at| self.names.get(at)) {
            Some(name) => Ok(name.clone()),
            None if self.names.is_empty() => Ok(value.to_string()),
            None => Err(Error::data(format!("a label {value}, of {} names", self.names.len()))),
        };
        let text = |value: &ByteArray| match std::str::from_utf8(value.data()) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(Error::data("expected text in UTF-8")),
        };
        let count = usize::try_from(rows.metadata().num_rows()).unwrap_or_default();
        let defined = rows.metadata().column(self.at).column_descr().max_def_level();
        let of = (count, defined);
        match rows.get_column_reader(self.at).map_err(|e| failed(&e))? {
            ColumnReader::BoolColumnReader(reader) => told(reader, of, |value: &bool| Ok(value.to_string())),
            ColumnReader::Int32ColumnReader(reader) => told(reader, of, |value: &i32| number((*value).into())),
            ColumnReader::Int64ColumnReader(reader) => told(reader, of, |value: &i64| number(*value)),
            ColumnReader::ByteArrayColumnReader(reader) => told(reader, of, text),
            _ => Err(Error::data("expected whole numbers or text")),
        }
        .at(|| format!("`{}`", rows.metadata().column(self.at).column_path().string()))
    }
}

/// Records that are read at once.
const AT_ONCE: usize = 4096;

/// The `count` values of a column, none where its level is below `defined`.
fn told<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    (count, defined): (usize, i16),
    text: impl Fn(&T::T) -> Result<String>,
) -> Result<Vec<Option<String>>> {
    let mut all = Vec::new();
    while all.len() < count {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let wanted = AT_ONCE.min(count - all.len());
        let (records, ..) =
            reader.read_records(wanted, Some(&mut levels), None, &mut values).map_err(|e| failed(&e))?;
        if records == 0 {
            return Err(Error::data(format!("it ends after {} of {count} rows", all.len())));
        }
        let mut values = values.iter();
        for at in 0..records {
            let there = defined == 0 || levels.get(at) == Some(&defined);
            all.push(if there { values.next().map(&text).transpose()? } else { None });
        }
    }
    Ok(all)
}

impl Rows {
    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let Row { file, group, row, .. } = self.rows[index];
        let Open { reader, image, .. } = &self.files[file];
        let group = reader.get_row_group(group).map_err(|e| failed(&e))?;
        let column = group.get_column_reader(*image).map_err(|e| failed(&e))?;
        let mut column = get_typed_column_reader::<ByteArrayType>(column);
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        // Pages before it are passed over, and not decompressed.
        column.skip_records(row).map_err(|e| failed(&e))?;
        column.read_records(1, Some(&mut levels), None, &mut values).map_err(|e| failed(&e))?;
        let value = values.first().ok_or_else(|| {
            Error::data("no bytes; a dataset that was saved with the paths of its images alone holds none of them")
        })?;
        Ok(value.data().to_vec())
    }
}

impl Encoded for Rows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.rows[index].person
    }

    fn key(&self, index: usize) -> String {
        self.rows[index].key.clone()
    }

    fn container(&self, index: usize) -> &Path {
        &self.files[self.rows[index].file].path
    }

    fn about(&self) -> &str {
        &self.column
    }

    fn place(&self, index: usize) -> String {
        let row = &self.rows[index];
        format!("`{}`: row {}", self.files[row.file].path.display(), row.number)
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        self.rows[index].attributes.clone()
    }

    fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        guarded(|| self.bytes(index)).map(Cow::Owned)
    }
}
