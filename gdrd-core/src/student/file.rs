//! The student file: one safetensors file that says of itself what it is and how faces must be prepared for it.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::facts::{QualityModel, StudentFacts};
use super::thresholds::Calibration;
use super::{Student, StudentCard, StudentKinds, build};
use crate::context::Bare;
use crate::degrade::Downscale;
use crate::digest;
use crate::error::{Error, Result};
use crate::nn::weight_file::looks;
use crate::nn::{Alignment, Preprocessing, Weights};

/// What a student file says of itself, as JSON under the metadata key `gdrd`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentHeader {
    /// Version of this header.
    pub format: u32,
    /// The kind of network.
    pub kind: String,
    /// The network's options, every default written out.
    pub options: serde_json::Value,
    /// Its sizes.
    pub card: StudentCard,
    /// How an aligned face becomes the network's input: RGB, values divided by 255.
    pub prepare: Downscale,
    /// Digest of the recipe that made it.
    pub recipe: String,
    /// Digests of the teachers that it learned from, by their names in the recipe.
    pub teachers: BTreeMap<String, String>,
    /// Address, licence and terms of the teachers that came from the Hugging Face Hub, by their names in the recipe.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub licences: BTreeMap<String, String>,
    /// What it says beside its network; nothing in files of the first format.
    #[serde(default)]
    pub facts: StudentFacts,
}

/// The header version that this gdrd writes; it reads all from the first to this.
pub const STUDENT_FORMAT: u32 = 2;
const KEY: &str = "gdrd";
/// Beside the header's own fields: the checksum of the rest of the header and of all tensors.
const SEAL: &str = "sha256";

impl StudentHeader {
    /// The bytes of a student file, with a checksum in them. Equal headers and tensors give equal bytes.
    ///
    /// # Errors
    /// If a tensor cannot be read from its device.
    pub fn to_bytes(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
        let failed = |e: &dyn std::fmt::Display| Error::weights(e.to_string());
        let mut header = serde_json::to_value(self).map_err(|e| failed(&e))?;
        let plain = safetensors::serialize(tensors.iter(), None).map_err(|e| failed(&e))?;
        let seal = seal(&header, &SafeTensors::deserialize(&plain).map_err(|e| failed(&e))?);
        header[SEAL] = seal.into();
        // One key only: a second one would make the order of the header's bytes a matter of chance.
        let metadata = HashMap::from([(KEY.to_string(), header.to_string())]);
        safetensors::serialize(tensors.iter(), Some(metadata)).map_err(|e| failed(&e))
    }

    /// The header and the tensors of a student file, on the CPU, float32.
    ///
    /// # Errors
    /// If the bytes are no complete safetensors file, have no header of ours, one of a later version or one that contradicts
    /// itself, were altered since they were written (files of the first format may have no checksum that could say so), or hold
    /// tensors of integers. [`Weights::read`](crate::nn::Weights::read) looks at shapes and values.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, BTreeMap<String, Tensor>)> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)
            .map_err(|e| Error::weights(format!("not a complete safetensors file: {e}{}", looks(bytes))))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| {
            Error::weights("a safetensors file, but not a student of gdrd: its metadata has no key `gdrd`")
        })?;
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        match format {
            Some(format) if (1..=u64::from(STUDENT_FORMAT)).contains(&format) => {}
            Some(format) if format > u64::from(STUDENT_FORMAT) => {
                return Err(Error::weights(format!(
                    "the student's file has format {format}, which a later gdrd wrote; this one reads 1 to {STUDENT_FORMAT}: \
                     update it"
                )));
            }
            _ => {
                let found = value.get("format").map_or("none".into(), ToString::to_string);
                return Err(Error::weights(format!(
                    "the student's header has format {found}, expected 1 to {STUDENT_FORMAT}"
                )));
            }
        }
        let header: Self =
            serde_json::from_str(text).map_err(|e| Error::weights(format!("the student's header: {e}")))?;
        match value.as_object_mut().and_then(|fields| fields.shift_remove(SEAL)) {
            Some(expected) => {
                let file = SafeTensors::deserialize(bytes).map_err(|e| Error::weights(e.to_string()))?;
                if expected != seal(&value, &file).as_str() {
                    return Err(Error::weights("the student file was altered or is damaged: its checksum is another"));
                }
            }
            None if header.format > 1 => {
                return Err(Error::weights("the student file was altered: it has no checksum"));
            }
            None => {}
        }
        if header.format == 1 && header.facts != StudentFacts::default() {
            return Err(Error::weights(
                "the student file was altered: it says format 1, and has `facts`, which only later formats have",
            ));
        }
        header.agrees()?;
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map_err(|e| Error::weights(format!("not a complete safetensors file: {}", Error::from(e))))?;
        let single = |(name, tensor): (String, Tensor)| match tensor.dtype() {
            dtype if dtype.is_float() => Ok((name, tensor.to_dtype(DType::F32)?)),
            dtype => Err(Error::weights(format!("`{name}`: expected floats, found {dtype:?}"))),
        };
        Ok((header, tensors.into_iter().map(single).collect::<Result<_>>()?))
    }

    /// Whether the header can be one that gdrd wrote.
    fn agrees(&self) -> Result<()> {
        let StudentCard { input_size, map, embedding } = &self.card;
        let mut wrong: Vec<String> =
            self.prepare.check().into_iter().map(|p| format!("`prepare.{}`: {}", p.key, p.message)).collect();
        if *input_size != self.prepare.size {
            let size = self.prepare.size;
            wrong.push(format!("faces are prepared at {size} pixels for an input of {input_size}"));
        }
        if map.contains(&0) || *embedding == Some(0) {
            wrong.push(sizes(&self.card));
        }
        for (name, view) in &self.facts.views {
            // What states all of a reduction is one; other kinds of views may mean something else by `size`.
            let reduction = ["kernel", "antialias"].iter().all(|key| view.get(key).is_some());
            if let Some(size) = view.get("size").filter(|size| reduction && size.as_u64() != Some(*input_size as u64)) {
                wrong.push(format!("`facts.views.{name}` has {size} pixels, expected the input's {input_size}"));
            }
        }
        wrong.extend(self.facts.calibration.as_ref().and_then(Calibration::wrong));
        wrong.extend(self.facts.quality.as_ref().and_then(QualityModel::wrong));
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::weights(format!("the student's header contradicts itself: {}", wrong.join("; ")))),
        }
    }
}

/// The checksum that a student file states, else the sha256 of its bytes: what tells it from every other student.
///
/// # Errors
/// If it is no safetensors file.
pub fn student_digest(bytes: &[u8]) -> Result<String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| Error::weights(e.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).map_or("", String::as_str);
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let stated = value.get(SEAL).and_then(serde_json::Value::as_str).map(str::to_string);
    Ok(stated.unwrap_or_else(|| digest::hex(&digest::of_bytes(bytes))))
}

/// Sha256 of a header without its checksum, and of every tensor: name, type, shape and bytes.
fn seal(header: &serde_json::Value, tensors: &SafeTensors) -> String {
    let mut all = tensors.tensors();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let of = |(name, view): &(String, TensorView)| {
        let bytes = digest::hex(&digest::of_bytes(view.data()));
        format!("{name} {:?} {:?} {bytes}", view.dtype(), view.shape())
    };
    let tensors: Vec<String> = all.iter().map(of).collect();
    digest::of_value(&(header, tensors))
}

/// The sizes of a card in words.
fn sizes(card: &StudentCard) -> String {
    let embedding =
        card.embedding.map_or("no embedding".to_string(), |width| format!("an embedding of {width} values"));
    format!("an input of {} pixels, a map of {:?} and {embedding}", card.input_size, card.map)
}

/// Refuses a file that states another input than its network has. The template alone may be said more closely than the network
/// knows it: what gdrd trained sees faces as they come, which are those of its teachers.
fn agree(stated: &Preprocessing, found: &Preprocessing) -> Result<()> {
    let alignment = if found.alignment == Alignment::Data { stated.alignment } else { found.alignment };
    let expected = Preprocessing { alignment, ..*found };
    match *stated == expected {
        true => Ok(()),
        false => {
            let text = |input: &Preprocessing| serde_json::to_string(input).unwrap_or_else(|_| format!("{input:?}"));
            let (stated, expected) = (text(stated), text(&expected));
            Err(Error::weights(format!(
                "the student's header contradicts its network: `facts.input` says {stated}; the network's own input is {expected}"
            )))
        }
    }
}

/// A trained student.
pub struct StudentFile {
    /// What the file says of itself.
    pub header: StudentHeader,
    /// The network.
    pub student: Box<dyn Student>,
    /// Its tensors.
    pub tensors: BTreeMap<String, Tensor>,
}

impl StudentFile {
    /// A student from the bytes of its file, on `device`, if its kind is among `kinds`.
    ///
    /// # Errors
    /// If the bytes are no complete student file, its kind is not known, or its tensors or sizes contradict its options.
    pub fn open(bytes: &[u8], device: &Device, kinds: &dyn StudentKinds) -> Result<Self> {
        let (header, tensors) = StudentHeader::from_bytes(bytes)?;
        let config = kinds.config(&header.kind, &header.options)?;
        if let Some(problem) = config.check().into_iter().next() {
            return Err(Error::weights(format!("the file's option `{}`: {}", problem.key, problem.message)));
        }
        let (size, host) = (header.card.input_size, Bare(device.clone()));
        let student =
            Weights::read(tensors.clone(), device, |_| false, |weights| build(&*config, size, weights, &host))?;
        if *student.card() != header.card {
            return Err(Error::weights(format!(
                "the file declares {}; its options make {}",
                sizes(&header.card),
                sizes(student.card())
            )));
        }
        if let Some((stated, found)) = header.facts.input.zip(student.input()) {
            agree(&stated, &found)?;
        }
        Ok(Self { header, student, tensors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> StudentHeader {
        StudentHeader {
            format: STUDENT_FORMAT,
            kind: "resnet-trunk".into(),
            options: serde_json::json!({"channels": [8, 16]}),
            card: StudentCard { input_size: 16, map: [16, 8, 8], embedding: Some(4) },
            prepare: Downscale::default(),
            recipe: "abc".into(),
            teachers: BTreeMap::from([("t".into(), "d".into())]),
            licences: BTreeMap::from([("t".into(), "MIT".into())]),
            facts: StudentFacts::default(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_bytes_repeat() {
        let tensors = BTreeMap::from([
            ("head.b".to_string(), Tensor::new(&[1f32, 2.0], &Device::Cpu).expect("tensor")),
            ("backbone.a".to_string(), Tensor::new(&[3f32], &Device::Cpu).expect("tensor")),
        ]);
        let bytes = header().to_bytes(&tensors).expect("bytes");
        assert_eq!(bytes, header().to_bytes(&tensors).expect("bytes"));
        let (read, found) = StudentHeader::from_bytes(&bytes).expect("read");
        assert_eq!(read, header());
        assert_eq!(found["head.b"].to_vec1::<f32>().expect("values"), [1.0, 2.0]);
    }

    #[test]
    fn an_altered_file_is_refused_and_one_without_a_checksum_is_read() {
        let tensors =
            BTreeMap::from([("head.b".to_string(), Tensor::new(&[1f32, 2.0], &Device::Cpu).expect("a tensor"))]);
        let bytes = header().to_bytes(&tensors).expect("bytes");
        let refused = |bytes: &[u8]| StudentHeader::from_bytes(bytes).expect_err("altered").to_string();
        for at in bytes.len() - 8..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(refused(&altered).contains("altered or is damaged: its checksum"), "{}", refused(&altered));
        }
        // Behind the eight bytes that say how long the header is.
        let text = std::str::from_utf8(&bytes[8..bytes.len() - 8]).expect("JSON");
        let with =
            |from: &str, to: &str| [&bytes[..8], text.replace(from, to).as_bytes(), &bytes[bytes.len() - 8..]].concat();
        assert!(refused(&with("antialias\\\":true", "antialias\\\":null")).contains("header"));
        for (from, to) in [("\\\"recipe\\\":\\\"abc", "\\\"recipe\\\":\\\"abd"), ("head.b", "head.c")] {
            assert!(text.contains(from), "{text}");
            assert!(refused(&with(from, to)).contains("its checksum is another"), "{from}");
        }
        let unsealed = |format| {
            let header = serde_json::to_string(&StudentHeader { format, ..header() }).expect("JSON");
            let metadata = HashMap::from([(KEY.to_string(), header)]);
            safetensors::serialize(tensors.iter(), Some(metadata)).expect("bytes")
        };
        StudentHeader::from_bytes(&unsealed(1)).expect("a file of before the checksum");
        assert!(refused(&unsealed(2)).contains("altered: it has no checksum"));
        // A later file that says that it is of the first format has lost its checksum too.
        let input = Some(Preprocessing::default());
        let facts = StudentFacts { input, ..StudentFacts::default() };
        let turned = serde_json::to_string(&StudentHeader { format: 1, facts, ..header() }).expect("JSON");
        let turned = safetensors::serialize(tensors.iter(), Some(HashMap::from([(KEY.to_string(), turned)])));
        assert!(refused(&turned.expect("bytes")).contains("it says format 1, and has `facts`"));
    }

    #[test]
    fn foreign_cut_and_newer_files_are_refused() {
        let foreign = safetensors::serialize(BTreeMap::<String, Tensor>::new(), None).expect("bytes");
        let text = StudentHeader::from_bytes(&foreign).expect_err("foreign").to_string();
        assert!(text.contains("no key `gdrd`"), "{text}");
        let newer = StudentHeader { format: 9, ..header() };
        let bytes = newer.to_bytes(&BTreeMap::new()).expect("bytes");
        let text = StudentHeader::from_bytes(&bytes).expect_err("newer").to_string();
        assert!(text.contains("format 9, which a later gdrd wrote; this one reads 1 to 2"), "{text}");
        let bytes = header().to_bytes(&BTreeMap::new()).expect("bytes");
        for length in 0..bytes.len() {
            let text = StudentHeader::from_bytes(&bytes[..length]).expect_err("cut").to_string();
            assert!(text.contains("not a complete safetensors file"), "{length} bytes: {text}");
        }
    }

    #[test]
    fn an_input_that_is_not_the_networks_is_refused() {
        let own = Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() };
        let bgr = Preprocessing { colour: crate::nn::Colour::Bgr, ..own };
        let text = agree(&bgr, &own).expect_err("another order").to_string();
        assert!(text.contains(r#"says {"colour":"bgr""#) && text.contains(r#"own input is {"colour":"rgb""#), "{text}");
        assert!(agree(&Preprocessing { mean: [0.0; 3], ..own }, &own).is_err());
        assert!(agree(&Preprocessing { std: [1.0; 3], ..own }, &own).is_err());
        // The template of the faces that it saw is more than the network knows; its own is another matter.
        let aligned = Preprocessing::default();
        assert!(agree(&aligned, &own).is_ok() && agree(&own, &own).is_ok() && agree(&own, &aligned).is_err());
    }

    #[test]
    fn headers_that_contradict_themselves_and_integers_are_refused() {
        let refused = |change: &dyn Fn(&mut StudentHeader), expected: &str| {
            let mut header = header();
            change(&mut header);
            let bytes = header.to_bytes(&BTreeMap::new()).expect("bytes");
            let text = StudentHeader::from_bytes(&bytes).expect_err("contradicts itself").to_string();
            assert!(text.contains(expected), "{text}");
        };
        refused(&|header| header.prepare.size = 0, "`prepare.size`: expected 4 to 512 pixels, found 0");
        refused(&|header| header.card.input_size = 24, "faces are prepared at 16 pixels for an input of 24");
        refused(&|header| header.card.map[0] = 0, "a map of [0, 8, 8]");
        refused(&|header| header.card.embedding = Some(0), "an embedding of 0 values");
        let view = |header: &mut StudentHeader, options| drop(header.facts.views.insert("low".into(), options));
        let low = |size| serde_json::json!({"kind": "downscale", "size": size, "kernel": "bicubic", "antialias": true});
        refused(&|header| view(header, low(32)), "`facts.views.low` has 32 pixels, expected the input's 16");
        for good in [low(16), serde_json::json!({"kind": "as-is"}), serde_json::json!({"kind": "grain", "size": 3})] {
            let mut header = header();
            view(&mut header, good);
            StudentHeader::from_bytes(&header.to_bytes(&BTreeMap::new()).expect("bytes")).expect("a good view");
        }
        let integers = BTreeMap::from([("a".to_string(), Tensor::new(&[3u32], &Device::Cpu).expect("a tensor"))]);
        let text = StudentHeader::from_bytes(&header().to_bytes(&integers).expect("bytes")).expect_err("integers");
        assert!(text.to_string().contains("`a`: expected floats, found U32"), "{text}");
    }
}
