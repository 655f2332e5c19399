//! The smallest program that embeds: a student file, and the bytes of one face of 112x112 pixels, RGB, from a file or grey.
//!
//!     cargo run --release --example embed -- student.safetensors [face.rgb]
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::time::Instant;

use gdrd_student::{Error, Face, FaceEncoder};

fn main() -> Result<(), Error> {
    let start = Instant::now();
    let mut arguments = std::env::args().skip(1);
    let student = arguments.next().ok_or_else(|| Error::data("expected a student file"))?;
    let pixels = match arguments.next() {
        Some(path) => std::fs::read(&path).map_err(|e| Error::io(&path, e))?,
        None => vec![127; 3 * 112 * 112],
    };
    let encoder = FaceEncoder::open(student)?;
    let opened = start.elapsed();
    let face = Face::new(112, 112, pixels)?;
    let embedding = encoder.face(&face)?;
    let first = start.elapsed();
    println!("{} values, first {:.4}", embedding.values().len(), embedding.values()[0]);
    println!("open {opened:.1?}, first embedding after {first:.1?}");
    Ok(())
}
