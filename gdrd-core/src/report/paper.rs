//! What the paper prints (arXiv 2409.06371, Tables I to IV and Fig. 3), beside what was measured here. A quoted row is never a measured
//! one: each row says which it is.

use super::table::{Align, Table};
use super::view::{RunView, titles};
use crate::error::Result;
use crate::evaluation::{Figure, Measured, Role, made};

/// The first word of the last cell of a row that the paper prints.
pub(super) const QUOTED: &str = "quoted";
/// The first word of the last cell of a row that was measured.
pub(super) const MEASURED: &str = "measured";

/// The paper's Fig. 3: accuracy on LFW at 16x16, per cent.
pub(super) const ABLATION: [(&str, f64); 5] =
    [("w/o DIST", 92.61), ("SR", 93.30), ("GEN", 93.87), ("DIS", 95.25), ("GEN+DIS", 96.13)];

/// Three students of the paper on UCCS, Section III-D: pixels and accuracy in per cent.
pub(super) const RESOLUTION: [(f64, f64); 3] = [(8.0, 86.17), (16.0, 97.56), (32.0, 98.73)];

struct Printed {
    number: &'static str,
    what: &'static str,
    /// The setting of its figures.
    setting: &'static str,
    kind: &'static str,
    columns: &'static [&'static str],
    /// For each column, the figures that stand in it here, the first that a protocol has.
    ours: &'static [&'static [&'static str]],
    rows: &'static [(&'static str, &'static [f64], &'static str)],
}

const TABLES: [Printed; 4] = [
    Printed {
        number: "I",
        what: "verification accuracy, %",
        setting: "LFW, 6,000 pairs, each fold with its best threshold, 16x16, trained on CASIA-WebFace (half a million faces)",
        kind: "verification",
        columns: &["accuracy"],
        ours: &[&["accuracy"]],
        rows: &[
            ("FaceNet", &[90.25], "CVPR 2015"),
            ("CosFace", &[93.80], "CVPR 2018"),
            ("ArcFace", &[92.30], "CVPR 2019"),
            ("MagFace", &[94.97], "CVPR 2021"),
            ("SiameseFace", &[92.41], "ICIIP 2023"),
            ("MobilenetV3-SE", &[92.86], "ICCECE 2024"),
            ("SKD", &[85.87], "TIP 2019"),
            ("HORKD", &[90.03], "AAAI 2020"),
            ("EKD", &[91.71], "TCSVT 2022"),
            ("RPCL", &[94.98], "NN 2022"),
            ("WaveResNet", &[93.94], "VCIP 2023"),
            ("CRD", &[94.62], "CEI 2023"),
            ("ADSRAM", &[93.08], "PRML 2023"),
            ("CCFace", &[92.87], "IJCB 2023"),
            ("CRRCD", &[95.25], "TCSVT 2024"),
            ("GDRD", &[96.13], "the paper"),
        ],
    },
    Printed {
        number: "II",
        what: "identification accuracy, %",
        setting: "UCCS, 180 people, 3,918 training and 907 test images, a softmax layer on frozen features, 16x16",
        kind: "identification",
        columns: &["accuracy"],
        ours: &[&["rank-1"]],
        rows: &[
            ("CosFace", &[91.83], "CVPR 2018"),
            ("ArcFace", &[88.73], "CVPR 2019"),
            ("MagFace", &[33.14], "CVPR 2021"),
            ("DirectCapsNet", &[95.81], "ICCV 2019"),
            ("IASR", &[89.73], "SPL 2020"),
            ("SKD", &[67.25], "TIP 2019"),
            ("HORKD", &[92.11], "AAAI 2020"),
            ("EKD", &[93.85], "TCSVT 2022"),
            ("RPCL", &[95.13], "TCSVT 2022"),
            ("CRRCD", &[97.27], "TCSVT 2024"),
            ("GDRD", &[97.56], "the paper"),
        ],
    },
    Printed {
        number: "III",
        what: "retrieval, %",
        setting: "TinyFace, 157,871 faces in the gallery and 3,728 probes, 16x16, fine-tuned on its training set",
        kind: "retrieval",
        columns: &["rank-1", "rank-5", "rank-10"],
        ours: &[&["rank-1"], &["rank-5"], &["rank-10"]],
        rows: &[
            ("Baseline", &[31.21, 47.25, 48.21], "ACCV 2018"),
            ("SKD", &[47.91, 56.55, 58.92], "TIP 2019"),
            ("Mkmmd", &[45.49, 54.61, 58.27], "AAAI 2020"),
            ("HORKD", &[45.49, 54.80, 58.26], "AAAI 2020"),
            ("SRW", &[49.25, 58.49, 61.23], "PRML 2023"),
            ("CRD", &[49.00, 57.12, 60.73], "CEI 2023"),
            ("CCFace", &[48.03, 56.38, 59.17], "IJCB 2023"),
            ("CRRCD", &[49.47, 58.98, 61.50], "TCSVT 2024"),
            ("GDRD", &[49.83, 59.14, 61.97], "the paper"),
        ],
    },
    Printed {
        number: "IV",
        what: "identification under light and occlusion, %",
        setting: "AR, three groups of its images, 16x16",
        kind: "identification",
        columns: &["illumination", "eyes occluded", "mouth occluded"],
        ours: &[
            &["rank-1, side-light", "rank-1, illumination", "rank-1, light"],
            &["rank-1, eye-occlusion", "rank-1, eyes", "rank-1, sunglasses", "rank-1, glasses"],
            &["rank-1, mouth-occlusion", "rank-1, mouth", "rank-1, scarf", "rank-1, mask"],
        ],
        rows: &[
            ("ResNet34", &[75.32, 70.03, 55.14], "CVPR 2016"),
            ("MobileNet", &[73.42, 67.32, 51.21], "arXiv 2017"),
            ("IASR", &[78.23, 75.48, 60.16], "SPL 2020"),
            ("SKD", &[73.70, 65.37, 54.67], "TIP 2019"),
            ("EKD", &[88.16, 80.72, 70.83], "TCSVT 2022"),
            ("CCFace", &[87.52, 81.34, 70.29], "IJCB 2023"),
            ("GDRD", &[89.47, 84.33, 72.91], "the paper"),
        ],
    },
];

/// A table of the paper with what runs measured below it.
pub(super) struct Beside {
    pub(super) caption: String,
    /// How the protocols differ, a sentence each.
    pub(super) differences: Vec<String>,
    pub(super) table: Table,
}

/// The paper's tables whose protocols some run has.
///
/// # Errors
/// Never, as each row has a cell for each column.
pub(super) fn beside(runs: &[RunView]) -> Result<Vec<Beside>> {
    let mut found = Vec::new();
    for printed in &TABLES {
        let mut differences = Vec::new();
        let mut rows = Vec::new();
        for (run, title) in runs.iter().zip(titles(runs)) {
            for (name, rows_of) in &run.measured {
                let Some(protocol) = run.protocols.get(name).filter(|protocol| protocol.kind == printed.kind) else {
                    continue;
                };
                let Some(first) = rows_of.first().filter(|row| belongs(printed, row)) else { continue };
                // Runs of before there was a note have the kinds of their datasets alone.
                let drawn = || protocol.data.iter().any(|kind| kind == "synthetic-faces").then_some("drawn by gdrd");
                let made = made(&first.outcome).or_else(drawn);
                let faces = made.map(|made| format!(", of faces {made}: the two can not be compared"));
                let of = made.map(|made| format!(", {made}")).unwrap_or_default();
                let facts = match protocol.facts.as_slice() {
                    [] => String::new(),
                    facts => format!(" With {}.", facts.join("; ")),
                };
                let said = format!(
                    "`{name}` here: {} {}{}.{facts}",
                    count(first.outcome.items.len()),
                    first.outcome.what,
                    faces.unwrap_or_default()
                );
                if !differences.contains(&said) {
                    differences.push(said);
                }
                for row in rows_of {
                    let cells = printed.ours.iter().map(|names| cell(row, names));
                    // A teacher scores the same in every run that shares it.
                    let model = match row.role {
                        Role::Student if runs.len() > 1 => format!("{title}: {}", row.embedder),
                        _ => row.embedder.clone(),
                    };
                    let cells = std::iter::once(model).chain(cells).chain([format!("{MEASURED} here, `{name}`{of}")]);
                    let cells = (row.role != Role::Student, cells.collect::<Vec<_>>());
                    if !rows.contains(&cells) {
                        rows.push(cells);
                    }
                }
            }
        }
        if rows.is_empty() {
            continue;
        }
        let columns = printed.columns.iter().map(|column| (*column, Align::Right));
        let mut table =
            Table::new([("model", Align::Left)].into_iter().chain(columns).chain([("where from", Align::Left)]));
        for (model, values, publication) in printed.rows {
            let values = values.iter().map(|value| format!("{value:.2}"));
            table.push(std::iter::once(model.to_string()).chain(values).chain([format!("{QUOTED}: {publication}")]))?;
        }
        // Students first.
        rows.sort_by_key(|(teacher, _)| *teacher);
        for (_, row) in rows {
            table.push(row)?;
        }
        let first = format!("Quoted rows are the paper's own print, nothing was run for them: {}.", printed.setting);
        found.push(Beside {
            caption: format!("Table {}: {}", printed.number, printed.what),
            differences: std::iter::once(first).chain(differences).collect(),
            table,
        });
    }
    Ok(found)
}

/// Whether what a row measured belongs below this table: Table IV's has groups, Table II's has none of those.
fn belongs(printed: &Printed, row: &Measured) -> bool {
    let has = |names: &&[&str]| names.iter().any(|name| row.outcome.get(name).is_some());
    let grouped = TABLES[3].ours.iter().any(has);
    printed.ours.iter().any(has) && (printed.number == "IV" || printed.kind != TABLES[3].kind || !grouped)
}

fn cell(row: &Measured, names: &[&str]) -> String {
    let figure = names.iter().find_map(|name| row.outcome.get(name));
    // The tables' heads say the unit.
    figure.map_or("-".into(), |figure: &Figure| figure.shown().trim_end_matches(" %").to_string())
}

/// A number with commas.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What a row of such a table is.
pub(super) fn class(row: &[String]) -> Option<&'static str> {
    let last = row.last()?;
    if last.starts_with(QUOTED) { Some("quoted") } else { last.starts_with(MEASURED).then_some("measured") }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::view::ProtocolView;
    use super::*;
    use crate::data::Naming;
    use crate::evaluation::Outcome;

    fn run(kind: &str, figures: &[&str]) -> RunView {
        let figures = figures.iter().map(|name| Figure::percent(*name, 0.5, 4).between(40.0, 60.0)).collect();
        let (curves, matrices) = (Vec::new(), Vec::new());
        let outcome = Outcome {
            what: "probes".into(),
            headline: "rank-1".into(),
            figures,
            curves,
            matrices,
            items: vec![1.0; 4000],
            items_digest: String::new(),
        };
        let facts = Vec::new();
        let protocol =
            ProtocolView { kind: kind.into(), data: vec!["synthetic-faces".into()], content: "c".into(), facts };
        RunView {
            protocols: BTreeMap::from([("p".into(), protocol)]),
            measured: BTreeMap::from([(
                "p".into(),
                vec![Measured { embedder: "student".into(), role: Role::Student, outcome }],
            )]),
            ..RunView::default()
        }
    }

    #[test]
    fn measured_rows_stand_below_quoted_ones_in_the_table_of_their_protocol() {
        let tables = beside(&[run("identification", &["rank-1"])]).expect("tables");
        assert_eq!(
            tables.iter().map(|t| t.caption.as_str()).collect::<Vec<_>>(),
            ["Table II: identification accuracy, %"]
        );
        let rows = tables[0].table.rows();
        assert_eq!(rows.iter().filter(|row| class(row) == Some("quoted")).count(), 11);
        let ours = ["student", "50.00 [40.00, 60.00]", "measured here, `p`, drawn by gdrd"];
        assert_eq!(rows.last().expect("ours"), &ours);
        assert!(
            tables[0].differences[1].contains("4,000 probes, of faces drawn by gdrd: the two"),
            "{:?}",
            tables[0].differences
        );
        let grouped = beside(&[run("identification", &["rank-1", "rank-1, scarf"])]).expect("tables");
        assert_eq!(grouped[0].table.rows().last().expect("ours")[1..4], ["-", "-", "50.00 [40.00, 60.00]"]);
        assert!(grouped.len() == 1 && grouped[0].caption.starts_with("Table IV"));
        assert!(beside(&[run("open-set-identification", &["rank-1"])]).expect("none").is_empty());
    }

    #[test]
    fn scenarios_of_ar_fill_the_columns_of_table_iv() {
        let scenario = |image: u32| {
            let (_, attributes) = Naming::Ar.read(&format!("M-001-{image:02}")).expect("a name of AR");
            attributes.into_iter().find(|(name, _)| name == "scenario").expect("a scenario").1
        };
        let groups: BTreeSet<String> = (1..=26).map(|image| format!("rank-1, {}", scenario(image))).collect();
        let figures: Vec<&str> = ["rank-1"].into_iter().chain(groups.iter().map(String::as_str)).collect();
        let tables = beside(&[run("identification", &figures)]).expect("tables");
        assert!(tables.len() == 1 && tables[0].caption.starts_with("Table IV"));
        assert_eq!(tables[0].table.rows().last().expect("ours")[1..4], ["50.00 [40.00, 60.00]"; 3]);
    }

    #[test]
    fn faces_that_no_camera_took_are_declared_beside_the_row() {
        let mut painted = run("identification", &["rank-1", "rank-1, sunglasses"]);
        painted.protocols.get_mut("p").expect("a protocol").data = vec!["packed".into()];
        let outcome = &mut painted.measured.get_mut("p").expect("rows")[0].outcome;
        outcome.figures[0].note = Some("3 were passed over; faces not as photographed: painted with scarf".into());
        let tables = beside(&[painted]).expect("tables");
        let row = tables[0].table.rows().last().expect("ours");
        assert_eq!(row.last().expect("a cell"), "measured here, `p`, painted with scarf");
        let said = "`p` here: 4,000 probes, of faces painted with scarf: the two can not be compared.";
        assert_eq!(tables[0].differences[1], said);
        let mut known = run("identification", &["rank-1"]);
        known.protocols.get_mut("p").expect("a protocol").facts = ["a", "b"].map(String::from).to_vec();
        let tables = beside(&[known]).expect("tables");
        assert!(tables[0].differences[1].ends_with("can not be compared. With a; b."), "{:?}", tables[0].differences);
    }
}
