//! The dataset: which columns have what, and the rows of every file.

use std::borrow::Cow;
use std::cell::Cell;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::encoded::{Encoded, Look, Names, Opened};
use super::super::identity_folders::visible;
use super::super::{Attribute, Dataset, composed};
use super::ParquetImages;
use super::footer::{Column, Footer, Physical};
use super::pages::values;
use super::values::Datum;
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
            config.read(&path, &mut all, &mut names).at(|| format!("`{}`", path.display()))?;
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

struct Open {
    path: PathBuf,
    file: Mapped,
    footer: Footer,
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

/// What is in front of what the file itself has wrong.
fn unread() -> String {
    "it cannot be read as a Parquet file".into()
}

impl ParquetImages {
    /// Adds the rows of a file.
    fn read(&self, path: &Path, all: &mut Rows, names: &mut Names) -> Result<()> {
        let file = Mapped::open(path)?;
        let footer = Footer::read(&file).at(unread)?;
        let schema = &footer.columns;
        let features = footer.datasets.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let features = features.map(|said: Value| said["info"]["features"].clone()).unwrap_or_default();
        let image = image_column(schema, self.image.as_deref(), &features)?;
        let counts = rows_of_groups(&footer, image, file.len())?;
        let person = match self.person.as_str() {
            "none" => None,
            name => Some(Told::new(schema, name, &features, file.len()).at(|| "`person`".to_string())?),
        };
        let attributes = self.attributes.iter().map(|name| Told::new(schema, name, &features, file.len()));
        let attributes = attributes.collect::<Result<Vec<_>>>().at(|| "`attributes`".to_string())?;
        let (at, mut number) = (all.files.len(), 0);
        for (group, rows) in counts.into_iter().enumerate() {
            let of = |told: &Told| told.values(&file, &footer, (group, rows));
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
                all.rows.push(Row { file: at, group, row, number, person, key, attributes });
                number += 1;
            }
        }
        all.files.push(Open { path: path.to_path_buf(), file, footer, image });
        Ok(())
    }
}

/// How many rows each group has, as the footer says, before anything is made for each of them.
fn rows_of_groups(footer: &Footer, image: usize, bytes: usize) -> Result<Vec<usize>> {
    let groups = footer.groups.iter().enumerate();
    let rows = groups.map(|(at, group)| {
        let (rows, images) = (group.rows, group.chunks[image].values);
        let count = usize::try_from(rows).ok().filter(|_| rows == images);
        count.ok_or_else(|| {
            Error::data(format!("row group {at}: expected as many rows as images, {images}, found {rows}"))
        })
    });
    let rows = rows.collect::<Result<Vec<usize>>>()?;
    let said = footer.rows;
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
fn columns(schema: &[Column]) -> String {
    let names: Vec<String> = schema.iter().map(|column| format!("`{}`", column.path)).collect();
    names.join(", ")
}

/// The column of the bytes of images, by the name of theirs or as the only one.
fn image_column(schema: &[Column], wanted: Option<&str>, features: &Value) -> Result<usize> {
    let that_fit = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let columns = schema.iter().enumerate();
        columns.filter(|(_, column)| fits(&column.path)).map(|(at, _)| at).collect()
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
    let Column { path: name, kind: found, repeated, .. } = &schema[*at];
    if *found != Physical::BYTE_ARRAY || *repeated {
        let list = if *repeated { " in lists" } else { "" };
        return Err(Error::data(format!("`{name}`: expected an image a row, as bytes, found {found}{list}")));
    }
    Ok(*at)
}

/// A column whose values are told as text.
struct Told {
    at: usize,
    /// The names of numbers, where datasets wrote some.
    names: Vec<String>,
    /// How many bytes its texts may still have. They are held for each row, and a dictionary could say a long one for all of them.
    room: Cell<usize>,
}

impl Told {
    fn new(schema: &[Column], name: &str, features: &Value, room: usize) -> Result<Self> {
        let at = schema.iter().position(|column| column.path == name);
        let at = at
            .ok_or_else(|| Error::data(format!("expected a column `{name}`, found the columns {}", columns(schema))))?;
        let Column { kind: found, repeated, .. } = &schema[at];
        let told = [Physical::BOOLEAN, Physical::INT32, Physical::INT64, Physical::BYTE_ARRAY];
        if !told.contains(found) || *repeated {
            let list = if *repeated { " in lists" } else { "" };
            return Err(Error::data(format!("`{name}`: expected whole numbers or text, found {found}{list}")));
        }
        let names = features[name]["names"].as_array().into_iter().flatten();
        Ok(Self {
            at,
            names: names.filter_map(|name| name.as_str().map(String::from)).collect(),
            room: Cell::new(room),
        })
    }

    /// The column's values in a group of so many rows.
    fn values(&self, file: &[u8], footer: &Footer, (group, rows): (usize, usize)) -> Result<Vec<Option<String>>> {
        let number = |value: i64| match usize::try_from(value).ok().and_then(|at| self.names.get(at)) {
            Some(name) => Ok(name.clone()),
            None if self.names.is_empty() => Ok(value.to_string()),
            None => Err(Error::data(format!("a label {value}, of {} names", self.names.len()))),
        };
        let (column, mut all) = (&footer.columns[self.at], Vec::with_capacity(rows));
        let of = (column, &footer.groups[group].chunks[self.at], rows);
        let each = &mut |value: Option<Datum>| {
            let text = match value {
                None => None,
                Some(Datum::Bool(value)) => Some(value.to_string()),
                Some(Datum::Number(value)) => Some(number(value)?),
                Some(Datum::Bytes(text)) => match std::str::from_utf8(text) {
                    Ok(text) => Some(text.to_string()),
                    Err(_) => return Err(Error::data("expected text in UTF-8")),
                },
            };
            let room = self.room.get().checked_sub(text.as_ref().map_or(0, String::len));
            self.room.set(room.ok_or_else(|| {
                let bytes = file.len();
                Error::data(format!(
                    "expected texts of at most {bytes} bytes together, as many as the file has, found more"
                ))
            })?);
            all.push(text);
            Ok(())
        };
        values(file, of, 0..rows, each).at(|| format!("row group {group}: `{}`", column.path))?;
        Ok(all)
    }
}

impl Rows {
    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let Row { file, group, row, .. } = self.rows[index];
        let Open { file, footer, image, .. } = &self.files[file];
        let (column, group) = (&footer.columns[*image], &footer.groups[group]);
        let of = (column, &group.chunks[*image], usize::try_from(group.rows).unwrap_or_default());
        let mut found = None;
        // Pages before it are passed over, and not decompressed.
        values(file, of, row..row + 1, &mut |value| {
            found = value.and_then(|value| if let Datum::Bytes(bytes) = value { Some(bytes.to_vec()) } else { None });
            Ok(())
        })
        .at(|| format!("`{}`", column.path))?;
        found.ok_or_else(|| {
            Error::data("no bytes; a dataset that was saved with the paths of its images alone holds none of them")
        })
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
        self.bytes(index).map(Cow::Owned)
    }
}
