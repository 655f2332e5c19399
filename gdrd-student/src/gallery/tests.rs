//! What a gallery finds, and what becomes of its file.

use std::path::Path;

use super::file::{Header, beside, first_bytes, previous};
use super::*;
use gdrd_core::files;

const STUDENT: &str = "0123456789abcdef";

fn face(seed: usize, width: usize) -> Embedding {
    let noise = |at: usize| ((seed * 7919 + at * 104_729 + seed * at * 31) % 1009) as f32 / 1009.0 - 0.5;
    let values: Vec<f32> = (0..width).map(noise).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    Embedding::new(values.iter().map(|value| value / length).collect(), 16, None, STUDENT.into())
}

/// `people` people of three entries each.
fn gallery(people: usize, width: usize) -> Gallery {
    let mut gallery = Gallery::of(STUDENT.into(), width);
    for at in 0..3 * people {
        gallery.enrol(&format!("person {}", at % people), &face(at, width)).expect("enrolled");
    }
    gallery
}

#[test]
fn searches_are_exact_however_many_there_are() {
    for width in [5, 32] {
        let gallery = gallery(200, width);
        let probes: Vec<Embedding> = (0..21).map(|at| face(5000 + at, width)).collect();
        let all = gallery.search_all(&probes, 7).expect("found");
        for (probe, found) in probes.iter().zip(&all) {
            let nearest = |person: usize| {
                let of = |at: usize| face(at, width).similarity(probe).expect("one student");
                (0..3).map(|round| of(person + 200 * round)).fold(-2f32, f32::max)
            };
            let mut expected: Vec<(usize, f32)> = (0..200).map(|person| (person, nearest(person))).collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (found, (person, similarity)) in found.iter().zip(&expected) {
                assert_eq!(found.person, format!("person {person}"));
                assert!((found.similarity - similarity).abs() < 1e-5);
            }
            assert_eq!(found.len(), 7);
            assert_eq!(gallery.search(probe, 7).expect("found")[0].person, found[0].person);
        }
        for (k, expected) in [(0, 0), (1, 1), (200, 200), (usize::MAX, 200)] {
            assert_eq!(gallery.search(&probes[0], k).expect("found").len(), expected, "{k}");
        }
    }
}

#[test]
fn strangers_are_nobody_and_ties_go_to_whom_was_first() {
    let mut gallery = gallery(5, 8);
    let known = face(3, 8);
    assert_eq!(gallery.identify(&known, 0.999).expect("found").map(|found| found.person), Some("person 3".into()));
    assert_eq!(gallery.identify(&face(99, 8), 0.999).expect("found"), None);
    gallery.enrol("twin", &known).expect("enrolled");
    let found = gallery.search(&known, 2).expect("found");
    assert_eq!([&found[0].person, &found[1].person], ["person 3", "twin"]);
    let nobody = Gallery::of(STUDENT.into(), 8);
    assert!(
        nobody.search(&known, 3).expect("found").is_empty() && nobody.identify(&known, -1.0).expect("found").is_none()
    );
    let foreign = Embedding::new(known.values().to_vec(), 16, None, "another".into());
    assert!(gallery.search(&foreign, 1).is_err() && gallery.enrol("x", &foreign).is_err());
    for name in ["", "  ", "two\nlines"] {
        assert!(gallery.enrol(name, &known).is_err(), "{name:?}");
    }
}

#[test]
fn who_is_removed_is_found_no_more_and_stands_in_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    let mut gallery = gallery(4, 8);
    gallery.save(&path).expect("saved");
    gallery.enrol("person 0", &face(77, 8)).expect("enrolled");
    gallery.save(&path).expect("saved");
    let gone: Vec<u8> = face(1, 8).values().iter().flat_map(|value| value.to_le_bytes()).collect();
    let holds = |needle: &[u8]| {
        let files = std::fs::read_dir(folder.path()).expect("a folder");
        let bytes = files.map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"));
        bytes.filter(|bytes| bytes.windows(needle.len()).any(|part| part == needle)).count()
    };
    assert_eq!((holds(&gone), holds(b"person 1")), (2, 2), "in the file and in the state before it");
    assert_eq!((gallery.remove("person 1"), gallery.remove("person 1")), (3, 0));
    gallery.save(&path).expect("saved");
    assert_eq!((holds(&gone), holds(b"person 1")), (0, 0));
    let read = Gallery::open(&path).expect("a gallery");
    assert_eq!(read.people(), ["person 0", "person 2", "person 3"]);
    assert_eq!(read.len(), 10);
    for person in [0, 2, 3] {
        let found = read.search(&face(person, 8), 1).expect("found");
        assert_eq!(found[0].person, format!("person {person}"));
    }
}

/// A gallery whose file has three people in the state before it, and one more now; its bytes.
fn saved_twice(path: &Path) -> (Gallery, Vec<u8>) {
    let mut gallery = gallery(3, 4);
    gallery.save(path).expect("saved");
    gallery.enrol("new", &face(9, 4)).expect("enrolled");
    gallery.save(path).expect("saved");
    (gallery, std::fs::read(path).expect("bytes"))
}

#[test]
fn a_file_that_is_cut_or_altered_anywhere_gives_the_state_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    let (first, whole) = saved_twice(&path);
    let text = whole.iter().take_while(|byte| **byte != b' ').count();
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).expect("cut");
        let read = Gallery::open(&path).expect("the state before");
        assert_eq!(read.people().len(), 3, "{at} bytes");
        assert!(read.recovered().is_some_and(|why| why.contains(".previous` is used")), "{at} bytes");
        // Behind the header, whose own texts may be spaced as they like.
        if at > text + 8 {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            std::fs::write(&path, altered).expect("altered");
            let read = Gallery::open(&path).expect("either state");
            assert!(read.people().len() == 3 || read.rows == first.rows, "byte {at}");
        }
    }
    // What was recovered can be written, and a later state is not lost on the way.
    std::fs::write(&path, &whole[..50]).expect("cut");
    let mut read = Gallery::open(&path).expect("the state before");
    read.enrol("again", &face(10, 4)).expect("enrolled");
    read.save(&path).expect("saved");
    assert_eq!(Gallery::open(&path).expect("whole").people().len(), 4);
    std::fs::remove_file(previous(&path)).expect("removed");
    std::fs::write(&path, &whole[..50]).expect("cut");
    let text = Gallery::open(&path).expect_err("neither").to_string();
    assert!(text.contains("people`") && text.contains("cut or damaged"), "{text}");
}

#[test]
fn a_file_that_is_not_lost_is_neither_passed_over_nor_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    let (_, whole) = saved_twice(&path);
    std::fs::write(&path, &whole[..50]).expect("cut");
    let mut recovered = Gallery::open(&path).expect("the state before");
    // Somebody mends it before what was recovered is saved.
    std::fs::write(&path, &whole).expect("written");
    let text = recovered.save(&path).expect_err("another wrote").to_string();
    assert!(text.contains("another program has written it: open it again"), "{text}");
    assert_eq!(std::fs::read(&path).expect("bytes"), whole);
    let header = Header { format: 9, student: STUDENT.into(), width: 4, entries: 0, names: 2, sha256: String::new() };
    let later = first_bytes(&header).expect("bytes");
    std::fs::write(&path, &later).expect("written");
    for error in [Gallery::open(&path).expect_err("later"), recovered.save(&path).expect_err("later")] {
        assert!(error.to_string().contains("format 9, which a later gdrd wrote"), "{error}");
    }
    assert_eq!(std::fs::read(&path).expect("bytes"), later);
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("a folder");
    Gallery::open(&path).expect_err("it cannot be read");
    std::fs::remove_dir(&path).expect("removed");
    assert_eq!(Gallery::open(&path).expect("the state before").people().len(), 3, "it is missing");
}

#[cfg(unix)]
#[test]
fn removing_from_what_was_recovered_leaves_a_whole_file_at_any_moment() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    let mut first = gallery(3, 4);
    first.save(&path).expect("saved");
    first.save(&path).expect("saved");
    let allow = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    std::fs::write(&path, "cut").expect("written");
    allow(0o444);
    let mut read = Gallery::open(&path).expect("the state before");
    assert_eq!(read.remove("person 1"), 3);
    assert!(read.save(&path).expect_err("it ends on the way").to_string().contains("is read-only"));
    assert!(Gallery::open(&path).expect("either state").people().len() >= 2);
    allow(0o600);
    read.save(&path).expect("saved");
    for file in [&path, &previous(&path)] {
        assert_eq!(Gallery::open(file).expect("whole").people(), ["person 0", "person 2"]);
    }
}

#[test]
fn what_a_killed_save_left_is_swept_and_what_is_written_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let [path, other] = ["people", "other"].map(|name| folder.path().join(name));
    let left = ["people", "people.previous", "people.gallery"]
        .map(|name| folder.path().join(format!(".gdrd-{name}-Abc123.partial")));
    let mut gallery = gallery(2, 4);
    gallery.save(&path).expect("saved");
    let whole = std::fs::read(&path).expect("bytes");
    let half = &whole[..whole.len() - 4];
    let partials = || {
        let names = std::fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file").file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".gdrd-")).count()
    };
    let parts = [half, &whole[half.len()..]].into_iter().enumerate().map(|(at, part)| {
        if at == 1 {
            left.iter().for_each(|left| std::fs::write(left, half).expect("written"));
            assert_eq!(partials(), 4, "the writer's own has such a name too");
            gallery.save(&path).expect("saved");
            assert_eq!((partials(), left.each_ref().map(|left| left.exists())), (2, [false, false, true]));
        }
        part
    });
    files::write_parts(&other, parts).expect("written");
    assert_eq!(std::fs::read(&other).expect("bytes"), whole);
}

#[cfg(unix)]
#[test]
fn a_new_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let mut gallery = gallery(2, 4);
    gallery.save(&path).expect("saved");
    gallery.remove("person 1");
    gallery.save(&path).expect("saved");
    assert_eq!((mode(&path), mode(&previous(&path))), (0o600, 0o600));
    // Whoever shares it has said so.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
    gallery.save(&path).expect("saved");
    assert_eq!((mode(&path), mode(&previous(&path))), (0o640, 0o640));
}

#[test]
fn a_length_that_was_altered_gives_way_to_the_state_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    let mut first = gallery(3, 4);
    first.save(&path).expect("saved");
    first.save(&path).expect("saved");
    let whole = std::fs::read(&path).expect("bytes");
    for at in 0..8 {
        for bit in 0..8 {
            let mut altered = whole.clone();
            altered[at] ^= 1 << bit;
            std::fs::write(&path, &altered).expect("written");
            let read = Gallery::open(&path).unwrap_or_else(|error| panic!("byte {at}, bit {bit}: {error}"));
            assert!(
                read.people().len() == 3
                    && read.recovered().is_some_and(|why| why.contains("people.previous` is used"))
            );
        }
    }
    std::fs::write(&path, [255; 64]).expect("written");
    assert!(Gallery::open(&path).expect_err("another program's").to_string().contains("no gallery of gdrd"));
}

#[test]
fn two_writers_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    gallery(2, 4).save(&path).expect("saved");
    let (mut a, mut b) = (Gallery::open(&path).expect("open"), Gallery::open(&path).expect("open"));
    a.enrol("by a", &face(8, 4)).expect("enrolled");
    b.enrol("by b", &face(9, 4)).expect("enrolled");
    a.save(&path).expect("saved");
    let text = b.save(&path).expect_err("another wrote").to_string();
    assert!(text.contains("another program has written it: open it again"), "{text}");
    let mut b = Gallery::open(&path).expect("open");
    b.enrol("by b", &face(9, 4)).expect("enrolled");
    let held = files::hold(&beside(&path, ".lock")).expect("a lock").expect("free");
    assert!(b.save(&path).expect_err("held").to_string().contains("another program is writing it"));
    drop(held);
    b.save(&path).expect("saved");
    assert_eq!(Gallery::open(&path).expect("open").people().len(), 4);
    assert!(Gallery::of(STUDENT.into(), 4).save(&path).is_err(), "a new one does not write over it");
}

#[test]
fn foreign_later_and_lying_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        Gallery::open(&path).expect_err("refused").to_string()
    };
    let header = |format, entries| Header {
        format,
        student: STUDENT.into(),
        width: 4,
        entries,
        names: 2,
        sha256: String::new(),
    };
    let later = first_bytes(&header(9, 0)).expect("bytes");
    assert!(said(&later).contains("format 9, which a later gdrd wrote"), "{}", said(&later));
    for entries in [1 << 20, 1 << 40] {
        let lying = first_bytes(&header(1, entries)).expect("bytes");
        assert!(said(&lying).contains("cut or damaged"), "{}", said(&lying));
    }
    let plain = [&2u64.to_le_bytes()[..], b"{}"].concat();
    assert!(said(&plain).contains("no gallery of gdrd"));
    assert!(said(&[255; 64]).contains("no gallery of gdrd") && said(b"").contains("no header"));
    let huge = first_bytes(&Header { names: usize::MAX, ..header(1, 0) }).expect("bytes");
    assert!(said(&huge).contains("bytes, its header says more than there can be: it is cut"), "{}", said(&huge));
    std::fs::remove_file(&path).expect("removed");
    let text = Gallery::open(&path).expect_err("missing").to_string();
    assert!(text.contains("no such file") && text.matches("people`").count() == 1, "{text}");
}
