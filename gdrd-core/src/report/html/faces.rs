//! What a page shows of faces: embeddings in the plane, mistakes as pairs, accuracy over time.

use std::fmt::Write;

use super::super::chart::Axis;
use super::super::paper::count;
use super::super::table::{Align, Table};
use super::super::view::{Confused, Mistaken, RunView, ShownFace, titles};
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
        let point = |(person, x, y): &(usize, f64, f64)| Dot { at: (*x, *y), look: *person };
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
    let mut protocols: Vec<&String> = runs.iter().flat_map(|run| run.measured.keys()).collect();
    protocols.sort();
    protocols.dedup();
    let (mut charts, mut times) = (String::new(), Table::new([("", Align::Left), ("ms a face", Align::Right)]));
    let titles = titles(runs);
    for (run, title) in runs.iter().zip(&titles) {
        for seen in run.insight.iter().flat_map(|insight| &insight.embedders) {
            // Each run took its own times, of teachers too.
            let name = if runs.len() > 1 { format!("{title}: {}", seen.embedder) } else { seen.embedder.clone() };
            times.push([name, format!("{:.2}", seen.milliseconds)])?;
        }
    }
    if times.rows().is_empty() {
        return Ok(String::new());
    }
    for protocol in protocols {
        let (mut points, mut names, mut words, mut y) = (Vec::new(), Vec::new(), String::new(), String::new());
        for (run, title) in runs.iter().zip(&titles) {
            for row in run.measured.get(protocol).into_iter().flatten() {
                let seen = run.insight.iter().flat_map(|insight| &insight.embedders);
                let Some(seen) = seen.into_iter().find(|seen| seen.embedder == row.embedder) else { continue };
                let headline = row.outcome.headline()?;
                let Some(value) = headline.value else { continue };
                // A teacher scores the same in every run that shares it.
                let label = match row.role {
                    Role::Student if runs.len() > 1 => title.clone(),
                    _ => row.embedder.clone(),
                };
                if names.contains(&label) {
                    continue;
                }
                let _ = write!(words, "{label}: {value:.2} at {:.2} ms. ", seen.milliseconds);
                points.push(Dot { at: (seen.milliseconds, value), look: names.len() });
                names.push(label);
                y = format!("{}, {}", headline.name, headline.unit.sign()).trim_end_matches([',', ' ']).to_string();
            }
        }
        // One alone has nobody to be compared with; its time stands in the table.
        if points.len() < 2 {
            continue;
        }
        let axes = Some((Axis::log("ms a face, one at a time"), Axis::linear(&y)));
        let title = format!("{} over time, {protocol}", y.trim_end_matches(", %"));
        charts += &dots(body, (&title, "", words.trim_end()), axes, &names, &points)?;
    }
    let said = "Median time of one face at a time on the machine of the run, its preparation among it; up and to the left is better.";
    Ok(format!("{}{}{}", paragraph(said), wrapped(charts), table("Milliseconds a face", &times, |_| None)))
}

#[cfg(test)]
mod tests {
    use super::super::super::view::{Insight, Seen};
    use super::*;
    use crate::evaluation::{Figure, Measured, Outcome};

    fn run() -> RunView {
        let long = "teacher `discriminative` on upsampled 16x16 faces";
        let teacher = Role::Teacher { name: "discriminative".into(), small: true };
        let (mut rows, mut insight) = (Vec::new(), Insight::default());
        for (embedder, role, share) in [("student at 16x16", Role::Student, 0.9), (long, teacher, 0.7)] {
            let outcome = Outcome {
                what: "pairs".into(),
                headline: "accuracy".into(),
                figures: vec![Figure::percent("accuracy", share, 2)],
                curves: Vec::new(),
                matrices: Vec::new(),
                items: vec![1.0, 0.0],
                items_digest: String::new(),
            };
            rows.push(Measured { embedder: embedder.into(), role: role.clone(), outcome });
            let (alignment, uniformity, milliseconds, points) = (None, None, 2.0 * share, Vec::new());
            insight.embedders.push(Seen {
                embedder: embedder.into(),
                role,
                alignment,
                uniformity,
                milliseconds,
                points,
            });
        }
        let (name, insight) = ("q".to_string(), Some(insight));
        RunView { name, seed: 7, insight, measured: [("p".to_string(), rows)].into(), ..RunView::default() }
    }

    #[test]
    fn names_of_dots_stand_in_the_legend_and_times_have_their_run() {
        let one = accuracy_and_time(&[run()], &mut Body::default()).expect("a section");
        let names = ["student at 16x16", "teacher `discriminative` on upsampled 16x16 faces"];
        for name in names {
            assert!(one.contains(&format!("</svg>{name}</li>")), "{name}: {one}");
            assert!(!one.contains(&format!("\">{name}</text>")), "{name} could leave the chart: {one}");
        }
        let two = accuracy_and_time(&[run(), run()], &mut Body::default()).expect("a section");
        for title in ["q, seed 7, run 1", "q, seed 7, run 2"] {
            assert!(two.contains(&format!("</svg>{title}</li>")), "{title}: {two}");
            assert!(names.iter().all(|name| two.contains(&format!("{title}: {name}"))), "{title}: {two}");
        }
        assert_eq!(two.matches(&format!("</svg>{}</li>", names[1])).count(), 1, "{two}");
    }
}
