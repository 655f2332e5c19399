//! `docs/errors.md`: what the command line says when something is wrong, provoked one by one.

use std::fmt::Write;

use gdrd_tests::{Bench, Said, TINY, root};

use crate::bad_data::{FOLDERS, faces, recipe};
use crate::faults::ALONE;
use crate::gdrd;

const INTRODUCTION: &str = "# What gdrd says when something is wrong\n\n\
    Every error says what is wrong, where, what was expected, what was found, and what to do where that is not plain. Errors go to \
    standard error. The exit code is 2 where the command line or the recipe is wrong, 1 where the run failed, and 130 where the \
    user stopped it.\n\n\
    This page is made by a test (`tests/it/errors_page.rs`), which provokes each error with the program and fails when the page is \
    not what it says: `GDRD_UPDATE=1 cargo test -p gdrd-tests --test it errors_page` writes it again. `FOLDER` stands for the \
    folder in which the commands ran.\n";

/// A command without the program's name, words apart by spaces; `|` stands for a space inside a word.
type Group = (&'static str, &'static [&'static str]);

const GROUPS: [Group; 6] = [
    (
        "The command line",
        &[
            "",
            "trian r.toml",
            "train",
            "train r.toml --no-such",
            "train r.toml --device tpu",
            "train r.toml --set learning_rate",
            "embed a.png --out e.safetensors",
            "embed --student s.safetensors --out e.safetensors",
            "evaluate no-protocol.toml",
            "evaluate r.toml",
            "features tiny.toml --teacher generativ a.png --out f.safetensors",
            "kinds arcfaec",
            "ablate r.toml other/r.toml",
            "ablate r.toml --seeds 7,7",
            "ablate r.toml --against r2",
            "hub pull r.toml --lock gone.json",
        ],
    ),
    (
        "Recipes",
        &[
            "check gone.toml",
            "check faces",
            "check empty.toml",
            "check latin1.toml",
            "check broken.toml",
            "check twice.toml",
            "check newer.toml",
            "check circle.toml",
            "check orphan.toml",
            "check misspelt.toml",
            "check variable.toml",
            "check no-student.toml",
            "check r.toml --set stages=[]",
            "check r.toml --set stages=[\"two\"]",
            "check r.toml --set stages=[\"one\",\"one\"]",
            "check r.toml --set stage.oen.steps=7",
            "check r.toml --set stage.one.data=trian",
            "check r.toml --set stage.one.view=lo",
            "check r.toml --set stage.one.steps=many",
            "check r.toml --set stage.one.steps=0",
            "check r.toml --set stage.one.epochs=2",
            "check r.toml --set stage.one.learning_rate=nan",
            "check r.toml --set stage.one.trains=[]",
            "check r.toml --set stage.one.rates={|backbone|=|-1|}",
            "check r.toml --set stage.one.augment.shift=4294967295",
            "check r.toml --set stage.one.loss.identity.enabled=false",
            "check r.toml --set stage.one.loss.identity.kind=\"cross-entrpy\"",
            "check r.toml --set run.workers=100000",
            "check r.toml --set student.strides=[1,2]",
            "check r.toml --set evaluate.drawn.drawn_pairs=7",
            "check r.toml --set evaluate.\"../../escape\"={|kind|=|\"verification\",|data|=|\"train\"|}",
            "check r.toml --set evaluate.Drawn={|kind|=|\"verification\",|data|=|\"train\"|}",
            "check r.toml --set run.precision=half",
            "train r.toml --set run.precision=tf32",
        ],
    ),
    (
        "Data",
        &[
            "train faces.toml --set data.train.folders=[\"gone\"]",
            "train faces.toml --set data.train.folders=[\"hollow\"]",
            "train faces.toml --set data.train.folders=[\"a.png\"]",
            "train faces.toml --set data.train.folders=[\"faces\",\"faces\"]",
            "train faces.toml --set data.train.folders=[\"alone\"]",
            "train faces.toml --set data.train.folders=[\"text\"]",
            "train faces.toml --set data.train.folders=[\"avif\"]",
            "train faces.toml --set data.train.folders=[\"cut\"]",
            "train faces.toml --set data.train.min_images=5",
            "train faces.toml --set stage.recognition.batch_size=64",
            "train pairs.toml --set evaluate.lfw.pairs=\"gone.txt\"",
            "train pairs.toml --set evaluate.lfw.pairs=\"faces\"",
            "train pairs.toml --set evaluate.lfw.pairs=\"empty.toml\"",
            "train pairs.toml --set evaluate.lfw.pairs=\"wrong-line.txt\"",
            "train pairs.toml --set evaluate.lfw.pairs=\"short.txt\"",
            "train pairs.toml --set evaluate.lfw.pairs=\"absent.txt\"",
            "embed gone.png --student s.safetensors --out e.safetensors",
            "embed r.toml --student s.safetensors --out e.safetensors",
            "embed faces --student s.safetensors --out e.safetensors",
        ],
    ),
    (
        "Weights and students",
        &[
            "train teacher.toml",
            "train teacher.toml --set teacher.t.weights=\"empty.toml\"",
            "train teacher.toml --set teacher.t.weights=\"pointer.safetensors\"",
            "train teacher.toml --set teacher.t.weights=\"page.pth\"",
            "train teacher.toml --set teacher.t.weights=\"faces\"",
            "train teacher.toml --set teacher.t.weights=\"a.png\"",
            "train teacher.toml --set teacher.t.weights=\"other.safetensors\"",
            "train teacher.toml --set teacher.t.weights=\"s.safetensors\"",
            "train teacher.toml --set teacher.t={|kind|=|\"precomputed\",|file|=|\"a.npy\"|}",
            "train teacher.toml --set teacher.t={|kind|=|\"student\",|weights|=|\"cut.safetensors\"|}",
            "embed a.png --student gone.safetensors --out e.safetensors",
            "embed a.png --student faces --out e.safetensors",
            "embed a.png --student empty.toml --out e.safetensors",
            "embed a.png --student cut.safetensors --out e.safetensors",
            "embed a.png --student other.safetensors --out e.safetensors",
            "train r.toml --set student.initial=\"other.safetensors\"",
        ],
    ),
    (
        "Outputs and run folders",
        &[
            "embed a.png --student s.safetensors --out faces",
            "embed a.png --student s.safetensors --out gone/e.safetensors",
            "embed a.png --student s.safetensors --out a.png",
            "evaluate r.toml --student s.safetensors --out r.toml",
            "embed a.png --student s.safetensors --out done/report.md",
            "train r.toml --run-dir .",
            "train r.toml --run-dir r.toml",
            "train r.toml --run-dir done --set run.seed=8",
            "resume faces",
            "resume gone",
            "ablate r.toml --run-dir table",
        ],
    ),
    (
        "The Hugging Face Hub",
        &[
            "check tiny.toml --set teacher.generative.weights=\"hf://org/name\"",
            "check tiny.toml --set teacher.generative.weights=\"https://example.org/x.pth\"",
            "check tiny.toml --set teacher.generative.weights=\"https://huggingface.co/org/name\"",
            "train teacher.toml --offline --set teacher.t.weights=\"hf://org/name/x.pth\"",
            "hub verify tiny.toml --set teacher.generative.weights=\"hf://org/name/x.pth\"",
        ],
    ),
];

/// The files that the commands meet.
fn bench() -> Bench {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    bench.write("other/r.toml", ALONE);
    bench.write("tiny.toml", TINY);
    let teacher = "[teacher.t]\nkind = \"iresnet\"\nweights = \"gone.pth\"\n[stage.one.loss.copy]\nkind = \"embedding-regression\"\n";
    bench.write("teacher.toml", format!("{ALONE}{teacher}"));
    bench.write("no-protocol.toml", ALONE.replace("[evaluate.drawn]", "[evaluate.drawn]\nenabled = false"));
    bench.write("empty.toml", "");
    bench.write("latin1.toml", b"name = \"J\xfcrgen\"\n");
    bench.write("broken.toml", "format = 1\n[data\n");
    bench.write("twice.toml", "format = 1\nname = \"a\"\nname = \"b\"\n");
    bench.write("newer.toml", ALONE.replace("format = 1", "format = 7"));
    bench.write("circle.toml", "format = 1\nextends = \"circle.toml\"\n");
    bench.write("orphan.toml", "format = 1\nextends = \"gone.toml\"\n");
    bench
        .write("misspelt.toml", ALONE.replace("identities = 4", "identites = \"four\"").replace("channels", "chanels"));
    bench.write(
        "variable.toml",
        format!("format = 1\nextends = \"r.toml\"\n{}", "student.initial = \"${GDRD_NEVER_SET}/s\"\n"),
    );
    bench.write("no-student.toml", "format = 1\nstages = []\n");
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    bench.write("faces.toml", recipe(FOLDERS));
    let protocol = "[evaluate.lfw]\nkind = \"verification\"\ndata = \"train\"\npairs = \"pairs.txt\"\n";
    bench.write("pairs.toml", recipe(FOLDERS) + protocol);
    bench.write("wrong-line.txt", "1\t1\nAnn\t1\nAnn\t1\tBob\t1\n");
    bench.write("short.txt", "2\t3\nAnn\t1\t2\n");
    bench.write("absent.txt", "1\t1\nAnn\t1\t9\nAnn\t1\tCleo\t1\n");
    std::fs::create_dir(bench.file("hollow")).expect("a folder");
    let image = std::fs::read(bench.file("faces/Ann/Ann_0001.jpg")).expect("an image");
    for number in 1..5 {
        bench.write(&format!("alone/Ann/{number}.jpg"), &image);
    }
    bench.write("text/Ann/1.jpg", "no image");
    bench.write("avif/Ann/1.jpg", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf");
    bench.write("cut/Ann/1.jpg", &image[..image.len() / 2]);
    image::RgbImage::new(16, 16).save(bench.file("a.png")).expect("an image");
    bench.write("pointer.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n");
    bench.write("page.pth", "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n");
    Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "done"])).with_code(0);
    let student = std::fs::read(bench.file("done/student.safetensors")).expect("a student");
    bench.write("s.safetensors", &student);
    bench.write("cut.safetensors", &student[..student.len() / 2]);
    let none = std::collections::BTreeMap::<String, candle_core::Tensor>::new();
    bench.write("other.safetensors", safetensors::serialize(none, None).expect("bytes"));
    bench.write("table/ablation.csv", "mine");
    bench
}

#[test]
fn the_page_of_errors_is_what_the_program_says() {
    let bench = bench();
    let here = bench.path().display().to_string();
    let mut page = INTRODUCTION.to_string();
    for (title, commands) in GROUPS {
        write!(page, "\n## {title}\n").expect("text");
        for line in commands {
            let words = line.split_whitespace().map(|word| word.replace('|', " "));
            let mut command = gdrd(&bench);
            command
                // Whoever looks for a fault in gdrd itself has this set; what it adds is not for a user to read.
                .args(words)
                .env("RUST_BACKTRACE", "1")
                .env("HF_HOME", bench.file("hf"))
                .env_remove("HF_HUB_OFFLINE")
                .env_remove("HF_HUB_CACHE");
            let said = Said::by(&mut command);
            assert!(matches!(said.code, Some(1 | 2)), "gdrd {line}: {said:#?}");
            for word in ["panicked", "Os {", "Some(", "RUST_BACKTRACE", ".rs:"] {
                assert!(!said.stderr.contains(word), "gdrd {line}: `{word}` is no word for a user: {said:#?}");
            }
            let last = said.stderr.replace(&here, "FOLDER").replace("gdrd-under-test", "gdrd");
            // What was told before, such as which features were made, is no part of the error.
            let at = last.find("error: ").unwrap_or(0);
            let (code, shown) = (said.code.unwrap_or_default(), line.replace('|', " "));
            write!(
                page,
                "\n`{}`, exit code {code}:\n\n```text\n{}\n```\n",
                format!("gdrd {shown}").trim(),
                last[at..].trim_end()
            )
            .expect("text");
        }
    }
    let path = root().join("docs/errors.md");
    if std::env::var_os("GDRD_UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, &page).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = committed.lines().zip(page.lines()).find(|(old, new)| old != new);
    assert!(committed == page, "docs/errors.md is stale, first at {differing:?}: run this test with GDRD_UPDATE=1");
}
