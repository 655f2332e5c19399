//! Weight files as PyTorch itself writes them; `golden/pytorch_files/ORIGIN.md` says what is in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use gdrd_teachers::weights;

use crate::golden::Golden;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pytorch_files").join(name)
}

/// Compares tensors bit by bit with the golden ones whose names start with `group`; none may be missing on either side.
fn assert_same(group: &str, found: &BTreeMap<String, Tensor>) {
    let golden = Golden::read("pytorch_files");
    let expected = golden.0.iter().filter_map(|(name, t)| Some((name.strip_prefix(group)?, t)));
    let expected: BTreeMap<&str, &Tensor> = expected.filter(|(_, t)| t.dtype() == DType::F64).collect();
    let is_counter = |name: &&str| name.ends_with("num_batches_tracked");
    let names: Vec<&str> = expected.keys().copied().filter(|name| !is_counter(name)).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), names);
    for (name, tensor) in found {
        let values =
            |t: &Tensor| t.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1::<f64>()).expect("numbers");
        assert_eq!(tensor.dims(), expected[name.as_str()].dims(), "{name}");
        assert_eq!(values(tensor), values(expected[name.as_str()]), "{name}");
    }
}

fn refused(path: &Path) -> String {
    let text = weights::read(path, None, &[], |_| true).expect_err("must be refused").to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    text
}

#[test]
fn every_type_and_memory_layout_is_read() {
    let found = weights::read(&file("types.pth"), None, &[], |_| true).expect("tensors");
    assert_same("types.", &found);
    let types = ["single", "half", "brain", "double"].map(|name| found[name].dtype());
    assert_eq!(types, [DType::F32, DType::F16, DType::BF16, DType::F64]);
    let some = weights::read(&file("types.pth"), None, &[], |name| name == "rows").expect("one tensor");
    assert_eq!(some.keys().collect::<Vec<_>>(), ["rows"]);
}

#[test]
fn a_state_dict_with_metadata_is_read() {
    assert_same("network.", &weights::read(&file("network.pth"), None, &[], |_| true).expect("tensors"));
}

#[test]
fn a_training_checkpoint_gives_its_network_and_its_margin_head() {
    let mut found = weights::read(&file("checkpoint_gpu_0.pt"), None, &[], |_| true).expect("tensors");
    let classes = found.remove("state_dict_softmax_fc.weight").expect("class weights");
    assert_same("network.", &found);
    assert_same("checkpoint.", &BTreeMap::from([("classes".to_string(), classes)]));
}

#[test]
fn every_protocol_and_the_format_before_1_6_are_read() {
    for name in ["protocol_4.pth", "protocol_5.pth", "legacy.pth"] {
        assert_same("network.", &weights::read(&file(name), None, &[], |_| true).expect(name));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (path, bytes) = (folder.path().join("cut.pth"), std::fs::read(file("legacy.pth")).expect("a file"));
    for kept in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..kept]).expect("written");
        refused(&path);
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    assert!(refused(&path).contains("ends too soon"));
}

#[test]
fn what_stands_beside_the_state_dict_or_is_a_plain_value_is_passed_over() {
    for name in ["lightning.ckpt", "beside.pth", "compiled.pth"] {
        assert_same("network.", &weights::read(&file(name), None, &[], |_| true).expect(name));
    }
}

#[test]
fn of_several_state_dicts_the_key_names_one() {
    let text = refused(&file("average.pth"));
    let expected =
        "holds several state dicts: `state_dict` (7 tensors), `state_dict_ema` (7 tensors); name one with `key`";
    assert!(text.contains(expected), "{text}");
    assert_same("network.", &weights::read(&file("average.pth"), Some("state_dict"), &[], |_| true).expect("tensors"));
    let zeros = weights::read(&file("average.pth"), Some("state_dict_ema"), &[], |_| true).expect("tensors");
    let sum = |t: &Tensor| t.abs().and_then(|t| t.sum_all()?.to_scalar::<f32>()).expect("a sum");
    assert!(zeros.len() == 6 && zeros.values().all(|t| sum(t) == 0.0), "{zeros:?}");
    let error = weights::read(&file("average.pth"), Some("ema"), &[], |_| true).expect_err("no such key").to_string();
    assert!(
        error.contains("no tensor's name begins with `ema.`; the file has 14 tensors: `state_dict.0.weight`"),
        "{error}"
    );
    // Objects elsewhere in the file are none of its business.
    let found = weights::read(&file("lightning.ckpt"), Some("state_dict"), &[], |_| true).expect("tensors");
    assert_same("network.", &found);
}

#[test]
fn what_is_no_state_dict_of_tensors_is_refused_by_name() {
    let text = refused(&file("command.pth"));
    assert!(text.contains("`hook` holds a call of `posix.system`") && text.contains("nothing of it was run"), "{text}");
    assert!(refused(&file("module.pth")).contains("`torch.nn.modules.linear.Linear`"));
}

#[test]
fn broken_archives_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = std::fs::read(file("types.pth")).expect("a file");
    let path = folder.path().join("broken.pth");
    for kept in [10, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..kept]).expect("written");
        assert!(refused(&path).contains("incomplete archive"), "{kept} bytes");
    }
    // One value changes; the archive's checksum does not.
    let value =
        Golden::read("pytorch_files").get("types.double").flatten_all().and_then(|t| t.get(0)?.to_scalar::<f64>());
    let value = value.expect("a value").to_le_bytes();
    let place = bytes.windows(8).position(|window| window == value).expect("the value is in the file");
    let mut changed = bytes;
    changed[place] ^= 1;
    std::fs::write(&path, &changed).expect("written");
    let text = refused(&path);
    assert!(text.contains("`module.double`") || text.contains("state_dict.module.double"), "{text}");
    assert!(text.to_lowercase().contains("checksum"), "{text}");
}
