//! The scale of an axis: its ends, its ticks, and where a value lies.

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ruler {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

/// About how many steps an axis is cut into.
const STEPS: f64 = 6.0;

impl Ruler {
    /// A linear axis from a tick at or below `low` to a tick at or above `high`.
    pub(super) fn linear(low: f64, high: f64) -> Self {
        // Beyond this, differences overflow.
        let (low, high) = (low.clamp(-1e300, 1e300), high.clamp(-1e300, 1e300));
        // One value alone, or two that floats hardly tell apart, get some room.
        let size = low.abs().max(high.abs());
        let room = if size < 1e-280 { 0.5 } else { size / 2.0 };
        let (low, high) =
            if high - low > 1e-9 * size && size >= 1e-280 { (low, high) } else { (low - room, high + room) };
        let step = step_of((high - low) / STEPS);
        // A hair, so that 0.3 / 0.1 is three steps and not four.
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let decimals = decimals_of(step);
        let ticks: Vec<(f64, String)> = (0..=(last - first) as usize)
            .map(|i| {
                let value = (first + i as f64) * step;
                (value, number(value, decimals))
            })
            .collect();
        Self { low: first * step, high: last * step, log: false, ticks }
    }

    /// A logarithmic axis over whole decades; both ends above zero.
    pub(super) fn logarithmic(low: f64, high: f64) -> Self {
        let (low, high) = (low.clamp(1e-300, 1e300), high.clamp(1e-300, 1e300));
        let first = (low.log10() + 1e-9).floor() as i32;
        let last = ((high.log10() - 1e-9).ceil() as i32).max(first + 1);
        let each = ((last - first) as usize).div_ceil(8);
        let ticks = (first..=last).step_by(each).map(|k| (10f64.powi(k), power(k))).collect();
        Self { low: 10f64.powi(first), high: 10f64.powi(last), log: true, ticks }
    }

    /// The same axis, ending at `high` if it went beyond, with the ticks up to there.
    pub(super) fn up_to(mut self, high: f64) -> Self {
        self.high = self.high.min(high);
        self.ticks.retain(|(value, _)| *value <= high);
        self
    }

    /// The first value.
    pub(super) fn low(&self) -> f64 {
        self.low
    }

    /// Values with their labels, rising.
    pub(super) fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }

    /// Where a value lies: 0 at the low end, 1 at the high end; values beyond an end are put on it.
    pub(super) fn part(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        if self.log {
            (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

/// The round step (1, 2, 2.5 or 5 times a power of ten) at or above `least`.
fn step_of(least: f64) -> f64 {
    let power = 10f64.powi((least.log10()).floor() as i32);
    let round = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|&m| m * power >= least * (1.0 - 1e-9));
    round.unwrap_or(10.0) * power
}

/// Digits after the point that show every multiple of `step`.
fn decimals_of(step: f64) -> usize {
    (0..9).find(|&d| ((step * 10f64.powi(d)) - (step * 10f64.powi(d)).round()).abs() < 1e-6).unwrap_or(9) as usize
}

/// A number with a real minus sign.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|c| c == '0' || c == '.');
    if value < 0.0 && !zero { format!("\u{2212}{text}") } else { text }
}

/// A power of ten, short.
fn power(exponent: i32) -> String {
    if (-4..=5).contains(&exponent) {
        return number(10f64.powi(exponent), usize::try_from(-exponent).unwrap_or(0));
    }
    let raised = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => char::from_u32('⁰' as u32 + c as u32 - '0' as u32).unwrap_or(c),
    };
    format!("10{}", exponent.to_string().chars().map(raised).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ruler: &Ruler) -> Vec<&str> {
        ruler.ticks().iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Ruler::linear(0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Ruler::linear(81.3, 99.0)), ["80", "85", "90", "95", "100"]);
        assert_eq!(labels(&Ruler::linear(-0.2, 0.3)), ["\u{2212}0.2", "\u{2212}0.1", "0.0", "0.1", "0.2", "0.3"]);
        assert_eq!(labels(&Ruler::linear(0.0, 14.0)), ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5", "15.0"]);
    }

    #[test]
    fn one_value_gets_room() {
        let ruler = Ruler::linear(5.0, 5.0);
        assert!(ruler.low() < 5.0 && ruler.high > 5.0);
        assert!(Ruler::linear(0.0, 0.0).high > 0.0);
        for (low, high) in [(0.5, 0.5f64.next_up()), (f64::MIN, f64::MAX), (0.0, f64::MIN_POSITIVE), (-1e-30, 1e300)] {
            let ruler = Ruler::linear(low, high);
            assert!(ruler.part(low) <= ruler.part(high) && ruler.ticks().len() < 20, "{ruler:?}");
        }
        assert!(Ruler::logarithmic(f64::MIN_POSITIVE, f64::MAX).part(1.0) > 0.4);
    }

    #[test]
    fn decades() {
        let ruler = Ruler::logarithmic(0.0012, 1.0);
        assert_eq!(labels(&ruler), ["0.001", "0.01", "0.1", "1"]);
        assert!((ruler.part(0.1) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(ruler.part(0.0), 0.0);
        assert_eq!((power(-6), power(7)), ("10⁻⁶".to_string(), "10⁷".to_string()));
    }

    #[test]
    fn a_cut_axis_ends_at_the_cut() {
        let ruler = Ruler::linear(80.0, 103.0).up_to(100.0);
        assert_eq!((ruler.high, ruler.part(100.0)), (100.0, 1.0));
        assert_eq!(labels(&ruler).last(), Some(&"100"));
        assert_eq!(Ruler::linear(80.0, 90.0).up_to(100.0), Ruler::linear(80.0, 90.0));
    }
}
