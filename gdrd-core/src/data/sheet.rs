//! A picture of what a run trains on: faces as the teacher sees them above the same faces as the student does.

use std::path::Path;

use super::views::{HIGH, Views};
use super::{Augment, Variant};
use crate::error::{Error, Result};
use crate::face::{Face, Kernel};
use crate::files::write_atomically;
use crate::seed::Seed;

/// Height and width of a face on the sheet, in pixels.
const CELL: usize = 112;
/// Faces in a row.
const COLUMNS: usize = 12;
/// Pairs of rows.
const ROWS: usize = 3;

/// Writes faces from all over a dataset, each above its form in the view `small`, as a PNG.
///
/// # Errors
/// If a face cannot be read, or the picture cannot be written.
pub fn write_sheet(views: &Views, small: &str, path: &Path) -> Result<()> {
    let count = (COLUMNS * ROWS).min(views.dataset().len());
    let columns = COLUMNS.min(count);
    let rows = count.div_ceil(columns);
    let mut sheet =
        image::RgbImage::from_pixel((columns * CELL) as u32, (2 * rows * CELL) as u32, image::Rgb([255; 3]));
    // Two neighbours at a time from all over the dataset: where faces are sorted by person, the same person twice.
    let pairs = count.div_ceil(2);
    for at in 0..count {
        let index = (at / 2 * views.dataset().len() / pairs + at % 2).min(views.dataset().len() - 1);
        let mut random = Seed(0).stream("sheet", &[index as u64]);
        let none = Augment::none();
        let mut face = |view: &str| views.face(index, view, (&none, Variant::default()), &mut random);
        let (x, y) = (at % columns * CELL, at / columns * 2 * CELL);
        paste(&mut sheet, &face(HIGH)?.resized(CELL, Kernel::Bicubic, true)?, x, y);
        paste(&mut sheet, &face(small)?.resized(CELL, Kernel::Nearest, false)?, x, y + CELL);
    }
    let mut png = std::io::Cursor::new(Vec::new());
    sheet.write_to(&mut png, image::ImageFormat::Png).map_err(|e| Error::io(path, std::io::Error::other(e)))?;
    write_atomically(path, png.get_ref())
}

fn paste(sheet: &mut image::RgbImage, face: &Face, x: usize, y: usize) {
    for (at, pixel) in face.pixels().chunks_exact(3).enumerate() {
        let (dx, dy) = (at % face.width(), at / face.width());
        sheet.put_pixel((x + dx) as u32, (y + dy) as u32, image::Rgb([pixel[0], pixel[1], pixel[2]]));
    }
}
