//! The page that a run leaves for its reader.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::chart::{Axis, Series, line_chart};
use super::table::{Align, Table};
use crate::error::Result;
use crate::recipe::Recipe;
use crate::run::{Lock, Measured};

/// The table of one protocol: a row for each embedder, with its main scores.
pub fn results_table(rows: &[Measured]) -> Result<Table> {
    let names: Vec<&str> =
        rows.first().map(|row| row.scores.scores.iter().map(|score| score.name.as_str()).collect()).unwrap_or_default();
    let shown = |name: &&&str| {
        name.starts_with("accuracy") && !name.contains("standard")
            || name.starts_with("TAR")
            || **name == "equal error rate"
    };
    let shown: Vec<&str> = names.iter().filter(shown).copied().collect();
    let header = std::iter::once(("", Align::Left)).chain(shown.iter().map(|name| (*name, Align::Right)));
    let mut table = Table::new(header);
    for row in rows {
        let cell = |name: &&str| match row.scores.get(name) {
            Some(score) if *name == "accuracy" => {
                let error = row.scores.get("accuracy standard error over folds").map_or(0.0, |score| score.value);
                format!("{:.2} ± {error:.2} {}", score.value, score.unit)
            }
            Some(score) => format!("{:.2} {}", score.value, score.unit),
            None => "-".to_string(),
        };
        table.push(std::iter::once(row.embedder.clone()).chain(shown.iter().map(cell)))?;
    }
    Ok(table)
}

/// `report.md`: results, loss curves, what the numbers rest on. The curves' picture is written into `folder`.
pub fn run_page(
    recipe: &Recipe,
    lock: &Lock,
    measured: &BTreeMap<String, Vec<Measured>>,
    curves: &BTreeMap<String, Vec<(f64, f64)>>,
    folder: &Path,
) -> Result<String> {
    let mut page = format!("# {}\n\n", recipe.name);
    for (protocol, rows) in measured {
        let pairs = rows.first().map_or(0, |row| row.scores.pairs);
        writeln!(page, "## {protocol} ({pairs} pairs)\n\n{}", results_table(rows)?.to_markdown()).expect("text grows");
        let series: Vec<Series> = rows
            .iter()
            .map(|row| Series {
                label: row.embedder.clone(),
                points: row.scores.roc.iter().filter(|p| p.far > 0.0).map(|p| (p.far, 100.0 * p.tar)).collect(),
            })
            .filter(|series| series.points.len() > 1)
            .collect();
        if !series.is_empty() {
            let name = format!("roc-{protocol}");
            let x = Axis::log("false accept rate");
            line_chart(&format!("ROC, {protocol}"), x, Axis::linear("true accept rate, %"), &series)?
                .write(&folder.join(&name))?;
            writeln!(page, "![ROC]({name}.svg)\n").expect("text grows");
        }
    }
    page.push_str(
        "Accuracy is the mean over folds, each with the threshold that is best on the others, ± its standard error. ",
    );
    page.push_str("\"At the single best threshold\" chooses it on all pairs at once, as the paper's text implies.\n\n");
    if !curves.is_empty() {
        page.push_str("## Training\n\n");
        for (stage, points) in curves {
            let name = format!("loss-{stage}");
            let series = [Series { label: stage.clone(), points: smoothed(points) }];
            line_chart(&format!("Loss, stage {stage}"), Axis::linear("step"), Axis::linear("loss"), &series)?
                .write(&folder.join(&name))?;
            let last = points.last().map_or(0.0, |p| p.1);
            writeln!(page, "Stage `{stage}`: {} steps, last loss {last:.4}.\n\n![loss]({name}.svg)\n", points.len())
                .expect("text grows");
        }
    }
    page.push_str(
        "## Samples\n\nFaces as the dataset has them, above what the student sees.\n\n![samples](samples.png)\n\n",
    );
    writeln!(page, "## Provenance\n\n- recipe digest `{}` (`recipe.resolved.toml` is the same run)", lock.recipe)
        .expect("text grows");
    writeln!(page, "- gdrd {}, candle {}", lock.gdrd, lock.candle).expect("text grows");
    let low = recipe.degradation.downscale();
    writeln!(page, "- degradation: {0}x{0}, {1:?}, antialias {2}", low.size, low.kernel, low.antialias)
        .expect("text grows");
    for (name, digest) in &lock.teachers {
        writeln!(page, "- teacher `{name}`: sha256 `{digest}`").expect("text grows");
    }
    for (address, file) in &lock.files {
        let licence = recipe.files().get(address).and_then(|file| file.licence.as_deref());
        writeln!(
            page,
            "- {address}: commit `{}`, {} bytes, sha256 `{}`; licence: {}",
            file.commit,
            file.size,
            file.sha256,
            licence.unwrap_or("not known to gdrd")
        )
        .expect("text grows");
    }
    for (name, data) in &lock.data {
        let (faces, people, print) = (data.faces, data.identities, &data.fingerprint);
        writeln!(page, "- dataset `{name}`: {faces} faces, {people} identities, fingerprint `{print}`")
            .expect("text grows");
    }
    let machine: Vec<String> = lock.machine.iter().map(|(key, value)| format!("{key} {value}")).collect();
    writeln!(page, "- machine: {}", machine.join(", ")).expect("text grows");
    Ok(page)
}

/// Means over stretches of the curve, so that at most 200 points are drawn.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(200).max(1);
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / count, part.iter().map(|p| p.1).sum::<f64>() / count)
    };
    points.chunks(stretch).map(mean).collect()
}
