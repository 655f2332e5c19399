//! From the recipe to the report, with every command that uses a plug-in.

use safetensors::SafeTensors;

use crate::bench::Bench;

fn shape(bench: &Bench, file: &str, tensor: &str) -> Vec<usize> {
    let bytes = std::fs::read(bench.path(file)).expect("a file");
    SafeTensors::deserialize(&bytes).expect("tensors").tensor(tensor).expect("the tensor").shape().to_vec()
}

#[test]
fn a_recipe_uses_every_plug_in() {
    let bench = Bench::new();
    let said = bench.good(&["train", "all.toml", "--run-dir", "runs/a"]);
    assert!(said.stderr.contains("features of teacher `colours`"), "{said:#?}");
    for row in
        ["student at 16x16", "teacher `colours` on faces as they are", "teacher `colours` on upsampled 16x16 faces"]
    {
        assert!(said.stdout.contains(row), "{row}: {said:#?}");
    }
    for term in ["colours", "direction"] {
        let values = bench.term("runs/a", term);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!(mean(&values[30..]) < 0.7 * mean(&values[..5]), "the loss `{term}` goes down: {values:?}");
    }
    let resolved = bench.text("runs/a/recipe.resolved.toml");
    for option in ["kind = \"camera\"", "kind = \"mixer\"", "kind = \"linear-probe\"", "kind = \"faces-pack\""] {
        assert!(resolved.contains(option), "{option} in {resolved}");
    }

    let report = bench.text("runs/a/report.md");
    for part in ["rank-1", "probes)", "(cmc-identification.svg)", "Confusion by session", "outdoors"] {
        assert!(report.contains(part), "{part} in {report}");
    }
    assert!(!report.contains("accuracy"), "{report}");
    assert!(bench.path("runs/a/cmc-identification.svg").exists());
    let results: serde_json::Value =
        serde_json::from_str(&bench.text("runs/a/evaluation/identification.json")).expect("JSON");
    let outcome = &results[0]["outcome"];
    // Three probes of each of the five people who are known.
    assert_eq!(outcome["items"].as_str().map(str::len), Some(15), "{outcome}");
    let headline = &outcome["figures"][0];
    assert_eq!((&outcome["headline"], &headline["name"]), (&"rank-1".into(), &"rank-1".into()));
    assert!(headline["low"].as_f64() <= headline["value"].as_f64(), "{headline}");

    // The student's file, wherever a student's file is taken.
    let student = "runs/a/student.safetensors";
    bench.write_image("one.png", 0);
    bench.write_image("two.png", 9);
    let said = bench.good(&["embed", "one.png", "two.png", "--student", student, "--out", "e.safetensors"]);
    assert!(said.stdout.contains("2 embeddings of 24 values by student at 16x16"), "{said:#?}");
    assert_eq!(shape(&bench, "e.safetensors", "embeddings"), [2, 24]);
    let said = bench.good(&["evaluate", "all.toml", "--student", student, "--out", "scores.json"]);
    assert!(said.stdout.contains("rank-1") && !said.stdout.contains("accuracy"), "{said:#?}");
    let scores: serde_json::Value = serde_json::from_str(&bench.text("scores.json")).expect("JSON");
    assert_eq!(&scores["identification"][0]["outcome"]["items"], &outcome["items"], "the run measured the same file");
    let sets = ["--set", "teacher.big.kind=\"student\"", "--set", "teacher.big.weights=\"runs/a/student.safetensors\""];
    let features = ["features", "all.toml", "--teacher", "big", "--data", "probes", "--out", "b.safetensors"];
    bench.good(&[&features[..], &sets].concat());
    assert_eq!(shape(&bench, "b.safetensors", "backbone"), [18, 16, 4, 4]);

    // The teacher, and the evaluation of teachers alone.
    bench.good(&["features", "all.toml", "--teacher", "colours", "--data", "probes", "--out", "f.safetensors"]);
    assert_eq!(shape(&bench, "f.safetensors", "embedding"), [18, 24]);
    let said =
        bench.good(&["embed", "one.png", "--recipe", "all.toml", "--teacher", "colours", "--out", "t.safetensors"]);
    assert!(said.stdout.contains("1 embeddings of 24 values by colours"), "{said:#?}");
    bench.good(&["plan", "all.toml"]);
}

#[test]
fn a_random_degradation_trains_and_its_views_are_not_stored() {
    let bench = Bench::new();
    let sets = ["--set", "degradation.random=true", "--set", "view.tiny.random=true", "--set", "stage.distil.steps=3"];
    let said = bench.good(&[&["train", "all.toml", "--run-dir", "runs/a"][..], &sets].concat());
    assert!(!said.stderr.contains("features of teacher"), "{said:#?}");
    assert!(bench.names("runs/.features", |name| name.ends_with(".safetensors")).is_empty());
}

#[test]
fn an_ablation_compares_the_protocols_headline() {
    let bench = Bench::new();
    let without =
        "format = 1\nextends = \"all.toml\"\nquoted = \"93.1\"\n\n[stage.distil.loss.direction]\nenabled = false\n";
    bench.write("huber-only.toml", without);
    let short = ["--set", "stage.distil.steps=4", "--set", "evaluate.identification.steps=20"];
    let said = bench.good(&[&["ablate", "all.toml", "huber-only.toml", "--seeds", "7,8"][..], &short].concat());
    let table = bench.text("runs/ablation/ablation.md");
    for text in [&said.stdout, &table] {
        assert!(text.contains("rank-1 %") && text.contains("huber-only"), "{text}");
        assert!(!text.to_lowercase().contains("accuracy"), "{text}");
    }
    assert!(table.contains("identification: 15 probes, seeds a row: 2"), "{table}");
    let cells = |row: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(&format!("| {row}"))).expect("a row");
        line.split('|').map(|cell| cell.trim().to_string()).collect()
    };
    assert_eq!(cells("recipe")[8..11], ["CPU s", "peak MB", "quoted"]);
    assert_eq!(cells("huber-only")[10], "93.1");
    assert_eq!(cells("all")[10], "");
    let positive = |cell: &str| cell.parse::<f64>().is_ok_and(|value| value >= 0.0);
    assert!(cells("all")[8..10].iter().all(|cell| positive(cell) || cell == "-"), "{table}");
    let cells = bench.names("runs/ablation", |name| name.contains("-seed"));
    assert_eq!(cells.len(), 4, "{cells:?}");
    for cell in cells {
        assert!(bench.text(&format!("runs/ablation/{cell}/report.md")).contains("rank-1"));
    }
}
