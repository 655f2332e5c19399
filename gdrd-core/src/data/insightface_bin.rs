//! insightface's `.bin`: the pairs of a verification set, such as `lfw.bin`.
//!
//! A pickle of a list of images, as bytes, and of a list of truth values, one for each pair: pair `k` is images `2k` and `2k + 1`.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoded::{Encoded, Look, Opened};
use super::identity_folders::default_exif_orientation;
use super::unreadable::Unreadable;
use super::{Compared, Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Context, Error, Result};
use crate::files::Mapped;
use crate::pickle::{Id, Pickle, Value};
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// The faces of a `.bin` file and its pairs, which the protocol `verification` takes when it has no list of its own. Nobody knows who
/// they are. Pickles of Python 2 and 3 are read, of protocols 0 to 5; nothing in them is run, and one that holds anything but bytes
/// and truth values is refused.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InsightfaceBin {
    /// The file.
    pub file: RecipePath,
    /// Height and width that faces are brought to, in pixels, as in `identity-folders`; their native size when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub size: Option<usize>,
    /// Whether images are turned as their EXIF orientation says.
    #[serde(default = "default_exif_orientation")]
    pub exif_orientation: bool,
    /// Whether the faces were photographed at low resolution: they are brought to a view's size, but not degraded.
    #[serde(default)]
    pub low_resolution: bool,
    /// What becomes of images that cannot be read: with them go their pairs.
    #[serde(default)]
    pub unreadable: Unreadable,
}

impl Kind for InsightfaceBin {
    const NAME: &'static str = "insightface-bin";
    const PURPOSE: &'static str = "the faces and pairs of insightface's lfw.bin, cfp_fp.bin and their like";
}

impl DatasetConfig for InsightfaceBin {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let path = cx.file(&self.file)?.path;
        let map = Mapped::open(&path)?;
        let (images, pairs) = read(&map).at(|| format!("`{}`", self.file))?;
        let bin = Bin { map, images, path, file: self.file.to_string() };
        let look = Look::new(self.size, self.exif_orientation, self.low_resolution);
        Ok(Box::new(Opened::checked(cx, bin, Vec::new(), look, self.unreadable)?.with_pairs(pairs)))
    }
}

/// The bytes of an image.
enum Image {
    /// Where they lie in the file.
    There(Range<usize>),
    /// They stand there in other words.
    Here(Vec<u8>),
}

struct Bin {
    map: Mapped,
    images: Vec<Image>,
    path: PathBuf,
    /// As the recipe has it.
    file: String,
}

impl Encoded for Bin {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn person(&self, _: usize) -> Option<usize> {
        None
    }

    fn key(&self, index: usize) -> String {
        format!("{}/{}", index / 2, index % 2)
    }

    fn container(&self, _: usize) -> &Path {
        &self.path
    }

    fn place(&self, index: usize) -> String {
        let at = match &self.images[index] {
            Image::There(range) => format!(" at byte {}", range.start),
            Image::Here(_) => String::new(),
        };
        format!("`{}`: image {index}{at}", self.file)
    }

    fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        Ok(match &self.images[index] {
            Image::There(range) => Cow::Borrowed(&self.map[range.clone()]),
            Image::Here(bytes) => Cow::Borrowed(bytes),
        })
    }
}

fn read(file: &[u8]) -> Result<(Vec<Image>, Vec<Compared>)> {
    let pickle = Pickle::read(file).map_err(Error::data)?;
    let list = |id: Id| items(&pickle, id);
    let expected = "expected a pickle of a list of images and a list of truth values";
    let (images, same) = match list(pickle.root) {
        Some([images, same]) => (list(*images), list(*same)),
        _ => (None, None),
    };
    let (Some(images), Some(same)) = (images, same) else {
        let found = match list(pickle.root) {
            Some([one, other]) => format!("{} and {}", described(&pickle, *one), described(&pickle, *other)),
            _ => described(&pickle, pickle.root),
        };
        return Err(Error::data(format!("{expected}, found {found} (nothing of it was run)")));
    };
    if images.len() != 2 * same.len() || images.is_empty() {
        return Err(Error::data(format!(
            "{expected}, two images for each of them, found {} images and {} truth values",
            images.len(),
            same.len()
        )));
    }
    let mut copied = 0;
    let mut image = |(at, id): (usize, &Id)| {
        let bytes = bytes(&pickle, *id).ok_or_else(|| {
            Error::data(format!(
                "image {at}: expected bytes, found {} (nothing of it was run)",
                described(&pickle, *id)
            ))
        })?;
        let start = (bytes.as_ptr() as usize).wrapping_sub(file.as_ptr() as usize);
        match bytes {
            Cow::Borrowed(bytes) if file.get(start..start + bytes.len()).is_some() => {
                Ok(Image::There(start..start + bytes.len()))
            }
            // A crafted file could name one image many times.
            _ if copied + bytes.len() > file.len() => {
                Err(Error::data(format!("image {at}: it holds more than its file")))
            }
            bytes => {
                copied += bytes.len();
                Ok(Image::Here(bytes.into_owned()))
            }
        }
    };
    let images = images.iter().enumerate().map(&mut image).collect::<Result<Vec<_>>>()?;
    let pair = |(at, id): (usize, &Id)| match pickle.of(*id) {
        Value::Bool(same) => Ok(Compared { left: 2 * at, right: 2 * at + 1, same: *same }),
        _ => Err(Error::data(format!(
            "pair {at}: expected a truth value, found {} (nothing of it was run)",
            described(&pickle, *id)
        ))),
    };
    let pairs = same.iter().enumerate().map(pair).collect::<Result<Vec<_>>>()?;
    Ok((images, pairs))
}

/// The values of a list or a tuple.
fn items<'p>(pickle: &'p Pickle, id: Id) -> Option<&'p [Id]> {
    match pickle.of(id) {
        Value::List(items) | Value::Tuple(items) => Some(items.as_slice()),
        _ => None,
    }
}

/// The bytes that a value is. Python 3 writes them for older protocols as the text of the same code points, to be encoded.
fn bytes<'p>(pickle: &'p Pickle, id: Id) -> Option<Cow<'p, [u8]>> {
    match pickle.of(id) {
        Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
        Value::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
        Value::Call(callable, arguments) => match (pickle.of(*callable), pickle.tuple(*arguments)?) {
            (Value::Named(module, name), [text, encoding]) if module == "_codecs" && name == "encode" => {
                let (Value::Text(text), Value::Text(encoding)) = (pickle.of(*text), pickle.of(*encoding)) else {
                    return None;
                };
                let latin = ["latin1", "latin-1"].contains(&encoding.as_ref());
                let code = |c: char| u8::try_from(u32::from(c)).ok();
                latin.then(|| text.chars().map(code).collect::<Option<Vec<u8>>>())?.map(Cow::Owned)
            }
            (Value::Named(module, name), []) if module.contains("builtin") && name == "bytes" => {
                Some(Cow::Borrowed(b""))
            }
            _ => None,
        },
        _ => None,
    }
}

fn described(pickle: &Pickle, id: Id) -> String {
    match pickle.of(id) {
        Value::Plain(what) => (*what).to_string(),
        Value::Bool(_) => "a truth value".into(),
        Value::Bytes(_) => "bytes".into(),
        Value::Int(_) | Value::Long(_) => "a number".into(),
        Value::Text(_) => "a text".into(),
        Value::Tuple(items) => format!("a tuple of {}", items.len()),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Dict(_) => "a dictionary".into(),
        Value::Outside(_) => "an object outside of the pickle".into(),
        Value::Named(module, name) => format!("`{module}.{name}`"),
        Value::Call(callable, _) => match pickle.of(*callable) {
            Value::Named(module, name) => format!("a call of `{module}.{name}`"),
            _ => "a call".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pickle: &[u8]) -> String {
        read(pickle).err().expect("refused").to_string()
    }

    #[test]
    fn every_way_to_write_bytes_is_read() {
        // ([b'\xff\n', b'\xe9\\'], [True]) by Python 3, protocols 0, 2 and 4, and by Python 2, protocols 0 and 2.
        let ways: [&[u8]; 5] = [
            b"((lp0\nc_codecs\nencode\n(V\xff\\u000a\nVlatin1\ntRac_codecs\nencode\n(V\xe9\\u005c\nVlatin1\ntRa(lI01\nat.",
            b"\x80\x02](c_codecs\nencode\nX\x03\0\0\0\xc3\xbf\nX\x06\0\0\0latin1\x86Rc_codecs\nencode\nX\x03\0\0\0\xc3\xa9\\X\x06\0\0\0latin1\x86Re]\x88a\x86.",
            b"\x80\x04](C\x02\xff\nC\x02\xe9\\e]\x88a\x86.",
            b"((lS'\\xff\\n'\naS'\\xe9\\\\'\na(lI01\nat.",
            b"\x80\x02](U\x02\xff\nU\x02\xe9\\e]\x88a\x86.",
        ];
        for way in ways {
            let (images, pairs) = read(way).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(way)));
            let bytes = |image: &Image| match image {
                Image::There(range) => way[range.clone()].to_vec(),
                Image::Here(bytes) => bytes.clone(),
            };
            assert_eq!(images.iter().map(bytes).collect::<Vec<_>>(), [b"\xff\n".to_vec(), b"\xe9\\".to_vec()]);
            assert_eq!(pairs, [Compared { left: 0, right: 1, same: true }]);
        }
    }

    #[test]
    fn anything_else_is_refused_and_not_run() {
        let said = refused(b"\x80\x04](C\x01acposix\nsystem\n\x8c\x04true\x85Re]\x88a\x86.");
        assert_eq!(said, "image 1: expected bytes, found a call of `posix.system` (nothing of it was run)");
        let said = refused(b"\x80\x04](C\x01aC\x01ae]K\x01a\x86.");
        assert_eq!(said, "pair 0: expected a truth value, found a number (nothing of it was run)");
        assert!(refused(b"\x80\x04]C\x01aa]\x88a\x86.").contains("found 1 images and 1 truth values"));
        assert!(refused(b"\x80\x04}.").contains("truth values, found a dictionary (nothing of it was run)"));
        let said = refused(b"cposix\nsystem\n(S'true'\ntR.");
        assert!(said.contains("truth values, found a call of `posix.system` (nothing of it was run)"), "{said}");
        assert!(refused(b"\x80\x04]]]\x87.").contains("truth values, found a tuple of 3 (nothing of it was run)"));
        assert!(refused(b"\x80\x04]K\x01\x86.").contains("truth values, found a list of 0 and a number (nothing"));
        assert!(refused(b"\x80\x04]](C").contains("it ends at byte 6"));
        assert!(refused(b"\x80\x04]]\x86.").contains("found 0 images"));
    }
}
