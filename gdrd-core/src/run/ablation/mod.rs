//! Several recipes, several seeds, one table.

mod sizes;

use std::path::{Path, PathBuf};

use super::assembly::Assembly;
use super::claim::claim_ablation;
use super::cost::Cost;
use super::folder::RunFolder;
use super::lock::Lock;
use super::prepared::Prepared;
use super::{Place, train};
use crate::error::{Context, Error, Result};
use crate::evaluation::bootstrap::{Interval, RESAMPLES, difference, seeds_interval};
use crate::evaluation::{Figure, Measured, Outcome, Role};
use crate::experiment::Experiment;
use crate::files::write_atomically;
use crate::observe::Observer;
use crate::recipe::diagnostic::no_such;
use crate::report::chart::{Bar, bar_chart};
use crate::report::table::{Align, Table, mean_and_deviation, mean_cell};
use crate::seed::Seed;

/// One recipe with one seed.
pub struct Cell {
    /// The row that it belongs to: the recipe's name.
    pub row: String,
    /// The recipe, with its seed set.
    pub experiment: Experiment,
}

/// The ablation's outcome.
pub struct Ablation {
    /// The table: a line for each recipe.
    pub table: Table,
    /// The files that were written.
    pub files: Vec<PathBuf>,
}

/// Runs every cell that is not finished below `folder`, then writes `ablation.{md,csv,tex,svg,png}` there: mean and standard
/// deviation over the seeds of the protocol's headline for the first embedder, its interval by the bootstrap over items and seeds, and
/// its difference to the row `against` by the paired bootstrap on the same items and over the seeds; what the steps cost, as the mean
/// of the processor's seconds and the highest peak of memory; what a recipe quotes. What the teachers score without training stands
/// below. Where the protocol names `sizes`, `ablation-sizes.{svg,png}` and a second table in `ablation.md` have the rows over the size of a face.
///
/// A cell that runs after another in one process may find memory of that one still held, and has it in its peak.
///
/// A cell's folder is named by everything that decides its numbers, so that a cell whose images, lists, weights or program
/// changed is another cell. What the older one holds stays.
///
/// # Errors
/// If a cell fails (finished ones stay), or the recipes do not share the protocol.
pub fn ablate(
    cells: &[Cell],
    against: Option<&str>,
    folder: &Path,
    place: &Place,
    observer: &dyn Observer,
) -> Result<Ablation> {
    let mut rows: Vec<Found> = Vec::new();
    let protocol = shared_protocol(cells)?;
    let base = row(cells, against)?;
    for (at, cell) in cells.iter().enumerate() {
        let seed = cell.experiment.run.seed;
        if cells[..at].iter().any(|other| other.row == cell.row && other.experiment.run.seed == seed) {
            return Err(Error::recipe(format!("row `{}` has seed {seed} twice; expected each seed once", cell.row)));
        }
    }
    let mut names = ["md", "csv", "tex", "svg", "png"].map(|ending| format!("ablation.{ending}")).to_vec();
    names.extend(["svg", "png"].map(|ending| format!("{}.{ending}", sizes::STEM)));
    claim_ablation(folder, &names)?;
    for cell in cells {
        let name = name(&cell.experiment, place, observer)?;
        let path = folder.join(&name);
        let run = RunFolder::new(&path);
        if !run.is_finished() {
            train(&cell.experiment, &Place { folder: path, ..place.clone() }, observer)
                .at(|| format!("cell `{name}`"))?;
        }
        let measured = run.results()?.remove(&protocol).ok_or_else(|| {
            Error::data(format!("`{}` has no results of protocol `{protocol}`", run.path().display()))
        })?;
        let at = rows.iter().position(|row| row.name == cell.row).unwrap_or_else(|| {
            let quoted = cell.experiment.quoted.clone();
            rows.push(Found { name: cell.row.clone(), quoted, ..Found::default() });
            rows.len() - 1
        });
        rows[at].seeds.push(measured);
        rows[at].costs.push(run.cost()?);
    }
    let rows = rows.into_iter().map(Row::new).collect::<Result<Vec<_>>>()?;
    let headline = rows[0].headline.clone();
    let (table, remarks) = table(&rows, base)?;
    let bar = |row: &Row| {
        let (value, error) = mean_and_deviation(&row.values);
        Bar { label: row.name.clone(), value, error, baseline: false }
    };
    let mut bars: Vec<Bar> = rows.iter().map(bar).collect();
    let small = |measured: &&Measured| matches!(measured.role, Role::Teacher { small: true, .. });
    if let Some(value) = rows[0].seeds[0].iter().find(small).and_then(|row| row.outcome.headline().ok()?.value) {
        bars.insert(0, Bar { label: "no student".into(), value, error: None, baseline: true });
    }
    let title = format!("{}, {protocol}", capital(&headline.name));
    let picture = bar_chart(&title, headline.unit.sign(), &bars)?;
    let stem = folder.join("ablation");
    picture.write(&stem)?;
    let mut files = vec![stem.with_extension("svg"), stem.with_extension("png")];
    let over_sizes = sizes::write(&rows, &protocol, folder)?.map(|(table, charts)| {
        files.extend(charts);
        format!("\n{}", table.to_markdown())
    });
    let seeds: Vec<String> = rows.iter().map(|row| row.values.len().to_string()).collect();
    let seeds = if seeds.iter().all(|count| *count == seeds[0]) { seeds[0].clone() } else { seeds.join(", ") };
    let first = &rows[0].seeds[0][0].outcome;
    let note = format!(
        "\n{protocol}: {} {}, seeds a row: {seeds}; mean ± sd over seeds of the {} in {}; its interval, and the difference to `{}`, by \
         the bootstrap over {} and seeds, paired for the difference ({RESAMPLES} resamples, two-sided p), or Wilson's score interval where all are alike. CPU s and peak MB are of training: \
         processor seconds of all cores in the steps, mean over seeds, and the highest peak of memory.{}\n",
        first.items.len(),
        first.what,
        headline.name,
        headline.unit.sign(),
        rows[base].name,
        first.what,
        if rows.iter().any(|row| row.quoted.is_some()) {
            " What is quoted is as printed elsewhere, not measured here."
        } else {
            ""
        },
    );
    let below = note + &remarks.concat() + &over_sizes.unwrap_or_default();
    let texts = [("md", table.to_markdown() + &below), ("csv", table.to_csv()), ("tex", table.to_latex())];
    for (extension, text) in texts {
        let path = stem.with_extension(extension);
        write_atomically(&path, text.as_bytes())?;
        files.push(path);
    }
    Ok(Ablation { table, files })
}

/// The name of a cell's folder. What it is found with is let go again: the training that may follow has it all once more.
fn name(experiment: &Experiment, place: &Place, observer: &dyn Observer) -> Result<String> {
    let parts = Assembly::new(experiment, place, observer)?;
    let prepared = Prepared::new(&parts)?;
    let lock = Lock::of(&prepared, &prepared.terms()?)?;
    Ok(format!("{}-seed{}-{}", experiment.plain_name(), experiment.run.seed, &lock.digest()[..12]))
}

/// What the cells of a row gave.
#[derive(Default)]
struct Found {
    name: String,
    quoted: Option<String>,
    seeds: Vec<Vec<Measured>>,
    /// The cost of each seed; none of cells that an older gdrd made.
    costs: Vec<Option<Cost>>,
}

/// A row with all its seeds.
struct Row {
    name: String,
    quoted: Option<String>,
    seeds: Vec<Vec<Measured>>,
    /// The mean of the seeds' processor seconds.
    seconds: Option<f64>,
    /// The highest of the seeds' peaks of memory, in bytes.
    peak: Option<u64>,
    /// The headline of the first embedder, seed by seed.
    values: Vec<f64>,
    /// The headline of the first seed.
    headline: Figure,
}

impl Row {
    fn new(Found { name, quoted, seeds, costs }: Found) -> Result<Self> {
        let value = |seed: &Vec<Measured>| {
            let first = seed.first().ok_or_else(|| Error::data("nothing was measured"))?;
            let headline = first.outcome.headline()?;
            headline.value.ok_or_else(|| {
                Error::data(format!("{} has no value: {}", headline.name, headline.note.clone().unwrap_or_default()))
            })
        };
        let values = seeds.iter().map(value).collect::<Result<_>>().at(|| format!("row `{name}`"))?;
        let headline = seeds[0][0].outcome.headline()?.clone();
        let seconds = costs.iter().map(|cost| Some(cost.as_ref()?.processor_seconds)).sum::<Option<f64>>();
        let peaks = costs.iter().map(|cost| cost.as_ref()?.peak_bytes).collect::<Option<Vec<u64>>>();
        let (seconds, peak) =
            (seconds.map(|sum| sum / costs.len() as f64), peaks.and_then(|peaks| peaks.into_iter().max()));
        Ok(Self { name, quoted, seeds, seconds, peak, values, headline })
    }

    fn outcomes(&self) -> Vec<&Outcome> {
        self.seeds.iter().map(|seed| &seed[0].outcome).collect()
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// The first protocol, by name, of all recipes.
fn shared_protocol(cells: &[Cell]) -> Result<String> {
    let first = cells.first().ok_or_else(|| Error::recipe("an ablation needs at least one recipe"))?;
    let shared = first.experiment.evaluate.iter().find(|(name, protocol)| {
        cells
            .iter()
            .all(|cell| cell.experiment.evaluate.get(*name).is_some_and(|other| other.resolved == protocol.resolved))
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
    place.ok_or_else(|| Error::recipe(no_such("row", name, rows)))
}

/// A row for each recipe and each teacher, and why rows could not be compared.
fn table(rows: &[Row], base: usize) -> Result<(Table, Vec<String>)> {
    let mut remarks = Vec::new();
    let headline = &rows[base].headline;
    let measured = format!("{} {}", headline.name, headline.unit.sign()).trim_end().to_string();
    let mut header: Vec<String> = vec!["recipe".into(), measured];
    let columns = ["95 % interval", "seeds", "difference", "95 % interval of the difference", "p", "CPU s", "peak MB"];
    header.extend(columns.map(String::from));
    let quotes = rows.iter().any(|row| row.quoted.is_some());
    header.extend(quotes.then(|| "quoted".to_string()));
    let width = header.len();
    let align = |at: usize| if at == 0 { Align::Left } else { Align::Right };
    let mut table = Table::new(header.into_iter().enumerate().map(|(at, title)| (title, align(at))));
    for (at, row) in rows.iter().enumerate() {
        let one = headline.unit.of_one();
        let stream = || Seed(7).stream("paired bootstrap", &[]);
        let items: Vec<Vec<f64>> = row.outcomes().iter().map(|outcome| outcome.items.clone()).collect();
        // Seeds that were judged on other numbers of items, or on none, have no interval together.
        let interval = seeds_interval(&items, RESAMPLES, &mut stream())
            .map_or("-".into(), |Interval { low, high }| format!("{:.2} to {:.2}", one * low, one * high));
        let mut cells = vec![row.name.clone(), mean_cell(&row.values), interval, row.values.len().to_string()];
        if at == base {
            cells.extend(["-", "-", "-"].map(String::from));
        } else {
            match difference(&row.outcomes(), &rows[base].outcomes(), &mut stream()) {
                Ok(gap) => {
                    cells.push(format!("{:+.2}", one * gap.mean));
                    cells.push(format!("{:+.2} to {:+.2}", one * gap.interval.low, one * gap.interval.high));
                    cells.push(format!("{:.3}", gap.p));
                }
                Err(error) => {
                    cells.extend(["-", "-", "-"].map(String::from));
                    remarks.push(format!("`{}` is not compared with `{}`: {error}.\n", row.name, rows[base].name));
                }
            }
        }
        cells.push(row.seconds.map_or("-".into(), |seconds| format!("{seconds:.0}")));
        cells.push(row.peak.map_or("-".into(), |bytes| format!("{:.0}", bytes as f64 / 1e6)));
        cells.extend(quotes.then(|| row.quoted.clone().unwrap_or_default()));
        table.push(cells)?;
    }
    for row in rows[0].seeds[0].iter().filter(|row| matches!(row.role, Role::Teacher { .. })) {
        let headline = row.outcome.headline()?;
        let value = headline.value.map_or("-".to_string(), |value| format!("{value:.2}"));
        let interval =
            headline.low.zip(headline.high).map_or("-".into(), |(low, high)| format!("{low:.2} to {high:.2}"));
        let blanks = std::iter::repeat_n(String::new(), width - 3);
        table.push([row.embedder.clone(), value, interval].into_iter().chain(blanks))?;
    }
    Ok((table, remarks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::digest_of_items;

    pub(super) fn row(name: &str, lists: &[&[&str]]) -> Row {
        let seed = |items: &&[&str]| {
            let outcome = Outcome {
                what: "probes".into(),
                headline: "rank-1".into(),
                figures: vec![Figure::percent("rank-1", 1.0, items.len())],
                curves: Vec::new(),
                matrices: Vec::new(),
                items: vec![1.0; items.len()],
                items_digest: digest_of_items(*items),
            };
            vec![Measured { embedder: "student".into(), role: Role::Student, outcome }]
        };
        let cost = Cost { processor_seconds: lists.len() as f64, peak_bytes: Some(2_600_000) };
        let (seeds, costs) = (lists.iter().map(seed).collect(), vec![Some(cost); lists.len()]);
        Row::new(Found { name: name.into(), quoted: None, seeds, costs }).expect("a row")
    }

    #[test]
    fn rows_that_were_judged_on_other_items_are_not_compared() {
        let rows =
            [row("a", &[&["1", "2"]]), row("b", &[&["1", "2"], &["1", "2"]]), row("c", &[&["1", "2"], &["2", "1"]])];
        let (table, remarks) = table(&rows, 0).expect("a table");
        assert_eq!(table.rows()[1][4..6], ["+0.00", "+0.00 to +0.00"]);
        assert_eq!(table.rows()[2], ["c", "100.00 ± 0.00", "34.24 to 100.00", "2", "-", "-", "-", "2", "3"]);
        assert!(remarks.len() == 1 && remarks[0].contains("expected the same probes in the same order"), "{remarks:?}");
    }

    #[test]
    fn a_teacher_has_its_interval_too() {
        let mut rows = [row("a", &[&["1"]])];
        let mut teacher = rows[0].seeds[0][0].clone();
        teacher.role = Role::Teacher { name: "big".into(), small: false };
        teacher.outcome.figures[0] = Figure::percent("rank-1", 0.5, 1).between(25.0, 75.0);
        rows[0].seeds[0].push(teacher);
        let (table, _) = table(&rows, 0).expect("a table");
        assert_eq!(table.rows()[1][1..4], ["50.00", "25.00 to 75.00", ""]);
    }

    #[test]
    fn a_row_without_an_interval_takes_nothing_from_the_table() {
        let rows = [row("a", &[&["1"]]), row("b", &[&["1"], &["1", "2"]]), row("c", &[&[]])];
        let (table, remarks) = table(&rows, 0).expect("a table");
        let intervals: Vec<&str> = table.rows().iter().map(|row| row[2].as_str()).collect();
        assert_eq!((intervals, remarks.len()), (vec!["20.65 to 100.00", "-", "-"], 2));
    }

    #[test]
    fn what_is_quoted_is_a_column_and_a_cost_that_nobody_wrote_down_is_none() {
        let mut rows = [row("a", &[&["1"]]), row("b", &[&["1"]])];
        rows[1].quoted = Some("94.62".into());
        rows[0].seconds = None;
        let (table, _) = table(&rows, 0).expect("a table");
        assert_eq!(table.rows()[0][7..], ["-", "3", ""]);
        assert_eq!(table.rows()[1][7..], ["1", "3", "94.62"]);
    }
}
