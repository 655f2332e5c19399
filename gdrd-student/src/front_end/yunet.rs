//! YuNet: what it is shown, and what its outputs mean (libfacedetection's `yunet_n`, as OpenCV's `FaceDetectorYN` reads them).

use gdrd_core::face::Face;

use super::detection::Detection;
use super::geometry::Bounds;
use super::network::Output;

/// The names of the outputs with their values in each cell: class, whether there is an object, box, landmarks.
pub(super) const OUTPUTS: [(&str, usize); 4] = [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)];

/// Writes a photograph into the upper left corner of a black canvas: blue, green, red, from 0 to 255.
pub(super) fn show(photograph: &Face, [height, width]: [usize; 2], canvas: &mut [f32]) {
    for (y, row) in photograph.pixels().chunks_exact(3 * photograph.width()).enumerate() {
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            for (plane, value) in pixel.iter().rev().enumerate() {
                canvas[(plane * height + y) * width + x] = f32::from(*value);
            }
        }
    }
}

/// Faces that score at least `score`, in pixels of the canvas. Of one grid: `outputs` as in [`OUTPUTS`].
pub(super) fn candidates(outputs: [&Output; 4], stride: usize, columns: usize, score: f32) -> Vec<Detection> {
    let [class, object, boxes, points] = outputs.map(|output| output.values.as_slice());
    let step = stride as f32;
    let mut found = Vec::new();
    for (cell, (class, object)) in class.iter().zip(object).enumerate() {
        let sure = (class.clamp(0.0, 1.0) * object.clamp(0.0, 1.0)).sqrt();
        if sure.is_nan() || sure < score {
            continue;
        }
        let (column, row) = ((cell % columns) as f32, (cell / columns) as f32);
        let b = &boxes[4 * cell..4 * cell + 4];
        let (width, height) = (b[2].exp() * step, b[3].exp() * step);
        let (left, top) = ((column + b[0]) * step - width / 2.0, (row + b[1]) * step - height / 2.0);
        let points = &points[10 * cell..10 * cell + 10];
        let landmarks = std::array::from_fn(|at| [(column + points[2 * at]) * step, (row + points[2 * at + 1]) * step]);
        found.push(Detection { bounds: Bounds { left, top, width, height }, landmarks, score: sure });
    }
    found
}
