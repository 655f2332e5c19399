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
