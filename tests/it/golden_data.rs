//! Resizing is Pillow's and OpenCV's, and verification scikit-learn's; `golden/{resize,verification}/ORIGIN.md` say how.

use candle_core::Tensor;
use gdrd_core::evaluation::folds::{best_threshold, fold_accuracy};
use gdrd_core::evaluation::pairs::Pair;
use gdrd_core::evaluation::roc::Roc;
use gdrd_core::evaluation::similarity::cosines;
use gdrd_core::face::{Face, Kernel};
use gdrd_core::nn::resize_bicubic;

use crate::golden::{Golden, formula};

fn face(name: &str) -> Face {
    let (width, height) = match name {
        "large" => (112, 112),
        "small" => (16, 16),
        _ => (112, 60),
    };
    Face::new(width, height, formula::bytes(name, 3 * width * height)).expect("three bytes for each pixel")
}

/// Compares bytes: none is off by more than one, and at most the share `off_by_one` is off at all.
fn compare_bytes(golden: &Golden, name: &str, found: &Face, off_by_one: f64) {
    let expected = golden.bytes(name);
    assert_eq!(found.pixels().len(), expected.len(), "`{name}`");
    let gaps: Vec<u8> = found.pixels().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
    let (worst, off) = (gaps.iter().max().expect("pixels"), gaps.iter().filter(|gap| **gap > 0).count());
    let share = off as f64 / gaps.len() as f64;
    assert!(*worst <= 1 && share <= off_by_one, "`{name}`: off by up to {worst}, {:.1} % of the bytes", 100.0 * share);
}

#[test]
fn antialiased_resizing() {
    let golden = Golden::read("resize");
    for (kernel, name) in [
        (Kernel::Nearest, "nearest"),
        (Kernel::Box, "box"),
        (Kernel::Bilinear, "bilinear"),
        (Kernel::Bicubic, "bicubic"),
        (Kernel::Lanczos3, "lanczos3"),
    ] {
        // The nearest pixel is a matter of rounding where the size is not a multiple.
        let enlarged = if kernel == Kernel::Nearest { 48 } else { 40 };
        let off_by_one = if matches!(kernel, Kernel::Bicubic | Kernel::Lanczos3) { 0.01 } else { 0.0 };
        for (source, size) in [("large", 16), ("large", 32), ("small", enlarged), ("wide", 16)] {
            let found = face(source).resized(size, kernel, true).expect("a face");
            compare_bytes(&golden, &format!("{source}.{size}.{name}"), &found, off_by_one);
        }
    }
    let found = face("small").resized(112, Kernel::Bicubic, true).expect("a face");
    compare_bytes(&golden, "small.112.bicubic", &found, 0.01);
}

#[test]
fn resizing_without_antialiasing() {
    let golden = Golden::read("resize");
    // OpenCV does not round between rows and columns.
    for (kernel, name, off_by_one) in [(Kernel::Bilinear, "bilinear", 0.35), (Kernel::Bicubic, "bicubic", 0.01)] {
        for (source, size) in [("large", 20), ("large", 32), ("small", 40), ("small", 112), ("wide", 20)] {
            let found = face(source).resized(size, kernel, false).expect("a face");
            compare_bytes(&golden, &format!("{source}.{size}.{name}.sharp"), &found, off_by_one);
        }
    }
}

#[test]
fn resizing_of_floats() {
    let golden = Golden::read("resize");
    for (count, size) in [(112, 16), (112, 50), (16, 8), (16, 64), (15, 15), (15, 16)] {
        let plane = formula::image(&format!("plane {count}"), (1, 1, count, count));
        // Two channels: a mix-up of channels would show.
        let planes = Tensor::cat(&[&plane, &(&plane * -2.0).expect("a plane")], 1).expect("planes");
        let found = resize_bicubic(&planes, size).expect("planes");
        let channel = |at: usize| found.get(0).and_then(|map| map.get(at)).expect("a channel");
        golden.compare(&format!("plane.{count}.{size}"), &channel(0));
        golden.compare(&format!("plane.{count}.{size}"), &(channel(1) * -0.5).expect("a plane"));
    }
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-9, "{what}: expected {expected}, found {found}");
}

#[test]
fn verification() {
    let golden = Golden::read("verification");
    for name in ["fine", "tied"] {
        let scores = golden.numbers(&format!("{name}.scores"));
        let same: Vec<bool> = golden.bytes(&format!("{name}.same")).into_iter().map(|same| same == 1).collect();
        let folds = golden.get(&format!("{name}.folds")).to_vec1::<i64>().expect("numbers");
        let folds: Vec<usize> = folds.into_iter().map(|fold| fold as usize).collect();
        let figures = golden.numbers(&format!("{name}.figures"));

        let found = fold_accuracy(&scores, &same, &folds).expect("an accuracy");
        close(found.mean, figures[0], "accuracy");
        close(found.standard_error, figures[1], "standard error");
        let accuracies = golden.numbers(&format!("{name}.accuracies"));
        let thresholds = golden.numbers(&format!("{name}.thresholds"));
        assert_eq!(found.folds.len(), accuracies.len());
        for (fold, (accuracy, threshold)) in found.folds.iter().zip(accuracies.iter().zip(thresholds)) {
            close(fold.accuracy, *accuracy, "accuracy of a fold");
            close(fold.value, threshold, "threshold of a fold");
        }

        let single = golden.numbers(&format!("{name}.single"));
        let best = best_threshold(&scores, &same).expect("a threshold");
        close(best.value, single[0], "best threshold");
        close(best.accuracy, single[1], "best accuracy");

        let roc = Roc::new(&scores, &same).expect("a curve");
        close(roc.area(), figures[2], "area");
        close(roc.equal_error_rate(), figures[3], "equal error rate");
        for (far, tar) in [0.1, 0.01, 0.005].into_iter().zip(&figures[4..]) {
            close(roc.at_far(far).expect("enough pairs").tar, *tar, "true accept rate");
        }
    }
}

#[test]
fn similarities() {
    let golden = Golden::read("verification");
    let rows = formula::image("rows", 20 * 16).to_vec1::<f32>().expect("values");
    let pair = |left: usize| Pair { left, right: (left * 7 + 3) % 20, same: false, fold: 0 };
    let pairs: Vec<Pair> = (0..20).map(pair).collect();
    let found = cosines(&rows, 16, &pairs).expect("similarities");
    for (found, expected) in found.iter().zip(golden.numbers("cosines")) {
        close(*found, expected, "similarity");
    }
}
