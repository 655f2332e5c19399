//! The archive that `torch.save` writes: a zip file with a pickle, and a file of bytes for each storage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

use candle_core::{Device, Layout, Tensor};
use gdrd_core::error::{Context, Error, Result};
use zip::ZipArchive;

use super::Found;
use super::pickle::{self, Entry};

type Archive = ZipArchive<BufReader<File>>;

/// The wanted tensors of an archive.
pub(super) fn read(file: File, wanted: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>> {
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| Error::weights(format!("an incomplete archive of PyTorch: {e}")))?;
    let names = archive.file_names().filter_map(|name| name.ok());
    let pickles: Vec<String> = names.filter(|name| name.ends_with("/data.pkl")).map(|name| name.into_owned()).collect();
    let [pickle] = pickles.as_slice() else {
        return Err(Error::weights(format!("expected an archive with one `data.pkl`, found {pickles:?}")));
    };
    let folder = pickle.trim_end_matches("data.pkl");
    let mut found = Found::default();
    for entry in pickle::entries(&bytes(&mut archive, pickle)?)? {
        if found.wants(&entry.name, entry.dtype, wanted)? {
            let storage = bytes(&mut archive, &format!("{folder}data/{}", entry.storage));
            let tensor = storage.and_then(|storage| tensor(&entry, storage)).at(|| format!("`{}`", entry.name))?;
            found.add(&entry.name, tensor);
        }
    }
    Ok(found.tensors)
}

/// A whole file of the archive, checked against its checksum.
fn bytes(archive: &mut Archive, name: &str) -> Result<Vec<u8>> {
    let broken = |e: &dyn std::fmt::Display| Error::weights(format!("`{name}` of the archive: {e}"));
    let mut bytes = Vec::new();
    archive.by_name(name).map_err(|e| broken(&e))?.read_to_end(&mut bytes).map_err(|e| broken(&e))?;
    Ok(bytes)
}

/// The tensor that `entry` makes of its storage.
fn tensor(entry: &Entry, storage: Vec<u8>) -> Result<Tensor> {
    let Some(dtype) = entry.dtype else { return Err(Error::weights("a tensor of integers")) };
    let (dims, width) = (entry.shape.dims(), dtype.size_in_bytes());
    let Some(count) = count(entry, storage.len() / width) else {
        return Err(Error::weights(format!(
            "{dims:?} with strides {:?} from value {} on does not fit its storage of {} bytes",
            entry.strides,
            entry.offset,
            storage.len()
        )));
    };
    let contiguous = Layout::new(entry.shape.clone(), entry.strides.clone(), 0).is_contiguous();
    let gathered;
    let values = if contiguous {
        &storage[entry.offset * width..(entry.offset + count) * width]
    } else {
        gathered = gather(entry, &storage, count, width);
        gathered.as_slice()
    };
    Ok(Tensor::from_raw_buffer(values, dtype, dims, &Device::Cpu)?)
}

/// How many values a tensor has, if they all lie within a storage of `values`. All products are checked, because the
/// numbers come from the file.
fn count(entry: &Entry, values: usize) -> Option<usize> {
    let dims = entry.shape.dims();
    let count = dims.iter().try_fold(1usize, |count, size| count.checked_mul(*size))?;
    let mut last = entry.offset;
    for (size, stride) in dims.iter().zip(&entry.strides) {
        last = last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)?;
    }
    let end = if count == 0 { entry.offset } else { last.checked_add(1)? };
    (count <= values && end <= values).then_some(count)
}

/// The bytes of a tensor whose values do not follow each other, such as one in PyTorch's `channels_last`.
fn gather(entry: &Entry, storage: &[u8], count: usize, width: usize) -> Vec<u8> {
    let dims = entry.shape.dims();
    let mut bytes = Vec::with_capacity(count * width);
    let mut index = vec![0; dims.len()];
    for _ in 0..count {
        let place: usize = entry.offset + index.iter().zip(&entry.strides).map(|(i, stride)| i * stride).sum::<usize>();
        bytes.extend_from_slice(&storage[place * width..(place + 1) * width]);
        for (i, size) in index.iter_mut().zip(dims).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    bytes
}
