//! Files of faces that the writers of others have written.

use std::path::PathBuf;

use gdrd_core::data::{Compared, Dataset, Decoding, decode, read_image};
use gdrd_core::error::Result;
use gdrd_tests::{on_cpu, registry, root};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden/readers").join(name)
}

fn opened(kind: &str, options: Value) -> Result<Box<dyn Dataset>> {
    let config = registry().datasets.from_json(kind, &options)?;
    on_cpu(|cx| config.build(cx))
}

fn good(kind: &str, options: Value) -> Box<dyn Dataset> {
    opened(kind, options).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

/// The faces that `export.py` has drawn, by the colour of their upper left corner.
#[track_caller]
fn are_the_drawn_ones(data: &dyn Dataset, count: usize) {
    assert_eq!(data.len(), count);
    for index in 0..count {
        let face = data.face(index).expect("a face");
        assert_eq!((face.width(), face.height()), (24, 24));
        let expected = [40 * index as i32, 90, 250 - 40 * index as i32];
        for (found, expected) in face.pixels()[..3].iter().zip(expected) {
            assert!((i32::from(*found) - expected).abs() < 8, "face {index}: {:?}", &face.pixels()[..3]);
        }
    }
}

fn people(data: &dyn Dataset) -> Vec<String> {
    let name = |index: usize| data.person(index).map_or("-".to_string(), |person| data.people()[person].clone());
    (0..data.len()).map(name).collect()
}

#[test]
fn pairs_of_insightface_by_every_protocol_of_python() {
    for name in ["py2_0", "py2_2", "py3_0", "py3_1", "py3_2", "py3_3", "py3_4", "py3_5"] {
        let data = good("insightface-bin", json!({ "file": golden(&format!("lfw_{name}.bin")) }));
        are_the_drawn_ones(&*data, 6);
        let pair = |at: usize, same: bool| Compared { left: 2 * at, right: 2 * at + 1, same };
        assert_eq!(data.pairs(), [pair(0, true), pair(1, true), pair(2, false)], "{name}");
    }
}

#[test]
fn records_as_insightface_packs_them() {
    let data = good("mxnet-record", json!({ "file": golden("train.rec") }));
    are_the_drawn_ones(&*data, 6);
    assert_eq!(people(&*data), ["0", "0", "1", "1", "2", "2"]);
    assert_eq!(data.key(5), "2/6");
    let folder = tempfile::tempdir().expect("a folder");
    let alone = folder.path().join("alone.rec");
    std::fs::copy(golden("train.rec"), &alone).expect("copied");
    let scanned = good("mxnet-record", json!({ "file": alone }));
    assert_eq!((people(&*scanned), scanned.key(5)), (people(&*data), data.key(5)));
    are_the_drawn_ones(&*scanned, 6);
}

#[test]
fn tar_archives_of_webdataset_and_of_tarfile() {
    let data = good("webdataset", json!({ "shards": [golden("faces.tar")], "attributes": ["session"] }));
    are_the_drawn_ones(&*data, 6);
    assert_eq!(people(&*data), ["0", "0", "1", "1", "2", "2"]);
    assert_eq!(data.attributes(3), [("session".to_string(), "2".to_string())]);
    for name in ["long_pax.tar", "long_gnu.tar"] {
        let long = good("webdataset", json!({ "shards": [golden(name)], "person": "folder" }));
        are_the_drawn_ones(&*long, 2);
        assert_eq!(long.people(), ["a-folder-with-a-long-name"]);
    }
}

#[test]
fn lists_of_scipy() {
    for list in ["gallery.mat", "gallery_packed.mat", "probes.mat"] {
        let data = good("mat-list", json!({ "list": golden(list), "folder": golden("images") }));
        are_the_drawn_ones(&*data, 6);
        assert_eq!(people(&*data), ["0", "0", "1", "1", "2", "2"], "{list}");
        assert_eq!(data.key(4), "2/2_4");
    }
}

#[test]
fn pairs_of_scipy() {
    let lists = |same: PathBuf, different: PathBuf, unreadable: &str| json!({ "same": same, "different": different, "folder": golden("images"), "unreadable": unreadable });
    let (same, different) = (golden("positive_pairs_names.mat"), golden("negative_pairs_names.mat"));
    let data = good("mat-pairs", lists(same.clone(), different.clone(), "refuse"));
    are_the_drawn_ones(&*data, 6);
    let pair = |left, right, same| Compared { left, right, same };
    let expected = [pair(0, 1, true), pair(0, 2, false), pair(2, 3, true), pair(2, 4, false), pair(4, 5, true)];
    assert_eq!((data.pairs(), data.key(5), data.people().len()), (&expected[..], "2_5".to_string(), 0));

    // An image that is broken takes its pairs along, and the others stay who they are.
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(golden("images")).expect("images").flatten() {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    std::fs::write(folder.path().join("1_2.jpg"), b"no image").expect("written");
    let mut options = lists(same.clone(), different.clone(), "skip");
    options["folder"] = json!(folder.path());
    let data = good("mat-pairs", options.clone());
    assert_eq!(data.pairs(), [pair(0, 1, true), pair(3, 4, true)]);
    assert_eq!((data.key(2), data.key(3)), ("1_3".to_string(), "2_4".to_string()));
    assert!(
        data.notes().iter().any(|note| note.contains("pairs of images that are left out: 3")),
        "{:?}",
        data.notes()
    );
    options["unreadable"] = json!("refuse");
    let said = |options| opened("mat-pairs", options).err().expect("refused").to_string();
    assert!(said(options).contains("1_2.jpg"));
    let gallery = said(lists(golden("probes.mat"), different, "refuse"));
    assert!(gallery.contains("expected one variable, cells of names in two columns, found"), "{gallery}");
}

#[test]
fn images_that_are_not_plain() {
    let at = |name: &str, x: usize, y: usize| {
        let face = read_image(&golden(name), Decoding::default()).unwrap_or_else(|error| panic!("{error}"));
        let pixel = &face.pixels()[3 * (y * face.width() + x)..][..3];
        [pixel[0], pixel[1], pixel[2]].map(i32::from)
    };
    let near = |found: [i32; 3], expected: [i32; 3]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 6);
    // What PIL's `convert("RGB")` makes of them.
    let cmyk = at("odd/cmyk.jpg", 8, 6);
    assert!(near(cmyk, [235, 117, 0]), "{cmyk:?}");
    let grey = at("odd/grey.jpg", 8, 6);
    assert!(near(grey, [77; 3]), "{grey:?}");
    let grey16 = at("odd/grey16.png", 8, 6);
    assert!(near(grey16, [156; 3]), "{grey16:?}");
    // Orientation 6: what was the left is above.
    let face = read_image(&golden("odd/turned.jpg"), Decoding::default()).expect("a face");
    assert_eq!((face.width(), face.height()), (12, 16));
    assert!(at("odd/turned.jpg", 6, 2)[0] > 200 && at("odd/turned.jpg", 6, 13)[0] < 50);
}

#[test]
fn broken_images_are_all_named_at_once_and_skipped_only_on_demand() {
    let options = |unreadable: &str| json!({ "folders": [golden("odd")], "unreadable": unreadable });
    let text = opened("image-folder", options("refuse")).err().expect("refused").to_string();
    assert!(text.contains("3 of 8 images cannot be read; `unreadable = \"skip\"` leaves them out"), "{text}");
    assert!(text.contains("empty.jpg`: not a readable image: it is empty"), "{text}");
    assert!(text.contains("cut.jpg`: not a readable image: it is truncated, after 300 bytes"), "{text}");
    assert!(text.contains("huge.png`: not a readable image: it has 30000x30000 pixels"), "{text}");
    let data = good("image-folder", options("skip"));
    assert_eq!((data.len(), data.notes().len()), (5, 1));
    let huge = std::fs::read(golden("odd/huge.png")).expect("a file");
    assert!(decode(&huge, Decoding::default()).is_err());
}
