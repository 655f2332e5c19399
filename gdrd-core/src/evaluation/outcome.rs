//! The result of an evaluation as data, and as it is written down: `evaluation/<protocol>.json` of a run.
//!
//! Reports and ablations know no figure by its name: a protocol says which one is its headline, which ones belong in the table,
//! and what each is counted in.

mod items;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use items::digest_of_items;

/// The most points of a curve that are kept.
pub const CURVE_POINTS: usize = 200;

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Per cent; per-item outcomes are fractions of one.
    Percent,
    /// A cosine similarity.
    Cosine,
    /// Whatever the name says.
    Plain,
}

impl Unit {
    /// What one of a per-item outcome is in this unit.
    pub fn of_one(self) -> f64 {
        match self {
            Self::Percent => 100.0,
            Self::Cosine | Self::Plain => 1.0,
        }
    }

    /// The unit's sign, for tables; empty if it has none.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::Cosine | Self::Plain => "",
        }
    }
}

/// One named figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// What it is, such as `accuracy`; unique among the figures of an outcome.
    pub name: String,
    /// The figure, in `unit`; none if the items do not allow it, and then `note` says why.
    pub value: Option<f64>,
    /// What it is counted in.
    pub unit: Unit,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// How many items it was computed from.
    pub count: usize,
    /// Its standard error, in `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// Lower end of the 95 % interval, if one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of the 95 % interval, if one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// What a reader must know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whether it belongs in the table of a report.
    pub in_table: bool,
}

impl Figure {
    /// A rate in `[0, 1]`, where more is better, as per cent, for the table.
    pub fn percent(name: impl Into<String>, rate: f64, count: usize) -> Self {
        Self::plain(name, 100.0 * rate, Unit::Percent, count)
    }

    /// A figure where more is better, for the table.
    pub fn plain(name: impl Into<String>, value: f64, unit: Unit, count: usize) -> Self {
        Self {
            name: name.into(),
            value: Some(value),
            unit,
            higher_is_better: true,
            count,
            error: None,
            low: None,
            high: None,
            note: None,
            in_table: true,
        }
    }

    /// A figure in per cent that these items do not allow, and why.
    pub fn missing(name: impl Into<String>, count: usize, why: impl Into<String>) -> Self {
        Self { value: None, note: Some(why.into()), ..Self::percent(name, 0.0, count) }
    }

    /// The figure with its 95 % interval, in the figure's own unit.
    #[must_use]
    pub fn between(mut self, low: f64, high: f64) -> Self {
        (self.low, self.high) = (Some(low), Some(high));
        self
    }

    /// The figure with its standard error, in the figure's own unit.
    #[must_use]
    pub fn with_error(self, error: f64) -> Self {
        Self { error: Some(error), ..self }
    }

    /// The same, where less is better.
    #[must_use]
    pub fn lower_is_better(self) -> Self {
        Self { higher_is_better: false, ..self }
    }

    /// The same, for the file and not for the table.
    #[must_use]
    pub fn aside(self) -> Self {
        Self { in_table: false, ..self }
    }

    /// The same, with what a reader must know of it.
    #[must_use]
    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// The same, with one thing more that a reader must know of it.
    #[must_use]
    pub fn also_noted(self, note: impl Into<String>) -> Self {
        let parts: Vec<String> = self.note.iter().cloned().chain([note.into()]).collect();
        self.noted(parts.join("; "))
    }

    /// The figure as a table shows it: `88.06 ± 0.11 %`, one without a standard error `77.08 [64.58, 87.50] %`, one without a value
    /// `-`.
    pub fn shown(&self) -> String {
        let Some(value) = self.value else { return "-".to_string() };
        let digits = if self.unit == Unit::Percent { 2 } else { 4 };
        let sure = match (self.error, self.low, self.high) {
            (Some(error), ..) => format!(" ± {error:.digits$}"),
            (None, Some(low), Some(high)) => format!(" [{low:.digits$}, {high:.digits$}]"),
            _ => String::new(),
        };
        format!("{value:.digits$}{sure} {}", self.unit.sign()).trim_end().to_string()
    }
}

/// A curve, for a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// What it is, such as `ROC`.
    pub name: String,
    /// The label of the horizontal axis.
    pub x: String,
    /// The label of the vertical axis.
    pub y: String,
    /// Whether the horizontal axis is logarithmic.
    pub log_x: bool,
    /// At most [`CURVE_POINTS`] points, in the units that the labels name: rates are fractions in `[0, 1]` unless a label says `%`.
    pub points: Vec<(f64, f64)>,
    /// How it is read, for reports to say beside it; nothing for what everybody reads alike.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reading: String,
}

/// A table of numbers, such as a confusion matrix or ranks. It is shown whole in `report.md`: a list of confusions has a row for
/// each pair that was confused (`Ann for Eve`), the most frequent ones alone; what is known of every item belongs in
/// [`Outcome::items`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// What it is.
    pub name: String,
    /// The heads of the columns; the first is that of the rows' names.
    pub columns: Vec<String>,
    /// Each row's name and its values, one fewer than there are columns.
    pub rows: Vec<(String, Vec<f64>)>,
}

/// Everything that one protocol says about one embedder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What the items are: `pairs`, `probes`.
    pub what: String,
    /// The name of the figure that counts most: what ablations compare.
    pub headline: String,
    /// The figures, in the order in which they are shown.
    pub figures: Vec<Figure>,
    /// Curves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Curve>,
    /// Tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrices: Vec<Matrix>,
    /// The headline item by item, in an order that only the protocol and its data decide: 1 where an item was right, 0 where not, or
    /// anything whose mean is the headline (a fraction where that is per cent). Two outcomes on the same items can be compared
    /// by [`difference`](super::bootstrap::difference). In the file a string of `0` and `1` where it holds nothing else.
    #[serde(default, with = "items", skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<f64>,
    /// Which items these are and in what order, as [`digest_of_items`] says; outcomes are compared item by item only where both
    /// have the same. Empty if the protocol does not say, or in a file of before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub items_digest: String,
}

impl Outcome {
    /// The figure of that name.
    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// The figure that counts most.
    ///
    /// # Errors
    /// If the outcome has none of that name.
    pub fn headline(&self) -> Result<&Figure> {
        self.get(&self.headline).ok_or_else(|| {
            Error::component(format!("the headline `{}` is none of the protocol's figures", self.headline))
        })
    }

    /// The headline over the size of a face; none where the protocol was measured at no size but its own.
    pub(crate) fn over_sizes(&self) -> Option<&Curve> {
        self.curves.iter().find(|curve| curve.name == super::resolution::OVER_SIZES)
    }

    /// The outcome as JSON, ending with a line break; equal outcomes give equal bytes.
    ///
    /// # Errors
    /// If a number is not finite (JSON has none such), names repeat, the headline is no figure, a figure without a value has no
    /// note, a curve has too many points, or a row has not as many values as there are columns.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::data(format!("outcome as JSON: {e}")))?;
        Ok(text + "\n")
    }

    /// Reads what [`Outcome::to_json`] wrote.
    ///
    /// # Errors
    /// If the text is not such JSON, or as `to_json`.
    pub fn from_json(text: &str) -> Result<Self> {
        let outcome: Self = serde_json::from_str(text).map_err(|e| Error::data(format!("outcome as JSON: {e}")))?;
        outcome.check()?;
        Ok(outcome)
    }

    /// Whether the outcome can be written and shown.
    ///
    /// # Errors
    /// As [`Outcome::to_json`].
    pub fn check(&self) -> Result<()> {
        self.headline()?;
        for (at, figure) in self.figures.iter().enumerate() {
            let wrong = |what: String| Err(Error::data(format!("figure `{}`: {what}", figure.name)));
            for value in [figure.value, figure.error, figure.low, figure.high].into_iter().flatten() {
                if !value.is_finite() {
                    return wrong(format!("expected a finite number, found {value}"));
                }
            }
            if figure.value.is_none() && figure.note.is_none() {
                return wrong("expected a note that says why it has no value, found none".into());
            }
            if self.figures[..at].iter().any(|other| other.name == figure.name) {
                return wrong("expected one of that name, found two".into());
            }
        }
        for curve in &self.curves {
            let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
            if curve.points.len() > CURVE_POINTS || !curve.points.iter().all(finite) {
                return Err(Error::data(format!(
                    "curve `{}`: expected at most {CURVE_POINTS} points of finite numbers, found {}",
                    curve.name,
                    curve.points.len()
                )));
            }
        }
        for matrix in &self.matrices {
            let fits = |(_, row): &(String, Vec<f64>)| row.len() + 1 == matrix.columns.len();
            if let Some((row, values)) = matrix.rows.iter().find(|row| !fits(row)) {
                return Err(Error::data(format!(
                    "table `{}`, row `{row}`: expected {} values, found {}",
                    matrix.name,
                    matrix.columns.len().saturating_sub(1),
                    values.len()
                )));
            }
        }
        match self.items.iter().position(|item| !item.is_finite()) {
            Some(at) => Err(Error::data(format!("item {at}: expected a finite number, found {}", self.items[at]))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            what: "pairs".into(),
            headline: "accuracy".into(),
            figures: vec![
                Figure::percent("accuracy", 0.75, 4).between(50.0, 100.0).with_error(1.5),
                Figure::plain("threshold", 0.25, Unit::Cosine, 4).aside(),
                Figure::missing("TAR at FAR 0.001", 4, "2 different pairs do not measure it"),
            ],
            curves: vec![Curve {
                name: "ROC".into(),
                x: "false accept rate".into(),
                y: "true accept rate, %".into(),
                log_x: true,
                points: vec![(0.0, 100.0)],
                reading: String::new(),
            }],
            matrices: vec![Matrix {
                name: "ranks".into(),
                columns: vec!["group".into(), "rank 1".into()],
                rows: vec![("all".into(), vec![0.5])],
            }],
            items: vec![1.0, 0.0, 1.0, 1.0],
            items_digest: digest_of_items(["a", "b", "c", "d"]),
        }
    }

    #[test]
    fn a_figure_shows_how_sure_it_is() {
        let figure = Figure::percent("rank-1", 0.5, 4).between(25.0, 75.0);
        assert_eq!(figure.shown(), "50.00 [25.00, 75.00] %");
        assert_eq!(figure.clone().also_noted("a").also_noted("b").note.as_deref(), Some("a; b"));
        assert_eq!(figure.with_error(1.5).shown(), "50.00 ± 1.50 %");
        assert_eq!(Figure::missing("TAR", 4, "too few").shown(), "-");
    }

    #[test]
    fn json_holds_everything() {
        let text = outcome().to_json().expect("finite");
        assert!(text.contains("\"items\": \"1011\"") && text.ends_with("}\n"), "{text}");
        assert_eq!(Outcome::from_json(&text).expect("read back"), outcome());
        let parts = Outcome { items: vec![0.5, 1.0], ..outcome() };
        assert_eq!(Outcome::from_json(&parts.to_json().expect("finite")).expect("read back"), parts);
        assert_eq!(outcome().get("absent"), None);
        let shown: Vec<String> = outcome().figures.iter().map(Figure::shown).collect();
        assert_eq!(shown, ["75.00 ± 1.50 %", "0.2500", "-"]);
    }

    #[test]
    fn what_cannot_be_written_or_shown_is_refused() {
        let fails = |change: &dyn Fn(&mut Outcome)| {
            let mut wrong = outcome();
            change(&mut wrong);
            wrong.to_json().expect_err("wrong").to_string()
        };
        assert!(fails(&|o| o.figures[1].high = Some(f64::NAN)).starts_with("figure `threshold`: expected a finite"));
        assert!(fails(&|o| o.figures[1].name = "accuracy".into()).contains("found two"));
        assert!(fails(&|o| o.figures[2].note = None).contains("says why"));
        assert!(fails(&|o| o.headline = "rank 1".into()).contains("none of the protocol's figures"));
        assert!(fails(&|o| o.curves[0].points = vec![(0.0, 0.0); CURVE_POINTS + 1]).contains("at most 200"));
        assert!(fails(&|o| o.matrices[0].rows[0].1.clear()).contains("expected 1 values, found 0"));
        assert!(fails(&|o| o.items[2] = f64::INFINITY).contains("item 2"));
    }

    #[test]
    fn damaged_files_are_refused() {
        let text = outcome().to_json().expect("finite");
        assert!(Outcome::from_json(&text.replace("1011", "10x1")).is_err());
        assert!(Outcome::from_json(&text.replace("\"figures\"", "\"figurs\"")).is_err());
    }
}
