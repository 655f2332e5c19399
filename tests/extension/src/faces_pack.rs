//! A dataset: one file with a text header and images behind it.

use gdrd_core::context::BuildContext;
use gdrd_core::data::{Attribute, Dataset, DatasetConfig, Decoding, decode};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::face::{Face, Kernel};
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Faces from one file: the line `faces.pack N`, then N lines `BYTES PERSON IMAGE SESSION`, then the bytes of N images (JPEG or
/// PNG), one after another. The person `-` is somebody whom nobody knows.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FacesPack {
    /// The file.
    file: RecipePath,
    /// Height and width of the faces, in pixels; their own when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 1024))]
    size: Option<usize>,
}

impl Kind for FacesPack {
    const NAME: &'static str = "faces-pack";
    const PURPOSE: &'static str = "faces from one file with a text header";
}

impl DatasetConfig for FacesPack {
    /// What is read through `cx` is part of what the dataset is: with another file, stored features are made anew.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let path = cx.file(&self.file)?.path;
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Box::new(Opened::new(bytes, self.size).at(|| format!("`{}`", self.file))?))
    }
}

/// A face that is written into a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// A JPEG or PNG.
    pub image: Vec<u8>,
    /// Who it is, if somebody knows; without spaces.
    pub person: Option<String>,
    /// What the image is called; without spaces.
    pub name: String,
    /// The session in which it was taken; without spaces.
    pub session: String,
}

/// The bytes of a file with these faces.
pub fn to_bytes(faces: &[Entry]) -> Vec<u8> {
    let mut bytes = format!("faces.pack {}\n", faces.len()).into_bytes();
    for Entry { image, person, name, session } in faces {
        let line = format!("{} {} {name} {session}\n", image.len(), person.as_deref().unwrap_or("-"));
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes.extend(faces.iter().flat_map(|face| &face.image));
    bytes
}

struct Sample {
    image: std::ops::Range<usize>,
    person: Option<usize>,
    key: String,
    session: String,
}

struct Opened {
    bytes: Vec<u8>,
    people: Vec<String>,
    samples: Vec<Sample>,
    size: Option<usize>,
}

impl Opened {
    fn new(bytes: Vec<u8>, size: Option<usize>) -> Result<Self> {
        let mut at = 0;
        let first = line(&bytes, &mut at)?;
        let count = first.strip_prefix("faces.pack ").and_then(|count| count.parse::<usize>().ok());
        let count = count.ok_or_else(|| Error::data(format!("line 1: expected `faces.pack N`, found `{first}`")))?;
        let (mut people, mut samples, mut end) = (Vec::new(), Vec::new(), 0usize);
        for number in 0..count {
            let text = line(&bytes, &mut at)?;
            let wrong =
                || Error::data(format!("line {}: expected `BYTES PERSON IMAGE SESSION`, found `{text}`", number + 2));
            let [length, person, name, session] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
            let start = end;
            end = length.parse::<usize>().ok().and_then(|length| start.checked_add(length)).ok_or_else(wrong)?;
            let known = (person != "-").then(|| {
                people.iter().position(|other| other == person).unwrap_or_else(|| {
                    people.push(person.to_string());
                    people.len() - 1
                })
            });
            let (key, session) = (format!("{person}/{name}"), session.to_string());
            samples.push(Sample { image: start..end, person: known, key, session });
        }
        if bytes.len() - at != end {
            return Err(Error::data(format!("expected {end} bytes of images, found {}", bytes.len() - at)));
        }
        for sample in &mut samples {
            sample.image = sample.image.start + at..sample.image.end + at;
        }
        Ok(Self { bytes, people, samples, size })
    }
}

/// The line that begins at `at`, which goes on to the next one.
fn line(bytes: &[u8], at: &mut usize) -> Result<String> {
    let rest = &bytes[*at..];
    let length = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| Error::data("the header has no end"))?;
    *at += length + 1;
    String::from_utf8(rest[..length].to_vec()).map_err(|_| Error::data("the header is not text"))
}

impl Dataset for Opened {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.samples[index].person
    }

    fn key(&self, index: usize) -> String {
        self.samples[index].key.clone()
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        vec![("session".into(), self.samples[index].session.clone())]
    }

    fn face(&self, index: usize) -> Result<Face> {
        let face = decode(&self.bytes[self.samples[index].image.clone()], Decoding::default())?.centre_square();
        match self.size {
            Some(size) => face.resized(size, Kernel::Bicubic, true),
            None => Ok(face),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use gdrd_core::plugin::Workbench;

    use super::*;

    fn entry(person: Option<&str>, red: u8) -> Entry {
        let mut image = std::io::Cursor::new(Vec::new());
        let pixels = image::RgbImage::from_pixel(10, 8, image::Rgb([red, 0, 0]));
        pixels.write_to(&mut image, image::ImageFormat::Png).expect("a PNG");
        let (person, name) = (person.map(String::from), format!("{red}"));
        Entry { image: image.into_inner(), person, name, session: "indoors".into() }
    }

    fn opened(bytes: &[u8]) -> Result<Box<dyn Dataset>> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("faces.pack");
        std::fs::write(&file, bytes).expect("a file");
        let config = FacesPack { file: RecipePath::from(file.as_path()), size: Some(8) };
        let bench = Workbench::new(Device::Cpu);
        let cx = BuildContext::new(&bench);
        let dataset = config.build(&cx)?;
        assert_eq!(cx.record().files.len(), 1, "what was read is recorded");
        Ok(dataset)
    }

    #[test]
    fn what_is_written_is_read() {
        let faces = [entry(Some("Ann"), 10), entry(None, 20), entry(Some("Bob"), 30), entry(Some("Ann"), 40)];
        let dataset = opened(&to_bytes(&faces)).expect("a dataset");
        assert_eq!(dataset.people(), ["Ann", "Bob"]);
        let people: Vec<Option<usize>> = (0..4).map(|index| dataset.person(index)).collect();
        assert_eq!(people, [Some(0), None, Some(1), Some(0)]);
        assert_eq!((dataset.key(1), dataset.key(3)), ("-/20".into(), "Ann/40".into()));
        assert_eq!(dataset.attributes(0), [("session".to_string(), "indoors".to_string())]);
        let face = dataset.face(2).expect("a face");
        assert_eq!((face.width(), face.height(), face.pixels()[0]), (8, 8, 30));
    }

    #[test]
    fn what_is_cut_or_no_such_file_is_refused() {
        let bytes = to_bytes(&[entry(Some("Ann"), 10), entry(None, 20)]);
        for length in 0..bytes.len() {
            assert!(opened(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        let error = |bytes: &[u8]| opened(bytes).err().expect("no such file").to_string();
        assert!(error(b"PNG\n").ends_with("line 1: expected `faces.pack N`, found `PNG`"));
        assert!(
            error(b"faces.pack 1\n7 Ann\n").ends_with("line 2: expected `BYTES PERSON IMAGE SESSION`, found `7 Ann`")
        );
    }
}
