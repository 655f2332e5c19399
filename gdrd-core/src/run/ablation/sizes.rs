//! The rows of an ablation over the size of a face, where the protocol names `sizes`.

use std::path::{Path, PathBuf};

use super::{Row, capital};
use crate::error::Result;
use crate::evaluation::{Measured, Outcome, Role};
use crate::report::chart::{Axis, Series, line_chart};
use crate::report::table::{Align, Table, mean_and_deviation, mean_cell};

/// The name of the chart's files, without their endings.
pub(super) const STEM: &str = "ablation-sizes";

/// Writes `ablation-sizes.{svg,png}` below `folder`: the headline of each row's student over the size of a face, as the mean over
/// seeds, and that of teachers on small faces. Returns the same as a table with standard deviations, and the files; nothing where the
/// protocol was not measured at several sizes. Where a seed has no figure at a size, its row has none either.
pub(super) fn write(rows: &[Row], protocol: &str, folder: &Path) -> Result<Option<(Table, Vec<PathBuf>)>> {
    let small = |measured: &&Measured| matches!(measured.role, Role::Teacher { small: true, .. });
    let students = rows.iter().map(|row| (&row.name, row.outcomes()));
    let teachers = rows[0].seeds[0].iter().filter(small).map(|one| (&one.embedder, vec![&one.outcome]));
    let lines: Vec<(&String, Vec<&Outcome>)> = students.chain(teachers).collect();
    let curves = || lines.iter().flat_map(|(_, outcomes)| outcomes).filter_map(|outcome| outcome.over_sizes());
    let mut sizes: Vec<f64> = curves().flat_map(|curve| curve.points.iter().map(|(size, _)| *size)).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let (Some(first), false) = (curves().next(), sizes.is_empty()) else { return Ok(None) };

    let header = [("recipe".to_string(), Align::Left)].into_iter();
    let mut table = Table::new(header.chain(sizes.iter().map(|size| (format!("{size}x{size}"), Align::Right))));
    let mut series = Vec::new();
    for (name, outcomes) in &lines {
        let (mut cells, mut points) = (vec![name.to_string()], Vec::new());
        for &size in &sizes {
            let values: Option<Vec<f64>> = outcomes.iter().map(|outcome| at(outcome, size)).collect();
            points.extend(values.as_ref().map(|values| (size, mean_and_deviation(values).0)));
            cells.push(values.map_or("-".to_string(), |values| mean_cell(&values)));
        }
        table.push(cells)?;
        series.push(Series { label: name.to_string(), points });
    }
    let title = format!("{} over resolution, {protocol}", capital(first.y.trim_end_matches(", %")));
    let stem = folder.join(STEM);
    line_chart(&title, Axis::linear(&first.x), Axis::linear(&first.y), &series)?.write(&stem)?;
    Ok(Some((table, ["svg", "png"].map(|ending| stem.with_extension(ending)).to_vec())))
}

/// The headline at this size.
fn at(outcome: &Outcome, size: f64) -> Option<f64> {
    outcome.over_sizes()?.points.iter().find(|(other, _)| *other == size).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;
    use crate::evaluation::Curve;
    use crate::evaluation::resolution::OVER_SIZES;

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
        assert_eq!(table.rows()[0], ["many", "71.00 ± 1.41", "90.00 ± 0.00"]);
        assert_eq!(table.rows()[1], ["one seed without a size", "-", "90.00 ± 0.00"]);
        assert_eq!(table.rows()[2], ["16 pixels", "60.00", "92.50"]);
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
