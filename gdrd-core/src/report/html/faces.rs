//! What a page shows of faces: embeddings in the plane, mistakes as pairs, accuracy over time.

use std::fmt::Write;

use super::super::chart::Axis;
use super::super::paper::count;
use super::super::table::{Align, Table};
use super::super::view::{Confused, Mistaken, RunView, ShownFace};
use super::plot::{Dot, dots};
use super::run::wrapped;
use super::{Body, escape, paragraph, png, table};
use crate::error::Result;
use crate::evaluation::Role;

/// Fig. 2 of the paper for this run, and how the embeddings lie on the sphere.
pub(super) fn space(run: &RunView, body: &mut Body) -> Result<String> {
    let Some(insight) = run.insight.as_ref().filter(|insight| insight.faces > 0) else { return Ok(String::new()) };
    let mut figures = Table::new([("", Align::Left), ("alignment", Align::Right), ("uniformity", Align::Right)]);
    let mut charts = String::new();
    for seen in &insight.embedders {
        let shown = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        figures.push([seen.embedder.clone(), shown(seen.alignment), shown(seen.uniformity)])?;
        let point = |(person, x, y): &(usize, f64, f64)| Dot { at: (*x, *y), look: *person, label: String::new() };
        let points: Vec<Dot> = seen.points.iter().map(point).collect();
        let words = format!(
            "{} faces of {} people as {} places them; each look is a person.",
            points.len(),
            insight.shown.len(),
            seen.embedder
        );
        charts += &dots(body, (&format!("t-SNE, {}", seen.embedder), "", &words), None, &insight.shown, &points)?;
    }
    let said = format!(
        "The same faces of {} people of `{}` by each embedder, in the plane by t-SNE with one seed (Fig. 2 of the paper, which shows UCCS): \
         what is near is alike, distances between groups mean nothing.",
        insight.shown.len(),
        insight.data
    );
    let about = format!(
        "Alignment is the mean squared distance of two faces of a person, uniformity the logarithm of the mean of exp(-2 d²) over all pairs \
         (Wang and Isola, 2020), over {} faces of {} people; less is better for both, and one is easily bought with the other.",
        count(insight.faces),
        count(insight.people)
    );
    let caption = format!("How embeddings lie on the sphere, {}", insight.data);
    Ok(format!("{}{}{}{}", paragraph(&said), wrapped(charts), table(&caption, &figures, |_| None), paragraph(&about)))
}

/// The worst mistakes as pairs of faces.
pub(super) fn mistakes(run: &RunView) -> String {
    let mut out = String::new();
    for (protocol, Mistaken { what, count: all, worst }) in run.insight.iter().flat_map(|insight| &insight.mistakes) {
        let _ = writeln!(out, "<h3>{}</h3>", escape(protocol));
        if *all == 0 {
            out += &paragraph("The student made no mistake.");
            continue;
        }
        out += &paragraph(&format!(
            "{} {what} were judged wrongly. The worst of them: each face as the dataset has it, above what the student sees.{}",
            count(*all),
            // A search has a side that asks.
            if what == "pairs" { "" } else { " The probe comes first, then the nearest face of the gallery." }
        ));
        for (same, name) in [(true, "Same person, taken for two"), (false, "Two people, taken for one")] {
            let pairs: String = worst.iter().filter(|pair| pair.same == same).map(pair).collect();
            if !pairs.is_empty() {
                let _ = write!(out, "<h4>{name}</h4>\n<ul class=\"pairs\">\n{pairs}</ul>\n");
            }
        }
    }
    out
}

fn pair(pair: &Confused) -> String {
    let face = |face: &ShownFace| {
        let key = escape(&face.key);
        format!(
            "<div><img src=\"{}\" width=\"112\" height=\"112\" alt=\"{key}, as the dataset has it\">\
             <img class=\"small\" src=\"{}\" width=\"112\" height=\"112\" alt=\"{key}, as the student sees it\">\
             <span class=\"key\">{key}</span></div>",
            png(&face.whole),
            png(&face.small)
        )
    };
    let [left, right] = &pair.faces;
    format!("<li>similarity {:.3}<div class=\"two\">{}{}</div></li>\n", pair.similarity, face(left), face(right))
}

/// Accuracy over milliseconds a face of every student and teacher, for each protocol of the runs.
pub(super) fn accuracy_and_time(runs: &[RunView], body: &mut Body) -> Result<String> {
    let mut names: Vec<&String> = runs.iter().flat_map(|run| run.measured.keys()).collect();
    names.sort();
    names.dedup();
    let (mut charts, mut times) = (String::new(), Table::new([("", Align::Left), ("ms a face", Align::Right)]));
    for run in runs {
        for seen in run.insight.iter().flat_map(|insight| &insight.embedders) {
            let name = label(runs, run, &seen.embedder, &seen.role);
            let row = [name, format!("{:.2}", seen.milliseconds)];
            if !times.rows().contains(&row.to_vec()) {
                times.push(row)?;
            }
        }
    }
    if times.rows().is_empty() {
        return Ok(String::new());
    }
    for protocol in names {
        let (mut points, mut words, mut y) = (Vec::new(), String::new(), String::new());
        for run in runs {
            for row in run.measured.get(protocol).into_iter().flatten() {
                let seen = run.insight.iter().flat_map(|insight| &insight.embedders);
                let Some(seen) = seen.into_iter().find(|seen| seen.embedder == row.embedder) else { continue };
                let headline = row.outcome.headline()?;
                let Some(value) = headline.value else { continue };
                let label = label(runs, run, &row.embedder, &row.role);
                if points.iter().any(|dot: &Dot| dot.label == label) {
                    continue;
                }
                let look = if row.role == Role::Student { 0 } else { 1 };
                let _ = write!(words, "{label}: {value:.2} at {:.2} ms. ", seen.milliseconds);
                points.push(Dot { at: (seen.milliseconds, value), look, label });
                y = format!("{}, {}", headline.name, headline.unit.sign()).trim_end_matches([',', ' ']).to_string();
            }
        }
        // One alone has nobody to be compared with; its time stands in the table.
        if points.len() < 2 {
            continue;
        }
        let axes = Some((Axis::log("ms a face, one at a time"), Axis::linear(&y)));
        let title = format!("{} over time, {protocol}", y.trim_end_matches(", %"));
        let looks = ["student".to_string(), "teacher".to_string()];
        charts += &dots(body, (&title, "", words.trim_end()), axes, &looks, &points)?;
    }
    let said = "Median time of one face at a time on the machine of the run, its preparation among it; up and to the left is better.";
    Ok(format!("{}{}{}", paragraph(said), wrapped(charts), table("Milliseconds a face", &times, |_| None)))
}

/// What an embedder is called among several runs: students by their run, teachers as they are.
fn label(runs: &[RunView], run: &RunView, embedder: &str, role: &Role) -> String {
    match (runs.len(), role) {
        (1, _) | (_, Role::Teacher { .. }) => embedder.to_string(),
        _ => run.title(),
    }
}
