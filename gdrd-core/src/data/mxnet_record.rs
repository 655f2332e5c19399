//! MXNet's `.rec` and `.idx`, as insightface packs CASIA-WebFace, MS1M and Glint360K.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoded::{Encoded, Look, Opened};
use super::identity_folders::default_exif_orientation;
use super::recordio::{header, index_of, record_at, scanned};
use super::unreadable::Unreadable;
use super::{Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Context, Error, Result};
use crate::files::Mapped;
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// Faces from a `.rec` file, which is read through a memory map. People are called by their labels, `0`, `1` ...; the key of the
/// image of record 17 of person 3 is `3/17`. Where insightface's first record says which records are images, only those are read.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MxnetRecord {
    /// The file of records, `train.rec`.
    pub file: RecipePath,
    /// The file that says where records begin; that of the same name with the ending `.idx` when left out, and where there is none,
    /// the records are found one after the other.
    #[serde(default)]
    pub index: Option<RecipePath>,
    /// Whether labels are people.
    #[serde(default = "default_labels")]
    pub labels: bool,
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

fn default_labels() -> bool {
    true
}

impl Kind for MxnetRecord {
    const NAME: &'static str = "mxnet-record";
    const PURPOSE: &'static str = "faces from MXNet's .rec and .idx, as insightface distributes training sets";
}

impl DatasetConfig for MxnetRecord {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let path = cx.file(&self.file)?.path;
        let beside = RecipePath::from(self.file.as_path().with_extension("idx"));
        let index = match &self.index {
            Some(index) => Some(index.clone()),
            None => path.with_extension("idx").is_file().then_some(beside),
        };
        let index = match index {
            Some(index) => {
                let path = cx.file(&index)?.path;
                let text = crate::files::read(&path).map_err(|e| Error::io(&path, e))?;
                Some(index_of(&text).at(|| format!("`{index}`"))?)
            }
            None => None,
        };
        let look = Look::new(self.size, self.exif_orientation, self.low_resolution);
        let records = Records::new(Mapped::open(&path)?, &path, index, self.labels);
        let (records, people) = records.at(|| format!("`{}`", self.file))?;
        Ok(Box::new(Opened::checked(cx, records, people, look, self.unreadable)?))
    }
}

struct Record {
    /// As `.idx` has it, or how many records come before.
    key: u64,
    start: u64,
    person: Option<usize>,
}

struct Records {
    map: Mapped,
    file: PathBuf,
    records: Vec<Record>,
    labels: Vec<u64>,
}

impl Records {
    fn new(map: Mapped, path: &Path, index: Option<Vec<(u64, u64)>>, with_labels: bool) -> Result<(Self, Vec<String>)> {
        let mut index = match index {
            Some(index) => index,
            None => scanned(&map)?,
        };
        // insightface: record 0 has no image, and its labels say that keys 1 to the first label are images. What follows are
        // records of the range of each person's images.
        if let Some((key, start)) = index.first().copied() {
            let record = record_at(&map, start)?;
            let about = header(&record).at(|| place(key, start))?;
            if about.second.is_some() && about.image == record.len() {
                let end = about.label;
                if !(end >= 1.0 && end <= index.len() as f32 && end.fract() == 0.0) {
                    return Err(Error::data(format!(
                        "{}: it says that the images end before key {end}; expected a whole number up to {}, the number of records",
                        place(key, start),
                        index.len()
                    )));
                }
                let holds_image = |key: u64| -> Result<bool> {
                    let Ok(at) = index.binary_search_by_key(&key, |(key, _)| *key) else { return Ok(false) };
                    let start = index[at].1;
                    let record = record_at(&map, start)?;
                    Ok(header(&record).at(|| place(key, start))?.image < record.len())
                };
                let end = end_of_images(end, holds_image)?;
                if holds_image(end)? {
                    return Err(Error::data(format!(
                        "{}: it says that the images end before key {end}; expected a record without an image there, found one with an \
                         image",
                        place(key, start)
                    )));
                }
                index.retain(|(key, _)| (1..end).contains(key));
                if index.len() as u64 + 1 != end {
                    return Err(Error::data(format!(
                        "{}: it says that there are {} images, found {} of them",
                        place(key, start),
                        end - 1,
                        index.len()
                    )));
                }
            }
        }
        if index.is_empty() {
            return Err(Error::data("it holds no image"));
        }
        let mut numbers = std::collections::BTreeMap::new();
        let mut records = Vec::with_capacity(index.len());
        for (key, start) in index {
            let label = header(&record_at(&map, start)?).at(|| place(key, start))?.label;
            if with_labels && !((0.0..4e9).contains(&label) && label.fract() == 0.0) {
                return Err(Error::data(format!(
                    "{}: expected a label that numbers a person, 0, 1 ..., found {label}; `labels = false` reads the faces of nobody \
                     in particular",
                    place(key, start)
                )));
            }
            let next = numbers.len();
            let person = with_labels.then(|| *numbers.entry(label as u64).or_insert(next));
            records.push(Record { key, start, person });
        }
        let mut labels = vec![0; numbers.len()];
        numbers.into_iter().for_each(|(label, number)| labels[number] = label);
        let people = labels.iter().map(u64::to_string).collect();
        Ok((Self { map, file: path.to_path_buf(), records, labels }, people))
    }
}

/// The key before which images end, where insightface's first record says `said`: a float32, which is exact up to 16,777,216. Beyond,
/// as in Glint360K, keys to which it may have been rounded are images as far as they hold one.
fn end_of_images(said: f32, mut holds_image: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    let slack = (said.next_up() as u64 - said as u64).saturating_sub(1);
    let mut end = said as u64 - slack;
    while end < said as u64 + slack && holds_image(end)? {
        end += 1;
    }
    Ok(end)
}

fn place(key: u64, start: u64) -> String {
    format!("record {key} at byte {start}")
}

impl Encoded for Records {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.records[index].person
    }

    fn key(&self, index: usize) -> String {
        let record = &self.records[index];
        let label = record.person.map_or_else(|| "-".to_string(), |person| self.labels[person].to_string());
        format!("{label}/{}", record.key)
    }

    fn container(&self, _: usize) -> &Path {
        &self.file
    }

    fn place(&self, index: usize) -> String {
        let Record { key, start, .. } = self.records[index];
        format!("`{}`: {}", self.file.display(), place(key, start))
    }

    fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let record = record_at(&self.map, self.records[index].start)?;
        let image = header(&record)?.image;
        Ok(match record {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[image..]),
            Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(image)),
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::recordio::MAGIC;
    use super::*;
    use crate::plugin::Workbench;

    fn png(red: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::from_pixel(6, 6, image::Rgb([red, 0, 0]));
        image.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
        bytes.into_inner()
    }

    fn part(kind: u32, bytes: &[u8]) -> Vec<u8> {
        let mut part = [MAGIC.to_le_bytes(), (kind << 29 | bytes.len() as u32).to_le_bytes()].concat();
        part.extend(bytes);
        part.resize(part.len().next_multiple_of(4), 0);
        part
    }

    fn record(labels: &[f32], image: &[u8]) -> Vec<u8> {
        let flag = if labels.len() == 1 { 0 } else { labels.len() as u32 };
        let mut bytes = flag.to_le_bytes().to_vec();
        bytes.extend(if flag == 0 { labels[0] } else { 0.0 }.to_le_bytes());
        bytes.extend([0; 16]);
        if flag > 0 {
            labels.iter().for_each(|label| bytes.extend(label.to_le_bytes()));
        }
        bytes.extend(image);
        bytes
    }

    fn opened(rec: &[u8], idx: Option<&str>, change: impl Fn(&mut MxnetRecord)) -> Result<Box<dyn Dataset>> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("train.rec");
        std::fs::write(&file, rec).expect("a file");
        if let Some(idx) = idx {
            std::fs::write(folder.path().join("train.idx"), idx).expect("a file");
        }
        let mut config: MxnetRecord = serde_json::from_value(serde_json::json!({ "file": file })).expect("options");
        change(&mut config);
        config.build(&BuildContext::new(&Workbench::new(Device::Cpu)))
    }

    fn refused(rec: &[u8], idx: Option<&str>) -> String {
        opened(rec, idx, |_| ()).err().expect("refused").to_string()
    }

    #[test]
    fn records_are_found_with_and_without_their_index() {
        // insightface's first record, three images of two people, one in parts, and a record of a person's range.
        let three = record(&[7.0], &png(30));
        let parts = [part(1, &three[..40]), part(2, b""), part(3, &three[40..])].concat();
        let joined = [&three[..40], &MAGIC.to_le_bytes(), &MAGIC.to_le_bytes(), &three[40..]].concat();
        assert_eq!(record_at(&parts, 0).expect("a record"), joined);
        let all = [
            part(0, &record(&[4.0, 6.0], b"")),
            part(0, &record(&[7.0], &png(10))),
            part(0, &record(&[2.0, 0.0], &png(20))),
            part(0, &three),
            part(0, &record(&[1.0, 3.0], b"")),
        ];
        let mut idx = String::new();
        let mut at = 0;
        for (key, record) in all.iter().enumerate() {
            idx = format!("{key}\t{at}\n{idx}");
            at += record.len();
        }
        for idx in [Some(idx.as_str()), None] {
            let data = opened(&all.concat(), idx, |_| ()).expect("a dataset");
            assert_eq!(data.people(), ["7", "2"]);
            assert_eq!((0..data.len()).map(|at| data.key(at)).collect::<Vec<_>>(), ["7/1", "2/2", "7/3"]);
            assert_eq!((0..3).map(|at| data.person(at)).collect::<Vec<_>>(), [Some(0), Some(1), Some(0)]);
            assert_eq!(data.face(2).expect("a face").pixels()[0], 30);
        }
        let nobody = opened(&all.concat(), None, |config| config.labels = false).expect("a dataset");
        assert!(nobody.people().is_empty() && nobody.key(0) == "-/1");
    }

    #[test]
    fn more_images_than_a_float32_counts_end_where_records_hold_none() {
        let never = |_| -> Result<bool> { panic!("the number says it") };
        assert_eq!(end_of_images(5.0, never).expect("an end"), 5);
        assert_eq!(end_of_images(16_777_215.0, never).expect("an end"), 16_777_215);
        // Of the size of Glint360K: only every second number is a float32.
        for end in 17_091_655..=17_091_661u64 {
            assert_eq!(end_of_images(end as f32, |key| Ok(key < end)).expect("an end"), end);
        }
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_refused() {
        let rec = [part(0, &record(&[0.0], &png(1))), part(0, &record(&[1.0], &png(2)))].concat();
        let whole = part(0, &record(&[0.0], &png(1))).len();
        for length in (0..rec.len()).filter(|length| *length != whole) {
            assert!(
                opened(&rec[..length], None, |_| ()).is_err() || rec.len() - length < 4,
                "{length} of {}",
                rec.len()
            );
        }
        let said = refused(&rec[..rec.len() - 9], None);
        assert!(said.contains("the record at byte 1") && said.contains("is cut"), "{said}");
        let said = refused(&rec, Some("0\t0\n1\t4\n"));
        assert!(said.contains("expected a record at byte 4, which begins with 0xced7230a, found 0x"), "{said}");
        assert!(refused(&rec, Some("0\t0\n1\t99999\n")).contains("the record at byte 99999 is cut"));
        assert!(refused(&rec, Some("0 0\n")).contains("line 1: expected a key, a tab and a byte, found `0 0`"));
        assert!(refused(&rec, Some("0\t0\n0\t8\n")).contains("two records have the key 0"));
    }

    #[test]
    fn wrong_lengths_parts_and_labels_are_named() {
        assert!(refused(&part(3, b"x"), None).contains("expected a part of kind 0 or 1 at byte 0, found 3"));
        let twice = [part(1, b"x"), part(1, b"x")].concat();
        assert!(refused(&twice, None).contains("expected a part of kind 2 or 3 at byte 12, found 1"));
        let said = refused(&part(0, &[255, 255, 255, 255, 0, 0]), None);
        assert!(
            said.contains("record 0 at byte 0: expected a header of 24 bytes and its labels, found 6 bytes"),
            "{said}"
        );
        let said = refused(&part(0, &record(&[0.5], &png(1))), None);
        assert!(said.contains("expected a label that numbers a person, 0, 1 ..., found 0.5"), "{said}");
        let many = [part(0, &record(&[2.0, 2.0], b"")), part(0, &record(&[0.0], &png(1)))].concat();
        assert_eq!(opened(&many, None, |_| ()).expect("one image").len(), 1);
        let wrong = [part(0, &record(&[9.0, 2.0], b"")), part(0, &record(&[0.0], &png(1)))].concat();
        assert!(refused(&wrong, None).contains("the images end before key 9"));
        let images = [1, 2, 3].map(|red| part(0, &record(&[0.0], &png(red))));
        let few = [part(0, &record(&[3.0, 4.0], b"")), images.concat(), part(0, &record(&[1.0, 3.0], b""))].concat();
        let said = refused(&few, None);
        assert!(
            said.contains("record 0 at byte 0: it says that the images end before key 3; expected a record"),
            "{said}"
        );
        assert!(refused(b"", None).contains("it holds no image"));
    }

    #[test]
    fn images_that_cannot_be_read_are_all_named_or_left_out() {
        let good = part(0, &record(&[3.0], &png(1)));
        let rec = [part(0, &record(&[0.0], b"")), good, part(0, &record(&[0.0], &png(2)[..40]))].concat();
        let said = refused(&rec, None);
        assert!(said.contains("2 of 3 images cannot be read; `unreadable = \"skip\"` leaves them out"), "{said}");
        assert!(said.contains("record 0 at byte 0: not a readable image: it is empty"), "{said}");
        assert!(said.contains("record 2 at byte ") && said.contains("it is truncated, after 40 bytes"), "{said}");
        let data = opened(&rec, None, |config| config.unreadable = Unreadable::Skip).expect("one image");
        assert_eq!((data.len(), data.people(), data.person(0)), (1, &["3".to_string()][..], Some(0)));
        assert!(data.notes()[0].starts_with("left out, images that cannot be read: 2:\n"), "{}", data.notes()[0]);
    }
}
