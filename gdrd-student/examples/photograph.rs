//! Who is on a photograph? Finds the faces, and says which of the people in a folder each looks most like.
//!
//!     cargo run --release -p gdrd-student --features front-end --example photograph -- \
//!         student.safetensors yunet.onnx PEOPLE PHOTOGRAPH...
//!
//! `PEOPLE` holds one photograph of each person, named after them. A similarity is no proof: how often strangers reach it, the student's
//! evaluation says.

use std::error::Error;
use std::path::{Path, PathBuf};

use gdrd_student::front_end::{Aligned, Detection, Detector, DetectorOptions, OnnxDetector};
use gdrd_student::{Face, FaceEncoder, Gallery};
use image::{DynamicImage, ImageDecoder, ImageReader};

#[allow(clippy::print_stdout, reason = "a program")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [student, detector, people, photographs @ ..] = arguments.as_slice() else {
        return Err("expected STUDENT DETECTOR PEOPLE PHOTOGRAPH...".into());
    };
    let encoder = FaceEncoder::open(student)?;
    let detector = OnnxDetector::open(detector, DetectorOptions::default())?;
    let mut gallery = Gallery::new(&encoder);
    for entry in std::fs::read_dir(people)? {
        let path = entry?.path();
        let photograph = read(&path)?;
        let found = detector.detect(&photograph)?;
        let largest = found.iter().max_by(|a, b| a.bounds.area().total_cmp(&b.bounds.area()));
        let Some(Detection { landmarks, .. }) = largest else {
            println!("{}: no face", path.display());
            continue;
        };
        let face = encoder.face(&Aligned::of(&photograph, landmarks, 112)?)?;
        gallery.enrol(&path.file_stem().unwrap_or_default().to_string_lossy(), &face)?;
    }
    for path in photographs {
        let photograph = read(path)?;
        let found = detector.detect(&photograph)?;
        println!("{}: {} faces", path.display(), found.len());
        for Detection { bounds, landmarks, .. } in found {
            let face = encoder.face(&Aligned::of(&photograph, &landmarks, 112)?)?;
            let ([x, y], pixels) = (bounds.centre(), face.pixels());
            match gallery.search(&face, 1)?.first() {
                Some(nearest) => {
                    println!("  at {x:.0}, {y:.0}, {pixels} pixels: {} ({:.3})", nearest.person, nearest.similarity)
                }
                None => println!("  at {x:.0}, {y:.0}: nobody is known"),
            }
        }
    }
    Ok(())
}

/// A photograph, upright: turned as its EXIF orientation says.
fn read(path: &Path) -> Result<Face, Box<dyn Error>> {
    let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    let pixels = image.into_rgb8();
    Ok(Face::new(pixels.width() as usize, pixels.height() as usize, pixels.into_raw())?)
}
