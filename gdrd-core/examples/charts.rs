//! Writes one of each chart, with made-up numbers, to a folder:
//! `cargo run -p gdrd-core --example charts -- FOLDER`.

use std::path::PathBuf;

use gdrd_core::error::{Error, Result};
use gdrd_core::evaluation::folds::best_threshold;
use gdrd_core::evaluation::roc::Roc;
use gdrd_core::report::chart::{Axis, Bar, Series, bar_chart, line_chart, similarity_histogram};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<()> {
    let folder: PathBuf =
        std::env::args_os().nth(1).ok_or_else(|| Error::recipe("expected a folder to write to, found nothing"))?.into();
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    // The sum of a few even numbers is nearly normal.
    let mut normal = move || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;

    let bar = |label: &str, value, error, baseline| Bar { label: label.to_string(), value, error, baseline };
    let ablation = [
        bar("without distillation", 78.12, Some(0.62), false),
        bar("SR", 80.45, Some(0.48), false),
        bar("GEN", 84.9, Some(0.41), false),
        bar("DIS", 88.67, Some(0.37), false),
        bar("GEN+DIS", 90.6, Some(0.29), false),
        bar("teacher on upsampled faces", 83.78, None, true),
    ];
    bar_chart("Verification accuracy at 16×16, mean and standard deviation of 3 seeds", "accuracy, %", &ablation)?
        .write(&folder.join("bars"))?;
    let many: Vec<Bar> =
        (0..14).map(|i| bar(&format!("configuration {i}"), 0.2 + 0.05 * f64::from(i), Some(0.03), i == 3)).collect();
    bar_chart("Many bars", "seconds", &many)?.write(&folder.join("many-bars"))?;
    bar_chart("Teachers", "%", &[bar("at 112", 99.39, Some(0.08), false), bar("at 32", 97.33, Some(0.36), false)])?
        .write(&folder.join("two-bars"))?;

    let mut curve = |start: f64, rate: f64| -> Vec<(f64, f64)> {
        let level = |step: u32| start * (-f64::from(step) / rate).exp() + 0.2;
        (0..3000).map(|step| (f64::from(step), level(step) * (1.0 + 0.04 * normal()))).collect()
    };
    let losses = [
        Series { label: "cross-entropy".to_string(), points: curve(7.0, 900.0) },
        Series { label: "logit distillation".to_string(), points: curve(3.2, 500.0) },
        Series { label: "relational contrast".to_string(), points: curve(4.5, 1500.0) },
    ];
    line_chart("Losses of the discriminative stage", Axis::linear("step"), Axis::linear("loss"), &losses)?
        .write(&folder.join("losses"))?;

    let mut rocs = Vec::new();
    for (name, centre) in [("student, 16×16", 0.42), ("teacher, 112×112", 0.62), ("teacher, upsampled 16×16", 0.27)]
    {
        let same: Vec<f64> = (0..3000).map(|_| centre + 0.14 * normal()).collect();
        let different: Vec<f64> = (0..3000).map(|_| 0.05 + 0.1 * normal()).collect();
        let scores: Vec<f64> = same.iter().chain(&different).copied().collect();
        let labels: Vec<bool> = (0..6000).map(|i| i < 3000).collect();
        if rocs.is_empty() {
            let best = best_threshold(&scores, &labels)?;
            similarity_histogram("Similarities of the student, 16×16", &same, &different, Some(best.value))?
                .write(&folder.join("similarities"))?;
        }
        let points = Roc::new(&scores, &labels)?.thinned(200).iter().map(|p| (p.far, p.tar)).collect();
        rocs.push(Series { label: name.to_string(), points });
    }
    let (far, tar) = ("false accept rate", "true accept rate");
    line_chart("ROC", Axis::log(far), Axis::linear(tar), &rocs)?.write(&folder.join("roc"))?;
    line_chart("ROC, linear", Axis::linear(far), Axis::linear(tar), &rocs)?.write(&folder.join("roc-linear"))
}
