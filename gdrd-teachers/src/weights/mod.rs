//! Weight files as they are published: safetensors, and the zip archives that PyTorch writes.
//!
//! Nothing in a file is executed. A PyTorch file is read by candle's restricted pickle reader, which makes plain values of
//! what it finds; a file that names anything but tensors and plain values is refused, and the error says what it names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Tensor};
use gdrd_core::error::{Context, Error, ErrorKind, Result};

mod pickle;
mod pytorch;
mod safetensors;

/// Words that training programs put before the names of a network's own tensors.
///
/// `module.` is PyTorch's `DataParallel`, `model.net.` CVLface, `backbone.` and `net.` common wrappers; the others are the
/// keys of dictionaries in which a state dict lies. They are taken off one by one, however many stand in a row.
pub const WRAPPERS: [&str; 6] = ["module", "model", "net", "backbone", "state_dict", "state_dict_backbone"];

/// `name` without the [`WRAPPERS`] at its start.
pub fn plain_name(name: &str) -> &str {
    let unwrapped = |name: &str| {
        let (first, rest) = name.split_once('.')?;
        WRAPPERS.contains(&first).then_some(rest.len())
    };
    let mut plain = name;
    while let Some(length) = unwrapped(plain) {
        plain = &plain[plain.len() - length..];
    }
    plain
}

/// Reads the tensors of a `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin` file whose [plain names](plain_name) are
/// `wanted`, onto the CPU and in their own types (float16, bfloat16, float32 or float64), by plain name. The content says
/// what kind of file it is, not its ending; tensors that are not wanted are not read.
///
/// Dictionaries within dictionaries become names with dots. Tensors of integers (such as `num_batches_tracked`), numbers
/// and texts are passed over; so are lists, which hold the state of optimisers.
///
/// # Errors
/// If the file cannot be read, is incomplete, is no weight file (a web page, a pickle from before PyTorch 1.6), holds
/// objects that are no tensors, or has two tensors of the same plain name.
pub fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>> {
    read_from(path, &wanted).at(|| format!("`{}`", path.display()))
}

fn read_from(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>> {
    let unreadable = |e: std::io::Error| Error::new(ErrorKind::Io, e.to_string());
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    file.by_ref().take(64).read_to_end(&mut start).map_err(unreadable)?;
    match Format::of(&start) {
        Format::PyTorch => pytorch::read(file, wanted),
        Format::Safetensors => safetensors::read(file, length, wanted),
        Format::LegacyPickle => Err(Error::weights(
            "a pickle without an archive, as PyTorch wrote it before 1.6; load it in Python and save its state dict again",
        )),
        Format::WebPage => Err(Error::weights("not weights; it looks like a web page, saved in place of the file")),
        Format::Other => Err(Error::weights(format!(
            "neither safetensors nor an archive of PyTorch: {length} bytes that begin with {:02x?}",
            &start[..start.len().min(8)]
        ))),
    }
}

enum Format {
    PyTorch,
    Safetensors,
    LegacyPickle,
    WebPage,
    Other,
}

impl Format {
    /// The format of a file that begins with these bytes.
    fn of(start: &[u8]) -> Self {
        // The size of a safetensors header, eight bytes, and its first character.
        let header = |bytes: &[u8]| bytes.get(8) == Some(&b'{') && bytes[5..8] == [0; 3];
        match start {
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Self::PyTorch,
            bytes if header(bytes) => Self::Safetensors,
            [0x80, 1..=5, ..] => Self::LegacyPickle,
            bytes if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<') => Self::WebPage,
            _ => Self::Other,
        }
    }
}

/// The tensors that were read, by plain name.
#[derive(Default)]
struct Found {
    tensors: BTreeMap<String, Tensor>,
    /// Plain names and the names that they come from.
    origins: BTreeMap<String, String>,
}

impl Found {
    /// Notes a tensor of the file; whether it is to be read.
    ///
    /// # Errors
    /// If another one has the same plain name.
    fn wants(&mut self, name: &str, dtype: Option<DType>, wanted: &dyn Fn(&str) -> bool) -> Result<bool> {
        let plain = plain_name(name);
        if dtype.is_none() || !wanted(plain) {
            return Ok(false);
        }
        match self.origins.insert(plain.to_string(), name.to_string()) {
            None => Ok(true),
            Some(other) => {
                Err(Error::weights(format!("`{other}` and `{name}` are both `{plain}`; which of the two is meant?")))
            }
        }
    }

    fn add(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(plain_name(name).to_string(), tensor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_come_off_however_many_there_are() {
        assert_eq!(plain_name("module.input_blocks.0.0.weight"), "input_blocks.0.0.weight");
        assert_eq!(plain_name("model.net.conv1.weight"), "conv1.weight");
        assert_eq!(plain_name("state_dict.model.body.0.res_layer.0.bias"), "body.0.res_layer.0.bias");
        assert_eq!(plain_name("layer1.0.net.weight"), "layer1.0.net.weight");
        assert_eq!(plain_name("modules.weight"), "modules.weight");
        assert_eq!(plain_name("model"), "model");
    }

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file.pth");
        let refused = |bytes: &[u8], expected: &str| {
            std::fs::write(&path, bytes).expect("written");
            let text = read(&path, |_| true).expect_err("no weights").to_string();
            assert!(text.contains(expected) && text.contains("file.pth"), "{text}");
        };
        refused(b"\n<!DOCTYPE html><html>", "a web page");
        refused(b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", "before 1.6");
        refused(b"PK\x03\x04 and no more", "incomplete");
        refused(b"\x10\0\0\0\0\0\0\0{\"a\":", "not a complete safetensors file");
        refused(b"version https://git-lfs", "begin with [76, 65");
        refused(b"", "0 bytes");
        let missing = read(&folder.path().join("none.pth"), |_| true).expect_err("no file").to_string();
        assert!(missing.contains("none.pth"), "{missing}");
    }
}
