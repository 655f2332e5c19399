//! A picture as a list of marks, written as SVG and as PNG by plotters.

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;

use image::ImageEncoder;
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle};

use crate::error::{Context, Error, Result};
use crate::files::write_atomically;

/// Width of every picture in pixels.
pub const WIDTH: usize = 900;
/// Height of every picture in pixels.
pub const HEIGHT: usize = 540;

/// What an SVG names as its fonts: the one that the PNG is drawn with, then what viewers have.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
/// plotters takes the font's line height for its size: ascent and descent of DejaVu Sans in em.
const LINE_HEIGHT: f64 = 2384.0 / 2048.0;
/// plotters writes an SVG's font size as the size divided by this.
const SVG_SIZE: f64 = 1.24;
/// plotters has whole coordinates; pictures are drawn larger by this factor, and PNG is then averaged.
const FINER: usize = 4;

/// A colour, red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Which part of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text; `x`, `y` is the place of the anchor on the baseline.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) text: String,
    /// Size of the em in pixels.
    pub(super) size: f64,
    pub(super) anchor: Anchor,
    pub(super) bold: bool,
    pub(super) colour: Rgb,
    /// Read from below to above.
    pub(super) upwards: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Mark {
    Rect { from: (f64, f64), to: (f64, f64), colour: Rgb, alpha: f64 },
    Area { points: Vec<(f64, f64)>, colour: Rgb, alpha: f64 },
    Line { points: Vec<(f64, f64)>, width: f64, colour: Rgb },
    Text(Text),
}

/// A drawing of [`WIDTH`] by [`HEIGHT`] pixels on white.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    marks: Vec<Mark>,
}

impl Picture {
    /// A filled rectangle between two corners.
    pub(super) fn rect(&mut self, from: (f64, f64), to: (f64, f64), colour: Rgb) {
        self.marks.push(Mark::Rect { from, to, colour, alpha: 1.0 });
    }

    /// A filled polygon that lets `1 - alpha` of what is behind it through.
    pub(super) fn area(&mut self, points: Vec<(f64, f64)>, colour: Rgb, alpha: f64) {
        self.marks.push(Mark::Area { points, colour, alpha });
    }

    /// A line through points.
    pub(super) fn line(&mut self, points: Vec<(f64, f64)>, width: f64, colour: Rgb) {
        if points.len() > 1 {
            self.marks.push(Mark::Line { points, width, colour });
        }
    }

    /// A line through points, drawn as dashes of `dash` pixels with equal gaps.
    pub(super) fn dashed(&mut self, points: &[(f64, f64)], width: f64, colour: Rgb, dash: f64) {
        let (mut drawn, mut left) = (true, dash);
        let mut piece: Vec<(f64, f64)> = points.first().copied().into_iter().collect();
        for ends in points.windows(2) {
            let (mut from, to) = (ends[0], ends[1]);
            loop {
                let length = (to.0 - from.0).hypot(to.1 - from.1);
                if length <= left {
                    left -= length;
                    piece.push(to);
                    break;
                }
                let part = left / length;
                from = (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1));
                piece.push(from);
                if drawn {
                    self.line(std::mem::take(&mut piece), width, colour);
                }
                (drawn, left, piece) = (!drawn, dash, vec![from]);
            }
        }
        if drawn {
            self.line(piece, width, colour);
        }
    }

    /// A line of text.
    pub(super) fn text(&mut self, text: Text) {
        self.marks.push(Mark::Text(text));
    }

    /// The picture as SVG. Text stays text, in DejaVu Sans where the viewer has it.
    ///
    /// # Errors
    /// If plotters cannot draw.
    pub fn svg(&self) -> Result<String> {
        let mut out = String::new();
        let (width, height) = ((WIDTH * FINER) as u32, (HEIGHT * FINER) as u32);
        let mut backend = SVGBackend::with_string(&mut out, (width, height));
        self.draw(&mut backend, SVG_SIZE, 0.76, true).at(|| "drawing SVG".to_string())?;
        drop(backend);
        let large = format!("width=\"{width}\" height=\"{height}\" ");
        Ok(out.replacen(&large, &format!("width=\"{WIDTH}\" height=\"{HEIGHT}\" "), 1))
    }

    /// The picture as PNG, RGB, 8 bits.
    ///
    /// # Errors
    /// If plotters cannot draw.
    pub fn png(&self) -> Result<Vec<u8>> {
        let (width, height) = (WIDTH * FINER, HEIGHT * FINER);
        let mut fine = vec![0u8; 3 * width * height];
        let mut backend = BitMapBackend::with_buffer(&mut fine, (width as u32, height as u32));
        self.draw(&mut backend, LINE_HEIGHT, LINE_HEIGHT / 2.0, false).at(|| "drawing PNG".to_string())?;
        drop(backend);
        let mut pixels = Vec::with_capacity(3 * WIDTH * HEIGHT);
        for at in 0..WIDTH * HEIGHT {
            let (x, y) = (at % WIDTH * FINER, at / WIDTH * FINER);
            for channel in 0..3 {
                let inside = (0..FINER * FINER).map(|i| 3 * ((y + i / FINER) * width + x + i % FINER) + channel);
                let sum: usize = inside.map(|i| usize::from(fine[i])).sum();
                pixels.push(((sum + FINER * FINER / 2) / (FINER * FINER)) as u8);
            }
        }
        let mut png = Vec::new();
        image::codecs::png::PngEncoder::new(&mut png)
            .write_image(&pixels, WIDTH as u32, HEIGHT as u32, image::ExtendedColorType::Rgb8)
            .map_err(|e| Error::component(format!("encoding PNG: {e}")))?;
        Ok(png)
    }

    /// Writes `<path>.svg` and `<path>.png`; `path` is the whole name without these endings.
    ///
    /// # Errors
    /// If plotters cannot draw, or a file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        for (ending, bytes) in [(".svg", self.svg()?.into_bytes()), (".png", self.png()?)] {
            let mut name = OsString::from(path);
            name.push(ending);
            write_atomically(Path::new(&name), &bytes)?;
        }
        Ok(())
    }

    /// Draws every mark. `size` is what plotters needs for an em of 1, `ascent` how far below the
    /// top of a text it puts the baseline, in em. Bitmaps get strokes as polygons, since plotters
    /// fills a bent wide line with holes.
    fn draw<B: DrawingBackend>(&self, backend: &mut B, size: f64, ascent: f64, strokes: bool) -> Result<()> {
        register_fonts()?;
        let place = |p: (f64, f64)| ((p.0 * FINER as f64).round() as i32, (p.1 * FINER as f64).round() as i32);
        let failed = |e: &dyn std::fmt::Display| Error::component(e.to_string());
        let white = RGBColor(255, 255, 255).filled();
        let corner = ((WIDTH * FINER) as i32, (HEIGHT * FINER) as i32);
        backend.draw_rect((0, 0), corner, &white, true).map_err(|e| failed(&e))?;
        for mark in &self.marks {
            match mark {
                Mark::Rect { from, to, colour, alpha } => {
                    backend.draw_rect(place(*from), place(*to), &fill(*colour, *alpha), true)
                }
                Mark::Area { points, colour, alpha } => {
                    backend.fill_polygon(points.iter().map(|p| place(*p)), &fill(*colour, *alpha))
                }
                Mark::Line { points, width, colour } if strokes => {
                    let style = fill(*colour, 1.0).stroke_width((width * FINER as f64).round() as u32);
                    backend.draw_path(points.iter().map(|p| place(*p)), &style)
                }
                Mark::Line { points, width, colour } => {
                    stroke(points, *width, |quad| backend.fill_polygon(quad.map(place), &fill(*colour, 1.0)))
                }
                Mark::Text(text) => {
                    let colour = RGBColor(text.colour[0], text.colour[1], text.colour[2]);
                    let em = text.size * FINER as f64;
                    let horizontal = match text.anchor {
                        Anchor::Start => HPos::Left,
                        Anchor::Middle => HPos::Center,
                        Anchor::End => HPos::Right,
                    };
                    let turned = if text.upwards { FontTransform::Rotate270 } else { FontTransform::None };
                    let style = TextStyle::from(font(size * em, text.bold).transform(turned))
                        .pos(Pos::new(horizontal, VPos::Top))
                        .color(&colour);
                    let rise = ascent * text.size;
                    let top = if text.upwards { (text.x - rise, text.y) } else { (text.x, text.y - rise) };
                    backend.draw_text(&text.text, &style, place(top))
                }
            }
            .map_err(|e| failed(&e))?;
        }
        backend.present().map_err(|e| failed(&e))
    }
}

/// Width of a text in pixels, for an em of `size` pixels.
///
/// # Errors
/// If the font cannot be used.
pub(super) fn text_width(text: &str, size: f64, bold: bool) -> Result<f64> {
    register_fonts()?;
    // Plotters rounds widths to whole pixels, so a large text is measured.
    let large = 1000.0;
    let ((left, _), (right, _)) = font(LINE_HEIGHT * large, bold)
        .layout_box(text)
        .map_err(|e| Error::component(format!("measuring `{text}`: {e}")))?;
    Ok(f64::from(right - left) * size / large)
}

fn font(size: f64, bold: bool) -> FontDesc<'static> {
    FontDesc::new(FontFamily::Name(FAMILY), size, if bold { FontStyle::Bold } else { FontStyle::Normal })
}

fn fill(colour: Rgb, alpha: f64) -> ShapeStyle {
    RGBColor(colour[0], colour[1], colour[2]).mix(alpha).filled()
}

/// A line as one four-sided polygon for each piece, each half a width longer at both ends, so that joints are closed.
fn stroke<E>(
    points: &[(f64, f64)],
    width: f64,
    mut polygon: impl FnMut([(f64, f64); 4]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let half = width / 2.0;
    for (at, ends) in points.windows(2).enumerate() {
        let (a, b) = (ends[0], ends[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        if length == 0.0 {
            continue;
        }
        let (dx, dy) = ((b.0 - a.0) / length * half, (b.1 - a.1) / length * half);
        // Joints overlap a little; free ends stay where they are.
        let back = if at == 0 { 0.0 } else { 0.5 };
        let on = if at + 2 == points.len() { 0.0 } else { 0.5 };
        let (a, b) = ((a.0 - back * dx, a.1 - back * dy), (b.0 + on * dx, b.1 + on * dy));
        polygon([(a.0 - dy, a.1 + dx), (a.0 + dy, a.1 - dx), (b.0 + dy, b.1 - dx), (b.0 - dy, b.1 + dx)])?;
    }
    Ok(())
}

/// Makes the font known to plotters, once.
fn register_fonts() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let good = *REGISTERED.get_or_init(|| {
        let fonts = [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())];
        fonts.into_iter().all(|(style, bytes)| plotters::style::register_font(FAMILY, style, bytes).is_ok())
    });
    if good { Ok(()) } else { Err(Error::component("the built-in font could not be read")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let mut picture = Picture::default();
        picture.rect((100.0, 100.0), (200.0, 200.0), [10, 20, 30]);
        picture.line(vec![(300.0, 50.5), (400.0, 50.5)], 3.0, [200, 0, 0]);
        picture.text(Text {
            x: 500.0,
            y: 300.0,
            text: "a < b & ±".to_string(),
            size: 14.0,
            anchor: Anchor::Middle,
            bold: true,
            colour: [0; 3],
            upwards: false,
        });
        picture
    }

    #[test]
    fn svg_has_its_size_and_escapes() {
        let svg = picture().svg().expect("drawn");
        assert!(svg.starts_with("<svg width=\"900\" height=\"540\" viewBox=\"0 0 3600 2160\""), "{svg}");
        assert!(svg.contains("a &lt; b &amp; ±") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg, picture().svg().expect("drawn again"));
    }

    #[test]
    fn png_shows_what_was_drawn() {
        let png = picture().png().expect("drawn");
        assert_eq!(png, picture().png().expect("drawn again"));
        let image = image::load_from_memory(&png).expect("a PNG").to_rgb8();
        assert_eq!(image.dimensions(), (900, 540));
        assert_eq!(image.get_pixel(150, 150).0, [10, 20, 30]);
        assert_eq!(image.get_pixel(350, 50).0, [200, 0, 0]);
        assert_eq!(image.get_pixel(350, 55).0, [255; 3]);
        let ink = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            y.flat_map(|y| x.clone().map(move |x| (x, y))).filter(|&(x, y)| image.get_pixel(x, y).0[0] < 128).count()
        };
        // The text stands on its baseline, about its anchor.
        assert!(ink(450..500, 288..301) > 20 && ink(501..550, 288..301) > 20);
        assert_eq!(ink(450..550, 305..320) + ink(450..550, 270..286), 0);
    }

    #[test]
    fn widths_add_up() {
        let one = text_width("n", 10.0, false).expect("font");
        let two = text_width("nn", 10.0, false).expect("font");
        assert!((two - 2.0 * one).abs() < 0.05 && one > 5.0 && one < 8.0, "{one} {two}");
    }

    #[test]
    fn dashes_cover_half_of_a_line() {
        let mut picture = Picture::default();
        picture.dashed(&[(0.0, 0.0), (30.0, 0.0), (30.0, 30.0)], 1.0, [0; 3], 4.0);
        let length: f64 = picture
            .marks
            .iter()
            .map(|mark| match mark {
                Mark::Line { points, .. } => {
                    points.windows(2).map(|w| (w[1].0 - w[0].0).hypot(w[1].1 - w[0].1)).sum::<f64>()
                }
                _ => 0.0,
            })
            .sum();
        assert!((length - 32.0).abs() < 1e-9, "{length}");
    }

    #[test]
    fn writing_adds_both_endings() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("lfw.v2");
        picture().write(&path).expect("written");
        assert!(folder.path().join("lfw.v2.svg").is_file() && folder.path().join("lfw.v2.png").is_file());
        assert!(picture().write(&folder.path().join("absent/chart")).is_err());
    }
}
