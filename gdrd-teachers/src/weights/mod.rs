//! Weight files as they are published: safetensors, and what PyTorch writes.
//!
//! Nothing in a file is executed. Pickles are read by `gdrd_core::pickle`, which makes plain values of what it finds;
//! one that has anything but tensors and plain values among its tensors is refused, and the error says what it names.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use candle_core::Tensor;
use gdrd_core::error::{Context, Error, ErrorKind, Result};
use gdrd_core::nn::weights::{is_safetensors, listed_names, looks_like};
use gdrd_core::recipe::HubAddress;

mod harmless;
mod npy;
mod pickle;
mod pytorch;
mod safetensors;

pub use npy::read_npy;

/// Words that training programs put before the names of a network's own tensors.
///
/// `module.` is PyTorch's `DataParallel`, `_orig_mod.` `torch.compile`, `_fsdp_wrapped_module.` its sharding, `model.net.`
/// CVLface, `feat_net.` FaceX-Zoo; `backbone.` and its kin are common wrappers; the last two are the keys of dictionaries in
/// which a state dict lies. They are taken off one by one, however many stand in a row.
pub const WRAPPERS: [&str; 11] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "model",
    "net",
    "network",
    "backbone",
    "encoder",
    "feat_net",
    "state_dict",
    "state_dict_backbone",
];

/// Margin heads, by the names under which checkpoints keep them: insightface's `PartialFC`, CVLface's `PartialFC` and `FC`,
/// AdaFace's. They may stand beside the state dict of the network.
pub(crate) const HEADS: [&str; 4] = ["state_dict_softmax_fc", "partial_fc", "classifier", "head"];

/// `name` without the [`WRAPPERS`] at its start, but for words in `own`, which the network's own names begin with.
pub fn plain_name<'a>(name: &'a str, own: &[&str]) -> &'a str {
    let mut plain = name;
    while let Some((first, rest)) = plain.split_once('.')
        && WRAPPERS.contains(&first)
        && !own.contains(&first)
    {
        plain = rest;
    }
    plain
}

/// Reads the tensors of a `.safetensors`, `.pth`, `.pt`, `.ckpt` or `.bin` file whose [plain names](plain_name) are
/// `wanted`, onto the CPU and in their own types (float16, bfloat16, float32 or float64), by plain name. The content says
/// what kind of file it is, not its ending; tensors that are not wanted are not read. `own` are the words among [`WRAPPERS`] that
/// the network's own names begin with.
///
/// A PyTorch file may be a state dict or hold one under a usual key (`state_dict`, `model`, `params`, ...), beside anything
/// else. Where it holds several, `key` names one: the tensors whose names begin with `key` and a dot. Dictionaries within
/// dictionaries become names with dots. Tensors of integers (such as `num_batches_tracked`), numbers, texts and other plain
/// values are passed over; so are lists, which hold the state of optimisers.
///
/// # Errors
/// If the file cannot be read, is incomplete, is no weight file, has no tensor below `key`, has several state dicts and no
/// `key` says which, has objects that are no tensors among the tensors, or two tensors of the same plain name. Values are
/// looked at by [`Weights::read`](gdrd_core::nn::Weights::read).
pub fn read(
    path: &Path,
    key: Option<&str>,
    own: &[&str],
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Tensor>> {
    let web = path.to_str().and_then(HubAddress::of_web_address);
    if let Some(address) = web.filter(|_| !path.exists()) {
        return Err(Error::weights(format!("`{}` is a web address; write it as `{address}`", path.display())));
    }
    read_from(path, &Choice { key, own, wanted: &wanted }).at(|| format!("`{}`", path.display()))
}

/// Which tensors of a file are to be read.
struct Choice<'a> {
    key: Option<&'a str>,
    own: &'a [&'a str],
    wanted: &'a dyn Fn(&str) -> bool,
}

fn read_from(path: &Path, choice: &Choice) -> Result<BTreeMap<String, Tensor>> {
    let unreadable = |e: std::io::Error| Error::new(ErrorKind::Io, e.to_string());
    let mut file = gdrd_core::files::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    file.by_ref().take(512).read_to_end(&mut start).map_err(unreadable)?;
    match start.as_slice() {
        // First of all, because the size of a header may be any number.
        start if is_safetensors(start) => safetensors::read(file, length, choice),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => pytorch::read_archive(file, choice),
        [0x80, 1..=5, ..] => pytorch::read_legacy(file, choice),
        start => Err(Error::weights(match looks_like(start, length) {
            Some(what) => format!("not weights: {what}"),
            None => format!(
                "neither safetensors nor a file of PyTorch: {length} bytes that begin with {:02x?}",
                &start[..start.len().min(8)]
            ),
        })),
    }
}

impl Choice<'_> {
    /// The wanted tensors of a file, with their plain names. `describe` gives name and shape of each, and whether it holds
    /// floats.
    ///
    /// # Errors
    /// If none begins with the key, or two have the same plain name.
    fn of<T>(&self, all: Vec<T>, describe: impl Fn(&T) -> (&str, &[usize], bool)) -> Result<Vec<(String, T)>> {
        let below = |name: &str| match self.key {
            None => Some(name.to_string()),
            Some(key) => Some(name.strip_prefix(key)?.strip_prefix('.')?.to_string()),
        };
        if let Some(key) = self.key
            && !all.iter().any(|one| below(describe(one).0).is_some())
        {
            let names = all.iter().map(&describe).map(|(name, shape, _)| format!("`{name}` {shape:?}"));
            return Err(Error::weights(format!(
                "no tensor's name begins with `{key}.`; {}",
                listed_names(all.len(), names)
            )));
        }
        let mut chosen: Vec<(String, T)> = Vec::new();
        let mut origins: BTreeMap<String, String> = BTreeMap::new();
        for one in all {
            let (name, _, floats) = describe(&one);
            let Some(plain) = below(name).filter(|_| floats) else { continue };
            let plain = plain_name(&plain, self.own).to_string();
            if !(self.wanted)(&plain) {
                continue;
            }
            if let Some(other) = origins.insert(plain.clone(), name.to_string()) {
                return Err(Error::weights(format!(
                    "`{other}` and `{name}` are both `{plain}`; which of the two is meant? Name it with `key`"
                )));
            }
            chosen.push((plain, one));
        }
        Ok(chosen)
    }
}

/// A key below a path of keys.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_come_off_however_many_there_are() {
        let plain_name = |name| plain_name(name, &[]);
        assert_eq!(plain_name("module.input_blocks.0.0.weight"), "input_blocks.0.0.weight");
        assert_eq!(plain_name("_orig_mod.module.feat_net.conv1.conv.weight"), "conv1.conv.weight");
        assert_eq!(plain_name("model.net.conv1.weight"), "conv1.weight");
        assert_eq!(plain_name("state_dict.model.body.0.res_layer.0.bias"), "body.0.res_layer.0.bias");
        assert_eq!(plain_name("layer1.0.net.weight"), "layer1.0.net.weight");
        assert_eq!(plain_name("modules.weight"), "modules.weight");
        assert_eq!(plain_name("model"), "model");
    }

    #[test]
    fn a_wrapper_stays_where_it_is_the_network_s_own_name() {
        assert_eq!(plain_name("module.encoder.conv_in.weight", &["encoder"]), "encoder.conv_in.weight");
        assert_eq!(plain_name("module.encoder.conv1.weight", &[]), "conv1.weight");
    }

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file.pth");
        let refused = |bytes: &[u8], expected: &str| {
            std::fs::write(&path, bytes).expect("written");
            let text = read(&path, None, &[], |_| true).expect_err("no weights").to_string();
            assert!(text.contains(expected) && text.contains("file.pth"), "{text}");
        };
        refused(b"\n<!DOCTYPE html><html>", "a web page");
        refused(b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", "ends at byte 9");
        refused(b"\x80\x02}.", "a pickle, but none of PyTorch's");
        refused(b"PK\x03\x04 and no more", "incomplete");
        refused(b"\x10\0\0\0\0\0\0\0{\"a\":", "not a complete safetensors file");
        refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "`git lfs pull`");
        refused(b"", "the file is empty");
        refused(b"\x7fELF\x02\x01\x01\0\0", "9 bytes that begin with [7f, 45");
        let web = Path::new("https://huggingface.co/o/n/blob/main/w.pth");
        let text = read(web, None, &[], |_| true).expect_err("no file").to_string();
        assert!(text.ends_with("is a web address; write it as `hf://o/n/w.pth`"), "{text}");
        let missing = read(&folder.path().join("none.pth"), None, &[], |_| true).expect_err("no file").to_string();
        assert!(missing.contains("none.pth"), "{missing}");
    }
}
