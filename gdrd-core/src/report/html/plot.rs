//! Charts as SVG inside a page: colours are the page's own, light or dark, text is text, and each chart says in words what it shows.

use std::fmt::Write;

use super::super::chart::{Axis, Series};
use super::super::ruler::{Ruler, number};
use super::{Body, escape};
use crate::error::Result;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 348.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 208.0;

/// The dashes of the lines, so that colour is not all that tells them apart.
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

/// A mark of a scatter chart.
pub(super) struct Dot {
    /// Where it is.
    pub(super) at: (f64, f64),
    /// The number of its look, which is that of its name in the legend.
    pub(super) look: usize,
}

/// A bar of a chart of lying bars.
pub(super) struct Lying {
    pub(super) label: String,
    pub(super) value: f64,
    /// The ends of its interval.
    pub(super) ends: Option<(f64, f64)>,
    /// Whether somebody else printed it.
    pub(super) quoted: bool,
}

/// A chart with its caption above and its note below, so that charts side by side begin alike. `words` is what it shows, for whoever does not see it.
fn figure(body: &mut Body, title: &str, note: &str, legend: &str, (height, words, marks): (f64, &str, &str)) -> String {
    let id = body.id("chart");
    let note = if note.is_empty() { String::new() } else { format!("<p class=\"note\">{}</p>\n", escape(note)) };
    let title = escape(title);
    format!(
        "<figure>\n<figcaption>{title}{legend}</figcaption>\n<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>\n{marks}</svg>\n{note}</figure>\n",
        escape(words)
    )
}

/// The names of what is drawn, each with its look.
fn legend<'a>(names: impl Iterator<Item = (usize, &'a str)>, look: impl Fn(usize) -> String) -> String {
    let items: String = names
        .map(|(at, name)| {
            let sample = look(at);
            format!("<li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\">{sample}</svg>{}</li>", escape(name))
        })
        .collect();
    format!("\n<ul class=\"legend\">{items}</ul>")
}

fn style(at: usize) -> String {
    let dash = DASHES[(at / 6 + at % 6) % DASHES.len()];
    let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
    format!("class=\"l k{}\"{dash}", at % 6)
}

/// A coordinate, short.
fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), String::from)
}

/// A value in words.
fn word(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        large if large >= 100.0 => format!("{value:.0}"),
        usual if usual >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

struct Frame {
    x: Ruler,
    y: Ruler,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.part(value) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - self.y.part(value) * (BOTTOM - TOP)
    }

    /// Grid, ticks and names of the axes.
    fn draw(&self, x: &str, y: &str) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail, here and below.
        for (value, text) in self.y.ticks() {
            let y = at(self.y(*value));
            let _ = write!(out, "<path class=\"g\" d=\"M{LEFT} {y}H{RIGHT}\"/>");
            let _ = writeln!(
                out,
                "<text class=\"t\" x=\"{}\" y=\"{y}\" dy=\".35em\" text-anchor=\"end\">{text}</text>",
                LEFT - 5.0
            );
        }
        // Names of ticks that would stand in each other are left out.
        let mut free = f64::NEG_INFINITY;
        for (value, text) in self.x.ticks() {
            let place = self.x(*value);
            let _ = write!(out, "<path class=\"g\" d=\"M{} {TOP}V{BOTTOM}\"/>", at(place));
            let half = 3.4 * text.chars().count() as f64 + 3.0;
            if place - half >= free {
                let y = BOTTOM + 14.0;
                let _ = writeln!(
                    out,
                    "<text class=\"t\" x=\"{}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>",
                    at(place)
                );
                free = place + half;
            }
        }
        let _ = writeln!(out, "<path class=\"a\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>");
        let (middle, below) = ((LEFT + RIGHT) / 2.0, BOTTOM + 33.0);
        let _ = writeln!(out, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", escape(x));
        let up = (TOP + BOTTOM) / 2.0;
        let _ = writeln!(
            out,
            "<text transform=\"translate(11 {up}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(y)
        );
        out
    }
}

/// Lines over two axes. Series without two points that can be shown are left out; nothing if none is left.
///
/// # Errors
/// If an axis has no value to show.
pub(super) fn lines(body: &mut Body, title: &str, note: &str, x: Axis, y: Axis, series: &[Series]) -> Result<String> {
    lines_between(body, title, note, (x, y), series, &[])
}

/// The same with the ends of intervals, `(x, low, high)`, as upright lines: a list for each of the first series.
///
/// # Errors
/// As [`lines`].
pub(super) fn lines_between(
    body: &mut Body,
    title: &str,
    note: &str,
    (x, y): (Axis, Axis),
    series: &[Series],
    ends: &[Vec<(f64, f64, f64)>],
) -> Result<String> {
    let good = |p: &&(f64, f64)| {
        p.0.is_finite() && p.1.is_finite() && !(x.is_log() && p.0 <= 0.0) && !(y.is_log() && p.1 <= 0.0)
    };
    let of = |at: usize| ends.get(at).map_or(&[][..], Vec::as_slice);
    let shown: Vec<_> = series
        .iter()
        .enumerate()
        .map(|(at, one)| (one.label.as_str(), one.points.iter().filter(good).copied().collect::<Vec<_>>(), of(at)))
        .filter(|(_, points, _)| points.len() > 1)
        .collect();
    if shown.is_empty() {
        return Ok(String::new());
    }
    let all = || shown.iter().flat_map(|(_, points, _)| points);
    let far = shown.iter().flat_map(|(.., ends)| ends.iter().flat_map(|(_, low, high)| [*low, *high]));
    let frame = Frame { x: x.ruler(all().map(|p| p.0))?, y: y.ruler(all().map(|p| p.1).chain(far))? };
    let mut marks = frame.draw(x.label(), y.label());
    let mut words = format!("{} over {}.", y.label(), x.label());
    for (number, (name, points, ends)) in shown.iter().enumerate() {
        for (px, low, high) in *ends {
            let (px, low, high) = (at(frame.x(*px)), at(frame.y(*low)), at(frame.y(*high)));
            let _ = writeln!(marks, "<path class=\"l k{}\" d=\"M{px} {low}V{high}\"/>", number % 6);
        }
        let mut path = String::new();
        for (point, (px, py)) in points.iter().enumerate() {
            let _ = write!(path, "{}{} {}", if point == 0 { "M" } else { "L" }, at(frame.x(*px)), at(frame.y(*py)));
        }
        let _ = writeln!(marks, "<path {} d=\"{path}\"/>", style(number));
        if points.len() <= 12 {
            for (px, py) in points {
                let _ = write!(
                    marks,
                    "<circle class=\"f{}\" cx=\"{}\" cy=\"{}\" r=\"2.6\"/>",
                    number % 6,
                    at(frame.x(*px)),
                    at(frame.y(*py))
                );
            }
        }
        let (first, last) = (points[0], points[points.len() - 1]);
        let _ = write!(
            words,
            " {name}: from {} at {} to {} at {}.",
            word(first.1),
            word(first.0),
            word(last.1),
            word(last.0)
        );
    }
    let names = shown.iter().enumerate().map(|(number, (name, ..))| (number, *name));
    let legend = legend(names, |number| format!("<path {} d=\"M0 6H26\"/>", style(number)));
    Ok(figure(body, title, note, &legend, (HEIGHT, &words, &marks)))
}

/// The look `look` of a dot: five shapes, six colours.
fn dot(x: f64, y: f64, look: usize, r: f64) -> String {
    let class = format!("class=\"f{}\"", look % 6);
    let p = |dx: f64, dy: f64| format!("{} {}", at(x + dx * r), at(y + dy * r));
    match look % 5 {
        0 => format!("<circle {class} cx=\"{}\" cy=\"{}\" r=\"{r}\"/>", at(x), at(y)),
        1 => format!("<path {class} d=\"M{}L{}L{}L{}Z\"/>", p(-0.9, -0.9), p(0.9, -0.9), p(0.9, 0.9), p(-0.9, 0.9)),
        2 => format!("<path {class} d=\"M{}L{}L{}Z\"/>", p(0.0, -1.2), p(1.1, 0.8), p(-1.1, 0.8)),
        3 => format!("<path {class} d=\"M{}L{}L{}L{}Z\"/>", p(0.0, -1.3), p(1.3, 0.0), p(0.0, 1.3), p(-1.3, 0.0)),
        _ => format!("<path {class} d=\"M{}L{}L{}Z\"/>", p(0.0, 1.2), p(1.1, -0.8), p(-1.1, -0.8)),
    }
}

/// Dots over two axes, or on a plane without axes where those are none.
///
/// # Errors
/// If an axis has no value to show.
pub(super) fn dots(
    body: &mut Body,
    (title, note, words): (&str, &str, &str),
    axes: Option<(Axis, Axis)>,
    names: &[String],
    dots: &[Dot],
) -> Result<String> {
    if dots.is_empty() {
        return Ok(String::new());
    }
    let (xs, ys) = (|| dots.iter().map(|dot| dot.at.0), || dots.iter().map(|dot| dot.at.1));
    let (x, y) = axes.unwrap_or((Axis::linear(""), Axis::linear("")));
    let mut frame = Frame { x: x.ruler(xs())?, y: y.ruler(ys())? };
    if y.label().ends_with('%') && ys().all(|value| value <= 100.0) {
        frame.y = frame.y.up_to(100.0);
    }
    let mut marks = match axes {
        Some(_) => frame.draw(x.label(), y.label()),
        None => format!("<rect class=\"g\" x=\"2\" y=\"2\" width=\"{}\" height=\"{}\"/>\n", WIDTH - 4.0, HEIGHT - 4.0),
    };
    let place = |(px, py): (f64, f64)| match axes {
        Some(_) => (frame.x(px), frame.y(py)),
        None => {
            let (x, y) = (spread(px, xs()), spread(py, ys()));
            (14.0 + x * (WIDTH - 28.0), 14.0 + y * (HEIGHT - 28.0))
        }
    };
    for one in dots {
        let (px, py) = place(one.at);
        let _ = write!(marks, "{}", dot(px, py, one.look, if axes.is_some() { 4.5 } else { 3.4 }));
    }
    let names = names.iter().enumerate().map(|(number, name)| (number, name.as_str()));
    let legend = legend(names, |number| dot(13.0, 6.0, number, 4.0));
    Ok(figure(body, title, note, &legend, (HEIGHT, words, &marks)))
}

/// Where `value` lies between the least and the largest of `all`, in `[0, 1]`.
fn spread(value: f64, all: impl Iterator<Item = f64>) -> f64 {
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (v.min(low), v.max(high)));
    if high > low { (value - low) / (high - low) } else { 0.5 }
}

/// Lying bars, each below its name, with the ends of intervals.
///
/// # Errors
/// If there is no bar.
pub(super) fn bars(body: &mut Body, title: &str, note: &str, unit: &str, bars: &[Lying]) -> Result<String> {
    let values =
        || bars.iter().flat_map(|bar| [Some(bar.value), bar.ends.map(|e| e.0), bar.ends.map(|e| e.1)]).flatten();
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    // Bars that are all long begin a little below the shortest one, and the axis says where.
    let from = if low > high / 2.0 { low - 0.4 * (high - low).max(0.01 * high) } else { low.min(0.0) };
    let mut ruler = Axis::linear("").ruler([from, high].into_iter())?;
    if unit == "%" && high <= 100.0 {
        ruler = ruler.up_to(100.0);
    }
    let x = |value: f64| 8.0 + ruler.part(value) * (WIDTH - 72.0);
    let bottom = 6.0 + 36.0 * bars.len() as f64;
    let (mut marks, mut words) = (String::new(), String::new());
    for (value, text) in ruler.ticks() {
        let place = at(x(*value));
        let _ = write!(marks, "<path class=\"g\" d=\"M{place} 4V{bottom}\"/>");
        let _ = writeln!(
            marks,
            "<text class=\"t\" x=\"{place}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            bottom + 14.0
        );
    }
    for (row, bar) in bars.iter().enumerate() {
        let top = 8.0 + 36.0 * row as f64;
        let wide = (x(bar.value) - 8.0).max(0.5);
        let class = if bar.quoted { "quoted" } else { "f0" };
        let (label, value) = (escape(&bar.label), number(bar.value, 2));
        let _ = writeln!(marks, "<text x=\"8\" y=\"{}\">{label}</text>", top + 9.0);
        let _ = write!(
            marks,
            "<rect class=\"{class}\" x=\"8\" y=\"{}\" width=\"{}\" height=\"13\"/>",
            top + 14.0,
            at(wide)
        );
        let mut end = x(bar.value);
        if let Some((low, high)) = bar.ends {
            let (l, h, y) = (at(x(low)), at(x(high)), top + 20.5);
            let _ = write!(marks, "<path class=\"e\" d=\"M{l} {y}H{h}M{l} {}v7M{h} {}v7\"/>", y - 3.5, y - 3.5);
            end = end.max(x(high));
        }
        let _ = writeln!(marks, "<text class=\"b\" x=\"{}\" y=\"{}\">{value}</text>", at(end + 5.0), top + 24.5);
        let quoted = if bar.quoted { " (quoted)" } else { "" };
        let _ = write!(words, "{}{quoted}: {value} {unit}. ", bar.label);
    }
    let from = match ruler.low() > 0.0 {
        true => format!(" The axis starts at {}.", ruler.ticks().first().map_or("", |tick| tick.1.as_str())),
        false => String::new(),
    };
    Ok(figure(body, title, &format!("{note}{from}"), "", (bottom + 20.0, words.trim_end(), &marks)))
}
