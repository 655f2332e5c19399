//! What a pickle of PyTorch holds: which state dict is meant, which tensors are in it, and where their values lie.

use candle_core::{DType, Shape};
use gdrd_core::error::{Error, Result};
use gdrd_core::nn::weights::first_of;
use gdrd_core::pickle::{Id, Pickle, Value};

use super::{HEADS, harmless, join};

/// Keys under which training programs keep a state dict beside other things.
const CONTAINERS: [&str; 21] = [
    "state_dict",
    "state_dict_ema",
    "state_dict_backbone",
    "model_state_dict",
    "model_ema_state_dict",
    "ema_state_dict",
    "ema_model_state_dict",
    "net_state_dict",
    "network_state_dict",
    "backbone_state_dict",
    "model",
    "model_ema",
    "ema",
    "ema_model",
    "net",
    "network",
    "backbone",
    "module",
    "weights",
    "params",
    "params_ema",
];

/// Storages of numbers: their types, and the bytes of a number.
const STORAGES: [(&str, Option<DType>, usize); 10] = [
    ("FloatStorage", Some(DType::F32), 4),
    ("DoubleStorage", Some(DType::F64), 8),
    ("HalfStorage", Some(DType::F16), 2),
    ("BFloat16Storage", Some(DType::BF16), 2),
    ("LongStorage", None, 8),
    ("IntStorage", None, 4),
    ("ShortStorage", None, 2),
    ("CharStorage", None, 1),
    ("ByteStorage", None, 1),
    ("BoolStorage", None, 1),
];

/// How deep dictionaries may lie in each other, how often each value may be named on average, and how long a tensor's name
/// may be: what state dicts never reach and crafted files use to exhaust a reader.
const DEPTH: usize = 32;
const VISITS: usize = 4;
const NAME: usize = 1024;
/// Bytes of names for each byte of the pickle.
const NAMES: usize = 32;

/// A tensor of the file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its keys within the state dict that is meant, with dots.
    pub(super) name: String,
    /// None if it holds integers.
    pub(super) dtype: Option<DType>,
    /// The name of the storage.
    pub(super) storage: String,
    /// Where in the storage it starts, in values.
    pub(super) offset: usize,
    pub(super) shape: Shape,
    /// Distance of neighbours in each dimension, in values.
    pub(super) strides: Vec<usize>,
}

/// The tensors of the state dict that is meant, and those of margin heads beside it; with a `key`, every tensor below it.
///
/// # Errors
/// If the pickle is cut or not a dictionary, holds several state dicts and no key says which one, or has an object that is no
/// tensor among the tensors.
pub(super) fn entries(pickle: &Pickle, key: Option<&str>) -> Result<Vec<Entry>> {
    if !matches!(pickle.of(pickle.root), Value::Dict(_)) {
        return Err(no_state_dict(pickle, pickle.root));
    }
    let mut walk = Walk { pickle, under: key, visits: 0, named: 0, entries: Vec::new() };
    if key.is_some() {
        walk.collect(pickle.root, "", 0)?;
        return Ok(walk.entries);
    }
    let (mut dict, mut path) = (pickle.root, String::new());
    for _ in 0..DEPTH {
        let inner = pickle.entries(dict);
        let inner: Vec<(&str, Id)> = inner.filter(|(_, id)| matches!(pickle.of(*id), Value::Dict(_))).collect();
        let has_tensors = pickle.entries(dict).any(|(_, id)| is_tensor(pickle, id));
        let known = inner.iter().filter(|(key, id)| CONTAINERS.contains(key) && count(pickle, *id) > 0);
        let known: Vec<&(&str, Id)> = if has_tensors { Vec::new() } else { known.collect() };
        match known.as_slice() {
            [] => break,
            [(key, id)] => {
                for (head, id) in inner.iter().filter(|(key, _)| HEADS.contains(key)) {
                    walk.collect(*id, head, 0)?;
                }
                (dict, path) = (*id, join(&path, key));
            }
            several => {
                let found =
                    several.iter().map(|(key, id)| format!("`{}` ({} tensors)", join(&path, key), count(pickle, *id)));
                return Err(Error::weights(format!(
                    "holds several state dicts: {}; name one with `key`",
                    found.collect::<Vec<_>>().join(", ")
                )));
            }
        }
    }
    walk.collect(dict, "", 0)?;
    Ok(walk.entries)
}

/// Every storage of the pickle, by name: the bytes of its values, and where it begins in another one that it is a part of.
pub(super) fn storages(pickle: &Pickle) -> Vec<Storage> {
    let outside = pickle.all().filter_map(|value| match value {
        Value::Outside(id) => storage(pickle, *id),
        _ => None,
    });
    outside.collect()
}

/// A storage that tensors refer to.
pub(super) struct Storage {
    pub(super) name: String,
    /// The class, such as `FloatStorage`.
    pub(super) class: String,
    /// The type and the bytes of a value; none for classes that are not known.
    pub(super) kind: Option<(Option<DType>, usize)>,
}

fn storage(pickle: &Pickle, id: Id) -> Option<Storage> {
    let [_, class, name, ..] = pickle.tuple(id)? else { return None };
    let (Value::Named(module, class), Value::Text(name)) = (pickle.of(*class), pickle.of(*name)) else { return None };
    let known = ["torch", "torch.cuda"].contains(&module.as_ref());
    let kind = STORAGES.iter().find(|(known, ..)| *known == class).filter(|_| known);
    Some(Storage {
        name: name.to_string(),
        class: class.to_string(),
        kind: kind.map(|(_, dtype, width)| (*dtype, *width)),
    })
}

/// Whether a value is what `torch` would make a tensor of.
fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    let Value::Call(callable, _) = pickle.of(id) else { return false };
    matches!(pickle.of(*callable), Value::Named(module, name)
        if ["torch._utils", "torch._tensor"].contains(&module.as_ref()) && name.starts_with("_rebuild"))
}

/// How many tensors lie in a dictionary, at any depth; each value is looked at once.
fn count(pickle: &Pickle, dict: Id) -> usize {
    let mut seen = std::collections::BTreeSet::from([dict]);
    let (mut waiting, mut count) = (vec![dict], 0);
    while let Some(dict) = waiting.pop() {
        for (_, id) in pickle.entries(dict).filter(|(_, id)| seen.insert(*id)) {
            match pickle.of(id) {
                Value::Dict(_) => waiting.push(id),
                _ => count += usize::from(is_tensor(pickle, id)),
            }
        }
    }
    count
}

struct Walk<'a> {
    pickle: &'a Pickle<'a>,
    /// What is outside of this key is of no interest.
    under: Option<&'a str>,
    visits: usize,
    /// Bytes of all names.
    named: usize,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    fn collect(&mut self, dict: Id, path: &str, depth: usize) -> Result<()> {
        let strange = |why: String| Error::weights(format!("`{path}`: {why}"));
        if depth == DEPTH {
            return Err(strange("dictionaries too deep in each other, as in no state dict".into()));
        }
        // The keys of an optimiser's state are numbers, which `entries` leaves out.
        for (key, id) in self.pickle.entries(dict) {
            let length = path.len() + key.len();
            (self.visits, self.named) = (self.visits + 1, self.named + length);
            let many = self.visits > VISITS * self.pickle.values.len() || self.named > NAMES * self.pickle.length;
            if many || length > NAME {
                return Err(strange("more values, or longer names, than any state dict has".into()));
            }
            let name = join(path, key);
            match self.pickle.of(id) {
                Value::Dict(_) => self.collect(id, &name, depth + 1)?,
                Value::Call(callable, _) => match tensor(self.pickle, id, &name) {
                    Some(entry) => self.entries.push(entry),
                    None if self.is_outside(&name) || harmless::is_harmless(self.pickle, *callable) => {}
                    None => return Err(self.strange(id, &name)),
                },
                Value::Named(..) if !self.is_outside(&name) && !harmless::is_harmless(self.pickle, id) => {
                    return Err(self.strange(id, &name));
                }
                // Plain values, and lists and tuples, in which optimisers keep their state.
                _ => {}
            }
        }
        Ok(())
    }

    fn is_outside(&self, name: &str) -> bool {
        self.under.is_some_and(|key| name.strip_prefix(key).is_none_or(|rest| !rest.starts_with('.')))
    }

    fn strange(&self, id: Id, name: &str) -> Error {
        let found = shown(self.pickle, id);
        if is_tensor(self.pickle, id) {
            return Error::weights(format!("`{name}`: a tensor that cannot be read, {found}"));
        }
        Error::weights(format!(
            "`{name}` holds {found}, which is no tensor (nothing of it was run); expected a state dict alone, as \
             `torch.save(model.state_dict(), ...)` writes it"
        ))
    }
}

fn no_state_dict(pickle: &Pickle, root: Id) -> Error {
    let found = shown(pickle, root);
    let what = match found.contains("`__torch__") {
        true => "a TorchScript program; save the state dict of its module instead".into(),
        false => format!(
            "expected a state dict, found {found} (nothing of it was run); save it as \
             `torch.save(model.state_dict(), ...)` writes it"
        ),
    };
    Error::weights(what)
}

/// The tensor that a call makes; none for anything else.
fn tensor(pickle: &Pickle, id: Id, name: &str) -> Option<Entry> {
    let Value::Call(callable, arguments) = pickle.of(id) else { return None };
    rebuilt(pickle, *callable, *arguments, name, 4)
}

/// `_rebuild_parameter(tensor, ..)`, `_rebuild_from_type_v2(function, type, arguments, ..)`, or
/// `_rebuild_tensor_v2(storage, offset, shape, strides, ..)`, up to `depth` of them in each other.
fn rebuilt(pickle: &Pickle, callable: Id, arguments: Id, name: &str, depth: usize) -> Option<Entry> {
    let Value::Named(module, function) = pickle.of(callable) else { return None };
    let known = depth > 0 && ["torch._utils", "torch._tensor"].contains(&module.as_ref());
    let arguments = pickle.tuple(arguments).filter(|_| known)?;
    match function.as_ref() {
        "_rebuild_parameter" | "_rebuild_parameter_with_state" => {
            let Value::Call(callable, inner) = pickle.of(*arguments.first()?) else { return None };
            rebuilt(pickle, *callable, *inner, name, depth - 1)
        }
        "_rebuild_from_type_v2" => rebuilt(pickle, *arguments.first()?, *arguments.get(2)?, name, depth - 1),
        "_rebuild_tensor" | "_rebuild_tensor_v2" => placed(pickle, arguments, name),
        _ => None,
    }
}

/// The tensor of these arguments.
fn placed(pickle: &Pickle, arguments: &[Id], name: &str) -> Option<Entry> {
    let [outside, offset, shape, strides, ..] = arguments else { return None };
    let Value::Outside(outside) = pickle.of(*outside) else { return None };
    let storage = storage(pickle, *outside)?;
    let (dtype, _) = storage.kind?;
    // A part of another storage begins at a place of its own, in files from before PyTorch 1.6.
    let base = pickle.tuple(*outside)?.get(5).and_then(|view| pickle.tuple(*view)).and_then(|view| view.get(1));
    let base = base.map_or(Some(0), |base| number(pickle, *base))?;
    let (shape, strides) = (numbers(pickle, *shape)?, numbers(pickle, *strides)?);
    (shape.len() == strides.len()).then_some(())?;
    let offset = number(pickle, *offset)?.checked_add(base)?;
    Some(Entry { name: name.to_string(), dtype, storage: storage.name, offset, shape: shape.into(), strides })
}

/// The numbers of a tuple, or of a `torch.Size`.
fn numbers(pickle: &Pickle, id: Id) -> Option<Vec<usize>> {
    let items = match pickle.of(id) {
        Value::Tuple(items) => items,
        Value::Call(_, arguments) => match pickle.tuple(*arguments)? {
            [inner] => pickle.tuple(*inner)?,
            _ => return None,
        },
        _ => return None,
    };
    items.iter().map(|id| number(pickle, *id)).collect()
}

fn number(pickle: &Pickle, id: Id) -> Option<usize> {
    match pickle.of(id) {
        Value::Int(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}

/// A value for an error: what was called, or what kind of value it is.
pub(super) fn shown(pickle: &Pickle, id: Id) -> String {
    match pickle.of(id) {
        Value::Named(module, name) => format!("`{module}.{name}`"),
        Value::Call(callable, arguments) => match (pickle.of(*callable), pickle.tuple(*arguments)) {
            (Value::Named(module, name), Some([outside, ..])) => match pickle.of(*outside) {
                Value::Outside(id) => {
                    let class = storage(pickle, *id).map_or("a storage".into(), |storage| storage.class);
                    format!("a call of `{module}.{name}` with `{class}`")
                }
                _ => format!("a call of `{module}.{name}`"),
            },
            (Value::Named(module, name), _) => format!("a call of `{module}.{name}`"),
            _ => "a call of what another call returns".into(),
        },
        Value::List(_) => "a list".into(),
        Value::Tuple(_) => "a tuple".into(),
        Value::Dict(_) => {
            let keys: Vec<&str> = pickle.entries(id).map(|(key, _)| key).collect();
            format!("a dictionary of {}", first_of(keys.len(), keys.iter().map(|key| format!("`{key}`"))))
        }
        Value::Outside(_) => "a storage".into(),
        Value::Int(_) | Value::Long(_) => "a number".into(),
        Value::Text(_) => "a text".into(),
        Value::Bool(_) | Value::Bytes(_) => "a plain value".into(),
        Value::Plain(what) => (*what).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pickle: &[u8]) -> Result<Vec<Entry>> {
        entries(&Pickle::read(pickle).map_err(Error::weights)?, None)
    }

    #[track_caller]
    fn refused(pickle: &[u8]) -> String {
        read(pickle).expect_err("must be refused").to_string()
    }

    #[test]
    fn what_is_no_tensor_is_named_and_not_run() {
        // {'a': os.system('true')}
        let text = refused(b"\x80\x02}X\x01\0\0\0acposix\nsystem\nX\x04\0\0\0true\x85Rs.");
        assert!(text.contains("`posix.system`") && text.contains("nothing of it was run"), "{text}");
        // The same by protocol 4, and with the function alone.
        let text = refused(b"\x80\x04}\x8c\x01a\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85Rs.");
        assert!(text.contains("`a` holds a call of `posix.system`"), "{text}");
        let text = refused(b"\x80\x04}\x8c\x01a\x8c\x08builtins\x8c\x04eval\x93s.");
        assert!(text.contains("`a` holds `builtins.eval`"), "{text}");
        // The same by the instructions of protocol 0.
        let text = refused(b"(dp0\nS'a'\n(S'true'\niposix\nsystem\ns.");
        assert!(text.contains("`a` holds a call of `posix.system`"), "{text}");
        let text = refused(b"\x80\x02ctorch\n_C\n.");
        assert!(text.contains("expected a state dict, found `torch._C`"), "{text}");
        let text = refused(b"\x80\x02c__torch__.net\nNet\n)\x81.");
        assert!(text.contains("TorchScript"), "{text}");
        let text = refused(b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_parameter\n)Rs.");
        assert!(
            text.contains("`a`: a tensor that cannot be read, a call of `torch._utils._rebuild_parameter`"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_dictionary_is_refused_and_plain_values_are_passed_over() {
        assert!(refused(b"\x80\x02].").contains("expected a state dict, found a list"));
        // {'epoch': 3, 'best': 0.5, 'names': ['a'], 7: {}}
        let plain =
            b"\x80\x02}(X\x05\0\0\0epochK\x03X\x04\0\0\0bestG?\xe0\0\0\0\0\0\0X\x05\0\0\0names](X\x01\0\0\0aeK\x07}u.";
        assert!(read(plain).expect("plain values").is_empty());
    }

    #[test]
    fn crafted_pickles_end_in_an_error_and_need_little_memory() {
        assert!(refused(b"\x80\x02}X\x05\0\0\0epo").contains("cannot be read: it ends at byte 11"));
        assert!(refused(b"\x80\x02\x8a\x09123456789.").contains("found a number"));
        assert!(refused(b"\x80\x02R.").contains("nothing is left for the instruction"));
        assert!(refused(b"\x80\x02(R.").contains("nothing is left for the instruction"));
        assert!(refused(b"\x80\x02h\x07.").contains("nothing was kept as 7"));
        assert!(refused(b"\x80\x02\xff.").contains("unknown instruction 0xff at byte 2"));
        assert!(refused(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.").contains("it ends at byte 12"));
        assert!(refused(&[b"\x80\x02)".as_slice(), &[0x85; 100_000], b"."].concat()).contains("found a tuple"));
        // {'a': {'a': {'a': ..}}}, and a dictionary within itself.
        let deep = [b"\x80\x02}".as_slice(), &b"X\x01\0\0\0a}".repeat(100_000), &[b's'; 100_000], b"."].concat();
        assert!(refused(&deep).contains("too deep"));
        assert!(refused(b"\x80\x02}q\0X\x01\0\0\0ah\0s.").contains("more values, or longer names"));
        // Each dictionary holds the one before twice.
        let mut doubled = b"\x80\x02}q\0".to_vec();
        (0..30).for_each(|at| {
            doubled.extend(b"}(X\x01\0\0\0ah");
            doubled.push(at);
            doubled.extend(b"X\x01\0\0\0bh");
            doubled.extend([at, b'u', b'q', at + 1]);
        });
        doubled.push(b'.');
        assert!(refused(&doubled).contains("more values"));
        // A counter of a counter of many entries, again and again.
        let many = [b"ccollections\nCounter\nq\0}(".as_slice(), &b"K\x01K\x01".repeat(1000), b"u\x85q\x01R"].concat();
        let copies = [many.as_slice(), &b"h\0h\x01R".repeat(1000), b"."].concat();
        assert!(refused(&copies).contains("more of itself than it holds"));
    }
}
