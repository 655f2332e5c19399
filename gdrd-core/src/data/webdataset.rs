//! WebDataset: tar archives in which the files of a sample follow each other and share a name up to its first dot.

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoded::{Encoded, Look, Names, Opened};
use super::identity_folders::{default_exif_orientation, visible};
use super::unreadable::Unreadable;
use super::{Attribute, Dataset, DatasetConfig, composed, is_image_name};
use crate::context::BuildContext;
use crate::error::{Context, Error, Problem, Result};
use crate::files::Mapped;
use crate::nn::weights::first_of;
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// Faces from tar archives as the Python package webdataset writes them: `000017.jpg` and, behind it, `000017.cls` and perhaps
/// `000017.json`. They are read through memory maps, in any order. Archives that are compressed as a whole are refused.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebDataset {
    /// Tar archives, or folders, of which every `.tar` is read.
    pub shards: Vec<RecipePath>,
    /// Where the person stands: in the file of a sample with this ending, such as `cls` or `txt`; in a field of its JSON file, such as
    /// `json.identity`; in the name of the sample's folder, `folder`; or nowhere, `none`.
    #[serde(default = "default_person")]
    pub person: String,
    /// The ending of the image, such as `jpg`, where a sample has several images.
    #[serde(default)]
    pub image: Option<String>,
    /// Fields of the JSON file that are attributes of the face.
    #[serde(default)]
    pub attributes: Vec<String>,
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
    /// What becomes of images that cannot be read.
    #[serde(default)]
    pub unreadable: Unreadable,
}

fn default_person() -> String {
    "cls".into()
}

impl Kind for WebDataset {
    const NAME: &'static str = "webdataset";
    const PURPOSE: &'static str = "faces from tar archives as webdataset writes them";
}

impl DatasetConfig for WebDataset {
    fn check(&self) -> Vec<Problem> {
        Problem::unless(!self.shards.is_empty(), "shards", || "expected at least one archive".into())
            .into_iter()
            .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let mut all = Shards { shards: Vec::new(), samples: Vec::new() };
        let (mut names, mut passed_over) = (Names::default(), 0);
        for written in &self.shards {
            let paths = match written.as_path().is_dir() {
                true => visible(written.as_path())?.into_iter().filter(|path| is_tar(path)).collect(),
                false => vec![written.as_path().to_path_buf()],
            };
            if paths.is_empty() {
                return Err(Error::data(format!("`{written}` holds no `.tar`")));
            }
            for path in paths {
                let path = if path == written.as_path() {
                    cx.file(written)?.path
                } else {
                    cx.file(&RecipePath::from(path))?.path
                };
                let map = Mapped::open(&path)?;
                passed_over += self.read(&map, &mut all, &mut names).at(|| format!("`{}`", path.display()))?;
                all.shards.push((path, map));
            }
        }
        if all.samples.is_empty() {
            let files: Vec<String> = all.shards.iter().map(|(path, _)| format!("`{}`", path.display())).collect();
            return Err(Error::data(format!("{}: no sample has an image", first_of(files.len(), files.into_iter()))));
        }
        let look = Look::new(self.size, self.exif_orientation, self.low_resolution);
        let note =
            (passed_over > 0).then(|| format!("passed over, samples without an image, and links: {passed_over}"));
        Ok(Box::new(Opened::checked(cx, all, names.people, look, self.unreadable)?.noted(note)))
    }
}

fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"))
}

/// The most bytes of a file that is no image: a label, or what is known of a face.
const WORDS: usize = 1 << 20;
/// The blocks of a tar archive.
const BLOCK: usize = 512;

/// A file of a sample: its ending, from the first dot on, and where its bytes are.
struct Member {
    ending: String,
    bytes: Range<usize>,
}

struct Sample {
    shard: usize,
    image: Range<usize>,
    /// Folder and name in the archive, without an ending.
    name: String,
    person: Option<usize>,
    key: String,
    attributes: Vec<Attribute>,
}

struct Shards {
    shards: Vec<(PathBuf, Mapped)>,
    samples: Vec<Sample>,
}

impl WebDataset {
    /// Adds the samples of an archive; how many things in it are none.
    fn read(&self, map: &[u8], all: &mut Shards, names: &mut Names) -> Result<usize> {
        if map.starts_with(b"\x1f\x8b") {
            return Err(Error::data("it is compressed, so that nothing in its middle can be found; `gunzip` it first"));
        }
        let mut archive = tar::Archive::new(Cursor::new(map));
        let (mut passed_over, mut end) = (0, 0);
        let mut open: Option<(String, Vec<Member>)> = None;
        let failed = |e: std::io::Error| Error::data(format!("it is no whole tar archive: {e}"));
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let start = entry.raw_file_position() as usize;
            let path = entry.path().map_err(failed)?.into_owned();
            let kind = entry.header().entry_type();
            let size = usize::try_from(entry.size()).ok().filter(|size| start.checked_add(*size) <= Some(map.len()));
            let size =
                size.ok_or_else(|| Error::data(format!("`{}` at byte {start}: the archive is cut", path.display())))?;
            end = start + size.next_multiple_of(BLOCK);
            if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
                return Err(Error::data(format!(
                    "`{}` at byte {start}: a name that leads out of the archive; it is not read",
                    path.display()
                )));
            }
            if kind.is_gnu_sparse() {
                return Err(Error::data(format!(
                    "`{}` at byte {start}: a sparse file, which is not read",
                    path.display()
                )));
            }
            if !kind.is_file() && !kind.is_contiguous() {
                passed_over += usize::from(!kind.is_dir());
                continue;
            }
            let Some((name, ending)) = parted(&path) else { continue };
            if open.as_ref().is_none_or(|(before, _)| *before != name) {
                if let Some((name, members)) = open.take() {
                    passed_over += usize::from(!self.add(map, name, &members, all, names)?);
                }
                open = Some((name, Vec::new()));
            }
            if let Some((_, members)) = &mut open {
                members.push(Member { ending, bytes: start..start + size });
            }
        }
        if let Some((name, members)) = open.take() {
            passed_over += usize::from(!self.add(map, name, &members, all, names)?);
        }
        match map.get(end..end + BLOCK) {
            Some(block) if block.iter().all(|byte| *byte == 0) => Ok(passed_over),
            _ => {
                Err(Error::data(format!("it is cut: expected an empty block of {BLOCK} bytes at its end, byte {end}")))
            }
        }
    }

    /// Adds a sample, if it has an image.
    fn add(&self, map: &[u8], name: String, members: &[Member], all: &mut Shards, names: &mut Names) -> Result<bool> {
        let is_image = |member: &&Member| match &self.image {
            Some(ending) => member.ending == *ending,
            None => is_image_name(Path::new(&format!("x.{}", member.ending))),
        };
        let images: Vec<&Member> = members.iter().filter(is_image).collect();
        let image = match images.as_slice() {
            [] => return Ok(false),
            [image] => image.bytes.clone(),
            several => {
                let endings: Vec<&str> = several.iter().map(|member| member.ending.as_str()).collect();
                return Err(Error::data(format!("`{name}` has the images {endings:?}; name one ending with `image`")));
            }
        };
        let text = |ending: &str| -> Result<Option<&str>> {
            let Some(member) = members.iter().find(|member| member.ending == ending) else { return Ok(None) };
            let place = || format!("`{name}.{ending}` at byte {}", member.bytes.start);
            if member.bytes.len() > WORDS {
                return Err(
                    Error::data(format!("expected at most {WORDS} bytes, found {}", member.bytes.len())).at(place())
                );
            }
            let text = std::str::from_utf8(&map[member.bytes.clone()]);
            text.map(Some).map_err(|_| Error::data("expected text in UTF-8").at(place()))
        };
        let json = match text("json")? {
            Some(text) => serde_json::from_str(text).map_err(|e| Error::data(format!("`{name}.json`: {e}")))?,
            None => serde_json::Value::Null,
        };
        let field = |field: &str| match json.get(field)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            serde_json::Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        let (folder, stem) = name.rsplit_once('/').unwrap_or(("", &name));
        let person = match self.person.as_str() {
            "none" => None,
            "folder" => Some(folder.rsplit('/').next().unwrap_or_default().to_string()).filter(|name| !name.is_empty()),
            other => match other.strip_prefix("json.") {
                Some(wanted) => field(wanted),
                None => text(other)?.map(|text| text.trim().to_string()),
            },
        };
        if person.is_none() && self.person != "none" {
            return Err(Error::data(format!(
                "`{name}` does not say who it is: there is no `{}`; `person` names another place, or `none`",
                self.person
            )));
        }
        let person = person.map(|name| composed(&name));
        let key = format!("{}/{stem}", person.as_deref().unwrap_or("-"));
        let attributes = self.attributes.iter().filter_map(|name| Some((name.clone(), field(name)?))).collect();
        let (shard, person) = (all.shards.len(), person.map(|name| names.number(&name)));
        all.samples.push(Sample { shard, image, person, key, attributes, name });
        Ok(true)
    }
}

/// The name of a sample, and the ending of its file from the first dot on; none for what systems keep for themselves.
fn parted(path: &Path) -> Option<(String, String)> {
    let parts: Vec<Cow<str>> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part.to_string_lossy()),
            _ => None,
        })
        .collect();
    let (file, folders) = parts.split_last()?;
    let (stem, ending) = file.split_once('.').filter(|(stem, _)| !stem.is_empty())?;
    let name = folders.iter().map(AsRef::as_ref).chain([stem]).collect::<Vec<&str>>().join("/");
    Some((name, ending.to_ascii_lowercase()))
}

impl Encoded for Shards {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.samples[index].person
    }

    fn key(&self, index: usize) -> String {
        self.samples[index].key.clone()
    }

    fn container(&self, index: usize) -> &Path {
        &self.shards[self.samples[index].shard].0
    }

    fn place(&self, index: usize) -> String {
        let sample = &self.samples[index];
        format!("`{}`: `{}` at byte {}", self.shards[sample.shard].0.display(), sample.name, sample.image.start)
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        self.samples[index].attributes.clone()
    }

    fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let sample = &self.samples[index];
        Ok(Cow::Borrowed(&self.shards[sample.shard].1[sample.image.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::plugin::Workbench;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if name.contains("..") {
                // The builder would refuse it.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                builder.append(&header, *bytes).expect("a file");
            } else {
                builder.append_data(&mut header, name, *bytes).expect("a file");
            }
        }
        builder.into_inner().expect("an archive")
    }

    fn png(red: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = image::RgbImage::from_pixel(6, 6, image::Rgb([red, 0, 0]));
        image.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
        bytes.into_inner()
    }

    fn opened(tar: &[u8], options: serde_json::Value) -> Result<Box<dyn Dataset>> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.tar"), tar).expect("a file");
        let mut config = serde_json::json!({ "shards": [folder.path()] });
        config.as_object_mut().expect("a table").extend(options.as_object().expect("a table").clone());
        let config: WebDataset = serde_json::from_value(config).expect("options");
        config.build(&BuildContext::new(&Workbench::new(Device::Cpu)))
    }

    fn refused(tar: &[u8], options: serde_json::Value) -> String {
        opened(tar, options).err().expect("refused").to_string()
    }

    #[test]
    fn samples_are_files_of_one_name() {
        let long = format!("{}/0003.png", "folder-with-a-long-name/".repeat(8).trim_end_matches('/'));
        let tar = archive(&[
            ("0001.png", &png(1)),
            ("0001.cls", b"7\n"),
            ("0001.json", br#"{"session": 2, "who": "Ann"}"#),
            ("0002.cls", b"3"),
            ("0002.png", &png(2)),
            ("notes.txt", b"hello"),
            (&long, &png(3)),
            (&long.replace("png", "cls"), b"7"),
        ]);
        let data = opened(&tar, serde_json::json!({ "attributes": ["session"] })).expect("a dataset");
        assert_eq!((data.len(), data.people()), (3, &["7".to_string(), "3".to_string()][..]));
        assert_eq!((0..3).map(|at| data.key(at)).collect::<Vec<_>>(), ["7/0001", "3/0002", "7/0003"]);
        assert_eq!(data.attributes(0), [("session".to_string(), "2".to_string())]);
        assert_eq!((data.face(2).expect("a face").pixels()[0], data.person(2)), (3, Some(0)));
        assert_eq!(data.notes(), ["passed over, samples without an image, and links: 1"]);
        let nobody = opened(&tar, serde_json::json!({ "person": "none" })).expect("a dataset");
        assert!(nobody.people().is_empty() && nobody.key(1) == "-/0002");
        let said = refused(&tar, serde_json::json!({ "person": "json.who" }));
        assert!(said.contains("`0002` does not say who it is: there is no `json.who`"), "{said}");
        let two = archive(&[("a/1.png", &png(1)), ("a/1.jpg", &png(2))]);
        assert!(refused(&two, serde_json::json!({})).contains("`a/1` has the images [\"png\", \"jpg\"]; name one"));
        let folder = opened(&two, serde_json::json!({ "image": "png", "person": "folder" })).expect("a dataset");
        assert_eq!(folder.key(0), "a/1");
    }

    #[test]
    fn what_leads_out_is_compressed_or_cut_is_refused() {
        let options = || serde_json::json!({ "person": "none" });
        let said = refused(&archive(&[("../up.png", &png(1))]), options());
        assert!(said.contains("`../up.png` at byte 512: a name that leads out of the archive"), "{said}");
        assert!(refused(b"\x1f\x8b\x08", options()).contains("it is compressed"));
        let tar = archive(&[("1.png", &png(1)), ("2.png", &png(2))]);
        for length in (0..tar.len() - 512).step_by(37) {
            assert!(opened(&tar[..length], options()).is_err(), "{length} of {}", tar.len());
        }
        let said = refused(&tar[..2048], options());
        assert!(said.contains("it is cut: expected an empty block of 512 bytes at its end, byte 2048"), "{said}");
        for empty in [vec![0; 2048], archive(&[("1.cls", b"7")])] {
            let said = refused(&empty, options());
            assert!(said.contains("a.tar`: no sample has an image"), "{said}");
        }
        let mut wrong = tar.clone();
        wrong[0] = b'9';
        assert!(refused(&wrong, options()).contains("it is no whole tar archive"), "a checksum that does not fit");
    }
}
