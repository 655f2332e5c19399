//! Files of other writers (`tests/golden/readers/export_parquet.py`), cut and damaged ones.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::{Value, json};

use super::ParquetImages;
use crate::context::BuildContext;
use crate::data::{Dataset, DatasetConfig};
use crate::error::Result;
use crate::plugin::Workbench;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/readers").join(name)
}

fn opened(options: Value) -> Result<Box<dyn Dataset>> {
    let config: ParquetImages = serde_json::from_value(options).expect("options");
    config.build(&BuildContext::new(&Workbench::new(Device::Cpu)))
}

fn people(data: &dyn Dataset) -> Vec<String> {
    let name = |index: usize| data.person(index).map_or("-".to_string(), |person| data.people()[person].clone());
    (0..data.len()).map(name).collect()
}

/// Whether a face is the drawn one of this number, which is known by its first pixel.
#[track_caller]
fn is_drawn(data: &dyn Dataset, index: usize, number: usize) {
    let face = data.face(index).expect("a face");
    let expected = [40 * number as i32, 90, 250 - 40 * number as i32];
    let near = |(found, expected): (&u8, i32)| (i32::from(*found) - expected).abs() < 8;
    assert!(face.pixels()[..3].iter().zip(expected).all(near), "{index}: {:?}", &face.pixels()[..3]);
}

fn refused(file: PathBuf, more: Value) -> String {
    let mut options = json!({ "files": [file] });
    options.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
    opened(options).err().expect("refused").to_string()
}

#[test]
fn what_datasets_writes_has_names() {
    let data = opened(json!({ "files": [golden("faces.parquet")], "attributes": ["session"] })).expect("a dataset");
    (0..6).for_each(|index| is_drawn(&*data, index, index));
    assert_eq!(people(&*data), ["Ann", "Ann", "Bob", "Bob", "Cy", "Cy"]);
    assert_eq!((data.key(5), data.attributes(2)), ("Cy/5".into(), vec![("session".into(), "2".into())]));
    assert!(data.attributes(1).is_empty() && data.place(3).ends_with("faces.parquet`: row 3"));
    let nobody = opened(json!({ "files": [golden("faces.parquet")], "person": "none" })).expect("a dataset");
    assert_eq!((nobody.people().len(), nobody.key(4)), (0, "-/4".into()));
}

#[test]
fn pages_and_groups_of_pyarrow() {
    // Two groups of three rows, each row in a page of its own; then another version of pages, compressed.
    let files = [golden("groups.parquet"), golden("version_2.parquet")];
    let data = opened(json!({ "files": files, "person": "who" })).expect("a dataset");
    assert_eq!(people(&*data), ["Ann", "Ann", "Bob", "Bob", "Cy", "Cy", "Ann", "Ann"]);
    // In any order.
    for index in [5, 0, 4, 3, 1, 2, 6, 7] {
        is_drawn(&*data, index, index % 6);
    }
}

#[test]
fn differences_and_split_numbers() {
    // Version 2 with snappy, then version 1 with gzip.
    let files = [golden("delta.parquet"), golden("delta_length.parquet")];
    let told = ["label", "session", "glasses"];
    let data = opened(json!({ "files": files, "person": "who", "attributes": told })).expect("a dataset");
    assert_eq!(people(&*data), ["Ann", "Ann", "Bob", "Ann", "Ann", "Bob"]);
    for index in [4, 1, 0, 5, 2, 3] {
        is_drawn(&*data, index, index % 3);
        let expected: &[&str] = match index % 3 {
            0 => &["7", "1", "true"],
            1 => &["-7"],
            _ => &["1099511627776", "-2", "false"],
        };
        let expected: Vec<_> =
            told.iter().zip(expected).map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(data.attributes(index), expected, "{index}");
    }
}

#[test]
fn wrong_columns_are_named() {
    let text = refused(golden("no_images.parquet"), json!({}));
    assert!(text.contains("expected one column of images, found the columns `text`, `label`"), "{text}");
    let text = refused(golden("paths.parquet"), json!({}));
    assert!(text.contains("row 0") && text.contains("the paths of its images alone holds none"), "{text}");
    let text = refused(golden("groups.parquet"), json!({}));
    assert!(text.contains("`person`: expected a column `label`, found the columns `face.bytes`, `face.path`, `who`"));
    let text = refused(golden("groups.parquet"), json!({ "person": "score" }));
    assert!(text.contains("`score`: expected whole numbers or text, found DOUBLE"), "{text}");
    let text = refused(golden("faces.parquet"), json!({ "image": "label" }));
    assert!(text.contains("`label`: expected an image a row, as bytes, found INT64"), "{text}");
    let text = refused(golden("faces.parquet"), json!({ "person": "session" }));
    assert!(text.contains("row 1: `session` says nothing; expected who it is"), "{text}");
    let text = refused(golden("zstd.parquet"), json!({ "person": "who" }));
    assert!(text.to_lowercase().contains("zstd"), "{text}");
}

#[test]
fn a_file_that_is_cut_or_damaged_is_refused() {
    let whole = std::fs::read(golden("version_2.parquet")).expect("a file");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cut.parquet");
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(&file, &whole[..length]).expect("written");
        let text = refused(file.clone(), json!({ "person": "who" }));
        assert!(text.contains("it cannot be read as a Parquet file"), "{length}: {text}");
    }
    // No damage is a panic, whatever it is taken for.
    let mut state = 1u64;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] ^= (state >> 20) as u8 | 1;
        }
        std::fs::write(&file, &bytes).expect("written");
        if let Ok(data) = opened(json!({ "files": [file], "person": "who", "unreadable": "skip" })) {
            (0..data.len()).for_each(|index| drop(data.face(index)));
        }
    }
}

/// The memory that these take is measured in `tests/untrusted`, which wrote them.
#[test]
fn what_a_file_says_of_itself_is_not_believed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/parquet");
    for (name, expected) in [
        ("snappy-length", "expected at most 220 bytes from 10 compressed ones, found 2147483647"),
        ("gzip-length", "compressed ones, found 2147483647"),
        ("gzip-longer", "compressed ones, found more"),
        ("gzip-shorter", "compressed ones, found fewer"),
        ("page-size", "`image.bytes`: page at byte 4: it is cut: expected 12 bytes more, found 8"),
        ("values", "expected at most 1 values, as many as rows are left, found 2147483647"),
        ("dictionary-values", "expected a dictionary of at most 2 values in 8 bytes, found 2147483647"),
        ("dictionary-place", "expected a place in a dictionary of 1 values, found 9"),
        ("dictionary-lacks", "it needs a dictionary, and there is none before it"),
        ("dictionary-width", "expected numbers of at most 32 bits, found 60"),
        ("delta-values", "expected at most 1 numbers, found 1099511627776"),
        ("delta-parts", "it is cut: expected 1099511627776 bytes more, found 0"),
        ("delta-block", "its differences are cut"),
        ("delta-zero", "expected blocks of a multiple of 8 numbers for each part, found 0 in 1 parts"),
        ("delta-begins", "expected at most 0 bytes of the value before it, found 2147483647"),
        ("delta-of-text", "values of BYTE_ARRAY in DELTA_BINARY_PACKED, which is not read"),
        ("long-texts", "row group 0: `label`: page at byte"),
        ("long-texts", "bytes together, as many as the file has, found more"),
        ("levels", "it is cut: expected 2147483647 bytes more"),
        ("children", "the columns: expected as many elements as each says that it has, found none"),
        ("columns-deep", "lies more than 32 deep"),
        ("columns-named", "expected names of at most 1048576 bytes together, found more"),
        ("structs-deep", "structs lie more than 32 deep in each other"),
        ("groups", "it cannot be read as a Parquet file: the footer, at byte 4: it is cut"),
        ("footer-length", "found one of 4294967295"),
    ] {
        let text = refused(corpus.join(format!("seed-{name}")), json!({}));
        assert!(text.contains(expected), "{name}: {text}");
    }
}

/// A file whose footer has the number `rows` in the place of the number of its rows, at the places `which` of its `i64` of that value.
fn with_rows(bytes: &[u8], rows: u64, which: &[usize]) -> Vec<u8> {
    let (body, end) = bytes.split_at(bytes.len() - 8);
    let length = u32::from_le_bytes(*end.first_chunk().expect("a length")) as usize;
    let (body, footer) = body.split_at(body.len() - length);
    // Thrift's compact form: a field of type 6 behind the last one, and a number in zigzag, seven bits a byte.
    let mut number = 2 * rows;
    let mut coded = Vec::new();
    while number > 127 {
        coded.push(number as u8 | 128);
        number >>= 7;
    }
    coded.push(number as u8);
    let is_rows = |pair: &[u8]| pair[0] & 15 == 6 && (1..4).contains(&(pair[0] >> 4)) && pair[1] == 4;
    let places: Vec<usize> =
        footer.windows(2).enumerate().filter(|(_, pair)| is_rows(pair)).map(|(at, _)| at).collect();
    let (mut new, mut from) = (Vec::new(), 0);
    for at in which.iter().filter_map(|place| places.get(*place)) {
        new.extend_from_slice(&footer[from..=*at]);
        new.extend_from_slice(&coded);
        from = at + 2;
    }
    new.extend_from_slice(&footer[from..]);
    [body, &new, &(new.len() as u32).to_le_bytes(), b"PAR1"].concat()
}

#[test]
fn rows_that_are_not_there_are_refused_before_they_are_made() {
    let whole = std::fs::read(golden("version_2.parquet")).expect("a file");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.parquet");
    let said = |rows: u64, which: &[usize]| {
        std::fs::write(&file, with_rows(&whole, rows, which)).expect("written");
        opened(json!({ "files": [file], "person": "none" })).err().map(|error| error.to_string())
    };
    assert_eq!(said(2, &[0]), None, "as it was");
    // The number of the file, those of the columns' values, of which images are the first, and that of the group.
    let text = said(1 << 33, &[0]).expect("refused");
    assert!(text.contains("expected 8589934592 rows, as the footer says, found 2 in its row groups"), "{text}");
    let text = said(1 << 33, &[1]).expect("refused");
    assert!(text.contains("row group 0: expected as many rows as images, 8589934592, found 2"), "{text}");
    let text = said(1 << 33, &[5]).expect("refused");
    assert!(text.contains("row group 0: expected as many rows as images, 2, found 8589934592"), "{text}");
    let text = said(1 << 33, &[0, 1, 2, 3, 4, 5]).expect("refused");
    assert!(text.contains("one for each byte of the file, found 8589934592"), "{text}");
}
