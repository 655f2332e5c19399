//! The safetensors format: a header in JSON, then the tensors' bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use candle_core::{DType, Device, Tensor};
use gdrd_core::error::{Context, Error, Result};

use super::Choice;

/// The wanted tensors of a file of `length` bytes.
pub(super) fn read(mut file: File, length: u64, choice: &Choice) -> Result<BTreeMap<String, Tensor>> {
    let incomplete = |e: &dyn std::fmt::Display| Error::weights(format!("not a complete safetensors file: {e}"));
    let mut size = [0; 8];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut size)).map_err(|e| incomplete(&e))?;
    let data = u64::from_le_bytes(size).saturating_add(8);
    if data > length {
        return Err(incomplete(&format!("the header ends at byte {data}, the file has {length}")));
    }
    let mut header = vec![0; (data - 8) as usize];
    file.read_exact(&mut header).map_err(|e| incomplete(&e))?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| incomplete(&e))?;
    let expected = data + header.data_len() as u64;
    if expected != length {
        return Err(incomplete(&format!("its header asks for {expected} bytes, the file has {length}")));
    }
    let mut all = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let dtype = dtype(info.dtype).at(|| format!("`{name}`"))?;
        all.push((name, info.clone(), dtype));
    }
    let chosen = choice.of(all, |(name, info, dtype)| (name, &info.shape, dtype.is_some()))?;
    let mut tensors = BTreeMap::new();
    for (plain, (_, info, dtype)) in chosen {
        let Some(dtype) = dtype else { continue };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        file.seek(SeekFrom::Start(data + start as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| Error::weights(e.to_string()))?;
        tensors.insert(plain, Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu)?);
    }
    Ok(tensors)
}

/// The type of a tensor of floats; none for integers.
fn dtype(found: Dtype) -> Result<Option<DType>> {
    use Dtype::{BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    match found {
        F16 => Ok(Some(DType::F16)),
        BF16 => Ok(Some(DType::BF16)),
        F32 => Ok(Some(DType::F32)),
        F64 => Ok(Some(DType::F64)),
        BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 => Ok(None),
        other => Err(Error::weights(format!("expected float16, bfloat16, float32 or float64, found {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn written(tensors: &[(&str, Tensor)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("w.safetensors");
        let bytes = ::safetensors::serialize(tensors.iter().map(|(name, t)| (*name, t)), None).expect("bytes");
        std::fs::write(&path, bytes).expect("written");
        (folder, path)
    }

    fn ones(dtype: DType) -> Tensor {
        Tensor::ones((2, 3), dtype, &Device::Cpu).expect("ones")
    }

    #[test]
    fn floats_are_read_and_integers_passed_over() {
        let all = [
            ("model.net.half", ones(DType::F16)),
            ("model.net.brain", ones(DType::BF16)),
            ("model.net.single", ones(DType::F32)),
            ("model.net.double", ones(DType::F64)),
            ("model.net.bn.num_batches_tracked", ones(DType::I64)),
        ];
        let (_folder, path) = written(&all);
        let found = read(&path, None, &[], |name| name != "single").expect("tensors");
        let types: Vec<(&str, DType)> = found.iter().map(|(name, t)| (name.as_str(), t.dtype())).collect();
        assert_eq!(types, [("brain", DType::BF16), ("double", DType::F64), ("half", DType::F16)]);
        assert!(found.values().all(|t| t.dims() == [2, 3]));
        let sum = |t: &Tensor| t.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>();
        assert!(found.values().all(|t| sum(t).expect("a sum") == 6.0));
    }

    #[test]
    fn two_tensors_of_one_plain_name_are_refused() {
        let (_folder, path) = written(&[("module.a", ones(DType::F32)), ("net.a", ones(DType::F32))]);
        let text = read(&path, None, &[], |_| true).expect_err("ambiguous").to_string();
        assert!(text.contains("`module.a`") && text.contains("`net.a`") && text.contains("both `a`"), "{text}");
        assert!(text.contains("Name it with `key`"), "{text}");
        let named = read(&path, Some("net"), &[], |_| true).expect("one of them");
        assert_eq!(named.keys().collect::<Vec<_>>(), ["a"]);
        let text = read(&path, Some("ema"), &[], |_| true).expect_err("none").to_string();
        let expected = "no tensor's name begins with `ema.`; the file has 2 tensors: `module.a` [2, 3], `net.a` [2, 3]";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_file_that_was_cut_says_how_much_is_missing() {
        let (_folder, path) = written(&[("a", ones(DType::F32))]);
        let bytes = std::fs::read(&path).expect("bytes");
        std::fs::write(&path, &bytes[..bytes.len() - 7]).expect("cut");
        let text = read(&path, None, &[], |_| true).expect_err("cut").to_string();
        let (expected, found) = (bytes.len(), bytes.len() - 7);
        assert!(text.contains(&format!("asks for {expected} bytes, the file has {found}")), "{text}");
    }
}
