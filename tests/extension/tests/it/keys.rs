//! What a change makes new: stored features of teachers, kept outcomes of teachers, cells of an ablation.

use std::collections::BTreeSet;

use crate::bench::{Bench, two_people};

/// What is kept of earlier runs.
#[derive(Debug, PartialEq)]
pub(crate) struct Kept {
    features: BTreeSet<String>,
    outcomes: BTreeSet<String>,
    cells: BTreeSet<String>,
}

/// Which of them a change makes anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct New {
    pub(crate) features: bool,
    pub(crate) outcomes: bool,
    pub(crate) cell: bool,
}

/// Everything.
pub(crate) const ALL: New = New { features: true, outcomes: true, cell: true };
/// Nothing.
pub(crate) const NOTHING: New = New { features: false, outcomes: false, cell: false };

/// An ablation of one recipe and one seed, for a step.
pub(crate) const ABLATE: [&str; 6] =
    ["ablate", "all.toml", "--set", "stage.distil.steps=1", "--set", "evaluate.identification.steps=5"];

pub(crate) fn kept(bench: &Bench) -> Kept {
    Kept {
        features: bench.names("runs/.features", |name| name.ends_with(".safetensors")),
        outcomes: bench.names("runs/.features", |name| name.ends_with(".outcome")),
        cells: bench.names("runs/ablation", |name| name.contains("-seed")),
    }
}

/// What `go` makes anew.
pub(crate) fn made(bench: &Bench, go: impl FnOnce()) -> New {
    let before = kept(bench);
    go();
    let after = kept(bench);
    assert!(before.features.is_subset(&after.features) && before.cells.is_subset(&after.cells), "what is kept stays");
    New {
        features: after.features != before.features,
        outcomes: after.outcomes != before.outcomes,
        cell: after.cells != before.cells,
    }
}

fn ablated(bench: &Bench, more: &[&str]) -> New {
    made(bench, || drop(bench.good(&[&ABLATE[..], more].concat())))
}

#[test]
fn options_make_new_what_depends_on_them() {
    let bench = Bench::new();
    bench.good(&ABLATE);
    assert_eq!(ablated(&bench, &[]), NOTHING, "nothing changed");
    let cell = New { cell: true, ..NOTHING };
    let changes = [
        // The teacher sees the view `tiny`. Evaluation reduces faces and does not blur them.
        ("view.tiny.blur=1", New { outcomes: false, ..ALL }),
        ("view.tiny.downscale.size=10", ALL),
        // It does not see the view `low`, but it is measured behind it.
        ("degradation.step=4.0", cell),
        ("degradation.downscale.size=12", New { features: false, ..ALL }),
        ("teacher.colours.bins=3", ALL),
        ("evaluate.identification.gallery=\"probes\"", New { features: false, ..ALL }),
        ("evaluate.identification.steps=6", New { features: false, ..ALL }),
        // The protocol draws its first layer by the seed; the teacher draws nothing.
        ("run.seed=8", New { features: false, ..ALL }),
        ("student.channels=8", cell),
        ("stage.distil.loss.colours.delta=0.25", cell),
    ];
    for (set, expected) in changes {
        let sets: &[&str] = match set.strip_prefix("run.seed=") {
            Some(seed) => &["--seeds", seed],
            None => &["--set", set],
        };
        assert_eq!(ablated(&bench, sets), expected, "{set}");
        assert_eq!(ablated(&bench, sets), NOTHING, "{set}, again");
    }
    assert_eq!(ablated(&bench, &[]), NOTHING, "what was there is still good");
}

#[test]
fn images_make_new_what_depends_on_them() {
    let bench = Bench::new();
    bench.good(&ABLATE);
    bench.change_an_image("probes.pack");
    assert_eq!(ablated(&bench, &[]), New { features: false, ..ALL }, "the stage does not use the probes");
    bench.change_an_image("gallery.pack");
    assert_eq!(ablated(&bench, &[]), ALL);
    // The same bytes at another path are the same faces; the recipe is another.
    std::fs::copy(bench.path("gallery.pack"), bench.path("copy.pack")).expect("a copy");
    assert_eq!(ablated(&bench, &["--set", "data.gallery.file=\"copy.pack\""]), New { cell: true, ..NOTHING });
}

#[test]
fn weight_files_make_new_what_depends_on_them() {
    let bench = Bench::new();
    let train = |run: &str, seed: &str| {
        bench.good(&["train", "all.toml", "--run-dir", run, "--set", "stage.distil.steps=1", "--set", seed]);
    };
    train("runs/a", "run.seed=1");
    train("runs/b", "run.seed=2");
    let install = |run: &str, to: &str| {
        std::fs::copy(bench.path(run).join("student.safetensors"), bench.path(to)).expect("a copy");
    };
    install("runs/a", "big.safetensors");
    install("runs/a", "first.safetensors");
    let sets = [
        ["--set", "teacher.big.kind=\"student\""],
        ["--set", "teacher.big.weights=\"big.safetensors\""],
        ["--set", "stage.distil.loss.colours.teacher=\"big\""],
        ["--set", "stage.distil.loss.direction.teacher=\"big\""],
        ["--set", "student.initial=\"first.safetensors\""],
    ]
    .concat();
    bench.good(&[&ABLATE[..], &sets].concat());
    assert_eq!(ablated(&bench, &sets), NOTHING);
    install("runs/b", "big.safetensors");
    assert_eq!(ablated(&bench, &sets), ALL, "the teacher's file");
    install("runs/b", "first.safetensors");
    assert_eq!(ablated(&bench, &sets), New { cell: true, ..NOTHING }, "the file that the student begins with");
    install("runs/a", "big.safetensors");
    install("runs/a", "first.safetensors");
    assert_eq!(ablated(&bench, &sets), NOTHING, "what was there is still good");
}

#[test]
fn lists_make_new_what_depends_on_them() {
    let bench = Bench::new();
    let [one, other] = two_people();
    // A pair of one person and a pair of two, of the probes' images 6 to 8.
    bench.write("pairs.txt", format!("1\n{one} 6 7\n{one} 6 {other} 7\n"));
    let sets = [
        ["--set", "evaluate.pairs.kind=\"verification\""],
        ["--set", "evaluate.pairs.data=\"probes\""],
        ["--set", "evaluate.pairs.pairs=\"pairs.txt\""],
    ]
    .concat();
    bench.good(&[&ABLATE[..], &sets].concat());
    assert_eq!(ablated(&bench, &sets), NOTHING);
    bench.write("pairs.txt", format!("1\n{one} 6 8\n{one} 6 {other} 7\n"));
    assert_eq!(ablated(&bench, &sets), New { features: false, ..ALL });
}
