//! The sections of a page of one run.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::chart::{Axis, Series};
use super::super::page::{matrix_table, notes, results_table};
use super::super::paper::{self, RESOLUTION};
use super::super::view::{RunView, titles};
use super::{Body, escape, faces, paragraph, plot, png, remarks, table, training};
use crate::error::Result;
use crate::evaluation::resolution::OVER_SIZES;
use crate::evaluation::{Curve, Identification, Measured, Role};
use crate::plugin::Kind;

/// What stands below the title: the headline of every protocol.
pub(super) fn lead(run: &RunView) -> Result<String> {
    let mut cards = String::new();
    for (protocol, rows) in &run.measured {
        let Some(first) = rows.first() else { continue };
        let headline = first.outcome.headline()?;
        let (what, count) = (escape(&first.outcome.what), paper::count(first.outcome.items.len()));
        let _ = writeln!(
            cards,
            "<li><span class=\"big\">{}</span><span class=\"what\">{}, {}: {} ({count} {what})</span></li>",
            escape(&headline.shown()),
            escape(&headline.name),
            escape(protocol),
            escape(&first.embedder)
        );
    }
    let list = if cards.is_empty() { String::new() } else { format!("<ul class=\"cards\">\n{cards}</ul>\n") };
    Ok(format!("<p>A run of gdrd, seed {}.</p>\n{list}", run.seed))
}

/// Everything of one run.
pub(super) fn sections(run: &RunView, body: &mut Body) -> Result<()> {
    let runs = std::slice::from_ref(run);
    body.section("results", "Results", &results(run)?);
    body.section("paper", "Beside the paper", &beside(runs)?);
    let charts = curves(run, body)?;
    body.section("curves", "Curves", &charts);
    let charts = resolution(runs, body)?;
    body.section("resolution", "Resolution", &charts);
    let content = faces::accuracy_and_time(runs, body)?;
    body.section("speed", "Accuracy and time", &content);
    let content = faces::space(run, body)?;
    body.section("embeddings", "Embeddings", &content);
    body.section("mistakes", "Hardest mistakes", &faces::mistakes(run));
    let content = training::section(run, body)?;
    body.section("training", "Training", &content);
    body.section("samples", "Samples", &samples(run));
    body.section("provenance", "What the numbers rest on", &provenance(run));
    Ok(())
}

/// A table for each protocol, and the tables that protocols make themselves.
pub(super) fn results(run: &RunView) -> Result<String> {
    let mut out = String::new();
    for (protocol, rows) in &run.measured {
        let Some(first) = rows.first() else { continue };
        let what = format!("{protocol}: {} {}", paper::count(first.outcome.items.len()), first.outcome.what);
        out += &table(&what, &results_table(rows)?, |_| None);
        out += &remarks(&notes(rows));
        for row in rows {
            for matrix in &row.outcome.matrices {
                let caption = format!("{protocol}, {}: {}", row.embedder, matrix.name);
                let _ = write!(out, "<details>\n<summary>{}</summary>\n", escape(&caption));
                out += &table(&caption, &matrix_table(matrix)?, |_| None);
                out += "</details>\n";
            }
        }
    }
    Ok(out)
}

/// The paper's tables with ours below.
pub(super) fn beside(runs: &[RunView]) -> Result<String> {
    let tables = paper::beside(runs)?;
    if tables.is_empty() {
        return Ok(String::new());
    }
    let mut out = paragraph(
        "Rows that are marked as quoted are what the paper (arXiv 2409.06371) prints, on its own data; rows that are marked as measured come \
         from the files of this run. They share a protocol's kind and not its faces.",
    );
    for beside in &tables {
        out += &table(&beside.caption, &beside.table, paper::class);
        out += &remarks(&beside.differences);
    }
    Ok(out)
}

/// A chart for each curve of each protocol, and the DET curve that a ROC curve is.
fn curves(run: &RunView, body: &mut Body) -> Result<String> {
    let mut out = String::new();
    for (protocol, rows) in &run.measured {
        for curve in rows.first().into_iter().flat_map(|row| &row.outcome.curves) {
            if curve.name == OVER_SIZES {
                continue;
            }
            let series = of_rows(rows, curve);
            out += &chart(body, protocol, curve, &series)?;
            if curve.name == "ROC" {
                out += &det(body, protocol, &series)?;
            }
        }
    }
    Ok(wrapped(out))
}

pub(super) fn chart(body: &mut Body, protocol: &str, curve: &Curve, series: &[Series]) -> Result<String> {
    let x = if curve.log_x { Axis::log(&curve.x) } else { Axis::linear(&curve.x) };
    plot::lines(body, &format!("{}, {protocol}", curve.name), &curve.reading, x, Axis::linear(&curve.y), series)
}

/// The misses of a ROC curve, both axes in decades.
pub(super) fn det(body: &mut Body, protocol: &str, roc: &[Series]) -> Result<String> {
    let missed = |series: &Series| Series {
        label: series.label.clone(),
        points: series.points.iter().map(|(x, y)| (*x, 100.0 - y)).filter(|(_, y)| *y > 1e-9).collect(),
    };
    let series: Vec<Series> = roc.iter().map(missed).collect();
    let (x, y) = (Axis::log("false accept rate"), Axis::log("false reject rate, %"));
    plot::lines(body, &format!("DET, {protocol}"), "", x, y, &series)
}

/// The same curve of each embedder.
pub(super) fn of_rows(rows: &[Measured], curve: &Curve) -> Vec<Series> {
    let of = |row: &Measured| {
        let found = row.outcome.curves.iter().find(|other| other.name == curve.name)?;
        Some(Series { label: row.embedder.clone(), points: found.points.clone() })
    };
    rows.iter().filter_map(of).collect()
}

pub(super) fn wrapped(charts: String) -> String {
    if charts.is_empty() { charts } else { format!("<div class=\"charts\">\n{charts}</div>\n") }
}

/// The headline over the faces' size, where people are identified with what the paper prints.
pub(super) fn resolution(runs: &[RunView], body: &mut Body) -> Result<String> {
    let mut names: Vec<&String> = runs.iter().flat_map(|run| run.measured.keys()).collect();
    names.sort();
    names.dedup();
    let mut out = String::new();
    for protocol in names {
        let (mut series, mut of): (Vec<Series>, Option<&Curve>) = (Vec::new(), None);
        let mut ends = Vec::new();
        for (run, title) in runs.iter().zip(titles(runs)) {
            let rows = run.measured.get(protocol).map_or(&[][..], Vec::as_slice);
            let Some(curve) = rows.first().and_then(|row| row.outcome.over_sizes()) else {
                continue;
            };
            of = Some(of.unwrap_or(curve));
            for row in rows.iter().filter(|row| runs.len() == 1 || row.role == Role::Student) {
                for one in of_rows(std::slice::from_ref(row), curve) {
                    let label = if runs.len() > 1 { title.clone() } else { one.label };
                    ends.push(intervals(row, &one.points));
                    series.push(Series { label, points: one.points });
                }
            }
        }
        let Some(curve) = of else { continue };
        // UCCS is identified: an accuracy over pairs or ranks of a retrieval are no such figures.
        let kinds = runs.iter().filter_map(|run| run.protocols.get(protocol));
        if kinds.into_iter().any(|found| found.kind == Identification::NAME) {
            series.push(Series {
                label: "quoted: the paper's students on UCCS, one for each size".into(),
                points: RESOLUTION.to_vec(),
            });
        }
        let title = format!("{} over resolution, {protocol}", curve.y.trim_end_matches(", %"));
        let note = match ends.iter().any(|ends| !ends.is_empty()) {
            true => "Upright lines: 95 % intervals over items.",
            false => "",
        };
        let axes = (Axis::linear(&curve.x), Axis::linear(&curve.y));
        out += &plot::lines_between(body, &title, note, axes, &series, &ends)?;
    }
    Ok(wrapped(out))
}

/// The ends of the intervals of a resolution curve, as the table of that name has them; none where it has no interval for a point.
fn intervals(row: &Measured, points: &[(f64, f64)]) -> Vec<(f64, f64, f64)> {
    let table = row.outcome.matrices.iter().find(|matrix| matrix.name == OVER_SIZES);
    let rows = table.map_or(&[][..], |matrix| matrix.rows.as_slice());
    if rows.len() != points.len() {
        return Vec::new();
    }
    let end = |((x, _), (_, values)): (&(f64, f64), &(String, Vec<f64>))| match values[..] {
        [_, low, high] => Some((*x, low, high)),
        _ => None,
    };
    points.iter().zip(rows).filter_map(end).collect()
}

/// The first faces of the sheet of samples, each an image of its own so that they find room on any screen.
fn samples(run: &RunView) -> String {
    /// Height and width of a face on the sheet, and how many are shown.
    const CELL: u32 = 112;
    const MOST: u32 = 12;
    let decoded =
        run.samples.as_deref().map(|bytes| image::load_from_memory_with_format(bytes, image::ImageFormat::Png));
    let Some(Ok(sheet)) = decoded else { return String::new() };
    let size = run.size.map_or("at its own size".into(), |size| format!("at {size}x{size}"));
    let mut items = String::new();
    for at in 0..(sheet.width() / CELL).min(MOST) {
        let cell = sheet.crop_imm(at * CELL, 0, CELL, 2 * CELL);
        let mut bytes = std::io::Cursor::new(Vec::new());
        if cell.to_rgb8().write_to(&mut bytes, image::ImageFormat::Png).is_err() {
            continue;
        }
        let alt = format!("Face {}: as the dataset has it, above what the student sees {size}", at + 1);
        let source = png(&STANDARD.encode(bytes.get_ref()));
        let _ = writeln!(items, "<li><img src=\"{source}\" width=\"112\" height=\"224\" alt=\"{alt}\"></li>");
    }
    let said = paragraph(&format!("Faces as the dataset has them, above what the student sees, {size}."));
    format!("{said}<ul class=\"samples\">\n{items}</ul>\n")
}

fn provenance(run: &RunView) -> String {
    let recipe = escape(&run.recipe);
    format!(
        "{}<details>\n<summary>The resolved recipe: running it again is the same run</summary>\n<pre tabindex=\"0\"><code>{recipe}</code></pre>\n\
         </details>\n",
        remarks(&run.provenance)
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::view::ProtocolView;
    use super::*;
    use crate::evaluation::{Figure, Matrix, Outcome};

    fn measured() -> Measured {
        let curve = |name: &str, points: &[(f64, f64)], reading: &str| Curve {
            name: name.into(),
            x: "x".into(),
            y: "accuracy, %".into(),
            log_x: false,
            points: points.to_vec(),
            reading: reading.into(),
        };
        let rows = vec![("8x8".to_string(), vec![70.0, 60.0, 80.0]), ("16x16".to_string(), vec![90.0, 85.0, 95.0])];
        let columns = ["size", "accuracy, %", "95 % from", "to"].map(String::from).to_vec();
        let outcome = Outcome {
            what: "pairs".into(),
            headline: "accuracy".into(),
            figures: vec![Figure::percent("accuracy", 0.9, 40).between(80.0, 100.0)],
            curves: vec![
                curve("Error versus reject", &[(0.0, 10.0), (50.0, 5.0)], "How to read it: downwards."),
                curve("Resolution", &[(8.0, 70.0), (16.0, 90.0)], ""),
            ],
            matrices: vec![Matrix { name: "Resolution".into(), columns, rows }],
            items: vec![1.0; 40],
            items_digest: String::new(),
        };
        Measured { embedder: "student at 16x16".into(), role: Role::Student, outcome }
    }

    #[test]
    fn a_curve_over_sizes_shows_its_intervals() {
        let found = intervals(&measured(), &[(8.0, 70.0), (16.0, 90.0)]);
        assert_eq!(found, [(8.0, 60.0, 80.0), (16.0, 85.0, 95.0)]);
        assert!(intervals(&measured(), &[(8.0, 70.0)]).is_empty(), "not the points of the table");
        let run = RunView { measured: [("lfw".to_string(), vec![measured()])].into(), ..RunView::default() };
        let mut body = Body::default();
        let page = resolution(std::slice::from_ref(&run), &mut body).expect("a chart");
        assert!(page.contains("95 % intervals over items"), "{page}");
        let upright = |line: &&str| line.starts_with("<path class=\"l k0\" d=\"M") && line.contains('V');
        assert_eq!(page.lines().filter(upright).count(), 2, "{page}");
        let tables = results(&run).expect("tables");
        assert!(tables.contains("85") && tables.contains("90.00 [80.00, 100.00] %"), "{tables}");
    }

    #[test]
    fn the_papers_students_stand_where_people_are_identified_alone() {
        for (kind, has) in [("identification", true), ("verification", false), ("retrieval", false)] {
            let protocol = ProtocolView { kind: kind.into(), ..ProtocolView::default() };
            let run = RunView {
                protocols: [("p".to_string(), protocol)].into(),
                measured: [("p".to_string(), vec![measured()])].into(),
                ..RunView::default()
            };
            let page = resolution(&[run], &mut Body::default()).expect("a chart");
            assert_eq!(page.contains("on UCCS"), has, "{kind}: {page}");
        }
    }

    #[test]
    fn a_curve_says_how_it_is_read() {
        let run = RunView { measured: [("lfw".to_string(), vec![measured()])].into(), ..RunView::default() };
        let page = curves(&run, &mut Body::default()).expect("charts");
        for part in ["Error versus reject, lfw", "How to read it: downwards.", "<desc", "<title"] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(page.contains("from 10.00 at 0 to 5.00 at 50.00."), "{page}");
    }
}
