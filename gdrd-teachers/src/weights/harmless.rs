//! What may stand among the tensors of a state dict and is no tensor: what PyTorch's own `weights_only` would make, and its like.

use gdrd_core::pickle::{Id, Pickle, Value};

/// Modules, and the names in them; all names where there are none.
const HARMLESS: [(&str, &[&str]); 13] = [
    ("torch", &["Size", "device", "dtype", "Generator", "layout", "bool"]),
    ("torch.torch_version", &["TorchVersion"]),
    ("argparse", &["Namespace"]),
    ("types", &["SimpleNamespace"]),
    ("collections", &[]),
    ("datetime", &[]),
    ("pathlib", &[]),
    ("decimal", &["Decimal"]),
    ("fractions", &["Fraction"]),
    ("uuid", &["UUID"]),
    ("_codecs", &["encode"]),
    ("builtins", &["set", "frozenset", "complex", "bytearray", "slice", "range", "int", "float", "str", "bytes"]),
    ("__builtin__", &["set", "frozenset", "complex", "bytearray", "slice", "xrange", "int", "float", "str", "object"]),
];

/// Whether a value is, or is a call of, something that is passed over. Nothing of it is run in either case: to know it only
/// tells a tensor that cannot be read from what nobody misses.
pub(super) fn is_harmless(pickle: &Pickle, id: Id) -> bool {
    match pickle.of(id) {
        Value::Named(module, name) => {
            let dtype = module == "torch" && name.trim_end_matches(|c: char| c.is_ascii_digit()) != name;
            let numpy = module.split('.').next() == Some("numpy");
            let known = |(known, names): &(&str, &[&str])| {
                module == known && (names.is_empty() || names.contains(&name.as_ref()))
            };
            dtype || numpy || HARMLESS.iter().any(known)
        }
        _ => false,
    }
}
