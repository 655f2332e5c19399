//! The pickle inside an archive of PyTorch: which tensors there are, and where their values lie.

use std::io::Cursor;

use candle_core::pickle::{Object, Stack};
use candle_core::{DType, Shape};
use gdrd_core::error::{Error, Result};

/// What a file may name beside plain values. Nothing of it is called.
const KNOWN: [(&str, &str); 3] =
    [("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")];

/// Storages of floats, and their types.
const FLOATS: [(&str, DType); 4] = [
    ("FloatStorage", DType::F32),
    ("DoubleStorage", DType::F64),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::BF16),
];

/// Storages of integers.
const INTEGERS: [&str; 6] = ["LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage"];

/// How deep values may lie in each other, and of how many values one that is named again may consist: what state dicts
/// never reach and crafted files use to exhaust a reader.
const DEPTH: usize = 32;
const REPEATED: usize = 64;

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its keys, from the outermost dictionary to its own, with dots.
    pub(super) name: String,
    /// None if it holds integers.
    pub(super) dtype: Option<DType>,
    /// The name of the storage, the file `data/<storage>` of the archive.
    pub(super) storage: String,
    /// Where in the storage it starts, in values.
    pub(super) offset: usize,
    pub(super) shape: Shape,
    /// Distance of neighbours in each dimension, in values.
    pub(super) strides: Vec<usize>,
}

/// Every tensor that dictionaries hold, at any depth.
///
/// # Errors
/// If the pickle is cut or not a dictionary, or names an object that is no tensor.
pub(super) fn entries(pickle: &[u8]) -> Result<Vec<Entry>> {
    let root = values(pickle)?;
    if !matches!(root, Object::Dict(_)) {
        return Err(Error::weights(format!("expected a state dict, found {}", shown(&root))));
    }
    let mut entries = Vec::new();
    collect(&root, "", &mut entries)?;
    Ok(entries)
}

/// Runs candle's reader one instruction at a time, and looks at what each names or makes before the next.
fn values(pickle: &[u8]) -> Result<Object> {
    let broken = |e: candle_core::Error| {
        let text = e.to_string();
        Error::weights(format!("the pickle cannot be read: {}", text.lines().next().unwrap_or_default()))
    };
    let mut stack = Stack::empty();
    let mut cursor = Cursor::new(pickle);
    loop {
        let rest = &pickle[cursor.position() as usize..];
        match rest {
            [b'c', named @ ..] => check_global(named)?,
            // candle shifts by eight bits for each byte.
            [0x8a, bytes, ..] if *bytes > 8 => return Err(Error::weights("the pickle has a number of over 64 bits")),
            _ => {}
        }
        if stack.read(&mut cursor).map_err(broken)? {
            return stack.finalize().map_err(broken);
        }
        let again = matches!(rest.first(), Some(b'h' | b'j'));
        let mut left = if again { REPEATED } else { usize::MAX };
        if stack.stack().last().is_some_and(|top| !is_small(top, DEPTH, &mut left)) {
            let what = if again { "refers again to a large value" } else { "has values too deep in each other" };
            return Err(Error::weights(format!("the pickle {what}, as no state dict does")));
        }
    }
}

/// Refuses everything but [`KNOWN`] and storages. `named` is the module, a newline, the name, a newline.
fn check_global(named: &[u8]) -> Result<()> {
    let mut lines = named.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned());
    let (module, name) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let storage = FLOATS.iter().any(|(known, _)| *known == name) || INTEGERS.contains(&name.as_str());
    if KNOWN.contains(&(module.as_str(), name.as_str())) || (module == "torch" && storage) {
        return Ok(());
    }
    Err(Error::weights(format!(
        "holds `{module}.{name}`, which is no tensor (nothing of it was run); expected a state dict alone, as \
         `torch.save(model.state_dict(), ...)` writes it"
    )))
}

/// Whether a value has no more than `depth` values in each other and `left` in all.
fn is_small(object: &Object, depth: usize, left: &mut usize) -> bool {
    if depth == 0 || *left == 0 {
        return false;
    }
    *left -= 1;
    let mut inner = |object: &Object| is_small(object, depth - 1, left);
    match object {
        Object::Tuple(items) | Object::List(items) => items.iter().all(inner),
        Object::Dict(items) => items.iter().all(|(key, value)| inner(key) && inner(value)),
        Object::Reduce { callable, args } | Object::Build { callable, args } => inner(callable) && inner(args),
        Object::PersistentLoad(id) => inner(id),
        _ => true,
    }
}

fn collect(object: &Object, path: &str, entries: &mut Vec<Entry>) -> Result<()> {
    match object {
        Object::Dict(items) => {
            for (key, value) in items {
                // Keys that are numbers belong to optimisers; `_metadata` are the versions of a state dict's modules.
                let Object::Unicode(key) = key else { continue };
                if key != "_metadata" {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    collect(value, &path, entries)?;
                }
            }
        }
        Object::Reduce { .. } | Object::Build { .. } => {
            let strange = || Error::weights(format!("`{path}`: expected a tensor, found {}", shown(object)));
            entries.push(tensor(object, path).ok_or_else(strange)?);
        }
        _ => {}
    }
    Ok(())
}

/// `_rebuild_parameter(tensor, ..)`, or `_rebuild_tensor_v2(storage, offset, shape, strides, ..)`; none for anything else.
fn tensor(object: &Object, name: &str) -> Option<Entry> {
    let Object::Reduce { callable, args } = object else { return None };
    let (Object::Class { class_name, .. }, Object::Tuple(args)) = (&**callable, &**args) else { return None };
    if class_name == "_rebuild_parameter" {
        return tensor(args.first()?, name);
    }
    let [Object::PersistentLoad(storage), offset, shape, strides, ..] = args.as_slice() else { return None };
    let Object::Tuple(storage) = &**storage else { return None };
    let [_, Object::Class { class_name, .. }, Object::Unicode(storage), ..] = storage.as_slice() else { return None };
    let (shape, strides) = (numbers(shape)?, numbers(strides)?);
    (shape.len() == strides.len()).then_some(())?;
    Some(Entry {
        name: name.to_string(),
        dtype: FLOATS.iter().find(|(known, _)| known == class_name).map(|(_, dtype)| *dtype),
        storage: storage.clone(),
        offset: number(offset)?,
        shape: shape.into(),
        strides,
    })
}

fn numbers(object: &Object) -> Option<Vec<usize>> {
    let Object::Tuple(items) = object else { return None };
    items.iter().map(number).collect()
}

fn number(object: &Object) -> Option<usize> {
    match object {
        Object::Int(value) => usize::try_from(*value).ok(),
        Object::Long(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}

/// A value for an error: what was called, or what kind of value it is.
fn shown(object: &Object) -> String {
    match object {
        Object::Class { module_name, class_name } => format!("`{module_name}.{class_name}`"),
        Object::Reduce { callable, .. } | Object::Build { callable, .. } => format!("a call of {}", shown(callable)),
        Object::List(_) => "a list".into(),
        Object::Tuple(_) => "a tuple".into(),
        Object::Dict(_) => "a dictionary".into(),
        Object::PersistentLoad(_) => "a storage".into(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pickle: &[u8]) -> String {
        entries(pickle).expect_err("must be refused").to_string()
    }

    #[test]
    fn what_is_no_tensor_is_named_and_not_run() {
        // {'a': os.system('true')}
        let text = refused(b"\x80\x02}X\x01\0\0\0acposix\nsystem\nX\x04\0\0\0true\x85Rs.");
        assert!(text.contains("`posix.system`") && text.contains("nothing of it was run"), "{text}");
        let text = refused(b"\x80\x02ctorch\n_C\n.");
        assert!(text.contains("`torch._C`"), "{text}");
        // {'a': OrderedDict built by a call that candle does not know with a tuple in place of a tensor}
        let text = refused(b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_parameter\n)Rs.");
        assert!(text.contains("`a`: expected a tensor, found a call of `torch._utils._rebuild_parameter`"), "{text}");
    }

    #[test]
    fn what_is_no_dictionary_is_refused_and_plain_values_are_passed_over() {
        assert!(refused(b"\x80\x02].").contains("expected a state dict, found a list"));
        // {'epoch': 3, 'best': 0.5, 'names': ['a'], 7: {}}
        let plain =
            b"\x80\x02}(X\x05\0\0\0epochK\x03X\x04\0\0\0bestG?\xe0\0\0\0\0\0\0X\x05\0\0\0names](X\x01\0\0\0aeK\x07}u.";
        assert!(entries(plain).expect("plain values").is_empty());
    }

    #[test]
    fn crafted_pickles_end_in_an_error() {
        assert!(refused(b"\x80\x02}X\x05\0\0\0epo").contains("cannot be read"));
        assert!(refused(b"\x80\x02\x8a\x09123456789.").contains("over 64 bits"));
        assert!(refused(&[b"\x80\x02)".as_slice(), &[0x85; 100_000], b"."].concat()).contains("too deep"));
        // Each tuple holds the one before twice.
        let mut doubled = b"\x80\x02)q\0".to_vec();
        (0..40).for_each(|at| doubled.extend([b'h', at, b'h', at, 0x86, b'q', at + 1]));
        doubled.push(b'.');
        assert!(refused(&doubled).contains("refers again to a large value"));
    }
}
