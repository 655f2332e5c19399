//! What others have met in their programs, tried on this one: files of the user's, places that are no files, closed and full
//! outputs, damaged files, names and numbers without bounds.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use gdrd_tests::{Bench, Said, files_below};

use crate::gdrd;

/// One stage of a few steps on drawn faces, without teachers.
pub(crate) const ALONE: &str = "format = 1\nstages = [\"one\"]\n[data.train]\nkind = \"synthetic-faces\"\nidentities = 4\n\
    images_per_identity = 4\nsize = 16\n[student]\nkind = \"resnet-trunk\"\nchannels = [4]\nblocks = [1]\nstrides = [2]\n\
    embedding = 8\n[stage.one]\nsteps = 6\nbatch_size = 4\n[stage.one.loss.identity]\nkind = \"cross-entropy\"\n\
    [evaluate.drawn]\nkind = \"verification\"\ndata = \"train\"\ndrawn_pairs = 8\nfolds = 2\n[run]\ncheckpoint_steps = 2\n";

pub(crate) fn bench() -> Bench {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    bench
}

pub(crate) fn said(bench: &Bench, arguments: &[&str]) -> Said {
    Said::by(gdrd(bench).args(arguments))
}

/// Every file of a folder with its bytes.
pub(crate) fn content(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files_below(folder, "").into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

#[test]
fn nothing_of_the_users_is_touched() {
    let bench = bench();
    for name in ["report.md", "notes/day.txt", "lock.json", "checkpoints/step-9/mine", "student.safetensors"] {
        bench.write(name, "mine");
    }
    let before = content(bench.path());
    for arguments in [&["train", "r.toml", "--run-dir", ".", "--fresh"][..], &["train", "r.toml", "--run-dir", "."]] {
        let said = said(&bench, arguments).with_code(2);
        assert!(said.stderr.contains("`.` is no run folder and is not empty: it holds `"), "{said:#?}");
        assert_eq!(content(bench.path()), before);
    }
    let said_now = said(&bench, &["resume", "."]).with_code(2);
    assert!(said_now.stderr.contains("is no run folder"), "{said_now:#?}");
    assert_eq!(content(bench.path()), before);
    let said_now = said(&bench, &["train", "r.toml", "--run-dir", "r.toml"]).with_code(1);
    assert!(said_now.stderr.contains("`r.toml`"), "{said_now:#?}");
    symlink("gone", bench.file("nowhere")).expect("a link");
    let said_now = said(&bench, &["train", "r.toml", "--run-dir", "nowhere"]).with_code(1);
    assert!(said_now.stderr.contains("`nowhere`: a link to a folder that does not exist"), "{said_now:#?}");
    fs::remove_file(bench.file("nowhere")).expect("removed");
    // A run folder into which the user has put things: they stay.
    said(&bench, &["train", "r.toml", "--run-dir", "runs/a"]).with_code(0);
    let theirs =
        ["runs/a/notes.md", "runs/a/evaluation/mine.json", "runs/a/checkpoints/best/student", "runs/a/loss-x.png"];
    theirs.iter().for_each(|name| drop(bench.write(name, "mine")));
    let again = said(&bench, &["train", "r.toml", "--run-dir", "runs/a"]).with_code(0);
    assert!(again.stdout.starts_with("drawn:\n"), "another's file among the results does no harm: {again:#?}");
    said(&bench, &["train", "r.toml", "--run-dir", "runs/a", "--fresh"]).with_code(0);
    for name in theirs {
        assert_eq!(fs::read(bench.file(name)).expect(name), b"mine");
    }
}

#[test]
fn what_was_trained_stays_until_the_fresh_run_is_prepared() {
    let bench = bench();
    said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    let before = fs::read(bench.file("a/student.safetensors")).expect("a student");
    let gone = "data.train={ kind = \"image-folder\", folders = [\"gone\"] }";
    said(&bench, &["train", "r.toml", "--run-dir", "a", "--fresh", "--set", gone]).with_code(1);
    assert_eq!(fs::read(bench.file("a/student.safetensors")).expect("a student"), before);
    let again = said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    assert!(again.stderr.contains("this run is finished"), "{again:#?}");
}

#[test]
fn runs_of_before_the_mark_are_known_by_their_lock() {
    let bench = bench();
    said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    fs::remove_file(bench.file("a/gdrd-run.json")).expect("removed");
    let again = said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    assert!(again.stderr.contains("this run is finished"), "{again:#?}");
    let recipe = fs::read_to_string(bench.file("a/recipe.resolved.toml")).expect("a recipe");
    bench.write("a/recipe.resolved.toml", recipe.replace("seed = 7", "seed = 8"));
    let other = said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(2);
    assert!(other.stderr.contains("is no run folder"), "{other:#?}");
}

#[test]
fn an_ablation_writes_over_nothing_of_the_users() {
    let bench = bench();
    bench.write("ablation.csv", "mine");
    let refused = said(&bench, &["ablate", "r.toml", "--run-dir", "."]).with_code(2);
    assert!(refused.stderr.contains("ablation.csv` would be overwritten"), "{refused:#?}");
    assert_eq!(fs::read(bench.file("ablation.csv")).expect("a file"), b"mine");
}

/// A trained student and an image of 16x16 pixels, which is too small for any filter to leave it as it is.
pub(crate) fn with_student() -> Bench {
    let bench = bench();
    said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    fs::copy(bench.file("a/student.safetensors"), bench.file("s")).expect("a student");
    image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([(x * 83 + y * 57) as u8, (x * 131) as u8, (y * 199) as u8]))
        .save(bench.file("a.png"))
        .expect("an image");
    bench
}

#[test]
fn outputs_go_where_they_should() {
    let bench = with_student();
    let embed = |out: &str| said(&bench, &["embed", "a.png", "--student", "s", "--out", out]);
    embed("e").with_code(0);
    let expected = fs::read(bench.file("e")).expect("embeddings");
    // What is no file stays what it is, and has the bytes alone.
    let mut piped = gdrd(&bench);
    let piped = piped.args(["embed", "a.png", "--student", "s", "--out", "/dev/stdout"]).output().expect("it runs");
    assert!(piped.status.success() && piped.stdout == expected, "{}", String::from_utf8_lossy(&piped.stderr));
    assert!(String::from_utf8_lossy(&piped.stderr).contains("1 embeddings of 8 values"));
    let file = fs::File::create(bench.file("redirected")).expect("a file");
    let mut redirected = gdrd(&bench);
    redirected.args(["embed", "a.png", "--student", "s", "--out", "/dev/stdout"]).stdout(file);
    assert!(redirected.status().expect("it runs").success());
    assert_eq!(fs::read(bench.file("redirected")).expect("a file"), expected);
    embed("/dev/null").with_code(0);
    assert!(fs::metadata("/dev/null").is_ok_and(|null| !null.is_file()));
    assert!(embed("/dev/full").with_code(1).stderr.contains("No space left"));
    assert!(Command::new("mkfifo").arg(bench.file("pipe")).status().expect("mkfifo").success());
    let reader = bench.file("pipe");
    let reader = std::thread::spawn(move || fs::read(reader).expect("read"));
    embed("pipe").with_code(0);
    assert_eq!(reader.join().expect("a reader"), expected);
    assert!(!bench.file("pipe").is_file(), "a pipe stays a pipe");
    // A link stays a link.
    bench.write("far/old", "old");
    symlink("far/old", bench.file("link")).expect("a link");
    embed("link").with_code(0);
    assert!(bench.file("link").is_symlink() && fs::read(bench.file("far/old")).expect("a file") == expected);
    // Places that are none.
    fs::create_dir(bench.file("folder")).expect("a folder");
    assert!(embed("folder").with_code(1).stderr.contains("`folder` is a folder, expected a file"));
    assert!(embed("gone/e").with_code(1).stderr.contains("there is no folder `gone`"));
    assert!(!bench.file("gone").exists());
}

#[test]
fn an_input_is_never_an_output() {
    let bench = with_student();
    symlink("a.png", bench.file("link.png")).expect("a link");
    fs::hard_link(bench.file("s"), bench.file("hard")).expect("another name");
    bench.write("faces/Ann/1.png", fs::read(bench.file("a.png")).expect("an image"));
    let folder = "data.train={ kind = \"identity-folders\", folders = [\"faces\"] }";
    let before = content(bench.path());
    for arguments in [
        &["embed", "a.png", "--student", "s", "--out", "a.png"][..],
        &["embed", "a.png", "--student", "s", "--out", "link.png"],
        &["embed", "a.png", "--student", "s", "--out", "hard"],
        &["evaluate", "r.toml", "--student", "s", "--out", "r.toml"],
        &["evaluate", "r.toml", "--student", "s", "--out", "./s"],
        &["evaluate", "r.toml", "--student", "s", "--set", folder, "--out", "faces/Ann/1.png"],
        &["evaluate", "r.toml", "--student", "a/student.safetensors", "--set", "student.initial=s", "--out", "s"],
    ] {
        let said = said(&bench, arguments).with_code(2);
        assert!(said.stderr.contains("would be lost; name another output"), "{said:#?}");
        assert!(content(bench.path()) == before, "{arguments:?}");
    }
}

#[test]
fn a_small_face_is_embedded_as_it_is() {
    let bench = with_student();
    // The same pixels blown up and reduced again are others.
    said(&bench, &["embed", "a.png", "--student", "s", "--out", "native"]).with_code(0);
    said(&bench, &["embed", "a.png", "--student", "s", "--size", "112", "--out", "enlarged"]).with_code(0);
    let student = gdrd_student::FaceEncoder::open(bench.file("s")).expect("a student");
    let image = image::open(bench.file("a.png")).expect("an image").into_rgb8();
    let face = gdrd_core::face::Face::new(16, 16, image.into_raw()).expect("a face");
    let expected = student.embed(&[face]).expect("an embedding");
    let rows = |name: &str| -> Vec<f32> {
        let bytes = fs::read(bench.file(name)).expect("embeddings");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("embeddings");
        let tensor = file.tensor("embeddings").expect("embeddings");
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    assert_eq!(rows("native"), expected.values());
    assert_ne!(rows("enlarged"), expected.values());
}

#[test]
fn nobody_has_to_listen_to_a_run() {
    let bench = bench();
    // Standard error is closed after the first line, or full from the start.
    let mut child = gdrd(&bench);
    let mut child =
        child.args(["train", "r.toml", "--run-dir", "closed"]).stderr(Stdio::piped()).spawn().expect("starts");
    drop(child.stderr.take());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let mut command = gdrd(&bench);
    let status = command.args(["train", "r.toml", "--run-dir", "full"]).stderr(full()).stdout(Stdio::null()).status();
    assert_eq!(status.expect("it runs").code(), Some(0));
    assert!(bench.file("full/report.md").exists() && bench.file("closed/report.md").exists());
    // Results that nobody gets are an error; the run that they come from is whole.
    for arguments in [
        &["schema"][..],
        &["kinds"],
        &["kinds", "arcface"],
        &["--help"],
        &["--version"],
        &["check", "r.toml"],
        &["plan", "r.toml"],
        &["evaluate", "r.toml", "--student", "full/student.safetensors"],
        &["train", "r.toml", "--run-dir", "results"],
    ] {
        let said = Said::by(gdrd(&bench).args(arguments).stdout(full()));
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:#?}");
        assert!(said.stderr.contains("error: `standard output`: No space left"), "{arguments:?}: {said:#?}");
    }
    assert!(bench.file("results/report.md").exists());
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_older_one() {
    let bench = bench();
    let whole = ["train", "r.toml", "--run-dir", "whole", "--set", "run.keep_checkpoints=3"];
    said(&bench, &whole).with_code(0);
    let student = fs::read(bench.file("whole/student.safetensors")).expect("a student");
    type Damage = fn(&Path);
    let cut: Damage = |path| {
        let bytes = fs::read(path).expect("a file");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("cut");
    };
    let remove: Damage = |path| fs::remove_file(path).expect("removed");
    let flip: Damage = |path| {
        let mut bytes = fs::read(path).expect("a file");
        *bytes.last_mut().expect("some") ^= 1;
        fs::write(path, bytes).expect("changed");
    };
    let cases = [("state", cut), ("state", flip), ("state", remove), ("position", cut), ("position", remove)];
    // The run as it was after step 4, and as it would be if nothing of its checkpoints were left.
    let back = || {
        let mark = fs::read_to_string(bench.file("whole/gdrd-run.json")).expect("a mark");
        bench.write("whole/gdrd-run.json", mark.replace("\"finished\": true", "\"finished\": false"));
        fs::remove_dir_all(bench.file("whole/checkpoints/step-6")).expect("removed");
        fs::remove_file(bench.file("whole/student.safetensors")).expect("removed");
    };
    for (at, (name, damage)) in cases.into_iter().enumerate() {
        back();
        let ending = if name == "state" { "safetensors" } else { "json" };
        damage(&bench.file(&format!("whole/checkpoints/step-4/{name}.{ending}")));
        let resumed = said(&bench, &["resume", "whole"]).with_code(0);
        for text in [name, "going on from the older checkpoint `", "damaged-step-4", "going on from step 2"] {
            assert!(resumed.stderr.contains(text), "case {at}, `{text}`: {resumed:#?}");
        }
        assert!(fs::read(bench.file("whole/student.safetensors")).expect("a student") == student, "case {at}");
        assert_eq!(fs::read_to_string(bench.file("whole/metrics.jsonl")).expect("a log").lines().count(), 6);
    }
    back();
    for step in [2, 4] {
        cut(&bench.file(&format!("whole/checkpoints/step-{step}/state.safetensors")));
    }
    let refused = said(&bench, &["resume", "whole"]).with_code(1);
    assert!(refused.stderr.contains("no checkpoint of this run is good; `--fresh` begins it again"), "{refused:#?}");
}

#[test]
fn stored_features_that_are_damaged_are_made_again() {
    let bench = Bench::with_teachers();
    // By the same program: stored features are of a program.
    said(&bench, &["train", "tiny.toml", "--run-dir", "runs/whole"]).with_code(0);
    let whole = fs::read(bench.file("runs/whole/student.safetensors")).expect("a student");
    for damage in [(|bytes| vec![0; bytes]) as fn(usize) -> Vec<u8>, |bytes| vec![0; bytes / 2], |_| Vec::new()] {
        for path in files_below(&bench.file("runs/.features"), ".safetensors") {
            let length = fs::metadata(&path).expect("a file").len() as usize;
            fs::write(&path, damage(length)).expect("damaged");
        }
        let run = format!("again-{}", damage(8).len());
        let said = said(&bench, &["train", "tiny.toml", "--run-dir", &format!("runs/{run}")]).with_code(0);
        assert!(said.stderr.contains("warning: teacher `") || said.stderr.contains("stored features `"), "{said:#?}");
        assert!(said.stderr.contains("it is made again"), "{said:#?}");
        let read = |path: &Path| fs::read(path).expect("a student");
        assert!(read(&bench.file("runs").join(run).join("student.safetensors")) == whole);
    }
}

#[test]
fn names_and_numbers_are_bounded() {
    let bench = bench();
    let long = "a".repeat(300);
    for name in ["../../escape", "a/b", ".hidden", "", long.as_str()] {
        let set = format!("evaluate.\"{name}\"={{ kind = \"verification\", data = \"train\" }}");
        let said = said(&bench, &["check", "r.toml", "--set", &set]).with_code(2);
        assert!(said.stderr.contains("cannot be a part of a file's name"), "{name:?}: {said:#?}");
    }
    let stage = ALONE.replace("\"one\"", "\"../one\"").replace("stage.one", "stage.\"../one\"");
    bench.write("stage.toml", stage);
    assert!(said(&bench, &["check", "stage.toml"]).with_code(2).stderr.contains("cannot be a part"));
    for set in [
        "stage.one.augment.shift=4294967295",
        "stage.one.augment.shift=2147483647",
        "run.workers=100000",
        "run.keep_checkpoints=9223372036854775807",
        "run.checkpoint_steps=9223372036854775807",
        "stage.one.steps=9223372036854775807",
        "stage.one.accumulate=9223372036854775807",
        "stage.one.batch_size=9223372036854775807",
        "data.train.identities=9223372036854775807",
        "data.train.images_per_identity=9223372036854775807",
        "data.train.first_identity=9223372036854775807",
        "data.train.size=9223372036854775807",
    ] {
        let said = said(&bench, &["check", "r.toml", "--set", set]).with_code(2);
        assert!(said.stderr.contains("at most"), "{set}: {said:#?}");
    }
    // A recipe's name may be anything; its folder's name is not.
    for name in ["w/o DIST", "..", "", &"long ".repeat(200)] {
        let text = format!("name = {name:?}\n{ALONE}");
        bench.write("named.toml", text);
        let said = said(&bench, &["train", "named.toml"]).with_code(0);
        let folder = said.stdout.lines().last().expect("the folder");
        assert!(folder.starts_with("runs/") && bench.file(folder).join("report.md").exists(), "{folder}");
    }
}

#[test]
fn a_long_line_is_no_reason_to_panic() {
    let bench = bench();
    let line = format!("stages = [{}] ", "\"one\", ".repeat(11_200));
    let text =
        ALONE.replace("stages = [\"one\"]\n", &format!("stages = [\"one\"]\nx = {{ {line}, y = 2, paht = 1 }}\n"));
    bench.write("long.toml", text);
    let said_now = said(&bench, &["check", "long.toml"]).with_code(2);
    assert!(said_now.stderr.contains("unknown field `x`") && said_now.stderr.len() < 4000, "{said_now:#?}");
    let spaces = " ".repeat(78_000);
    bench
        .write("end.toml", ALONE.replace("batch_size = 4", &format!("augment = {{ flip = true,{spaces} shfit = 1 }}")));
    let said_now = said(&bench, &["check", "end.toml"]).with_code(2);
    assert!(said_now.stderr.contains("unknown field `shfit`"), "{said_now:#?}");
    assert!(said_now.stderr.contains("did you mean `shift`?") && said_now.stderr.len() < 4000, "{said_now:#?}");
    let set = format!("stage.one.data=\"{}\"", "x".repeat(78_000));
    let said_now = said(&bench, &["check", "r.toml", "--set", &set]).with_code(2);
    assert!(!said_now.stderr.contains("panicked"), "{said_now:#?}");
}

#[test]
fn what_a_dataset_passes_over_is_said() {
    let bench = with_student();
    let image = fs::read(bench.file("a.png")).expect("an image");
    for person in ["Ann", "Bob"] {
        for name in ["1.png", "2.jfif", "3.WEBP", "._1.png"] {
            bench.write(&format!("faces/{person}/{name}"), &image);
        }
    }
    bench.write("faces/Ann/4.avif", "AVIF");
    let set = "data.train={ kind = \"identity-folders\", folders = [\"faces\"], size = 16 }";
    let said = said(&bench, &["train", "r.toml", "--run-dir", "b", "--set", set]).with_code(0);
    assert!(said.stderr.contains("warning: dataset `train`: passed over, no image by name"), "{said:#?}");
    assert!(said.stderr.contains("): 1: `") && said.stderr.contains("4.avif`"), "{said:#?}");
    let lock = fs::read_to_string(bench.file("b/lock.json")).expect("a lock");
    assert!(lock.contains("\"faces\": 6"), "{lock}");
}
