//! From which similarity on two faces may be called one person.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Similarities at which strangers are taken for one person at a known rate.
///
/// A face as the dataset has it, seen by the student at its own size, is compared with every other face brought to a probe's size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The dataset's name in the recipe.
    pub data: String,
    /// Digest of everything that the dataset is.
    pub digest: String,
    /// Faces that were compared.
    pub faces: usize,
    /// People whom they show.
    pub people: usize,
    /// For each size of a probe, rising.
    pub sizes: Vec<SizeCalibration>,
}

/// The thresholds for probes of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizeCalibration {
    /// Height and width of the probe, in pixels.
    pub size: usize,
    /// One face compared with one.
    #[serde(flatten)]
    pub single: Comparisons,
    /// Several faces of a person in the place of one, by their number, rising; nothing if the calibration did not ask, as in older
    /// files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fused: Vec<FusedCalibration>,
}

impl SizeCalibration {
    /// All comparisons, and in words what is compared beside single faces: nothing, or such as `, 4 fused with 1`.
    pub fn all(&self) -> impl Iterator<Item = (String, &Comparisons)> {
        let fused = self.fused.iter().flat_map(|FusedCalibration { frames, with_single, with_fused }| {
            [(format!(", {frames} fused with 1"), with_single), (format!(", {frames} fused with {frames}"), with_fused)]
        });
        std::iter::once((String::new(), &self.single)).chain(fused)
    }
}

/// The thresholds where `frames` faces of a person are fused into one.
///
/// They are higher than those of single faces: what is wrong with each face averages out, and strangers who look alike are nearer too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FusedCalibration {
    /// Faces that are fused into one probe, 2 or more.
    pub frames: usize,
    /// Such a probe compared with single faces, as those of a gallery.
    pub with_single: Comparisons,
    /// Such a probe compared with as many faces that are fused too.
    pub with_fused: Comparisons,
}

/// Comparisons of faces, and the thresholds that they give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparisons {
    /// Comparisons of faces of different people.
    pub different_pairs: u64,
    /// Pairs of different people, who are what a rate is sure by: comparisons of the same two people are much alike.
    pub different_people: u64,
    /// Comparisons of faces of one person.
    pub same_pairs: u64,
    /// From the largest rate to the smallest. A rate of which [`LEAST_FALSE_MATCHES`] could not be expected among `different_people`
    /// is left out.
    pub thresholds: Vec<Threshold>,
}

/// One operating point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Strangers who are taken for one person, at most, as a fraction of comparisons.
    pub false_match_rate: f64,
    /// The cosine from which on two faces are called one person.
    pub similarity: f64,
    /// The same person's faces that are called so; none where no two faces were of one person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_match_rate: Option<f64>,
}

/// The rates that thresholds are calibrated at.
pub const FALSE_MATCH_RATES: [f64; 4] = [1e-1, 1e-2, 1e-3, 1e-4];
/// A rate is stated if that many pairs of different people would be taken for one.
pub const LEAST_FALSE_MATCHES: f64 = 10.0;

/// What is compared at a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The height of the smaller face as it came, in pixels.
    pub pixels: usize,
    /// How many faces were fused into each of the two, 1 for a single face.
    pub frames: [usize; 2],
}

impl Calibration {
    /// The threshold at a false match rate: that of the largest calibrated size that is no larger than the faces, and of the least
    /// calibrated number of fused faces that is no smaller.
    ///
    /// # Errors
    /// If the faces are smaller than every calibrated size, more were fused than every calibrated number, or the rate was not
    /// calibrated. The error says which were.
    pub fn threshold(&self, false_match_rate: f64, of: Compared) -> Result<Threshold> {
        let Some(at) = self.sizes.iter().rev().find(|at| at.size <= of.pixels) else {
            let sizes = listed(self.sizes.iter().map(|at| at.size));
            return Err(Error::data(format!(
                "no threshold for a face of {} pixel{}; the student was calibrated for faces of {sizes} pixels",
                of.pixels,
                if of.pixels == 1 { "" } else { "s" }
            )));
        };
        let [a, b] = of.frames;
        let (most, comparisons) = match (a.max(b), at.fused.iter().find(|fused| fused.frames >= a.max(b))) {
            (most @ ..=1, _) => (most, &at.single),
            (most, Some(fused)) if a.min(b) <= 1 => (most, &fused.with_single),
            (most, Some(fused)) => (most, &fused.with_fused),
            (most, None) => {
                let calibrated = match at.fused.is_empty() {
                    true => "single faces alone".to_string(),
                    false => {
                        format!("single faces and {} fused ones", listed(at.fused.iter().map(|fused| fused.frames)))
                    }
                };
                return Err(Error::data(format!(
                    "no threshold for {most} fused faces of {} pixels; the student was calibrated for {calibrated} (`frames` of \
                     `[calibration]`, or `gdrd calibrate --frames`)",
                    at.size
                )));
            }
        };
        let same = |found: &&Threshold| (found.false_match_rate / false_match_rate - 1.0).abs() < 1e-6;
        comparisons.thresholds.iter().find(same).copied().ok_or_else(|| {
            let rates = listed(comparisons.thresholds.iter().map(|found| found.false_match_rate));
            let fused = if most > 1 { format!(", {most} of them fused,") } else { String::new() };
            Error::data(format!(
                "no threshold at a false match rate of {false_match_rate} for faces of {} pixels{fused}; {} people of `{}` support {rates}",
                at.size, self.people, self.data
            ))
        })
    }

    /// What cannot be in a calibration that gdrd wrote.
    pub(super) fn wrong(&self) -> Option<String> {
        let rising = |numbers: &[usize]| numbers.windows(2).all(|pair| pair[0] < pair[1]);
        let sizes: Vec<usize> = self.sizes.iter().map(|at| at.size).collect();
        let of = |at: &SizeCalibration| {
            let frames: Vec<usize> = [1].into_iter().chain(at.fused.iter().map(|fused| fused.frames)).collect();
            let fused = at.fused.iter().flat_map(|fused| [&fused.with_single, &fused.with_fused]);
            rising(&frames) && [&at.single].into_iter().chain(fused).all(Comparisons::in_order)
        };
        match rising(&sizes) && !sizes.is_empty() && self.sizes.iter().all(of) {
            true => None,
            false => Some("its thresholds are not in order".into()),
        }
    }
}

/// Numbers in words, such as `8, 12 and 16`; `none` where there are none.
fn listed(numbers: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    match numbers.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

impl Comparisons {
    fn in_order(&self) -> bool {
        let good = |point: &Threshold| {
            let rates = [Some(point.false_match_rate), point.true_match_rate];
            rates.into_iter().flatten().all(|rate| (0.0..=1.0).contains(&rate)) && point.similarity.abs() <= 1.01
        };
        let stricter = |pair: &[Threshold]| {
            pair[0].false_match_rate > pair[1].false_match_rate && pair[0].similarity <= pair[1].similarity
        };
        self.thresholds.iter().all(good) && self.thresholds.windows(2).all(stricter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(false_match_rate: f64, similarity: f64) -> Threshold {
        Threshold { false_match_rate, similarity, true_match_rate: Some(0.9) }
    }

    fn comparisons(add: f64) -> Comparisons {
        let thresholds = vec![point(0.1, 0.2 + add), point(0.01, 0.3 + add)];
        Comparisons { different_pairs: 99, different_people: 99, same_pairs: 9, thresholds }
    }

    fn calibration() -> Calibration {
        let fused = |frames, add| FusedCalibration {
            frames,
            with_single: comparisons(add),
            with_fused: comparisons(add + 0.2),
        };
        let at = |size, add: f64| SizeCalibration {
            size,
            single: comparisons(add),
            fused: vec![fused(2, add + 0.01), fused(4, add + 0.02)],
        };
        Calibration { data: "d".into(), digest: "x".into(), faces: 9, people: 9, sizes: vec![at(8, 0.1), at(16, 0.0)] }
    }

    fn found(rate: f64, pixels: usize, frames: [usize; 2]) -> Result<f64> {
        calibration().threshold(rate, Compared { pixels, frames }).map(|found| found.similarity)
    }

    #[test]
    fn the_threshold_is_that_of_the_size_below() {
        for (pixels, expected) in [(8, 0.4), (15, 0.4), (16, 0.3), (500, 0.3)] {
            assert_eq!(found(0.01, pixels, [1, 1]).expect("calibrated"), expected);
        }
        let text = found(0.01, 7, [1, 1]).expect_err("too small").to_string();
        assert!(text.contains("a face of 7 pixels; the student was calibrated for faces of 8 and 16 pixels"), "{text}");
        for rate in [0.001, 0.0, f64::NAN, -1.0] {
            let text = found(rate, 16, [1, 1]).expect_err("not calibrated").to_string();
            assert!(text.contains("support 0.1 and 0.01"), "{text}");
        }
        assert!(found(0.01, 1, [1, 1]).expect_err("too small").to_string().contains("a face of 1 pixel;"));
        assert_eq!(listed([8].iter()) + &listed([8, 12, 16].iter()) + &listed([0; 0].iter()), "88, 12 and 16none");
        assert!(calibration().wrong().is_none());
    }

    #[test]
    fn fused_faces_have_the_thresholds_of_as_many_or_more() {
        let expected = [([2, 1], 0.31), ([1, 2], 0.31), ([3, 1], 0.32), ([1, 4], 0.32), ([2, 2], 0.51), ([2, 4], 0.52)];
        for (frames, similarity) in expected {
            let found = found(0.01, 16, frames).expect("calibrated");
            assert!((found - similarity).abs() < 1e-9, "{frames:?}: {found}");
        }
        let text = found(0.01, 16, [5, 1]).expect_err("too many").to_string();
        assert!(
            text.contains("for 5 fused faces of 16 pixels") && text.contains("single faces and 2 and 4 fused ones"),
            "{text}"
        );
        let text = found(0.001, 16, [4, 1]).expect_err("not calibrated").to_string();
        assert!(text.contains("4 of them fused") && text.contains("support 0.1 and 0.01"), "{text}");
        let mut single = calibration();
        single.sizes.iter_mut().for_each(|at| at.fused.clear());
        let text = single.threshold(0.01, Compared { pixels: 16, frames: [2, 1] }).expect_err("none fused").to_string();
        assert!(text.contains("the student was calibrated for single faces alone ("), "{text}");
    }

    #[test]
    fn the_form_of_the_file_is_that_of_before() {
        let old = r#"{"data":"d","digest":"x","faces":9,"people":9,"sizes":[{"size":16,"different_pairs":99,"different_people":99,
            "same_pairs":9,"thresholds":[{"false_match_rate":0.1,"similarity":0.2,"true_match_rate":0.9}]}]}"#;
        let read: Calibration = serde_json::from_str(old).expect("a calibration");
        assert_eq!((read.sizes[0].single.different_pairs, read.sizes[0].fused.len()), (99, 0));
        let (written, old): (serde_json::Value, serde_json::Value) =
            (serde_json::to_value(&read).expect("json"), serde_json::from_str(old).expect("json"));
        assert_eq!(written, old);
        let new = serde_json::to_string(&calibration()).expect("json");
        assert_eq!(serde_json::from_str::<Calibration>(&new).expect("a calibration"), calibration());
    }

    #[test]
    fn thresholds_out_of_order_are_refused() {
        let mut turned = calibration();
        turned.sizes.reverse();
        let mut lax = calibration();
        lax.sizes[0].single.thresholds[1].similarity = 0.1;
        let mut lax_fused = calibration();
        lax_fused.sizes[1].fused[1].with_fused.thresholds[1].similarity = 0.1;
        let mut single = calibration();
        single.sizes[0].fused[0].frames = 1;
        let mut none = calibration();
        none.sizes.clear();
        assert!([turned, lax, lax_fused, single, none].iter().all(|one| one.wrong().is_some()));
    }
}
