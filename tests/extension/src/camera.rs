//! A degradation: a lens that blurs, a file format that rounds, and then few pixels.

use gdrd_core::context::BuildContext;
use gdrd_core::data::{Degradation, DegradationConfig};
use gdrd_core::degrade::Downscale;
use gdrd_core::error::Result;
use gdrd_core::face::Face;
use gdrd_core::plugin::Kind;
use gdrd_core::seed::Stream;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A cheap camera: box blur, rounding of the cosine transform of 8x8 blocks as in JPEG, and reduction to a few pixels.
/// Evaluation reduces alone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Camera {
    /// Radius of the blur, in pixels of the dataset's faces.
    #[schemars(range(max = 8))]
    blur: usize,
    /// What coefficients of the cosine transform are rounded to multiples of; 0 leaves them.
    #[schemars(range(min = 0, max = 1000))]
    step: f32,
    /// Whether a face gets a random share of both, another one each time that it is shown.
    random: bool,
    /// The reduction.
    downscale: Downscale,
}

impl Default for Camera {
    fn default() -> Self {
        Self { blur: 1, step: 16.0, random: false, downscale: Downscale::default() }
    }
}

impl Kind for Camera {
    const NAME: &'static str = "camera";
    const PURPOSE: &'static str = "box blur and rounding as in JPEG before the reduction";
}

impl DegradationConfig for Camera {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Degradation>> {
        Ok(Box::new(self.clone()))
    }
}

impl Degradation for Camera {
    fn downscale(&self) -> Option<&Downscale> {
        Some(&self.downscale)
    }

    fn is_random(&self) -> bool {
        self.random
    }

    fn degrade(&self, face: &Face, random: &mut Stream) -> Result<Face> {
        let share = if self.random { random.random_range(0.0..=1.0f32) } else { 1.0 };
        let radius = (share * self.blur as f32).round() as usize;
        self.downscale.apply(&rounded(&blurred(face, radius)?, share * self.step)?)
    }
}

/// The mean over `2 radius + 1` pixels in both directions; border pixels are repeated.
fn blurred(face: &Face, radius: usize) -> Result<Face> {
    let (width, height) = (face.width(), face.height());
    let near =
        |at: usize, length: usize| (at..=at + 2 * radius).map(move |at| at.saturating_sub(radius).min(length - 1));
    let mut pixels = Vec::with_capacity(face.pixels().len());
    for (y, x, channel) in places(height, width) {
        let column = |y: usize| near(x, width).map(move |x| usize::from(face.pixels()[3 * (y * width + x) + channel]));
        let sum: usize = near(y, height).flat_map(column).sum();
        let count = (2 * radius + 1).pow(2);
        pixels.push(((sum + count / 2) / count) as u8);
    }
    Face::new(width, height, pixels)
}

/// Every value of a face, in the order of its bytes.
fn places(height: usize, width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..height * width * 3).map(move |at| (at / 3 / width, at / 3 % width, at % 3))
}

type Block = [[f32; 8]; 8];

/// The face after its 8x8 blocks' cosine transform was rounded to multiples of `step`; border pixels are repeated.
fn rounded(face: &Face, step: f32) -> Result<Face> {
    if step == 0.0 {
        return Ok(face.clone());
    }
    let (width, height) = (face.width(), face.height());
    let basis: Block = std::array::from_fn(|k| std::array::from_fn(|n| cosine(k, n)));
    let back: Block = std::array::from_fn(|n| std::array::from_fn(|k| basis[k][n]));
    let mut pixels = face.pixels().to_vec();
    for (top, left, channel) in places(height.div_ceil(8), width.div_ceil(8)).map(|(y, x, c)| (8 * y, 8 * x, c)) {
        let at = |y: usize, x: usize| 3 * ((top + y).min(height - 1) * width + (left + x).min(width - 1)) + channel;
        let block: Block = std::array::from_fn(|y| std::array::from_fn(|x| f32::from(face.pixels()[at(y, x)])));
        let coefficients = turned(&block, &basis).map(|row| row.map(|value| (value / step).round() * step));
        for (y, row) in turned(&coefficients, &back).iter().enumerate().take(height - top) {
            for (x, value) in row.iter().enumerate().take(width - left) {
                pixels[at(y, x)] = value.round().clamp(0.0, 255.0) as u8;
            }
        }
    }
    Face::new(width, height, pixels)
}

/// The orthonormal cosine transform's coefficient `k` of the value `n`.
fn cosine(k: usize, n: usize) -> f32 {
    let scale = if k == 0 { 0.125f32.sqrt() } else { 0.5 };
    scale * (std::f32::consts::PI * (2 * n + 1) as f32 * k as f32 / 16.0).cos()
}

/// `basis x basis^T`.
fn turned(x: &Block, basis: &Block) -> Block {
    let rows: Block = std::array::from_fn(|i| std::array::from_fn(|l| (0..8).map(|k| basis[i][k] * x[k][l]).sum()));
    std::array::from_fn(|i| std::array::from_fn(|j| (0..8).map(|l| rows[i][l] * basis[j][l]).sum()))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use gdrd_core::plugin::Workbench;
    use gdrd_core::seed::Seed;

    use super::*;

    fn point() -> Face {
        let mut pixels = vec![0; 3 * 20 * 20];
        pixels[3 * (10 * 20 + 10)] = 225;
        Face::new(20, 20, pixels).expect("a face")
    }

    fn camera(blur: usize, step: f32, random: bool, size: usize) -> Box<dyn Degradation> {
        let downscale = Downscale { size, ..Downscale::default() };
        let bench = Workbench::new(Device::Cpu);
        Camera { blur, step, random, downscale }.build(&BuildContext::new(&bench)).expect("a camera")
    }

    #[test]
    fn each_part_by_hand() {
        let shown = |camera: Box<dyn Degradation>| {
            camera.degrade(&point(), &mut Seed(7).stream("test", &[])).expect("a small face")
        };
        assert_eq!(shown(camera(0, 0.0, false, 20)), point(), "nothing is done");
        let wide = shown(camera(1, 0.0, false, 20));
        let lit: Vec<u8> = wide.pixels().iter().copied().filter(|value| *value > 0).collect();
        assert_eq!(lit, [25; 9], "a point becomes nine");
        let coarse = shown(camera(0, 1000.0, false, 20));
        assert!(coarse.pixels().iter().all(|value| *value == 0), "small coefficients are rounded away");
        let fine = shown(camera(0, 0.5, false, 20));
        let gap = fine.pixels().iter().zip(point().pixels()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(gap <= Some(2), "small steps change little: {gap:?}");
        assert_eq!(shown(camera(1, 8.0, false, 8)).width(), 8);
    }

    #[test]
    fn chance_is_drawn_from_the_stream_alone() {
        let camera = camera(3, 40.0, true, 10);
        let shown = |n: u64| camera.degrade(&point(), &mut Seed(7).stream("test", &[n])).expect("a small face");
        assert!(camera.is_random() && (1..9).any(|n| shown(n) != shown(0)));
        assert_eq!(shown(3), shown(3));
    }
}
