//! What charts share: colours, sizes, the frame with its axes, heading, legend and labels.
//!
//! Colours are those of Okabe and Ito, which people with any colour vision tell apart.

use super::picture::{Anchor, Picture, Rgb, Text, WIDTH, text_width};
use super::ruler::Ruler;
use crate::error::Result;

pub(super) const SERIES: [Rgb; 6] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233]];
pub(super) const BASELINE: Rgb = [150, 150, 150];
pub(super) const INK: Rgb = [34, 34, 34];
pub(super) const FAINT: Rgb = [95, 95, 95];
pub(super) const GRID: Rgb = [226, 226, 226];

/// Sizes of text in pixels.
pub(super) const TITLE: f64 = 17.0;
pub(super) const LABEL: f64 = 13.0;
pub(super) const TICK: f64 = 12.0;

/// The rectangle that data is drawn in.
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Frame {
    pub(super) fn x(&self, ruler: &Ruler, value: f64) -> f64 {
        self.left + ruler.part(value) * (self.right - self.left)
    }

    pub(super) fn y(&self, ruler: &Ruler, value: f64) -> f64 {
        self.bottom - ruler.part(value) * (self.bottom - self.top)
    }

    /// Grid lines, ticks and label of the vertical axis.
    pub(super) fn vertical(&self, picture: &mut Picture, ruler: &Ruler, name: &str) {
        for (value, text) in ruler.ticks() {
            let y = self.y(ruler, *value);
            picture.line(vec![(self.left, crisp(y)), (self.right, crisp(y))], 1.0, GRID);
            picture.text(label(self.left - 8.0, y + 0.36 * TICK, text, TICK, Anchor::End, FAINT));
        }
        let middle = (self.top + self.bottom) / 2.0;
        picture.text(Text { upwards: true, ..label(26.0, middle, name, LABEL, Anchor::Middle, INK) });
    }

    /// Grid lines, ticks and label of the horizontal axis.
    pub(super) fn horizontal(&self, picture: &mut Picture, ruler: &Ruler, name: &str) {
        for (value, text) in ruler.ticks() {
            let x = self.x(ruler, *value);
            picture.line(vec![(crisp(x), self.top), (crisp(x), self.bottom)], 1.0, GRID);
            picture.text(label(x, self.bottom + 8.0 + TICK, text, TICK, Anchor::Middle, FAINT));
        }
        picture.line(vec![(self.left, crisp(self.bottom)), (self.right, crisp(self.bottom))], 1.0, INK);
        let middle = (self.left + self.right) / 2.0;
        picture.text(label(middle, self.bottom + 44.0, name, LABEL, Anchor::Middle, INK));
    }
}

/// Writes the title and a legend of names with the numbers of their series; says where they end.
pub(super) fn heading(picture: &mut Picture, title: &str, legend: &[(&str, usize)]) -> Result<f64> {
    let edge = 26.0;
    let room = WIDTH as f64 - 2.0 * edge;
    let size = fitting(title, TITLE, room, true)?;
    picture.text(Text { bold: true, ..label(edge, 36.0, title, size, Anchor::Start, INK) });
    let (mut x, mut y) = (edge, 62.0);
    for (name, at) in legend {
        let width = 30.0 + text_width(name, LABEL, false)?;
        if x > edge && x + width > edge + room {
            (x, y) = (edge, y + 20.0);
        }
        let ends = [(x, y - 4.5), (x + 22.0, y - 4.5)];
        sample(picture, &ends, 4.0, *at);
        picture.text(label(x + 30.0, y, name, LABEL, Anchor::Start, INK));
        x += width + 24.0;
    }
    Ok(if legend.is_empty() { 44.0 } else { y + 6.0 })
}

/// Draws a line in the look of series `at`; after six series the colours repeat, dashed.
pub(super) fn sample(picture: &mut Picture, points: &[(f64, f64)], width: f64, at: usize) {
    let colour = SERIES[at % SERIES.len()];
    match at / SERIES.len() {
        0 => picture.line(points.to_vec(), width, colour),
        round => picture.dashed(points, width, colour, 7.0 / round as f64),
    }
}

/// The left end of the data: ticks and name of the vertical axis stand before it.
pub(super) fn left_of(ruler: &Ruler, name: &str) -> Result<f64> {
    let mut widest = 0f64;
    for (_, text) in ruler.ticks() {
        widest = widest.max(text_width(text, TICK, false)?);
    }
    Ok(widest + 8.0 + if name.is_empty() { 26.0 } else { 42.0 })
}

/// The size, at most `size`, at which `text` fits into `room` pixels.
pub(super) fn fitting(text: &str, size: f64, room: f64, bold: bool) -> Result<f64> {
    let width = text_width(text, size, bold)?;
    Ok(if width > room { size * room / width } else { size })
}

/// The names under the bars, all in one size: in lines broken at spaces, or upright where words are too long.
pub(super) struct Names {
    lines: Vec<Vec<String>>,
    size: f64,
    upright: bool,
    /// Pixels from the first line's top to the last line's bottom.
    pub(super) height: f64,
}

impl Names {
    /// Fits `names` into `room` pixels each.
    pub(super) fn fit(names: Vec<&str>, room: f64) -> Result<Self> {
        let mut size = LABEL;
        for word in names.iter().flat_map(|name| name.split_whitespace()) {
            size = fitting(word, size, room, false)?;
        }
        if size < 9.5 {
            return Self::upright(&names, (room * 0.8).clamp(7.0, 11.0));
        }
        let lines = names.iter().map(|name| broken(name, room, size)).collect::<Result<Vec<_>>>()?;
        let height = lines.iter().map(Vec::len).max().unwrap_or(1) as f64 * size * 1.3;
        Ok(Self { lines, size, upright: false, height })
    }

    fn upright(names: &[&str], mut size: f64) -> Result<Self> {
        for name in names {
            size = fitting(name, size, 200.0, false)?;
        }
        let mut height = 0f64;
        for name in names {
            height = height.max(text_width(name, size, false)?);
        }
        Ok(Self { lines: names.iter().map(|name| vec![name.to_string()]).collect(), size, upright: true, height })
    }

    /// Writes name `at` below `y`, with its middle at `x`.
    pub(super) fn draw(&self, picture: &mut Picture, at: usize, x: f64, y: f64) {
        for (row, line) in self.lines[at].iter().enumerate() {
            if self.upright {
                let text = label(x + 0.36 * self.size, y + 9.0, line, self.size, Anchor::End, INK);
                picture.text(Text { upwards: true, ..text });
            } else {
                let below = y + 8.0 + self.size + row as f64 * self.size * 1.3;
                picture.text(label(x, below, line, self.size, Anchor::Middle, INK));
            }
        }
    }
}

/// A text broken at spaces into lines of at most `room` pixels, where words allow it.
fn broken(text: &str, room: f64, size: f64) -> Result<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let longer = lines.last().map(|line| format!("{line} {word}"));
        match (lines.last_mut(), longer) {
            (Some(line), Some(longer)) if text_width(&longer, size, false)? <= room => *line = longer,
            _ => lines.push(word.to_string()),
        }
    }
    Ok(lines)
}

/// Writes a centred text over whatever is behind it.
pub(super) fn on_white(picture: &mut Picture, text: Text) -> Result<()> {
    let half = text_width(&text.text, text.size, text.bold)? / 2.0 + 2.0;
    picture.rect((text.x - half, text.y - text.size * 0.85), (text.x + half, text.y + text.size * 0.2), [255; 3]);
    picture.text(text);
    Ok(())
}

/// A text that is neither bold nor turned.
pub(super) fn label(x: f64, y: f64, text: &str, size: f64, anchor: Anchor, colour: Rgb) -> Text {
    Text { x, y, text: text.to_string(), size, anchor, bold: false, colour, upwards: false }
}

/// The middle of the pixel, where a line one pixel wide covers one row of them.
pub(super) fn crisp(at: f64) -> f64 {
    at.floor() + 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_break_at_spaces() {
        let names = Names::fit(vec!["one two three four", "five"], 70.0).expect("font");
        assert_eq!((names.size, names.upright), (LABEL, false));
        assert_eq!(names.lines, [vec!["one two", "three four"], vec!["five"]]);
    }

    #[test]
    fn long_words_shrink_and_very_long_ones_stand_upright() {
        let names = Names::fit(vec!["distillation"], 65.0).expect("font");
        assert!(names.size < LABEL && !names.upright, "{}", names.size);
        assert!(text_width("distillation", names.size, false).expect("font") < 65.1);
        let names = Names::fit(vec!["incomprehensibilities now"], 65.0).expect("font");
        assert!(names.upright && names.size == 11.0 && names.height > 100.0, "{}", names.height);
    }

    #[test]
    fn a_long_legend_takes_more_rows() {
        let mut picture = Picture::default();
        let one = heading(&mut picture, "t", &[("a", 0)]).expect("font");
        let many: Vec<(&str, usize)> = (0..12).map(|at| ("a fairly long name", at)).collect();
        let rows = heading(&mut picture, "t", &many).expect("font");
        assert!(rows >= one + 40.0, "{one} {rows}");
    }
}
