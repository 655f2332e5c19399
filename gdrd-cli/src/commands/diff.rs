//! `diff`.

use std::path::Path;

use gdrd_core::error::{Error, Result};
use gdrd_core::registry::Registry;
use gdrd_core::run::{Cause, Difference, Differing, RunFolder, Score, State, difference};

/// Lines of each sort that are printed; `--json` has all.
const LINES: usize = 6;

pub(crate) fn diff(runs: [&Path; 2], json: bool, registry: &Registry) -> Result<()> {
    let folders = runs.map(RunFolder::new);
    for folder in &folders {
        if folder.state()? == State::Empty {
            return Err(Error::recipe(format!("`{}` is no run folder of gdrd", folder.path().display())));
        }
    }
    let found = difference(&folders[0], &folders[1], registry)?;
    if json {
        let mut value = serde_json::to_value(&found).map_err(|e| Error::data(e.to_string()))?;
        value["runs"] = serde_json::json!(runs);
        let text = serde_json::to_string_pretty(&value).map_err(|e| Error::data(e.to_string()))?;
        say!("{text}");
        return Ok(());
    }
    say!("A  {}\nB  {}\n", runs[0].display(), runs[1].display());
    for score in found.scores.iter().take(LINES) {
        say!("{}", shown(score));
    }
    more(found.scores.len(), "scores");
    print_causes(&found);
    match &found.parting {
        None => say!("\nThe logs of all {} steps are alike.", found.steps[0]),
        Some(parting) => {
            let loss = |loss: Option<f64>| loss.map_or("no step".into(), |loss| format!("loss {loss}"));
            let [a, b] = parting.losses.map(loss);
            say!("\nThe logs part at step {} (stage `{}`): {a} in A, {b} in B.", parting.total_step, parting.stage);
            if parting.is_rounding {
                say!("They differ there by what rounding does; it grows with every step after.");
            }
        }
    }
    Ok(())
}

fn shown(score: &Score) -> String {
    let Score { what, figure, values: [a, b], unit, difference, other_options } = score;
    let gap = match difference {
        None => "measured on other items: the two can not be compared".to_string(),
        Some([_, low, high]) if *low == 0.0 && *high == 0.0 => "no difference".to_string(),
        Some([mean, low, high]) => {
            let chance = if *low <= 0.0 && *high >= 0.0 { ", which chance alone does too" } else { "" };
            format!("B - A {mean:+.2} [{low:+.2}, {high:+.2}]{chance}")
        }
    };
    let options = if *other_options { "; options of the protocol differ" } else { "" };
    format!("{what}: {figure} {a:.2} and {b:.2} {unit}; {gap}{options}")
}

fn print_causes(found: &Difference) {
    let causes: Vec<&Differing> = found.differing.iter().filter(|one| one.cause != Cause::None).collect();
    match (causes.is_empty(), &found.parting) {
        (true, None) => say!("\nNothing differs that decides numbers."),
        (true, Some(_)) => say!(
            "\nNothing that gdrd records differs, and yet the logs do: threads (RAYON_NUM_THREADS), libraries of the GPU, or a plug-in \
             that reads something past its context."
        ),
        _ => say!("\nWhat differs, likely causes first:"),
    }
    let mut last = None;
    let mut printed = 0;
    for one in &causes {
        if last != Some(one.cause) {
            more(printed, "of this sort");
            (last, printed) = (Some(one.cause), 0);
        }
        printed += 1;
        if printed <= LINES {
            say!("  {:<11} {}: {} in A, {} in B", word(one.cause), one.what, value(&one.first), value(&one.second));
        }
    }
    more(printed, "of this sort");
    let none: Vec<&str> =
        found.differing.iter().filter(|one| one.cause == Cause::None).map(|one| one.what.as_str()).collect();
    if !none.is_empty() {
        let rest = if none.len() > LINES { format!(" and {} more", none.len() - LINES) } else { String::new() };
        say!("  Without effect on numbers: {}{rest}", none[..none.len().min(LINES)].join(", "));
    }
}

fn more(count: usize, what: &str) {
    if count > LINES {
        say!("  ... and {} more {what}", count - LINES);
    }
}

fn value(text: &str) -> String {
    if text.is_empty() { "nothing".to_string() } else { text.chars().take(80).collect() }
}

fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Measure => "measure",
        Cause::Recipe => "recipe",
        Cause::Data => "data",
        Cause::Weights => "weights",
        Cause::Seed => "seed",
        Cause::Program => "program",
        Cause::Kernels => "kernels",
        Cause::Threads => "threads",
        Cause::Device => "device",
        Cause::None => "",
    }
}
