//! Readers of datasets: files of others, and the packed file of our own.

use candle_core::Device;
use gdrd_core::context::BuildContext;
use gdrd_core::data::Dataset;
use gdrd_core::plugin::Workbench;
use gdrd_core::registry::Registry;
use serde_json::{Value, json};

use crate::{folder, refused};

/// Opens a dataset and looks at its first faces.
fn open(kind: &str, options: &Value) {
    let registry = Registry::with_core().expect("core's kinds");
    let config = registry.datasets.from_json(kind, options).expect("good options");
    let bench = Workbench::new(Device::Cpu);
    let Some(data) = refused(config.build(&BuildContext::new(&bench))) else { return };
    check(&*data);
}

fn check(data: &dyn Dataset) {
    for index in 0..data.len().min(4) {
        let person = data.person(index);
        assert!(person.is_none_or(|person| person < data.people().len()));
        let _ = (data.key(index), data.place(index), data.attributes(index));
        if let Some(Ok(image)) = data.image(index) {
            // Large images are the business of the target `image`.
            if image.len() > 1 << 16 || dimensions(&image) > 1 << 20 {
                continue;
            }
            let _ = refused(data.face(index));
        }
    }
    for pair in data.pairs() {
        assert!(pair.left < data.len() && pair.right < data.len());
    }
}

fn dimensions(image: &[u8]) -> u64 {
    let reader = image::ImageReader::new(std::io::Cursor::new(image)).with_guessed_format().expect("bytes in memory");
    let (width, height) = reader.into_dimensions().unwrap_or_default();
    u64::from(width) * u64::from(height)
}

/// A `.rec` file, whose records are found one after the other.
pub(crate) fn record(bytes: &[u8]) {
    let file = folder::file("train.rec", bytes);
    open("mxnet-record", &json!({ "file": file, "unreadable": "skip" }));
}

/// The `.idx` file of a good `.rec` file.
pub(crate) fn index(bytes: &[u8]) {
    let file = folder::file("indexed.rec", include_bytes!("../../golden/readers/train.rec"));
    folder::file("indexed.idx", bytes);
    open("mxnet-record", &json!({ "file": file, "unreadable": "skip" }));
}

/// A `.bin` file.
pub(crate) fn bin(bytes: &[u8]) {
    let file = folder::file("lfw.bin", bytes);
    open("insightface-bin", &json!({ "file": file, "unreadable": "skip" }));
}

/// A tar archive.
pub(crate) fn tar(bytes: &[u8]) {
    let file = folder::file("faces.tar", bytes);
    open("webdataset", &json!({ "shards": [file], "unreadable": "skip" }));
}

/// A Parquet file, by the columns of labels that its seeds have.
pub(crate) fn parquet(bytes: &[u8]) {
    let file = folder::file("faces.parquet", bytes);
    for person in ["label", "who"] {
        open("parquet", &json!({ "files": [file], "person": person, "unreadable": "skip" }));
    }
}

/// A `.mat` list, whose images are not there.
pub(crate) fn mat(bytes: &[u8]) {
    let file = folder::file("list.mat", bytes);
    open("mat-list", &json!({ "list": file, "folder": folder::path().join("nowhere") }));
}

/// A `.mat` list of pairs, whose images are not there: those of one person and those of two.
pub(crate) fn mat_pairs(bytes: &[u8]) {
    let file = folder::file("pairs.mat", bytes);
    open("mat-pairs", &json!({ "same": file, "different": file, "folder": folder::path().join("nowhere") }));
}

/// A packed file.
pub(crate) fn packed(bytes: &[u8]) {
    let file = folder::file("faces.pack", bytes);
    open("packed", &json!({ "file": file }));
}

/// A CSV list, whose images are not there.
pub(crate) fn listed(bytes: &[u8]) {
    let file = folder::file("list.csv", bytes);
    open("listed", &json!({ "list": file, "folder": folder::path().join("nowhere") }));
}
