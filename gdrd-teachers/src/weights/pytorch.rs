//! What `torch.save` writes: a zip file with a pickle and a file of bytes for each storage; before PyTorch 1.6, and where it
//! was asked for, one file with five pickles, and the storages after them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek};

use candle_core::{Device, Layout, Tensor};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::pickle::{Pickle, Value};
use zip::ZipArchive;

use super::Choice;
use super::pickle::{self, Entry};

type Archive = ZipArchive<BufReader<File>>;

/// What a file of five pickles begins with, 0x1950a86a20f9469cfc6c, the lowest byte first.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn read(bytes: &[u8]) -> Result<Pickle<'_>> {
    Pickle::read(bytes).map_err(Error::weights)
}

/// The wanted tensors of an archive.
pub(super) fn read_archive(mut file: File, choice: &Choice) -> Result<BTreeMap<String, Tensor>> {
    file.rewind().map_err(|e| Error::weights(e.to_string()))?;
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| Error::weights(format!("an incomplete archive of PyTorch: {e}")))?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let pickles: Vec<&String> = names.iter().filter(|name| name.ends_with("/data.pkl")).collect();
    let [pickle] = pickles.as_slice() else {
        let first = names.iter().take(3).collect::<Vec<_>>();
        return Err(Error::weights(format!(
            "expected an archive of PyTorch with one `data.pkl`, found {} of them in {} files, the first {first:?}",
            pickles.len(),
            names.len()
        )));
    };
    let folder = pickle.trim_end_matches("data.pkl");
    let order = format!("{folder}byteorder");
    if names.contains(&order) && bytes(&mut archive, &order)? == b"big" {
        return Err(Error::weights("values in big-endian order, which is not read; save it on a usual machine"));
    }
    let text = bytes(&mut archive, pickle)?;
    let chosen = chosen(&read(&text)?, choice)?;
    let mut kept = (String::new(), Vec::new());
    tensors(&chosen, |storage, make| {
        // Neighbours often share a storage.
        if kept.0 != storage {
            kept = (storage.to_string(), bytes(&mut archive, &format!("{folder}data/{storage}"))?);
        }
        make(&kept.1)
    })
}

/// The wanted tensors of a file without an archive.
pub(super) fn read_legacy(mut file: File, choice: &Choice) -> Result<BTreeMap<String, Tensor>> {
    let mut all = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut all)).map_err(|e| Error::weights(e.to_string()))?;
    let mut at = 0;
    let mut next = || -> Result<Pickle> {
        let pickle = read(&all[at..])?;
        at += pickle.length;
        Ok(pickle)
    };
    let first = next()?;
    if *first.of(first.root) != Value::Long(&MAGIC) {
        let found = pickle::shown(&first, first.root);
        return Err(Error::weights(format!(
            "a pickle, but none of PyTorch's: {found}; save a state dict with `torch.save` or as safetensors"
        )));
    }
    let (_version, system) = (next()?, next()?);
    let little = system.entries(system.root).find(|(key, _)| *key == "little_endian");
    if little.is_some_and(|(_, id)| *system.of(id) == Value::Bool(false)) {
        return Err(Error::weights("values in big-endian order, which is not read; save it on a usual machine"));
    }
    let (main, order) = (next()?, next()?);
    let kinds: HashMap<String, pickle::Storage> =
        pickle::storages(&main).into_iter().map(|storage| (storage.name.clone(), storage)).collect();
    let Value::List(order_of) = order.of(order.root) else {
        return Err(Error::weights("a file of PyTorch from before 1.6 without a list of its storages"));
    };
    let mut places = HashMap::new();
    for id in order_of {
        let name = match order.of(*id) {
            Value::Text(name) => name.to_string(),
            _ => return Err(Error::weights("a storage whose name is no text")),
        };
        let kind = kinds.get(&name).and_then(|storage| storage.kind);
        let (_, width) = kind.ok_or_else(|| {
            let class = kinds.get(&name).map_or("unknown", |storage| storage.class.as_str());
            Error::weights(format!("storage `{name}` is of a type that is not read: {class}"))
        })?;
        let cut = || Error::weights(format!("not a complete file of PyTorch: storage `{name}` ends too soon"));
        let (count, rest) = all[at..].split_first_chunk().ok_or_else(cut)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(width));
        let count = count.filter(|count| *count <= rest.len()).ok_or_else(cut)?;
        places.insert(name, at + 8..at + 8 + count);
        at += 8 + count;
    }
    tensors(&chosen(&main, choice)?, |storage, make| match places.get(storage) {
        Some(place) => make(&all[place.clone()]),
        None => Err(Error::weights(format!("there is no storage `{storage}`"))),
    })
}

fn chosen(pickle: &Pickle, choice: &Choice) -> Result<Vec<(String, Entry)>> {
    let entries = pickle::entries(pickle, choice.key)?;
    choice.of(entries, |entry| (&entry.name, entry.shape.dims(), entry.dtype.is_some()))
}

/// Makes each tensor of its storage.
fn tensors(
    chosen: &[(String, Entry)],
    mut with: impl FnMut(&str, &dyn Fn(&[u8]) -> Result<Tensor>) -> Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let made = chosen.iter().map(|(plain, entry)| {
        let tensor = with(&entry.storage, &|storage| tensor(entry, storage));
        Ok((plain.clone(), tensor.at(|| format!("`{}`", entry.name))?))
    });
    made.collect()
}

/// A whole file of the archive, checked against its checksum.
fn bytes(archive: &mut Archive, name: &str) -> Result<Vec<u8>> {
    let broken = |e: &dyn std::fmt::Display| Error::weights(format!("`{name}` of the archive: {e}"));
    let mut bytes = Vec::new();
    archive.by_name(name).map_err(|e| broken(&e))?.read_to_end(&mut bytes).map_err(|e| broken(&e))?;
    Ok(bytes)
}

/// The tensor that `entry` makes of its storage.
fn tensor(entry: &Entry, storage: &[u8]) -> Result<Tensor> {
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
        gathered = gather(entry, storage, count, width);
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
