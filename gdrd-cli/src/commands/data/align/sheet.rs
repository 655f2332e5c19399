//! A picture of what was found and of what was not.

use std::path::Path;

use gdrd_core::data::{Decoding, png, read_image};
use gdrd_core::error::Result;
use gdrd_core::face::{Face, Kernel};
use gdrd_core::files::write_atomically;

use super::photographs::Photograph;
use super::{Outcome, face_path, journal::Aligned};

/// The file in the folder of results.
pub(super) const NAME: &str = "contact-sheet.png";
/// Height and width of a picture on the sheet, with its frame, in pixels.
const CELL: usize = 96;
/// Width of the frame.
const FRAME: usize = 4;
/// Pictures in a row.
const COLUMNS: usize = 12;
/// The most photographs without a face.
const MISSING: usize = 3 * COLUMNS;
/// The most faces of the lowest scores.
const LEAST: usize = 3 * COLUMNS;
/// The most of the other faces.
const SAMPLE: usize = 8 * COLUMNS;
const RED: [u8; 3] = [214, 39, 40];
const ORANGE: [u8; 3] = [255, 152, 0];
const GREEN: [u8; 3] = [44, 140, 60];

/// Writes the sheet: photographs without a face, then the faces with the lowest scores, then some of the others, from all over the folder.
pub(super) fn write(out: &Path, photographs: &[Photograph], found: &[Outcome], how: Decoding) -> Result<()> {
    let mut cells = Vec::new();
    let missing: Vec<&Photograph> = photographs
        .iter()
        .zip(found)
        .filter(|(_, found)| !found.as_ref().is_ok_and(|record| !record.faces.is_empty()))
        .map(|(photograph, _)| photograph)
        .collect();
    for photograph in spread(&missing, MISSING) {
        // What cannot be read has an empty frame.
        cells.push((read_image(&photograph.path, how).ok(), RED));
    }
    let mut faces: Vec<&Aligned> = found.iter().flatten().flat_map(|record| &record.faces).collect();
    let score = |face: &Aligned| face.score.unwrap_or(f32::INFINITY);
    let mut least = faces.clone();
    least.sort_by(|a, b| score(a).total_cmp(&score(b)));
    // The lowest of all, but no more than a quarter: where nearly all is shown, the colour must say something.
    least.truncate(LEAST.min(faces.len() / 4));
    least.retain(|face| face.score.is_some());
    faces.retain(|face| !least.iter().any(|other| other.file == face.file));
    let picture = |face: &Aligned| read_image(&face_path(out, &face.file), Decoding::default()).ok();
    cells.extend(least.iter().map(|face| (picture(face), ORANGE)));
    cells.extend(spread(&faces, SAMPLE).into_iter().map(|face| (picture(face), GREEN)));
    write_atomically(&out.join(NAME), &png(&sheet(&cells)?)?)
}

/// At most `most` items from all over a list.
fn spread<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let count = all.len().min(most);
    (0..count).map(|at| all[at * all.len() / count]).collect()
}

fn sheet(cells: &[(Option<Face>, [u8; 3])]) -> Result<Face> {
    let columns = cells.len().clamp(1, COLUMNS);
    let (width, height) = (columns * CELL, cells.len().div_ceil(columns).max(1) * CELL);
    let mut pixels = vec![255; 3 * width * height];
    for (at, (picture, colour)) in cells.iter().enumerate() {
        let (left, top) = (at % columns * CELL, at / columns * CELL);
        let place = |x: usize, y: usize| 3 * ((top + y) * width + left + x);
        for y in 1..CELL - 1 {
            pixels[place(1, y)..place(CELL - 1, y)].as_chunks_mut::<3>().0.fill(*colour);
        }
        let room = CELL - 2 * FRAME;
        for y in FRAME..CELL - FRAME {
            pixels[place(FRAME, y)..place(CELL - FRAME, y)].fill(0);
        }
        let Some(picture) = picture else { continue };
        let longest = picture.width().max(picture.height());
        let side = |side: usize| (side * room / longest).max(1);
        let picture = picture.resized_to(side(picture.width()), side(picture.height()), Kernel::Bilinear, true)?;
        let (x, y) = (FRAME + (room - picture.width()) / 2, FRAME + (room - picture.height()) / 2);
        for (row, bytes) in picture.pixels().chunks_exact(3 * picture.width()).enumerate() {
            let start = place(x, y + row);
            pixels[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }
    Face::new(width, height, pixels)
}
