//! A page of several runs side by side.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::chart::Series;
use super::super::paper::{self, ABLATION};
use super::super::table::{Align, Table, mean_and_deviation, mean_cell};
use super::super::view::{RunView, titles};
use super::plot::{Lying, bars};
use super::run::{beside, chart, det, resolution, wrapped};
use super::{Body, faces, paragraph, remarks, table};
use crate::error::Result;
use crate::evaluation::bootstrap::{Interval, RESAMPLES, difference, seeds_interval};
use crate::evaluation::resolution::OVER_SIZES;
use crate::evaluation::{Figure, Measured, Outcome};
use crate::seed::Seed;

/// The most runs whose training and faces are shown one by one.
const WHOLE: usize = 6;

/// Runs of one recipe's name and protocol, seed by seed.
pub(crate) struct Group<'a> {
    name: &'a str,
    students: Vec<&'a Measured>,
}

impl Group<'_> {
    fn values(&self) -> Vec<f64> {
        self.students.iter().filter_map(|row| row.outcome.headline().ok()?.value).collect()
    }

    fn headline(&self) -> Result<&Figure> {
        self.students[0].outcome.headline()
    }

    fn outcomes(&self) -> Vec<&Outcome> {
        self.students.iter().map(|row| &row.outcome).collect()
    }
}

/// The students of a protocol whose content is `content`, grouped by the names of their recipes, in the order of the runs.
pub(crate) fn groups<'a>(runs: &'a [RunView], protocol: &str, content: &str) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    for run in runs.iter().filter(|run| run.protocols.get(protocol).is_some_and(|found| found.content == content)) {
        let Some(student) = run.student(protocol).filter(|row| row.outcome.headline().is_ok_and(|h| h.value.is_some()))
        else {
            continue;
        };
        match groups.iter_mut().find(|group| group.name == run.name) {
            Some(group) => group.students.push(student),
            None => groups.push(Group { name: &run.name, students: vec![student] }),
        }
    }
    groups
}

pub(super) fn lead(runs: &[RunView]) -> String {
    remarks(&titles(runs))
}

/// Each protocol with its content once, in the order of its name: those of one content can be compared. What is shown comes first; where
/// runs measured by several contents of one name, it says which.
pub(crate) fn protocols(runs: &[RunView]) -> Vec<(String, &String, &str)> {
    let mut found: BTreeMap<(&String, &str), ()> = BTreeMap::new();
    for run in runs {
        found.extend(
            run.protocols
                .iter()
                .filter(|(name, _)| run.measured.contains_key(*name))
                .map(|(n, p)| ((n, p.content.as_str()), ())),
        );
    }
    let all: Vec<(&String, &str)> = found.into_keys().collect();
    let mut named = Vec::with_capacity(all.len());
    for (at, (name, content)) in all.iter().enumerate() {
        let of_name = |part: &[(&String, &str)]| part.iter().filter(|(other, _)| other == name).count();
        let shown = match of_name(&all) {
            1 => name.to_string(),
            several => format!("{name}, measure {} of {several}", of_name(&all[..=at])),
        };
        named.push((shown, *name, *content));
    }
    named
}

pub(super) fn sections(runs: &[RunView], body: &mut Body) -> Result<()> {
    let mut out = String::new();
    for (shown, protocol, content) in protocols(runs) {
        let groups = groups(runs, protocol, content);
        if let Some(table_of) = comparison(&groups)? {
            let first = &groups[0].students[0].outcome;
            let caption = format!("{shown}: {} {}", paper::count(first.items.len()), first.what);
            out += &table(&caption, &table_of, |_| None);
        }
    }
    if !out.is_empty() {
        out += &paragraph(&format!(
            "Mean and standard deviation over the seeds of a row; its interval, and the difference to the first row, are those of the bootstrap \
             over items and seeds ({RESAMPLES} resamples), paired for the difference (Wilson's score interval of a rate whose items are all alike), for runs that were measured on the same items. A protocol whose data or options \
             differ has a table of its own."
        ));
    }
    body.section("results", "Results", &out);
    let charts = ablation(runs, body)?;
    body.section("ablation", "Ablation", &charts);
    body.section("paper", "Beside the paper", &beside(runs)?);
    let charts = curves(runs, body)?;
    body.section("curves", "Curves of the students", &charts);
    let charts = resolution(runs, body)?;
    body.section("resolution", "Resolution", &charts);
    let content = faces::accuracy_and_time(runs, body)?;
    body.section("speed", "Accuracy and time", &content);
    if runs.len() > WHOLE {
        let said = format!(
            "More than {WHOLE} runs: their own pages, `report.html` in each run's folder, have their training and faces."
        );
        body.section("runs", "The runs", &paragraph(&said));
        return Ok(());
    }
    for (at, (run, title)) in runs.iter().zip(titles(runs)).enumerate() {
        // The sections of a run inside this page, below its name; they share the page's ids.
        let (training, space) = (super::training::section(run, body)?, faces::space(run, body)?);
        let (results, mistakes) = (super::run::results(run)?, faces::mistakes(run));
        let mut inner = String::new();
        for (name, content) in
            [("Results", results), ("Embeddings", space), ("Hardest mistakes", mistakes), ("Training", training)]
        {
            if !content.is_empty() {
                let _ = write!(inner, "<details>\n<summary>{name}</summary>\n{content}</details>\n");
            }
        }
        let _ = write!(
            inner,
            "<details>\n<summary>What the numbers rest on</summary>\n{}</details>\n",
            remarks(&run.provenance)
        );
        body.section(&format!("run-{}", at + 1), &title, &inner);
    }
    Ok(())
}

/// A row for each recipe's name; none without two rows.
pub(crate) fn comparison(groups: &[Group]) -> Result<Option<Table>> {
    let Some(base) = groups.first() else { return Ok(None) };
    let headline = base.headline()?;
    let mut table = Table::new([
        ("recipe".to_string(), Align::Left),
        (format!("{} {}", headline.name, headline.unit.sign()).trim_end().to_string(), Align::Right),
        ("95 % interval".to_string(), Align::Right),
        ("seeds".to_string(), Align::Right),
        (format!("difference to {}", base.name), Align::Right),
        ("95 % interval of the difference".to_string(), Align::Right),
    ]);
    for (at, group) in groups.iter().enumerate() {
        let values = group.values();
        let (one, same) = (group.headline()?.unit.of_one(), group.headline()?.name == headline.name);
        let stream = || Seed(7).stream("paired bootstrap", &[]);
        let items: Vec<Vec<f64>> = group.outcomes().iter().map(|outcome| outcome.items.clone()).collect();
        let interval = seeds_interval(&items, RESAMPLES, &mut stream())
            .map_or("-".into(), |Interval { low, high }| format!("{:.2} to {:.2}", one * low, one * high));
        let mut cells = vec![group.name.to_string(), mean_cell(&values), interval, values.len().to_string()];
        let gap = match at > 0 && same {
            true => difference(&group.outcomes(), &base.outcomes(), &mut stream()).ok(),
            false => None,
        };
        cells.extend(match gap {
            Some(gap) => [
                format!("{:+.2}", one * gap.mean),
                format!("{:+.2} to {:+.2}", one * gap.interval.low, one * gap.interval.high),
            ],
            None => ["-".to_string(), "-".to_string()],
        });
        table.push(cells)?;
    }
    Ok(Some(table))
}

/// Fig. 3: a bar for each recipe, and the paper's where the names are the paper's.
fn ablation(runs: &[RunView], body: &mut Body) -> Result<String> {
    let mut out = String::new();
    for (shown, protocol, content) in protocols(runs) {
        let groups = groups(runs, protocol, content);
        if groups.len() < 2 {
            continue;
        }
        let headline = groups[0].headline()?;
        let mut all = Vec::new();
        for group in &groups {
            let (mean, deviation) = mean_and_deviation(&group.values());
            let one = group.headline()?;
            let ends = match deviation {
                Some(deviation) => Some((mean - deviation, mean + deviation)),
                None => one.low.zip(one.high),
            };
            all.push(Lying { label: group.name.to_string(), value: mean, ends, quoted: false });
        }
        let title = format!("{}, {shown}", headline.name);
        let note = "Ends of the lines: standard deviation over seeds, or of one seed the 95 % interval over items.";
        out += &bars(body, &title, note, headline.unit.sign(), &all)?;
    }
    let named = |name: &str| runs.iter().any(|run| run.name == name);
    if ABLATION.iter().filter(|(name, _)| named(name)).count() >= 2 && !out.is_empty() {
        let quoted =
            |(name, value): &(&str, f64)| Lying { label: name.to_string(), value: *value, ends: None, quoted: true };
        let quoted: Vec<Lying> = ABLATION.iter().map(quoted).collect();
        let note = "Quoted: what the paper prints for LFW at 16x16; nothing was run for these bars.";
        out += &bars(body, "Fig. 3 of the paper, accuracy on LFW", note, "%", &quoted)?;
    }
    Ok(wrapped(out))
}

/// The curves of the students, one line a recipe's first seed.
fn curves(runs: &[RunView], body: &mut Body) -> Result<String> {
    let mut out = String::new();
    for (shown, protocol, content) in protocols(runs) {
        let groups = groups(runs, protocol, content);
        let Some(first) = groups.first() else { continue };
        for curve in first.students[0].outcome.curves.iter().filter(|curve| curve.name != OVER_SIZES) {
            let of = |group: &Group| {
                let found = group.students[0].outcome.curves.iter().find(|other| other.name == curve.name)?;
                Some(Series { label: group.name.to_string(), points: found.points.clone() })
            };
            let series: Vec<Series> = groups.iter().filter_map(of).collect();
            out += &chart(body, &shown, curve, &series)?;
            if curve.name == "ROC" {
                out += &det(body, &shown, &series)?;
            }
        }
    }
    Ok(wrapped(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Role;

    fn run(name: &str, seed: i64, items: &[f64]) -> RunView {
        let mean = items.iter().sum::<f64>() / items.len() as f64;
        let outcome = Outcome {
            what: "pairs".into(),
            headline: "accuracy".into(),
            figures: vec![Figure::percent("accuracy", mean, items.len())],
            curves: Vec::new(),
            matrices: Vec::new(),
            items: items.to_vec(),
            items_digest: "one".into(),
        };
        let student = Measured { embedder: "student".into(), role: Role::Student, outcome };
        RunView {
            name: name.into(),
            seed,
            protocols: [("lfw".to_string(), Default::default())].into(),
            measured: [("lfw".to_string(), vec![student])].into(),
            ..RunView::default()
        }
    }

    #[test]
    fn what_would_be_called_alike_is_told_apart() {
        let mut runs = [run("a", 7, &[1.0, 0.0]), run("a", 7, &[1.0, 0.0]), run("a", 8, &[1.0, 0.0])];
        assert_eq!(titles(&runs), ["a, seed 7, run 1", "a, seed 7, run 2", "a, seed 8"]);
        let shown = |runs: &[RunView]| protocols(runs).into_iter().map(|(shown, ..)| shown).collect::<Vec<_>>();
        assert_eq!(shown(&runs), ["lfw"]);
        runs[1].protocols.get_mut("lfw").expect("a protocol").content = "other".into();
        assert_eq!(shown(&runs), ["lfw, measure 1 of 2", "lfw, measure 2 of 2"]);
        let mut body = Body::default();
        sections(&runs, &mut body).expect("sections");
        let captions = |text: &str| body.text.matches(text).count();
        let each = ["measure 1 of 2: 2 pairs</span>", "measure 2 of 2: 2 pairs</span>"];
        assert_eq!(each.map(captions), [1, 1], "{}", body.text);
    }

    #[test]
    fn a_row_has_its_interval_over_items_and_seeds() {
        // Within a seed all pairs are alike, so that the interval of the first row is that of its two seeds: of a resample both are
        // right with a chance of a quarter, and both wrong with a quarter.
        let runs = [run("a", 7, &[1.0; 8]), run("a", 8, &[0.0; 8]), run("b", 7, &[1.0; 8])];
        let table = comparison(&groups(&runs, "lfw", "")).expect("a table").expect("rows");
        assert_eq!(table.rows()[0], ["a", "50.00 ± 70.71", "0.00 to 100.00", "2", "-", "-"]);
        assert_eq!(table.rows()[1], ["b", "100.00", "67.56 to 100.00", "1", "+50.00", "+0.00 to +100.00"]);
    }
}
