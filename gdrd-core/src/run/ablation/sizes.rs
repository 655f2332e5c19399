//! The rows of an ablation over the size of a face, where the protocol names `sizes`.

use std::path::{Path, PathBuf};

use super::{Row, capital, mean_and_sd};
use crate::error::Result;
use crate::evaluation::resolution::OVER_SIZES;
use crate::evaluation::{Curve, Measured, Role};
use crate::report::chart::{Axis, Series, line_chart};
use crate::report::table::{Align, Table};

/// The name of the chart's files, without their endings.
pub(super) const STEM: &str = "resolution";

/// Writes `resolution.{svg,png}` below `folder`: the headline of each row's student over the size of a face, as the mean over seeds,
/// and of the teachers on small faces. Returns the same as a table with standard deviations, and the files; nothing where the
/// protocol was not measured at several sizes.
pub(super) fn write(rows: &[Row], protocol: &str, folder: &Path) -> Result<Option<(Table, Vec<PathBuf>)>> {
    let small = |measured: &&Measured| matches!(measured.role, Role::Teacher { small: true, .. });
    let students = rows.iter().map(|row| (row.name.as_str(), row.seeds.iter().map(|seed| &seed[0]).collect()));
    let teachers = rows[0].seeds[0].iter().filter(small).map(|measured| (measured.embedder.as_str(), vec![measured]));
    let mut lines: Vec<(&str, Vec<&Curve>)> = Vec::new();
    for (name, measured) in students.chain(teachers) {
        let measured: Vec<&Measured> = measured;
        let curves: Option<Vec<&Curve>> = measured.into_iter().map(of).collect();
        // Seeds that lack a size have no mean over the others.
        let alike = |curves: &[&Curve]| curves.iter().all(|curve| sizes(curve) == sizes(curves[0]));
        if let Some(curves) = curves.filter(|curves| alike(curves)) {
            lines.push((name, curves));
        }
    }
    let Some(&first) = lines.first().map(|(_, curves)| &curves[0]) else { return Ok(None) };
    let title = |size: f64| (format!("{size}x{size}"), Align::Right);
    let header = [("recipe".to_string(), Align::Left)].into_iter().chain(sizes(first).into_iter().map(title));
    let (mut table, mut series) = (Table::new(header), Vec::new());
    for (name, curves) in lines.iter().filter(|(_, curves)| sizes(curves[0]) == sizes(first)) {
        let (mut cells, mut points) = (vec![name.to_string()], Vec::new());
        for (at, &(size, _)) in first.points.iter().enumerate() {
            let values: Vec<f64> = curves.iter().map(|curve| curve.points[at].1).collect();
            let (mean, sd) = mean_and_sd(&values);
            points.push((size, mean));
            cells.push(if values.len() > 1 { format!("{mean:.2} ± {sd:.2}") } else { format!("{mean:.2}") });
        }
        table.push(cells)?;
        series.push(Series { label: name.to_string(), points });
    }
    let title = format!("{} over resolution, {protocol}", capital(first.y.trim_end_matches(", %")));
    let stem = folder.join(STEM);
    line_chart(&title, Axis::linear(&first.x), Axis::linear(&first.y), &series)?.write(&stem)?;
    Ok(Some((table, ["svg", "png"].map(|ending| stem.with_extension(ending)).to_vec())))
}

fn of(measured: &Measured) -> Option<&Curve> {
    measured.outcome.curves.iter().find(|curve| curve.name == OVER_SIZES)
}

fn sizes(curve: &Curve) -> Vec<f64> {
    curve.points.iter().map(|(size, _)| *size).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    fn at_sizes(name: &str, seeds: &[&[(f64, f64)]]) -> Row {
        let mut row = row(name, &vec![["1"].as_slice(); seeds.len()]);
        for (seed, points) in row.seeds.iter_mut().zip(seeds) {
            seed[0].outcome.curves.push(Curve {
                name: OVER_SIZES.into(),
                x: "face's size, pixels".into(),
                y: "accuracy, %".into(),
                log_x: false,
                points: points.to_vec(),
                reading: String::new(),
            });
        }
        row
    }

    #[test]
    fn a_row_is_the_mean_of_its_seeds_at_each_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = [
            at_sizes("many", &[&[(8.0, 70.0), (16.0, 90.0)], &[(8.0, 72.0), (16.0, 90.0)]]),
            at_sizes("one seed without a size", &[&[(8.0, 70.0), (16.0, 90.0)], &[(16.0, 90.0)]]),
            at_sizes("16 pixels", &[&[(8.0, 60.0), (16.0, 92.5)]]),
        ];
        let (table, files) = write(&rows, "lfw", folder.path()).expect("written").expect("sizes");
        assert_eq!(table.rows(), [["many", "71.00 ± 1.41", "90.00 ± 0.00"], ["16 pixels", "60.00", "92.50"]]);
        let svg = std::fs::read_to_string(&files[0]).expect("a chart");
        assert!(svg.contains("Accuracy over resolution, lfw") && svg.contains("16 pixels"), "{svg}");
        assert!(files[1].is_file());
    }

    #[test]
    fn without_sizes_nothing_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(write(&[row("a", &[&["1"]])], "lfw", folder.path()).expect("nothing").is_none());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
