//! `report.html`, `gdrd report`, `gdrd diff` and event files of TensorBoard.

use std::collections::BTreeSet;

use gdrd_core::evaluation::Measured;
use gdrd_core::report::EventFile;
use gdrd_tests::{Bench, Said, root};

use crate::faults::ALONE;
use crate::gdrd;

/// A run of two terms whose gradients are measured.
fn two_terms() -> String {
    let loss = "[stage.one.loss.identity]\nkind = \"cross-entropy\"\n";
    let two = format!("{loss}[stage.one.loss.margin]\nkind = \"cosface\"\n");
    ALONE.replace(loss, &two).replace("steps = 6", "steps = 6\nterm_gradients = 2")
}

fn said(bench: &Bench, arguments: &[&str]) -> Said {
    Said::by(gdrd(bench).args(arguments))
}

fn text(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The values of an attribute, wherever it stands in a tag.
fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
    let begin = format!(" {attribute}=\"");
    page.split(begin.as_str()).skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect()
}

/// What must hold of every page.
fn stands_alone(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">") && page.ends_with("</html>\n"));
    for part in ["<script", "@import", "url(", "<iframe", "<link rel=\"stylesheet\""] {
        assert!(!page.contains(part), "{part}");
    }
    for address in values(page, "src").into_iter().chain(values(page, "href")) {
        assert!(address.starts_with("data:") || address.starts_with('#'), "{address}");
    }
    let ids = values(page, "id");
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    let named = values(page, "aria-labelledby").into_iter().flat_map(str::split_whitespace);
    let led = values(page, "href").into_iter().filter_map(|address| address.strip_prefix('#'));
    for id in named.chain(led) {
        assert!(unique.contains(id), "{id}");
    }
    for image in page.split("<img ").skip(1) {
        let image = image.split('>').next().unwrap_or_default();
        assert!(image.contains(" alt=\"") && !image.contains(" alt=\"\""), "{image:.80}");
    }
    assert_eq!(page.matches("<table>").count(), page.matches("<table>\n<caption>").count());
    assert_eq!(page.matches("<svg class=\"plot\"").count(), page.matches("role=\"img\" aria-labelledby=").count());
    assert_eq!(page.matches("<th>").count(), 0, "every head has a scope");
    for (open, close) in
        [("<table>", "</table>"), ("<section", "</section>"), ("<figure>", "</figure>"), ("<li", "</li>")]
    {
        let opened = page.matches(open).count() - if open == "<li" { page.matches("<link").count() } else { 0 };
        assert_eq!(opened, page.matches(close).count(), "{open}");
    }
    assert_eq!(page.matches("<h1>").count(), 1);
}

#[test]
fn a_run_leaves_a_page_whose_numbers_are_those_of_its_files() {
    let bench = Bench::empty();
    bench.write("r.toml", two_terms());
    said(&bench, &["train", "r.toml", "--run-dir", "a", "--set", "name=\"<b>\\\"&'\""]).with_code(0);
    let page = text(&bench, "a/report.html");
    stands_alone(&page);
    assert!(page.contains("<h1>&lt;b&gt;&quot;&amp;&#39;</h1>") && !page.contains("<b>"), "a name is text");
    let rows: Vec<Measured> = serde_json::from_str(&text(&bench, "a/evaluation/drawn.json")).expect("outcomes");
    for figure in rows.iter().flat_map(|row| &row.outcome.figures).filter(|figure| figure.in_table) {
        assert!(page.contains(&format!(">{}<", figure.shown())), "{figure:?}");
    }
    let insight: serde_json::Value = serde_json::from_str(&text(&bench, "a/insight.json")).expect("JSON");
    assert_eq!((&insight["data"], &insight["faces"]), (&"train".into(), &16.into()));
    assert_eq!(insight["embedders"][0]["points"].as_array().map(Vec::len), Some(16));
    let alignment = insight["embedders"][0]["alignment"].as_f64().expect("a number");
    assert!(page.contains(&format!(">{alignment:.3}<")));
    let wrong = rows[0].outcome.items.iter().filter(|item| **item == 0.0).count();
    assert_eq!(insight["mistakes"]["drawn"]["count"], wrong);
    for part in [
        "Table I: verification accuracy, %",
        "quoted: TCSVT 2024",
        "measured here, `drawn`",
        "of faces drawn by gdrd: the two can not be compared",
        "t-SNE, student at 16x16",
        "Cosines between the terms&#39; gradients, stage one",
        "Length of each weighted term&#39;s gradient, stage one",
        "as the student sees it",
        "what the student sees at 16x16",
        "program sha256",
    ] {
        assert!(page.contains(part) || (wrong == 0 && part == "as the student sees it"), "{part}");
    }
    let good = said(&bench, &["verify", "a"]).with_code(0);
    assert!(good.stdout.contains("| report.html: text"), "{}", good.stdout);
    // A number that is not the files' is found, and the page of an unchanged run is the same again.
    let headline = rows[0].outcome.headline().expect("a headline").shown();
    bench.write("a/report.html", page.replacen(&headline, "99.99 %", 1));
    let bad = said(&bench, &["verify", "a", "--json"]).with_code(1);
    assert!(bad.stdout.contains("report.html: text"), "{}", bad.stdout);
    said(&bench, &["report", "a", "--out", "again"]).with_code(0);
    assert_eq!(text(&bench, "again/report.html"), page);
    let refused = said(&bench, &["report", "a", "--out", "a"]).with_code(2);
    assert!(refused.stderr.contains("would be overwritten"), "{refused:#?}");
    let refused = said(&bench, &["report", "a/evaluation"]).with_code(2);
    assert!(refused.stderr.contains("a/evaluation` is no run folder"), "{refused:#?}");
}

#[test]
fn runs_stand_side_by_side_and_their_difference_has_causes() {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    said(&bench, &["ablate", "r.toml", "--seeds", "7,8", "--run-dir", "cells"]).with_code(0);
    let train = |run: &str, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        said(&bench, &["train", "r.toml", "--run-dir", run].into_iter().chain(sets).collect::<Vec<_>>()).with_code(0);
    };
    train("a", &["name=\"50 % _a_\""]);
    train("rate", &["stage.one.learning_rate=0.01", "run.workers=1"]);
    train("data", &["data.train.first_identity=40"]);
    let made = said(&bench, &["report", "cells", "a", "rate", "--out", "out", "--latex", "--markdown"]).with_code(0);
    assert_eq!(made.stdout, "out/report.html\nout/tables.md\nout/tables.tex\n");
    let page = text(&bench, "out/report.html");
    stands_alone(&page);
    for part in ["4 runs compared", "difference to r", "Ablation", "<h2 id=\"run-4-h\">r, seed 7, run 4</h2>"] {
        assert!(page.contains(part), "{part}");
    }
    let latex = text(&bench, "out/tables.tex");
    assert!(
        latex.contains("\\toprule") && latex.contains("50 \\% \\_a\\_") && latex.contains("quoted: CVPR 2015"),
        "{latex}"
    );
    assert!(text(&bench, "out/tables.md").contains("| GDRD "));

    let diff = |first: &str, second: &str| -> serde_json::Value {
        let said = said(&bench, &["diff", first, second, "--json"]).with_code(0);
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout))
    };
    let causes = |value: &serde_json::Value| -> Vec<(String, String)> {
        let word = |one: &serde_json::Value, key: &str| one[key].as_str().expect("text").to_string();
        value["differing"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| (word(one, "cause"), word(one, "what")))
            .collect()
    };
    let of = |cause: &str, what: &str| (cause.to_string(), what.to_string());
    let rate = diff("a", "rate");
    assert_eq!(causes(&rate), [of("recipe", "stage.one.learning_rate"), of("none", "name"), of("none", "run.workers")]);
    assert!(rate["parting"]["total_step"].as_u64() > Some(1), "the first loss is that of the same start: {rate:#}");
    assert!(rate["scores"][0]["difference"].is_array());
    let data = diff("a", "data");
    assert_eq!(causes(&data), [of("recipe", "data.train.first_identity"), of("none", "name")]);
    assert_eq!(
        (&data["parting"]["total_step"], &data["scores"][0]["difference"]),
        (&1.into(), &serde_json::Value::Null)
    );
    let cells: Vec<String> = ["7", "8"]
        .map(|seed| {
            let begin = format!("r-seed{seed}-");
            let names = std::fs::read_dir(bench.file("cells")).expect("cells").flatten().map(|e| e.file_name());
            let mut names = names.map(|name| name.to_string_lossy().into_owned());
            format!("cells/{}", names.find(|name| name.starts_with(&begin)).expect("a cell"))
        })
        .to_vec();
    assert_eq!(causes(&diff(&cells[0], &cells[1])), [of("seed", "run.seed")]);
    let same = said(&bench, &["diff", "a", "a"]).with_code(0);
    assert!(
        same.stdout.contains("Nothing differs that decides numbers.") && same.stdout.contains("steps are alike"),
        "{same:#?}"
    );
    let shown = said(&bench, &["diff", "a", "rate"]).with_code(0);
    let line = "  recipe      stage.one.learning_rate: 0.05 in A, 0.01 in B";
    assert!(shown.stdout.contains(line) && shown.stdout.lines().count() < 25, "{}", shown.stdout);
}

#[test]
fn event_files_are_those_of_tensorboards_own_writer() {
    let golden = std::fs::read(root().join("tests/golden/tensorboard/events.bin")).expect("a golden file");
    let at = golden.windows(4).position(|bytes| bytes == b"\x89PNG").expect("a picture");
    let mut events = EventFile::new(1.5);
    events.text(1.5, 0, "recipe", "`seed` = 7");
    events.image(1.5, 0, "samples", (3, 2), &golden[at..at + 88]);
    events.scalars(2.25, 300, [("one/loss", 2.5), ("one/rate", 0.001)]);
    assert_eq!(events.into_bytes(), golden);

    let bench = Bench::empty();
    bench.write("r.toml", two_terms());
    said(&bench, &["train", "r.toml", "--run-dir", "runs/a"]).with_code(0);
    let said = said(&bench, &["report", "runs/a", "--tensorboard", "board"]).with_code(0);
    assert_eq!(said.stdout, "board/a/events.out.tfevents.gdrd\n");
    let bytes = std::fs::read(bench.file("board/a/events.out.tfevents.gdrd")).expect("events");
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    for tag in ["recipe", "samples", "one/loss", "one/margin", "one/margin/gradient", "one/identity/cosine.margin"] {
        assert!(has(tag), "{tag}");
    }
    assert!(has("drawn/accuracy/student at 16x16") && !bench.file("runs/report").exists());
}
