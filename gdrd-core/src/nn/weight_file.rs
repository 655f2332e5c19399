//! Weight files: safetensors, values that no network can have, and what a file may be instead.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Storage, Tensor};

use crate::error::{Context, Error, Result};

/// The first value of a tensor that is no finite float32: its index and what it is; none if all are finite.
///
/// # Errors
/// If the tensor cannot be brought to the CPU.
pub(super) fn not_finite(name: &str, tensor: &Tensor) -> Result<Option<String>> {
    // As many values as are looked at without a branch.
    const BLOCK: usize = 4096;
    if !tensor.dtype().is_float() {
        return Ok(None);
    }
    let flat = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.contiguous()?;
    let (storage, layout) = flat.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return Err(Error::component("a tensor that is on no CPU")) };
    let start = layout.start_offset();
    let values = &storage.as_slice::<f32>()?[start..start + flat.elem_count()];
    let blocks = values.chunks(BLOCK).position(|block| !block.iter().fold(true, |good, x| good & x.is_finite()));
    let first = |from: usize| values[from..].iter().position(|x| !x.is_finite()).map(|at| from + at);
    Ok(blocks.and_then(|block| first(block * BLOCK)).map(|mut at| {
        let value = values[at];
        let mut index = vec![0; tensor.rank()];
        for (place, size) in index.iter_mut().zip(tensor.dims()).rev() {
            (*place, at) = (at % size, at / size);
        }
        format!("`{name}` at {index:?} is {value}")
    }))
}

/// Whether all values of a tensor of floats are finite float32 numbers; tensors of integers are passed over.
///
/// # Errors
/// Names the tensor and the first value that is not finite, with its index.
pub fn check_finite(name: &str, tensor: &Tensor) -> Result<()> {
    match not_finite(name, tensor)? {
        None => Ok(()),
        Some(found) => Err(Error::weights(format!("{found}; expected finite numbers"))),
    }
}

/// Whether a file begins as safetensors files do: with the size of a header, eight bytes, and its first character.
pub fn is_safetensors(start: &[u8]) -> bool {
    start.get(8) == Some(&b'{') && start[5..8] == [0; 3]
}

/// What a file that is not of the expected format is instead, and what to do, from its first bytes (64 or more, where it has
/// them) and its length; none if nobody knows.
pub fn looks_like(start: &[u8], length: u64) -> Option<&'static str> {
    const TAR: usize = 257;
    let text = start.trim_ascii_start();
    Some(match start {
        _ if length == 0 => "the file is empty; was a download or a copy cut short?",
        _ if start.starts_with(b"version https://git-lfs") => {
            "it is a Git LFS pointer, not the file it stands for; `git lfs pull` in its repository fetches that"
        }
        // Before all others, because the size of its header may be any number.
        _ if is_safetensors(start) => "it looks like a safetensors file",
        _ if text.starts_with(b"<") => "it looks like a web page, saved in place of the file",
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "it is a zip archive, as PyTorch and NumPy (`.npz`) write them",
        [0x80, 1..=5, ..] => "it is a pickle of Python",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "it is an array of NumPy (`.npy`)",
        [0x89, b'H', b'D', b'F', ..] => "it is an HDF5 file, as Keras writes them",
        [0xff, 0xd8, 0xff, ..] => "it is a JPEG image",
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "it is a PNG image",
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => "it is a GIF image",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "it is a WebP image",
        [0x1f, 0x8b, ..] => "it is compressed (gzip); unpack it first",
        [b'7', b'z', 0xbc, 0xaf, ..] | [b'R', b'a', b'r', b'!', ..] => "it is a packed archive; unpack it first",
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => "it is a TensorFlow Lite model",
        [0x08, 1..=20, 0x12 | 0x1a | 0x22 | 0x3a, ..] => "it looks like an ONNX model",
        _ if start.get(TAR..TAR + 5) == Some(b"ustar") => "it is a tar archive; unpack it first",
        _ if text.starts_with(b"{") => "it looks like JSON, such as an answer of a server or a configuration",
        _ if start.iter().all(|byte| *byte == 0) => "it begins with nothing but zeros, as an interrupted copy does",
        _ => return None,
    })
}

/// The end of an error about such a file.
pub(crate) fn looks(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(512)];
    let what = match is_cut(bytes) {
        true => Some("was a download or a copy cut short?"),
        false => looks_like(start, bytes.len() as u64).filter(|_| !is_safetensors(start)),
    };
    what.map_or(String::new(), |what| format!("; {what}"))
}

/// Whether a safetensors file ends before it should, as far as its beginning tells.
fn is_cut(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        // As the length of a header begins, which is below 65,536 or 16,777,216.
        return !bytes.is_empty() && bytes.get(3..).unwrap_or_default().iter().all(|byte| *byte == 0);
    };
    if !rest.is_empty() && !is_safetensors(bytes) {
        return false;
    }
    let length = u64::from_le_bytes(*length);
    let Some((header, values)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        return length < 1 << 32;
    };
    let header: serde_json::Value = serde_json::from_slice(header).unwrap_or_default();
    let end = |tensor: &serde_json::Value| tensor.pointer("/data_offsets/1").and_then(serde_json::Value::as_u64);
    let ends = header.as_object().into_iter().flat_map(|tensors| tensors.values()).filter_map(end);
    ends.max().is_some_and(|end| end > values.len() as u64)
}

/// Reads every tensor of a safetensors file onto the CPU, in its own type.
///
/// # Errors
/// If the file cannot be read, is not a complete safetensors file, or has a value that is not finite.
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    parse_safetensors(&bytes).at(|| format!("`{}`", path.display()))
}

/// The same from the bytes of a file.
///
/// # Errors
/// As [`read_safetensors`].
pub fn parse_safetensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| {
        let text = Error::from(e);
        Error::weights(format!("not a complete safetensors file: {text}{}", looks(bytes)))
    })?;
    tensors.iter().try_for_each(|(name, tensor)| check_finite(name, tensor))?;
    Ok(tensors.into_iter().collect())
}

/// What was found in a file, for an error: how many tensors, and the first of them.
pub fn listed(tensors: &BTreeMap<String, Tensor>) -> String {
    listed_names(tensors.len(), tensors.iter().map(|(name, tensor)| format!("`{name}` {:?}", tensor.dims())))
}

/// The same of `count` names.
pub fn listed_names(count: usize, names: impl Iterator<Item = String>) -> String {
    match count {
        0 => "the file has no tensors".into(),
        _ => format!("the file has {count} tensors: {}", first_of(count, names)),
    }
}

/// The first of `count` things, and how many there are more.
pub fn first_of(count: usize, names: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 6;
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if count > SHOWN { format!("{shown} and {} more", count - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_not_finite_are_named_with_their_index() {
        let good = Tensor::ones((2, 3, 4000), DType::F32, &Device::Cpu).expect("ones");
        check_finite("w", &good).expect("finite");
        let mut values = vec![0f32; 24_000];
        (values[23_997], values[23_999]) = (f32::NEG_INFINITY, f32::NAN);
        let bad = Tensor::from_vec(values, (2, 3, 4000), &Device::Cpu).expect("a tensor");
        let text = check_finite("w", &bad).expect_err("infinite").to_string();
        assert_eq!(text, "`w` at [1, 2, 3997] is -inf; expected finite numbers");
        let large = Tensor::new(&[1.0, 1e300], &Device::Cpu).expect("float64");
        assert!(check_finite("w", &large).expect_err("beyond float32").to_string().contains("`w` at [1] is inf"));
        let scalar = Tensor::new(f32::NAN, &Device::Cpu).and_then(|t| t.to_dtype(DType::F16)).expect("float16");
        assert!(check_finite("w", &scalar).expect_err("NaN").to_string().contains("`w` at [] is NaN"));
    }

    #[test]
    fn a_cut_file_is_called_cut_wherever_that_is() {
        let tensor = Tensor::ones((40, 50), DType::F32, &Device::Cpu).expect("ones");
        let whole = safetensors::serialize([("w", &tensor)], None).expect("bytes");
        for length in 1..whole.len() {
            assert_eq!(looks(&whole[..length]), "; was a download or a copy cut short?", "{length} bytes");
        }
        assert_eq!((looks(&whole), looks(b"\xff\xd8\xff\xe0\0\x10JFIF")), ("".into(), "; it is a JPEG image".into()));
        // One that has too much, or whose header is damaged, is another matter.
        assert_eq!((looks(&[&whole[..], b"more"].concat()), looks(b"\x02\0\0\0\0\0\0\0{?")), ("".into(), "".into()));
    }

    #[test]
    fn what_is_no_weight_file_is_named() {
        for (start, expected) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"[..], "Git LFS pointer"),
            (b"\n <!DOCTYPE html>", "a web page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "a web page"),
            (b"{\"error\": \"Repository not found\"}", "JSON"),
            (b"\x93NUMPY\x01\0v\0{'descr'", "NumPy"),
            (b"\x08\x07\x12\x07pytorch", "ONNX"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":", "safetensors"),
            (b"\0\0\0\0\0\0\0\0\0", "zeros"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
            (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        ] {
            let found = looks_like(start, start.len() as u64).expect("known");
            assert!(found.contains(expected), "{found}");
        }
        assert!(looks_like(b"", 0).expect("known").contains("empty"));
        assert_eq!(looks_like(b"\x7fELF\x02\x01\x01\0\0", 900), None);
    }
}
