//! SCRFD: what it is shown, and what its outputs mean (insightface's `scrfd_*_bnkps.onnx`, as its `SCRFD` class reads them).

use gdrd_core::face::Face;

use super::detection::Detection;
use super::geometry::Bounds;
use super::network::Output;

/// Candidates in a cell.
pub(super) const ANCHORS: usize = 2;

/// Values of a candidate in the three outputs of a grid: score, box, landmarks.
pub(super) const WIDTHS: [usize; 3] = [1, 4, 10];

/// Writes a photograph into the upper left corner of a canvas that is black elsewhere: red, green, blue, `(value - 127.5) / 128`.
pub(super) fn show(photograph: &Face, [height, width]: [usize; 2], canvas: &mut [f32]) {
    canvas.fill(-127.5 / 128.0);
    for (y, row) in photograph.pixels().chunks_exact(3 * photograph.width()).enumerate() {
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            for (plane, value) in pixel.iter().enumerate() {
                canvas[(plane * height + y) * width + x] = (f32::from(*value) - 127.5) / 128.0;
            }
        }
    }
}

/// Faces that score at least `score`, in pixels of the canvas. Of one grid: `outputs` as in [`WIDTHS`].
pub(super) fn candidates(outputs: [&Output; 3], stride: usize, columns: usize, score: f32) -> Vec<Detection> {
    let [scores, distances, points] = outputs.map(|output| output.values.as_slice());
    let step = stride as f32;
    let mut found = Vec::new();
    for (at, sure) in scores.iter().enumerate().filter(|(_, sure)| **sure >= score) {
        let cell = at / ANCHORS;
        let (x, y) = ((cell % columns) as f32 * step, (cell / columns) as f32 * step);
        // From the cell's corner to the left, upper, right and lower edge.
        let d = &distances[4 * at..4 * at + 4];
        let (left, top) = (x - d[0] * step, y - d[1] * step);
        let bounds = Bounds { left, top, width: (d[0] + d[2]) * step, height: (d[1] + d[3]) * step };
        let points = &points[10 * at..10 * at + 10];
        let landmarks = std::array::from_fn(|at| [x + points[2 * at] * step, y + points[2 * at + 1] * step]);
        found.push(Detection { bounds, landmarks, score: *sure });
    }
    found
}
