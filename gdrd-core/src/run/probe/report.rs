//! A probe as a table, pictures and files.

use std::path::{Path, PathBuf};

use super::{Probe, Probed};
use crate::error::{Error, Result};
use crate::evaluation::Figure;
use crate::files::write_atomically;
use crate::report::chart::{Axis, Bar, Series, bar_chart, line_chart};
use crate::report::table::{Align, Table};
use crate::run::claim::claim;

/// Bars in the picture, at most.
const BARS: usize = 12;

/// The files of a probe, below its folder.
const FILES: [&str; 7] =
    ["probe.json", "probe.md", "probe.csv", "probe.svg", "probe.png", "probe-varied.svg", "probe-varied.png"];

/// A line for each tap, best first.
///
/// # Errors
/// If protocols' outcomes have no headline.
pub fn table(probe: &Probe) -> Result<Table> {
    let varied: Vec<&String> =
        probe.rows.iter().take(1).flat_map(|row| row.varied.iter().map(|(key, _)| key)).collect();
    let shown: Vec<&Figure> = probe.rows.iter().take(1).flat_map(|row| &row.outcome.figures).collect();
    let shown: Vec<&Figure> = shown.into_iter().filter(|figure| figure.in_table).collect();
    let mut columns =
        vec![("teacher".to_string(), Align::Left), ("view".into(), Align::Left), ("output".into(), Align::Left)];
    columns.extend(varied.iter().map(|key| (short(key).to_string(), Align::Right)));
    columns.extend([("shape".to_string(), Align::Left), ("fitted".into(), Align::Left)]);
    columns.extend(shown.iter().map(|figure| (figure.name.clone(), Align::Right)));
    columns.push(("explained %".into(), Align::Right));
    let mut table = Table::new(columns);
    for row in &probe.rows {
        let shape = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let mut cells = vec![row.teacher.clone().unwrap_or("-".into()), row.view.clone(), row.output.clone()];
        let value = |key: &String| row.varied.iter().find(|(of, _)| of == key).map_or("-".into(), |(_, v)| v.clone());
        cells.extend(varied.iter().map(|key| value(key)));
        cells.extend([shape(&row.shape), shape(&row.pooled)]);
        let figure = |figure: &&Figure| row.outcome.get(&figure.name).map_or("-".to_string(), Figure::shown);
        cells.extend(shown.iter().map(figure));
        cells.push(row.explained.map_or("-".into(), |share| format!("{:.1}", 100.0 * share)));
        table.push(cells)?;
    }
    Ok(table)
}

/// The last word of a key: `timestep` of `teacher.generative.timestep`.
fn short(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Writes a probe into `folder`: as JSON, Markdown and CSV, a bar for each of the best taps, and where one number is varied, a line
/// for each tap over it. The files that were written.
///
/// # Errors
/// If a file cannot be written, or is there and was not written by a probe.
pub fn write(probe: &Probe, folder: &Path) -> Result<Vec<PathBuf>> {
    claim(folder, "probe", "--out", &FILES.map(String::from))?;
    let table = table(probe)?;
    let mut text = serde_json::to_string_pretty(probe).map_err(|e| Error::data(e.to_string()))?;
    text.push('\n');
    let page = format!("{}\n{}", table.to_markdown(), said(probe));
    let mut files = Vec::new();
    for (name, text) in [("probe.json", text), ("probe.md", page), ("probe.csv", table.to_csv())] {
        let path = folder.join(name);
        write_atomically(&path, text.as_bytes())?;
        files.push(path);
    }
    let Some(first) = probe.rows.first() else { return Ok(files) };
    let headline = first.outcome.headline()?;
    let title = format!("Linear maps to the {}", probe.target.replace('`', ""));
    let bars = bars(&probe.rows)?;
    let unit = format!("{}, {}", headline.name, headline.unit.sign()).trim_end_matches(", ").to_string();
    let mut draw = |name: &str, picture: crate::report::picture::Picture| -> Result<()> {
        let stem = folder.join(name);
        picture.write(&stem)?;
        files.extend(["svg", "png"].map(|ending| stem.with_extension(ending)));
        Ok(())
    };
    if !bars.is_empty() {
        draw("probe", bar_chart(&title, &unit, &bars)?)?;
    }
    if let Some((key, series)) = lines(&probe.rows) {
        draw("probe-varied", line_chart(&title, Axis::linear(&key), Axis::linear(&unit), &series)?)?;
    }
    Ok(files)
}

/// What the figures rest on.
fn said(probe: &Probe) -> String {
    format!(
        "A linear map in closed form (ridge {}) from each output to the {}, fitted to {} faces and measured by {}. `fitted` is the \
         shape after average pooling; `explained` the share of the target's variance on the faces that the map was fitted to.\n",
        probe.ridge, probe.target, probe.faces, probe.protocol
    )
}

/// The best taps, and the best of the pixels in grey.
fn bars(rows: &[Probed]) -> Result<Vec<Bar>> {
    let best = rows.iter().filter(|row| row.teacher.is_some()).take(BARS);
    let pixels = rows.iter().find(|row| row.teacher.is_none());
    let mut bars = Vec::new();
    for row in best.chain(pixels) {
        let figure = row.outcome.headline()?;
        let Some(value) = figure.value else { continue };
        let varied: Vec<String> = row.varied.iter().map(|(key, value)| format!(" {} {value}", short(key))).collect();
        let label = match &row.teacher {
            Some(teacher) => format!("{teacher} {} {}{}", row.view, row.output, varied.concat()),
            None => format!("{} of {}", row.output, row.view),
        };
        bars.push(Bar { label, value, error: figure.error, baseline: row.teacher.is_none() });
    }
    Ok(bars)
}

/// Where one key is varied and its values are numbers: a line for each tap with several of them.
fn lines(rows: &[Probed]) -> Option<(String, Vec<Series>)> {
    let [(key, _)] = rows.first()?.varied.as_slice() else { return None };
    let mut series: Vec<Series> = Vec::new();
    for row in rows {
        let Some(teacher) = &row.teacher else { continue };
        let x: f64 = row.varied.first()?.1.parse().ok()?;
        let y = row.outcome.headline().ok()?.value?;
        let label = format!("{teacher} {} {}", row.view, row.output);
        match series.iter_mut().find(|one| one.label == label) {
            Some(one) => one.points.push((x, y)),
            None => series.push(Series { label, points: vec![(x, y)] }),
        }
    }
    series.retain(|one| one.points.len() > 1);
    series.truncate(BARS);
    series.iter_mut().for_each(|one| one.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    (!series.is_empty()).then(|| (short(key).to_string(), series))
}
