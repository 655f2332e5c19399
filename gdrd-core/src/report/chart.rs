//! Bar charts, line charts and histograms of similarities, as [`Picture`]s.

use super::frame::{
    BASELINE, FAINT, Frame, INK, LABEL, Names, SERIES, TICK, crisp, fitting, heading, label, left_of, on_white, sample,
};
use super::picture::{Anchor, HEIGHT, Picture, Text, WIDTH};
use super::ruler::{Ruler, number};
use crate::error::{Error, Result};

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What stands under it; long labels are broken at spaces.
    pub label: String,
    /// Its height.
    pub value: f64,
    /// Half the height of its error bar, such as a standard deviation.
    pub error: Option<f64>,
    /// A bar to compare with is grey; if there is exactly one, a dashed line carries its height across.
    pub baseline: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the legend calls it; an empty label is left out of the legend.
    pub label: String,
    /// Its points, joined in this order. A point that is not finite interrupts the line.
    pub points: Vec<(f64, f64)>,
}

/// An axis of a line chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis<'a> {
    label: &'a str,
    log: bool,
}

impl<'a> Axis<'a> {
    /// An axis with even steps.
    pub fn linear(label: &'a str) -> Self {
        Self { label, log: false }
    }

    /// An axis with even decades. A value of zero or less has no place on it and interrupts the
    /// line; but on a horizontal axis the last such point before one that has a place is put at the
    /// left end, since a ROC curve starts there.
    pub fn log(label: &'a str) -> Self {
        Self { label, log: true }
    }

    /// What stands at it.
    pub(super) fn label(self) -> &'a str {
        self.label
    }

    /// Whether it has decades.
    pub(super) fn is_log(self) -> bool {
        self.log
    }

    pub(super) fn ruler(self, values: impl Iterator<Item = f64>) -> Result<Ruler> {
        let range = values.filter(|v| v.is_finite() && !(self.log && *v <= 0.0)).fold(None, |range, v| match range {
            None => Some((v, v)),
            Some((low, high)) => Some((v.min(low), v.max(high))),
        });
        let Some((low, high)) = range else {
            return Err(Error::data(format!("axis `{}`: expected at least one value to show, found none", self.label)));
        };
        Ok(if self.log { Ruler::logarithmic(low, high) } else { Ruler::linear(low, high) })
    }
}

/// Bars beside each other, each with its value above it (and below that `±` its error).
///
/// The axis starts at zero, unless every bar ends beyond half of the longest: then it starts at a
/// tick a little below the lowest, and the axis label says so. If the `unit` ends with `%` and no
/// value is above 100, the axis ends there at the latest, and so do error bars.
///
/// # Errors
/// If there is no bar, or a number is not finite or an error is negative.
pub fn bar_chart(title: &str, unit: &str, bars: &[Bar]) -> Result<Picture> {
    if bars.is_empty() {
        return Err(Error::data(format!("chart `{title}`: expected at least one bar, found none")));
    }
    for bar in bars {
        let error = bar.error.unwrap_or(0.0);
        if !bar.value.is_finite() || !error.is_finite() || error < 0.0 {
            return Err(Error::data(format!(
                "chart `{title}`, bar `{}`: expected finite numbers and no negative error, found {} and {error}",
                bar.label, bar.value
            )));
        }
    }
    let low = bars.iter().map(|bar| bar.value - bar.error.unwrap_or(0.0)).fold(f64::INFINITY, f64::min);
    let mut high = bars.iter().map(|bar| bar.value + bar.error.unwrap_or(0.0)).fold(f64::NEG_INFINITY, f64::max);
    let percent = unit.ends_with('%') && bars.iter().all(|bar| bar.value <= 100.0);
    if percent {
        high = high.min(100.0);
    }
    let zoomed = low > high / 2.0 && high > low;
    let from = if zoomed { (low - 0.3 * (high - low)).max(0.0) } else { low.min(0.0) };
    let mut ruler = Ruler::linear(from, high.max(0.0));
    if percent {
        ruler = ruler.up_to(100.0);
    }
    let cut = ruler.low() > 0.0;
    let y_label = match (unit.is_empty(), cut) {
        (_, true) => format!("{unit} (axis starts at {})", ruler.ticks()[0].1).trim_start().to_string(),
        (_, false) => unit.to_string(),
    };

    let mut picture = Picture::default();
    heading(&mut picture, title, &[])?;
    let left = left_of(&ruler, &y_label)?;
    let slot = (WIDTH as f64 - 30.0 - left) / bars.len() as f64;
    let names = Names::fit(bars.iter().map(|bar| bar.label.as_str()).collect(), slot - 10.0)?;
    let bottom = HEIGHT as f64 - 22.0 - names.height;
    // The two lines of text above the longest bar need room below the heading.
    let longest = bottom - 94.0;
    let top = (bottom - longest / ruler.part(high).max(0.5)).max(64.0);
    let frame = Frame { left, right: WIDTH as f64 - 30.0, top, bottom };
    frame.vertical(&mut picture, &ruler, &y_label);
    let zero = frame.y(&ruler, 0.0);
    let baselines: Vec<&Bar> = bars.iter().filter(|bar| bar.baseline).collect();
    if let [one] = baselines[..] {
        let y = frame.y(&ruler, one.value);
        picture.dashed(&[(frame.left, y), (frame.right, y)], 1.25, BASELINE, 5.0);
    }
    let decimals = match high.abs().max(low.abs()) {
        largest if largest >= 1000.0 => 0,
        largest if largest >= 1.0 || largest == 0.0 => 2,
        // Three digits that count.
        largest => (2.0 - largest.log10().floor()).min(9.0) as usize,
    };
    let half = (slot * 0.31).min(52.0);
    for (at, bar) in bars.iter().enumerate() {
        let x = frame.left + (at as f64 + 0.5) * slot;
        let y = frame.y(&ruler, bar.value);
        picture.rect((x - half, y.min(zero)), (x + half, y.max(zero)), if bar.baseline { BASELINE } else { SERIES[0] });
        let mut above = y.min(zero);
        if let Some(error) = bar.error {
            let (top, bottom) = (frame.y(&ruler, bar.value + error), frame.y(&ruler, bar.value - error));
            let cap = (half * 0.3).min(7.0);
            picture.line(vec![(x, top), (x, bottom)], 1.5, INK);
            picture.line(vec![(x - cap, top), (x + cap, top)], 1.5, INK);
            picture.line(vec![(x - cap, bottom), (x + cap, bottom)], 1.5, INK);
            above = above.min(top);
            let text = format!("± {}", number(error, decimals));
            let size = fitting(&text, 11.0, slot - 4.0, false)?;
            on_white(&mut picture, label(x, above - 7.0, &text, size, Anchor::Middle, FAINT))?;
            above -= 15.0;
        }
        let text = number(bar.value, decimals);
        let value = label(x, above - 7.0, &text, fitting(&text, LABEL, slot - 4.0, true)?, Anchor::Middle, INK);
        on_white(&mut picture, Text { bold: true, ..value })?;
        names.draw(&mut picture, at, x, frame.bottom);
    }
    let base = crisp(zero);
    picture.line(vec![(frame.left, base), (frame.right, base)], 1.0, INK);
    Ok(picture)
}

/// Lines over two axes, such as losses over steps or ROC curves, with a legend above.
///
/// The axes end at ticks around the data. Of long series only what can be seen is drawn: in each
/// column of pixels the highest and the lowest point.
///
/// # Errors
/// If no point can be shown.
pub fn line_chart(title: &str, x: Axis, y: Axis, series: &[Series]) -> Result<Picture> {
    let finite = || series.iter().flat_map(|s| &s.points).filter(|p| p.0.is_finite() && p.1.is_finite());
    let (x_ruler, y_ruler) = (x.ruler(finite().map(|p| p.0))?, y.ruler(finite().map(|p| p.1))?);
    let mut picture = Picture::default();
    let legend: Vec<(&str, usize)> =
        series.iter().enumerate().filter(|(_, s)| !s.label.is_empty()).map(|(at, s)| (s.label.as_str(), at)).collect();
    let top = heading(&mut picture, title, &legend)?;
    let left = left_of(&y_ruler, y.label)?;
    let frame = Frame { left, right: WIDTH as f64 - 34.0, top: top + 14.0, bottom: HEIGHT as f64 - 62.0 };
    frame.vertical(&mut picture, &y_ruler, y.label);
    frame.horizontal(&mut picture, &x_ruler, x.label);
    let off = |p: &(f64, f64)| (x.log && p.0 <= 0.0) || (y.log && p.1 <= 0.0);
    for (at, one) in series.iter().enumerate() {
        let mut pieces: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        for (i, point) in one.points.iter().enumerate() {
            let finite = point.0.is_finite() && point.1.is_finite();
            let entry = !(y.log && point.1 <= 0.0) && one.points.get(i + 1).is_some_and(|next| !off(next));
            match pieces.last_mut() {
                Some(piece) if finite && (!off(point) || entry) => {
                    piece.push((frame.x(&x_ruler, point.0), frame.y(&y_ruler, point.1)));
                }
                _ => pieces.push(Vec::new()),
            }
        }
        for piece in pieces {
            sample(&mut picture, &visible(&piece), 2.0, at);
        }
    }
    Ok(picture)
}

/// How the similarities of pairs of the same person and of different people are spread.
///
/// 60 columns share the range of all scores; each class is drawn as per cent of its own pairs. A
/// `threshold` is a dashed line.
///
/// # Errors
/// If a class is empty, or a number is not finite.
pub fn similarity_histogram(title: &str, same: &[f64], different: &[f64], threshold: Option<f64>) -> Result<Picture> {
    const COLUMNS: usize = 60;
    if same.is_empty() || different.is_empty() {
        return Err(Error::data(format!(
            "chart `{title}`: expected scores of same and of different pairs, found {} and {}",
            same.len(),
            different.len()
        )));
    }
    if let Some(value) = same.iter().chain(different).chain(threshold.iter()).find(|value| !value.is_finite()) {
        return Err(Error::data(format!("chart `{title}`: expected finite scores, found {value}")));
    }
    let x_ruler = Axis::linear("").ruler(same.iter().chain(different).chain(threshold.iter()).copied())?;
    let shares = |scores: &[f64]| {
        let mut counts = [0u32; COLUMNS];
        for &score in scores {
            counts[((x_ruler.part(score) * COLUMNS as f64) as usize).min(COLUMNS - 1)] += 1;
        }
        counts.map(|count| 100.0 * f64::from(count) / scores.len() as f64)
    };
    let classes = [("different people", different, 1), ("same person", same, 0)];
    let highest = classes.iter().flat_map(|(_, scores, _)| shares(scores)).fold(0.0, f64::max);
    let y_ruler = Ruler::linear(0.0, highest);

    let mut picture = Picture::default();
    let names = classes.map(|(name, scores, colour)| (format!("{name} ({} pairs)", scores.len()), colour));
    let top = heading(&mut picture, title, &names.each_ref().map(|(name, colour)| (name.as_str(), *colour)))?;
    let y_label = "% of the pairs";
    let left = left_of(&y_ruler, y_label)?;
    let above = if threshold.is_some() { 32.0 } else { 14.0 };
    let frame = Frame { left, right: WIDTH as f64 - 34.0, top: top + above, bottom: HEIGHT as f64 - 62.0 };
    frame.vertical(&mut picture, &y_ruler, y_label);
    frame.horizontal(&mut picture, &x_ruler, "cosine similarity");
    for (_, scores, colour) in classes {
        let shares = shares(scores);
        let at = |column: usize| frame.left + column as f64 / COLUMNS as f64 * (frame.right - frame.left);
        let first = shares.iter().position(|&share| share > 0.0).unwrap_or(0);
        let last = shares.iter().rposition(|&share| share > 0.0).unwrap_or(COLUMNS - 1);
        let mut outline = vec![(at(first), frame.bottom)];
        for (column, share) in shares.into_iter().enumerate().take(last + 1).skip(first) {
            let y = frame.y(&y_ruler, share);
            outline.extend([(at(column), y), (at(column + 1), y)]);
        }
        outline.push((at(last + 1), frame.bottom));
        outline.dedup();
        picture.area(outline.clone(), SERIES[colour], 0.3);
        picture.line(outline, 1.5, SERIES[colour]);
    }
    picture.line(vec![(frame.left, crisp(frame.bottom)), (frame.right, crisp(frame.bottom))], 1.0, INK);
    if let Some(threshold) = threshold {
        let x = crisp(frame.x(&x_ruler, threshold));
        picture.dashed(&[(x, frame.top - 8.0), (x, frame.bottom)], 1.5, INK, 5.0);
        let text = format!("threshold {}", number(threshold, 3));
        picture.text(label(x, frame.top - 13.0, &text, TICK, Anchor::Middle, INK));
    }
    Ok(picture)
}

/// Of neighbouring points in one column of pixels, those that matter: the first, the lowest, the highest, the last.
fn visible(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        let by_height = |a: &&usize, b: &&usize| column[**a].1.total_cmp(&column[**b].1);
        let all: Vec<usize> = (0..column.len()).collect();
        let extremes = [all.iter().min_by(by_height), all.iter().max_by(by_height), all.first(), all.last()];
        let mut places: Vec<usize> = extremes.into_iter().flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        kept.extend(places.into_iter().map(|place| column[place]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, value: f64, error: Option<f64>) -> Bar {
        Bar { label: label.to_string(), value, error, baseline: false }
    }

    #[test]
    fn bars_show_their_values_and_a_cut_axis_says_so() {
        let bars = [bar("teacher", 83.78, None), bar("student", 90.6, Some(0.31))];
        let svg = bar_chart("Accuracy", "%", &bars).and_then(|p| p.svg()).expect("drawn");
        for text in ["Accuracy", "% (axis starts at 80)", "83.78", "90.60", "± 0.31", "teacher"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text} in {svg}");
        }
    }

    #[test]
    fn far_apart_bars_start_at_zero() {
        let svg =
            bar_chart("t", "ms", &[bar("a", 1.0, None), bar("b", 9.0, None)]).and_then(|p| p.svg()).expect("drawn");
        assert!(svg.contains("\nms\n") && svg.contains("\n0\n"), "{svg}");
    }

    #[test]
    fn per_cent_ends_at_a_hundred() {
        let svg = bar_chart("t", "x, %", &[bar("a", 99.4, Some(0.9)), bar("b", 98.0, None)]).and_then(|p| p.svg());
        let svg = svg.expect("drawn");
        assert!(svg.contains("\n100") && !svg.contains("\n101") && !svg.contains("\n100.5"), "{svg}");
    }

    #[test]
    fn bars_that_cannot_be_drawn_are_named() {
        let error = bar_chart("t", "%", &[bar("a", f64::NAN, None)]).expect_err("NaN");
        assert!(error.to_string().starts_with("chart `t`, bar `a`: expected finite numbers"), "{error}");
        assert!(bar_chart("t", "%", &[bar("a", 1.0, Some(-1.0))]).is_err());
        assert!(bar_chart("t", "%", &[]).is_err());
    }

    #[test]
    fn lines_break_where_there_is_no_number() {
        let points = vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 2.0)];
        let one = Series { label: "loss".to_string(), points };
        let picture = line_chart("t", Axis::linear("step"), Axis::linear("loss"), &[one]).expect("drawn");
        let colour = "#0072B2";
        assert_eq!(
            picture
                .svg()
                .expect("svg")
                .matches(&format!("polyline fill=\"none\" opacity=\"1\" stroke=\"{colour}\""))
                .count(),
            3
        );
        let nothing = Series { label: String::new(), points: vec![(f64::NAN, 1.0)] };
        assert!(line_chart("t", Axis::linear("x"), Axis::linear("y"), &[nothing]).is_err());
    }

    #[test]
    fn a_logarithmic_curve_starts_at_the_edge() {
        let points = vec![(0.0, 0.0), (0.0, 0.5), (0.01, 0.6), (1.0, 1.0)];
        let one = Series { label: String::new(), points };
        let picture = line_chart("t", Axis::log("FAR"), Axis::linear("TAR"), &[one]).expect("drawn");
        let svg = picture.svg().expect("svg");
        let line = svg.lines().find(|line| line.contains("stroke=\"#0072B2\"")).expect("the line");
        let points = line.split("points=\"").nth(1).expect("points").trim_end_matches("\"/>");
        assert_eq!(points.split_whitespace().count(), 3, "{line}");
    }

    #[test]
    fn long_lines_keep_their_spikes() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i) / 1000.0, 5.0)).collect();
        points[50_123].1 = 90.0;
        let kept = visible(&points);
        assert!(kept.len() < 500 && kept.contains(&(50.123, 90.0)), "{}", kept.len());
    }

    #[test]
    fn histograms_need_both_classes() {
        let picture = similarity_histogram("t", &[0.5, 0.6], &[0.1], Some(0.3)).expect("drawn");
        let svg = picture.svg().expect("svg");
        assert!(svg.contains("same person (2 pairs)") && svg.contains("threshold 0.300"), "{svg}");
        assert!(similarity_histogram("t", &[], &[0.1], None).is_err());
        assert!(similarity_histogram("t", &[f64::NAN], &[0.1], None).is_err());
    }
}
