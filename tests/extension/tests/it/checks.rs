//! What `kinds` and `check` say of plug-ins that gdrd has never heard of.

use crate::bench::{Bench, RECIPE};

#[test]
fn plug_ins_are_listed_and_explained_like_our_own() {
    let bench = Bench::new();
    let listed = bench.good(&["kinds"]).stdout;
    let own = ["faces-pack", "camera", "colour-histogram", "mixer", "huber", "identification"];
    for kind in own.into_iter().chain(["feature-regression", "diffusion-encoder"]) {
        assert!(listed.contains(&format!("  {kind} ")), "{kind} in\n{listed}");
    }
    let said = bench.good(&["kinds", "huber"]).stdout;
    assert!(said.contains("loss `huber`") && said.contains("delta (default 1.0; above 0, at most 1000)"), "{said}");
    let said = bench.good(&["kinds", "identification"]).stdout;
    assert!(said.contains("gallery") && said.contains("Steps of gradient descent."), "{said}");
    let schema = bench.good(&["schema"]).stdout;
    assert!(schema.contains("\"mixer\"") && schema.contains("\"faces-pack\""));
}

#[test]
fn options_and_names_are_checked_at_their_places() {
    let bench = Bench::new();
    assert!(bench.good(&["check", "all.toml"]).stdout.contains("all.toml: good"));
    // What is written, what stands there instead, and what is said of it.
    let wrong = [
        ("bins = 4", "bins = 0", "`bins`: expected at least 1, found 0", ""),
        ("gallery = \"gallery\"", "gallery = \"galery\"", "no dataset is called `galery`", "did you mean `gallery`?"),
        ("probes = \"probes\"", "probes = \"probe\"", "no dataset is called `probe`", "did you mean `probes`?"),
        ("\"tiny\"]", "\"tny\"]", "no view is called `tny`", "did you mean `tiny`?"),
        ("delta = 0.5", "teacher = \"colour\"", "no teacher is called `colour`", "did you mean `colours`?"),
        ("step = 8.0", "step = -8.0", "`step`: expected at least 0, found -8", ""),
        ("{ size = 8 }", "{ size = 1 }", "`downscale.size`: expected at least 4, found 1", ""),
        ("channels = 16", "chanels = 16", "chanels", "did you mean `channels`?"),
        ("kind = \"mixer\"", "kind = \"mixr\"", "no student is called `mixr`", "did you mean `mixer`?"),
    ];
    for (good, bad, message, hint) in wrong {
        let text = RECIPE.replacen(good, bad, 1);
        assert_ne!(text, RECIPE, "{good}");
        bench.write("wrong.toml", &text);
        let said = bench.run(&["check", "wrong.toml"]);
        assert_eq!(said.code, Some(2), "{bad}: {said:#?}");
        assert!(said.stderr.contains(message) && said.stderr.contains(hint), "{bad}: {said:#?}");
        let line = text.lines().position(|line| line.contains(bad)).expect("its line") + 1;
        assert!(said.stderr.contains(&format!("wrong.toml:{line}:")), "{bad} in line {line}: {said:#?}");
    }
}

#[test]
fn a_damaged_pack_is_told_with_its_place() {
    let bench = Bench::new();
    let mut bytes = std::fs::read(bench.path("gallery.pack")).expect("a pack");
    bytes.truncate(bytes.len() - 1);
    bench.write("gallery.pack", bytes);
    let said = bench.run(&["train", "all.toml", "--run-dir", "runs/a"]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    assert!(said.stderr.contains("dataset `gallery`: `") && said.stderr.contains("bytes of images"), "{said:#?}");
}
