//! Several recipes, several seeds, one table.

use std::path::{Path, PathBuf};

use super::folder::RunFolder;
use super::mark::claim_ablation;
use super::scores::Measured;
use super::{Place, train};
use crate::error::{Context, Error, Result};
use crate::evaluation::bootstrap::{RESAMPLES, paired_difference};
use crate::files::write_atomically;
use crate::observe::Observer;
use crate::recipe::Recipe;
use crate::report::chart::{Bar, bar_chart};
use crate::report::table::{Align, Table};
use crate::seed::Seed;

/// One recipe with one seed.
pub struct Cell {
    /// The row that it belongs to: the recipe's name.
    pub row: String,
    /// The recipe, with its seed set.
    pub recipe: Recipe,
}

/// The ablation's outcome.
pub struct Ablation {
    /// The table: a line for each recipe.
    pub table: Table,
    /// The files that were written.
    pub files: Vec<PathBuf>,
}

/// Runs every cell that is not finished below `folder`, then writes `ablation.{md,csv,tex,svg,png}` there: mean and
/// standard deviation over the seeds of the first embedder's accuracy, and its difference to the row `against` by the
/// paired bootstrap on the same pairs. What the teachers score without training stands below.
///
/// # Errors
/// If a cell fails (finished ones stay), or the recipes do not share the protocol.
pub fn ablate(
    cells: &[Cell],
    against: Option<&str>,
    folder: &Path,
    place: &Place,
    observer: &mut dyn Observer,
) -> Result<Ablation> {
    let mut rows: Vec<(String, Vec<Vec<Measured>>)> = Vec::new();
    let protocol = shared_protocol(cells)?;
    let base = row(cells, against)?;
    claim_ablation(folder, &["md", "csv", "tex", "svg", "png"].map(|ending| format!("ablation.{ending}")))?;
    for cell in cells {
        let (row, digest) = (cell.recipe.plain_name(), cell.recipe.digest());
        let name = format!("{row}-seed{}-{}", cell.recipe.run.seed, &digest[..8]);
        let path = folder.join(&name);
        let run = RunFolder::new(&path);
        if !run.is_finished() {
            train(&cell.recipe, &Place { folder: path, ..place.clone() }, observer).at(|| format!("cell `{name}`"))?;
        }
        let measured = run.results()?.remove(&protocol).ok_or_else(|| {
            Error::data(format!("`{}` has no results of protocol `{protocol}`", run.path().display()))
        })?;
        match rows.iter_mut().find(|(row, _)| *row == cell.row) {
            Some((_, seeds)) => seeds.push(measured),
            None => rows.push((cell.row.clone(), vec![measured])),
        }
    }
    let table = table(&rows, base)?;
    let mut bars: Vec<Bar> = Vec::new();
    for (name, seeds) in &rows {
        let (mean, sd) = mean_and_sd(&accuracies(seeds));
        bars.push(Bar { label: name.clone(), value: mean, error: (seeds.len() > 1).then_some(sd), baseline: false });
    }
    if let Some(upsampled) = rows[0].1[0].iter().find(|row| row.embedder.contains("upsampled")) {
        let bar = Bar { label: "no student".into(), value: accuracy(upsampled), error: None, baseline: true };
        bars.insert(0, bar);
    }
    let title = format!("Verification accuracy, {protocol}");
    let picture = bar_chart(&title, "%", &bars)?;
    let stem = folder.join("ablation");
    picture.write(&stem)?;
    let mut files = vec![stem.with_extension("svg"), stem.with_extension("png")];
    let seeds = rows[0].1.len();
    let pairs = rows[0].1[0].first().map_or(0, |row| row.scores.pairs);
    let note = format!(
        "\n{protocol}: {pairs} pairs, {seeds} seeds; mean ± sd of the accuracy over folds in %; difference to `{}` by the paired \
         bootstrap over pairs ({RESAMPLES} resamples, 95 % interval, two-sided p).\n",
        rows[base].0
    );
    let texts = [("md", table.to_markdown() + &note), ("csv", table.to_csv()), ("tex", table.to_latex())];
    for (extension, text) in texts {
        let path = stem.with_extension(extension);
        write_atomically(&path, text.as_bytes())?;
        files.push(path);
    }
    Ok(Ablation { table, files })
}

/// The first protocol, by name, of all recipes.
fn shared_protocol(cells: &[Cell]) -> Result<String> {
    let first = cells.first().ok_or_else(|| Error::recipe("an ablation needs at least one recipe"))?;
    let shared = first.recipe.evaluate.iter().find(|(name, protocol)| {
        cells
            .iter()
            .all(|cell| cell.recipe.evaluate.get(*name).is_some_and(|other| other.resolved == protocol.resolved))
    });
    shared.map(|(name, _)| name.clone()).ok_or_else(|| Error::recipe("the recipes share no protocol in `[evaluate]`"))
}

/// The place of the row called `name`, the first if there is no name.
fn row(cells: &[Cell], name: Option<&str>) -> Result<usize> {
    let Some(name) = name else { return Ok(0) };
    let mut rows: Vec<&str> = Vec::new();
    for cell in cells {
        if !rows.contains(&cell.row.as_str()) {
            rows.push(&cell.row);
        }
    }
    let place = rows.iter().position(|row| *row == name);
    place.ok_or_else(|| Error::recipe(format!("no row is called `{name}`; there are {rows:?}")))
}

fn table(rows: &[(String, Vec<Vec<Measured>>)], base: usize) -> Result<Table> {
    let header = [
        ("recipe", Align::Left),
        ("accuracy %", Align::Right),
        ("difference", Align::Right),
        ("95 % interval", Align::Right),
        ("p", Align::Right),
    ];
    let mut table = Table::new(header);
    let correct = |seeds: &[Vec<Measured>]| seeds.iter().map(|s| s[0].scores.correct.clone()).collect::<Vec<_>>();
    for (at, (name, seeds)) in rows.iter().enumerate() {
        let (mean, sd) = mean_and_sd(&accuracies(seeds));
        let value = if seeds.len() > 1 { format!("{mean:.2} ± {sd:.2}") } else { format!("{mean:.2}") };
        let mut cells = vec![name.clone(), value];
        if at == base {
            cells.extend(["-", "-", "-"].map(String::from));
        } else {
            let mut stream = Seed(7).stream("paired bootstrap", &[]);
            let gap = paired_difference(&correct(seeds), &correct(&rows[base].1), RESAMPLES, &mut stream)?;
            cells.push(format!("{:+.2}", 100.0 * gap.mean));
            cells.push(format!("{:+.2} to {:+.2}", 100.0 * gap.interval.low, 100.0 * gap.interval.high));
            cells.push(format!("{:.3}", gap.p));
        }
        table.push(cells)?;
    }
    for row in rows[0].1[0].iter().filter(|row| row.embedder.starts_with("teacher")) {
        let cells = [row.embedder.clone(), format!("{:.2}", accuracy(row))];
        table.push(cells.into_iter().chain(["", "", ""].map(String::from)))?;
    }
    Ok(table)
}

fn accuracies(seeds: &[Vec<Measured>]) -> Vec<f64> {
    seeds.iter().map(|rows| rows.first().map_or(f64::NAN, accuracy)).collect()
}

fn accuracy(row: &Measured) -> f64 {
    row.scores.get("accuracy").map_or(f64::NAN, |score| score.value)
}

fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (square / (count - 1.0)).sqrt() } else { 0.0 })
}
