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
    // Two neighbours at a time from all over the dataset: where faces are sorted by person, the same person twice.
    let pairs = count.div_ceil(2);
    let (mut whole, mut reduced) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for at in 0..count {
        let index = (at / 2 * views.dataset().len() / pairs + at % 2).min(views.dataset().len() - 1);
        let mut random = Seed(0).stream("sheet", &[index as u64]);
        let none = Augment::none();
        let mut face = |view: &str| views.face(index, view, (&none, Variant::default()), &mut random);
        whole.push(face(HIGH)?.resized(CELL, Kernel::Bicubic, true)?);
        reduced.push(face(small)?);
    }
    let rows: Vec<&[Face]> = whole.chunks(COLUMNS).zip(reduced.chunks(COLUMNS)).flat_map(|(a, b)| [a, b]).collect();
    write_atomically(path, &tiled(&rows)?)
}

/// Rows of faces as a PNG, each face in a cell of its own; smaller ones are shown pixel by pixel.
///
/// # Errors
/// If there is no face.
pub fn tiled(rows: &[impl AsRef<[Face]>]) -> Result<Vec<u8>> {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    if columns == 0 {
        return Err(Error::data("a picture of faces needs at least one face"));
    }
    let (width, height) = ((columns * CELL) as u32, (rows.len() * CELL) as u32);
    let mut sheet = image::RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
    for (row, faces) in rows.iter().enumerate() {
        for (column, face) in faces.as_ref().iter().enumerate() {
            paste(&mut sheet, &face.resized(CELL, Kernel::Nearest, false)?, column * CELL, row * CELL);
        }
    }
    let mut png = std::io::Cursor::new(Vec::new());
    let written = sheet.write_to(&mut png, image::ImageFormat::Png);
    written.map_err(|e| Error::component(format!("a picture of faces cannot be written as PNG: {e}")))?;
    Ok(png.into_inner())
}

fn paste(sheet: &mut image::RgbImage, face: &Face, x: usize, y: usize) {
    for (at, pixel) in face.pixels().chunks_exact(3).enumerate() {
        let (dx, dy) = (at % face.width(), at / face.width());
        sheet.put_pixel((x + dx) as u32, (y + dy) as u32, image::Rgb([pixel[0], pixel[1], pixel[2]]));
    }
}
