//! `gdrd ablate`: several recipes, several seeds, one table.

use std::time::SystemTime;

use gdrd_tests::{Bench, Said, files_below};

use crate::gdrd;

const ABLATE: [&str; 9] = [
    "ablate",
    "whole.toml",
    "alone.toml",
    "--seeds",
    "7,8",
    "--run-dir",
    "runs/cells",
    "--set=run.checkpoint_steps=50",
    "--set=evaluate.verification.sizes=[12, 16]",
];

fn bench() -> Bench {
    let bench = Bench::with_teachers();
    bench.write("whole.toml", "format = 1\nextends = \"tiny.toml\"\nname = \"GEN+DIS\"\n");
    let alone = "format = 1\nextends = \"tiny.toml\"\nname = \"w/o DIST\"\nstages = [\"discriminative\"]\n\
                 [stage.discriminative]\ntrains = [\"backbone\", \"head\"]\n\
                 [stage.discriminative.loss.logits]\nenabled = false\n\
                 [stage.discriminative.loss.relation]\nenabled = false\n";
    bench.write("alone.toml", alone);
    bench
}

#[test]
fn finished_cells_stay_and_the_table_compares_the_rows() {
    let bench = bench();
    let said = Said::by(gdrd(&bench).args(ABLATE).args(["--against", "w/o DIST"])).with_code(0);
    let table: Vec<&str> = said.stdout.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(table.len(), 6, "a header, a rule, two rows and two of the teacher: {said:#?}");
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_string()).collect() };
    let (first, base, teacher) = (cells(table[2]), cells(table[3]), cells(table[4]));
    assert_eq!((first[1].as_str(), base[1].as_str()), ("GEN+DIS", "w/o DIST"));
    assert!(first[2].contains(" ± ") && [3, 6].iter().all(|at| first[*at].contains(" to ")), "{first:?}");
    assert_eq!(base[5..8], ["-", "-", "-"]);
    assert_eq!(teacher[1], "teacher `discriminative` at 32x32");
    let files = [
        "ablation.md",
        "ablation.csv",
        "ablation.tex",
        "ablation.svg",
        "ablation.png",
        "ablation-sizes.svg",
        "ablation-sizes.png",
    ];
    for file in files.map(|name| format!("runs/cells/{name}")) {
        assert!(bench.file(&file).is_file(), "{file}");
        assert!(said.stdout.contains(&file), "{file} in {said:#?}");
    }
    let page = std::fs::read_to_string(bench.file("runs/cells/ablation.md")).expect("a page");
    let header: Vec<Vec<String>> = page.lines().filter(|line| line.contains("12x12")).map(cells).collect();
    assert_eq!(header.len(), 1, "{page}");
    assert_eq!(header[0][1..4], ["recipe", "12x12", "16x16"], "{page}");
    let cells = || files_below(&bench.file("runs/cells"), "report.md");
    let before = cells();
    assert_eq!(before.len(), 4, "{before:#?}");
    for cell in &before {
        let up = cell.parent().and_then(|run| run.parent());
        assert_eq!(up, Some(bench.file("runs/cells").as_path()), "a cell is one folder below the ablation's");
    }
    // One cell is lost: it alone is made again, and the table is the same.
    let time = |path: &std::path::PathBuf| -> SystemTime {
        std::fs::metadata(path).and_then(|m| m.modified()).expect("a report")
    };
    let times: Vec<SystemTime> = before.iter().map(time).collect();
    let read = |name: &str| std::fs::read_to_string(bench.file(name)).expect("a file");
    let csv = read("runs/cells/ablation.csv");
    std::fs::remove_dir_all(before[1].parent().expect("a run folder")).expect("a cell is lost");
    let again = Said::by(gdrd(&bench).args(ABLATE).args(["--against", "w/o DIST"])).with_code(0);
    assert_eq!(cells(), before);
    let changed: Vec<bool> = before.iter().map(time).zip(&times).map(|(now, then)| now != *then).collect();
    assert_eq!(changed, [false, true, false, false]);
    // But for what training cost, which is never the same.
    let figures = |csv: &str| -> Vec<String> {
        csv.lines().map(|line| line.rsplitn(3, ',').last().unwrap_or_default().to_string()).collect()
    };
    assert_eq!(figures(&read("runs/cells/ablation.csv")), figures(&csv));
    assert!(csv.lines().next().is_some_and(|header| header.ends_with(",CPU s,peak MB")), "{csv}");
    assert!(!again.stderr.contains("features of teacher"), "cells share the stored features: {again:#?}");
}

#[test]
fn rows_that_cannot_be_compared_are_refused() {
    let bench = bench();
    let said = Said::by(gdrd(&bench).args(ABLATE).args(["--against", "GEN"])).with_code(2);
    assert!(said.stderr.contains("no row is called `GEN`"), "{said:#?}");
    assert!(!bench.file("runs/cells").exists(), "it is said before anything is trained");
    bench.write("alone.toml", "format = 1\nextends = \"tiny.toml\"\n[evaluate.verification]\nfolds = 5\n");
    let said = Said::by(gdrd(&bench).args(ABLATE)).with_code(2);
    assert!(said.stderr.contains("the recipes share no protocol in `[evaluate]`"), "{said:#?}");
}
