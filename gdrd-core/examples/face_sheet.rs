//! Draws a sheet of synthetic faces: one row per person, the neutral face first.
//!
//!     cargo run --release -p gdrd-core --example face_sheet -- sheet.png [first seed] [people] [pictures]
//!
//! The upper half shows the faces at 112x112, the lower half the same faces at 16x16, blown up.

#![allow(clippy::print_stderr, reason = "an example reports on the terminal")]

use std::time::Instant;

use gdrd_core::data::synthetic_faces::{Identity, Nuisance, draw};
use gdrd_core::face::{Face, Kernel};

const SIDE: usize = 112;
const GAP: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("the first argument names the PNG to write")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (first, people, pictures) = (number(0)?, number(6)?, number(9)?);

    let start = Instant::now();
    let faces: Vec<Vec<Face>> = (first..first + people)
        .map(|person| {
            let identity = Identity::from_seed(person);
            let circumstances = |picture: u64| match picture {
                0 => Nuisance::neutral(),
                other => Nuisance::from_seed(1000 * person + other),
            };
            (0..pictures).map(|picture| draw(&identity, &circumstances(picture), SIDE)).collect()
        })
        .collect();
    let millis = start.elapsed().as_secs_f64() * 1e3 / (people * pictures) as f64;
    eprintln!("{millis:.2} ms per face of {SIDE}x{SIDE}");

    let (columns, rows) = (pictures as usize, 2 * people as usize);
    let (width, height) = (columns * (SIDE + GAP), rows * (SIDE + GAP));
    let mut sheet = vec![255u8; 3 * width * height];
    for (row, line) in faces.iter().enumerate() {
        for (column, face) in line.iter().enumerate() {
            let small = face.resized(16, Kernel::Bicubic, true)?.resized(SIDE, Kernel::Nearest, false)?;
            for (picture, row) in [(face, row), (&small, row + people as usize)] {
                for (y, pixels) in picture.pixels().chunks_exact(3 * SIDE).enumerate() {
                    let at = 3 * ((row * (SIDE + GAP) + y) * width + column * (SIDE + GAP));
                    sheet[at..at + 3 * SIDE].copy_from_slice(pixels);
                }
            }
        }
    }
    image::save_buffer(&path, &sheet, width as u32, height as u32, image::ColorType::Rgb8)?;
    Ok(())
}
