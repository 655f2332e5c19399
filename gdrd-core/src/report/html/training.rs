//! The training of a run: the loss of each term, how much each pulls, and whether they pull the same way.

use std::collections::BTreeMap;

use super::super::chart::{Axis, Series};
use super::super::page::{SolvedLayer, StageCurves, smoothed};
use super::super::view::RunView;
use super::run::wrapped;
use super::{Body, paragraph, plot};
use crate::error::Result;

type Curves = BTreeMap<String, Vec<(f64, f64)>>;

pub(super) fn section(run: &RunView, body: &mut Body) -> Result<String> {
    let mut out = String::new();
    for StageCurves { stage, loss, gradients, terms, cosines } in &run.curves {
        let last = loss.last().map_or("none".into(), |point| format!("{:.4}", point.1));
        out += &format!("<h3>Stage {}</h3>\n", super::escape(stage));
        out +=
            &paragraph(&format!("{} steps, last loss {last}. Curves are means over stretches of steps.", loss.len()));
        let mut charts = String::new();
        let sum = [("weighted sum".to_string(), loss.clone())].into_iter().collect();
        charts += &chart(body, &format!("Loss, stage {stage}"), "loss", &sum)?;
        charts += &chart(body, &format!("Each term, unweighted, stage {stage}"), "loss", terms)?;
        charts +=
            &chart(body, &format!("Length of each weighted term's gradient, stage {stage}"), "length", gradients)?;
        charts += &chart(body, &format!("Cosines between the terms' gradients, stage {stage}"), "cosine", cosines)?;
        out += &wrapped(charts);
        if gradients.is_empty() {
            out += &paragraph(
                "The gradients of its terms were not measured: `term_gradients = 50` in the stage does that.",
            );
        }
    }
    for (stage, SolvedLayer { rows, inputs, outputs, explained, seconds }) in &run.solved {
        let explained = explained.map_or("targets do not vary".into(), |share| {
            format!("it explains {:.1} % of the target's variance on these faces", 100.0 * share)
        });
        out += &format!("<h3>Stage {}</h3>\n", super::escape(stage));
        out += &paragraph(&format!(
            "Solved in closed form in {seconds:.1} s, {inputs} to {outputs} values from {rows} faces; {explained}."
        ));
    }
    Ok(out)
}

fn chart(body: &mut Body, title: &str, y: &str, curves: &Curves) -> Result<String> {
    let series = |(name, points): (&String, &Vec<(f64, f64)>)| Series { label: name.clone(), points: smoothed(points) };
    let series: Vec<Series> = curves.iter().map(series).collect();
    plot::lines(body, title, "", Axis::linear("step"), Axis::linear(y), &series)
}
