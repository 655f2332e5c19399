//! The page that a run leaves for its reader.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chart::{Axis, Series, line_chart};
use super::table::{Align, Table};
use crate::error::Result;
use crate::evaluation::{Curve, Figure, Matrix, Measured};

/// The table of one protocol: a row for each embedder, with the figures that its protocol wants in a table.
///
/// # Errors
/// Never, as each row has a cell for each column.
pub fn results_table(rows: &[Measured]) -> Result<Table> {
    let shown: Vec<&Figure> =
        rows.first().into_iter().flat_map(|row| &row.outcome.figures).filter(|figure| figure.in_table).collect();
    let header = std::iter::once(("", Align::Left));
    let header = header.chain(shown.iter().map(|figure| (figure.name.as_str(), Align::Right)));
    let mut table = Table::new(header);
    for row in rows {
        let cell = |figure: &&Figure| row.outcome.get(&figure.name).map_or("-".to_string(), Figure::shown);
        table.push(std::iter::once(row.embedder.clone()).chain(shown.iter().map(cell)))?;
    }
    Ok(table)
}

/// What a protocol measured at several places, such as sizes or numbers of fused faces: the tables that have a curve of their name, each
/// with that name and the embedder's.
///
/// # Errors
/// If a row has not as many values as there are columns.
pub fn curve_tables(row: &Measured) -> Result<Vec<(String, Table)>> {
    let is_curve = |matrix: &&Matrix| row.outcome.curves.iter().any(|curve| curve.name == matrix.name);
    let named = |matrix: &Matrix| Ok((format!("{}, {}", matrix.name, row.embedder), matrix_table(matrix)?));
    row.outcome.matrices.iter().filter(is_curve).map(named).collect()
}

/// A table that a protocol made itself. A row of whole numbers has no decimals.
///
/// # Errors
/// If a row has not as many values as there are columns.
pub(super) fn matrix_table(matrix: &Matrix) -> Result<Table> {
    let align = |at| if at == 0 { Align::Left } else { Align::Right };
    let mut table = Table::new(matrix.columns.iter().enumerate().map(|(at, column)| (column.as_str(), align(at))));
    for (name, values) in &matrix.rows {
        let whole = values.iter().all(|value| value.fract() == 0.0);
        let shown = |value: &f64| if whole { format!("{value:.0}") } else { format!("{value:.2}") };
        table.push(std::iter::once(name.clone()).chain(values.iter().map(shown)))?;
    }
    Ok(table)
}

/// What a reader must know of the figures of a table, a line for each that differs: what is said of several figures, such as of one at
/// several sizes, is said once.
pub fn notes(rows: &[Measured]) -> Vec<String> {
    /// The most names that a line lists.
    const MOST: usize = 3;
    // Each thing that is said, and of which figures.
    let mut parts: Vec<(&str, Vec<&str>)> = Vec::new();
    for figure in rows.iter().flat_map(|row| &row.outcome.figures) {
        for part in figure.note.iter().flat_map(|note| note.split("; ")) {
            match parts.iter_mut().find(|(said, _)| *said == part) {
                Some((_, of)) if of.contains(&figure.name.as_str()) => {}
                Some((_, of)) => of.push(&figure.name),
                None => parts.push((part, vec![&figure.name])),
            }
        }
    }
    let mut lines: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for (part, of) in parts {
        match lines.iter_mut().find(|(names, _)| *names == of) {
            Some((_, said)) => said.push(part),
            None => lines.push((of, vec![part])),
        }
    }
    let line = |(of, said): (Vec<&str>, Vec<&str>)| match of.len() {
        count if count > MOST => format!("{} and {} other figures: {}", of[0], count - 1, said.join("; ")),
        _ => format!("{}: {}", of.join(", "), said.join("; ")),
    };
    lines.into_iter().map(line).collect()
}

/// The name of the picture of a protocol's curve, without an ending: `roc-held-out`.
pub fn chart_name(curve: &Curve, protocol: &str) -> String {
    let name = curve.name.to_lowercase();
    let plain: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    format!("{plain}-{protocol}")
}

/// The name of the picture of faces that a protocol makes, if it makes one.
pub fn picture_file(protocol: &str) -> String {
    format!("faces-{protocol}.png")
}

/// What the log of a stage draws, each as (step, value).
#[derive(Clone, Debug, Default)]
pub struct StageCurves {
    /// The stage's name.
    pub stage: String,
    /// The loss of each step.
    pub loss: Vec<(f64, f64)>,
    /// The length of each weighted term's gradient, where it was measured.
    pub gradients: BTreeMap<String, Vec<(f64, f64)>>,
    /// Each term, unweighted.
    pub terms: BTreeMap<String, Vec<(f64, f64)>>,
    /// The cosines of the gradients of two terms, by `one and other`, where they were measured.
    pub cosines: BTreeMap<String, Vec<(f64, f64)>>,
}

/// What is known of a stage that was solved in closed form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SolvedLayer {
    /// Faces, each of their variants counted.
    pub rows: usize,
    /// Values that the layer is given.
    pub inputs: usize,
    /// Values that it gives.
    pub outputs: usize,
    /// The share of the target's variance that it explains on these faces; none if targets do not vary.
    pub explained: Option<f64>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// `report.md`: results, curves of the training, what the numbers rest on. The curves' pictures are written into `folder`; `pictures`
/// are the protocols that have one of faces.
///
/// # Errors
/// If a picture cannot be drawn or written.
pub fn run_page(
    title: &str,
    provenance: &[String],
    (measured, pictures): (&BTreeMap<String, Vec<Measured>>, &[&String]),
    (curves, solved): (&[StageCurves], &[(String, SolvedLayer)]),
    folder: &Path,
) -> Result<String> {
    let mut page = format!("# {title}\n\n");
    for (protocol, rows) in measured {
        let Some(first) = rows.first().map(|row| &row.outcome) else { continue };
        let count = first.items.len();
        writeln!(page, "## {protocol} ({count} {})\n\n{}", first.what, results_table(rows)?.to_markdown())
            .expect("text grows");
        for note in notes(rows) {
            writeln!(page, "- {note}").expect("text grows");
        }
        for curve in &first.curves {
            let of = |row: &Measured| {
                let points = row.outcome.curves.iter().find(|other| other.name == curve.name)?.points.iter();
                let points = points.filter(|(x, _)| !curve.log_x || *x > 0.0).copied().collect();
                Some(Series { label: row.embedder.clone(), points })
            };
            let series: Vec<Series> = rows.iter().filter_map(of).filter(|series| series.points.len() > 1).collect();
            if series.is_empty() {
                continue;
            }
            let name = chart_name(curve, protocol);
            let x = if curve.log_x { Axis::log(&curve.x) } else { Axis::linear(&curve.x) };
            line_chart(&format!("{}, {protocol}", curve.name), x, Axis::linear(&curve.y), &series)?
                .write(&folder.join(&name))?;
            writeln!(page, "\n![{}]({name}.svg)\n", curve.name).expect("text grows");
            if !curve.reading.is_empty() {
                writeln!(page, "{}\n", curve.reading).expect("text grows");
            }
        }
        if pictures.contains(&protocol) {
            writeln!(page, "\n![faces, {protocol}]({})\n", picture_file(protocol)).expect("text grows");
        }
        for row in rows {
            for matrix in &row.outcome.matrices {
                writeln!(page, "{}, {}\n\n{}", matrix.name, row.embedder, matrix_table(matrix)?.to_markdown())
                    .expect("text grows");
            }
        }
    }
    if !curves.is_empty() || !solved.is_empty() {
        page.push_str("## Training\n\n");
        for StageCurves { stage, loss: points, gradients, .. } in curves {
            let name = format!("loss-{stage}");
            let series = [Series { label: stage.clone(), points: smoothed(points) }];
            line_chart(&format!("Loss, stage {stage}"), Axis::linear("step"), Axis::linear("loss"), &series)?
                .write(&folder.join(&name))?;
            let last = points.last().map_or(0.0, |p| p.1);
            writeln!(page, "Stage `{stage}`: {} steps, last loss {last:.4}.\n\n![loss]({name}.svg)\n", points.len())
                .expect("text grows");
            if gradients.is_empty() {
                continue;
            }
            let name = format!("gradients-{stage}");
            let series =
                |(term, points): (&String, &Vec<(f64, f64)>)| Series { label: term.clone(), points: smoothed(points) };
            let series: Vec<Series> = gradients.iter().map(series).collect();
            let title = format!("Gradients of the weighted terms, stage {stage}");
            line_chart(&title, Axis::linear("step"), Axis::linear("length"), &series)?.write(&folder.join(&name))?;
            writeln!(page, "![gradients]({name}.svg)\n").expect("text grows");
        }
    }
    for (stage, SolvedLayer { rows, inputs, outputs, explained, seconds }) in solved {
        let explained = explained.map_or("targets do not vary".into(), |share| {
            format!("it explains {:.1} % of the target's variance on these faces", 100.0 * share)
        });
        writeln!(
            page,
            "Stage `{stage}`: solved in closed form in {seconds:.1} s, {inputs} to {outputs} values from {rows} faces; \
             {explained}.\n"
        )
        .expect("text grows");
    }
    page.push_str(
        "## Samples\n\nFaces as the dataset has them, above what the student sees.\n\n![samples](samples.png)\n\n",
    );
    page.push_str("## Provenance\n\n");
    for line in provenance {
        writeln!(page, "- {line}").expect("text grows");
    }
    Ok(page)
}

/// Means over stretches of the curve, so that at most 200 points are drawn.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(200).max(1);
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / count, part.iter().map(|p| p.1).sum::<f64>() / count)
    };
    points.chunks(stretch).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Outcome, Role};

    fn row(figures: Vec<Figure>) -> Measured {
        let table = |name: &str| Matrix {
            name: name.into(),
            columns: ["faces", "accuracy, %"].map(String::from).to_vec(),
            rows: vec![("2".into(), vec![95.5])],
        };
        let curve = Curve {
            name: "Fused faces".into(),
            x: "faces".into(),
            y: "accuracy, %".into(),
            log_x: false,
            points: vec![(2.0, 95.5)],
            reading: String::new(),
        };
        let outcome = Outcome {
            what: "pairs".into(),
            headline: "accuracy".into(),
            figures,
            curves: vec![curve],
            matrices: vec![table("Fused faces"), table("confused")],
            items: vec![1.0],
            items_digest: String::new(),
        };
        Measured { embedder: "student".into(), role: Role::Student, outcome }
    }

    #[test]
    fn what_is_said_of_many_figures_is_said_once() {
        let figure = |name: &str, note: &str| Figure::percent(name, 0.5, 2).noted(note);
        let sizes = ["a", "a at 8x8", "a at 16x16", "a at 32x32"].map(|name| figure(name, "drawn; few"));
        let rows = [row(sizes.to_vec()), row(vec![figure("b", "drawn; alone")])];
        assert_eq!(notes(&rows), ["a and 4 other figures: drawn", "a and 3 other figures: few", "b: alone"]);
        assert_eq!(notes(&[row(vec![figure("b", "drawn; alone")])]), ["b: drawn; alone"]);
        assert_eq!(notes(&[row(sizes[..2].to_vec())]), ["a, a at 8x8: drawn; few"]);
    }

    #[test]
    fn tables_of_curves_are_told_from_others() {
        let tables = curve_tables(&row(Vec::new())).expect("tables");
        let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, tables[0].1.rows().len()), (vec!["Fused faces, student"], 1));
    }
}
