//! From a person and circumstances to pixels: one pass, each pixel on its own.

use super::hair::HairPaint;
use super::head::{Seen, TurnedSolid, View, hair_shell, skull};
use super::identity::Identity;
use super::nuisance::{Background, Camera, Light, Nuisance};
use super::relief::Relief;
use super::shape::{Noise, Rgb, cover, ellipse, greater, lerp, mix, scale, scramble, smooth, tint};
use super::skin::SkinPaint;
use super::worn::{GlassesPaint, scarf};
use crate::face::{Face, Kernel};

/// Below this size faces are drawn larger and averaged: details would be thinner than a pixel.
const SMALLEST_DRAWN: usize = 56;

/// The picture of a person under these circumstances, `size`x`size` pixels.
///
/// The picture is aligned as recognisers expect it: at 112 pixels the eyes lie near (38.3, 51.7)
/// and (73.5, 51.5), the nose tip near (56, 71.7), the mouth's corners near (41.5, 92.4) and
/// (70.7, 92.2), as well as a turn, a size and a shift can bring this face there; what the pose
/// says about misalignment comes on top. The same arguments give the same bytes.
///
/// # Panics
/// If `size` is zero.
pub fn draw(identity: &Identity, nuisance: &Nuisance, size: usize) -> Face {
    assert!(size > 0, "a face needs at least one pixel");
    let factor = SMALLEST_DRAWN.div_ceil(size).max(1);
    let drawn = Scene::new(identity, nuisance).draw(size * factor);
    if factor == 1 {
        return drawn;
    }
    drawn.resized(size, Kernel::Box, true).expect("a whole number of pixels is averaged")
}

/// A point of the picture, relative to (56, 62) of 112, and in the head plane.
struct At {
    x: f32,
    y: f32,
    px: f32,
    py: f32,
}

/// Everything that is the same for all pixels of a picture.
struct Scene<'a> {
    view: View,
    solid: TurnedSolid,
    shell: TurnedSolid,
    relief: Relief,
    skin: SkinPaint,
    hair: HairPaint,
    glasses: Option<GlassesPaint>,
    lamp: Lamp,
    noise: Noise,
    /// Middle and radii of the ears in the head plane: left, right.
    ears: [(f32, f32); 2],
    ear_radii: (f32, f32),
    /// Half the width of the neck.
    neck: f32,
    identity: &'a Identity,
    nuisance: &'a Nuisance,
}

impl<'a> Scene<'a> {
    fn new(identity: &'a Identity, nuisance: &'a Nuisance) -> Self {
        let Identity { head, eyes, nose, mouth, .. } = identity;
        let solid = skull(identity, 5.0 * nuisance.expression.mouth_open);
        let relief = Relief::new(identity, &nuisance.expression);
        let on_face = |x: f32, y: f32| [x, y, solid.depth(x, y) + relief.nose(x, y)];
        let landmarks = [
            on_face(-eyes.spacing, eyes.y),
            on_face(eyes.spacing, eyes.y),
            on_face(0.0, nose.tip_y),
            on_face(-mouth.half_width, mouth.y),
            on_face(mouth.half_width, mouth.y),
        ];
        let view = View::new(&nuisance.pose, &landmarks);
        let (volume, flare) = HairPaint::volume(identity, nuisance);
        let ear_x = solid.width(2.0) + 0.5 + head.ear_off * 0.5;
        let depth = solid.depth(0.0, eyes.y) + 2.0;
        Self {
            shell: hair_shell(identity, volume, flare).turned(&view),
            skin: SkinPaint::new(identity, &nuisance.expression),
            hair: HairPaint::new(identity, nuisance),
            glasses: nuisance.glasses.as_ref().map(|worn| GlassesPaint::new(worn, eyes.spacing, eyes.y, depth)),
            lamp: Lamp::new(&nuisance.light),
            noise: Noise::new(),
            ears: [-ear_x, ear_x].map(|x| view.turned([x, 1.0, -2.0])),
            ear_radii: (3.2 * head.ear_size + 0.5 * head.ear_off, 10.0 * head.ear_size),
            neck: head.cheek_width * lerp(0.5, 0.82, head.jaw),
            solid: solid.turned(&view),
            view,
            relief,
            identity,
            nuisance,
        }
    }

    fn draw(&self, size: usize) -> Face {
        let step = 112.0 / size as f32;
        let pixel = step * self.view.zoom();
        let exposure = Exposure::new(&self.nuisance.camera, &self.nuisance.light);
        let mut pixels = vec![0; 3 * size * size];
        let hair_end = self.hair.end() + 60.0 * self.view.sin_pitch.abs();
        let mut points = vec![(0.0, 0.0); size];
        let (mut heads, mut shells) = (vec![Seen::BESIDE; size], vec![Seen::BESIDE; size]);
        let mut colours = [vec![0.0; size], vec![0.0; size], vec![0.0; size]];
        for (row, line) in pixels.chunks_exact_mut(3 * size).enumerate() {
            let y = (row as f32 + 0.5) * step - 62.0;
            let x = |column: usize| (column as f32 + 0.5) * step - 56.0;
            for (column, point) in points.iter_mut().enumerate() {
                *point = self.view.plane(x(column), y);
            }
            self.view.look_along(&self.solid, &points, |_| true, &mut heads);
            // The middle of the face is always free of hair, and so is what lies below its end.
            let haired = |column: usize| {
                let head: &Seen = &heads[column];
                let middle = head.edge < -6.0 && head.x.abs() < 0.5 * head.width && head.y > -12.0;
                !middle && points[column].1 < hair_end
            };
            self.view.look_along(&self.shell, &points, haired, &mut shells);
            for column in 0..size {
                let at = At { x: x(column), y, px: points[column].0, py: points[column].1 };
                let colour = self.colour(&at, &heads[column], &shells[column], pixel);
                (0..3).for_each(|channel| colours[channel][column] = colour[channel]);
            }
            exposure.expose(&colours, row as u32, line);
        }
        Face::new(size, size, pixels).expect("three bytes for each pixel")
    }

    /// The light that comes from a point where `head` and the `shell` of hair are seen.
    #[inline]
    fn colour(&self, at: &At, head: &Seen, shell: &Seen, pixel: f32) -> Rgb {
        let At { px, py, .. } = *at;
        let (hair, hair_alpha) = self.hair.at(shell, pixel);
        let inside = cover(head.edge, pixel);
        let mut colour = [0.0; 3];
        if inside.max(hair_alpha) < 1.0 {
            colour = self.behind(at, shell.edge, pixel);
        }
        if inside > 0.0 && hair_alpha < 1.0 {
            colour = mix(colour, self.skin_at(head, pixel), inside);
            // Hair and cap throw a shadow on the skin below them.
            colour = scale(colour, 1.0 - 0.3 * hair_alpha);
        }
        if hair_alpha > 0.0 {
            let normal = self.view.rotate(shell.normal);
            colour = mix(colour, self.lamp.lit(hair, normal, 0.1), hair_alpha);
        }
        if let Some(worn) = &self.nuisance.scarf {
            let (cloth, alpha) = scarf(worn, head, px, py, pixel, self.noise);
            if alpha > 0.0 {
                let normal = if head.edge < 2.0 { self.view.rotate(head.normal) } else { [0.0, -0.3, 0.95] };
                colour = mix(colour, self.lamp.lit(cloth, normal, 0.0), alpha);
            }
        }
        if let Some(glasses) = &self.glasses {
            colour = glasses.paint(&self.view, px, py, head.edge, pixel, colour);
        }
        colour
    }

    #[inline]
    fn skin_at(&self, head: &Seen, pixel: f32) -> Rgb {
        let (shift_x, shift_y) =
            (self.view.sin_yaw / self.view.cos_yaw, self.view.cos_yaw * self.view.sin_pitch / self.view.cos_pitch);
        let (x, y) = self.relief.behind(head.x, head.y, shift_x, shift_y);
        let albedo = self.skin.at(x, y, head.width, pixel);
        let (right, down) = self.relief.slopes(x, y);
        let [nx, ny, nz] = head.normal;
        let normal = self.view.rotate([nx - right * nz, ny - down * nz, nz]);
        self.lamp.lit(albedo, normal, self.nuisance.light.shine)
    }

    /// What is behind the head: background, clothes, neck, ears, long hair.
    fn behind(&self, at: &At, hair_edge: f32, pixel: f32) -> Rgb {
        let At { x, y, px, py } = *at;
        let mut colour = backdrop(&self.nuisance.background, x, y, self.noise);
        let skin = self.identity.head.skin;
        // The hair's far side, which shows between its near side and a turned face.
        let far = cover(hair_edge, pixel.max(1.2)) * self.hair.behind(py);
        if far > 0.0 {
            let strands = self.lamp.lit(scale(self.hair.strands(px, py), 0.55), [0.0, 0.0, 1.0], 0.0);
            colour = mix(colour, strands, far);
        }
        if py > 10.0 {
            let neck = cover(px.abs() - self.neck - (py - 44.0).max(0.0) * 0.3, pixel);
            let round = (px / self.neck).clamp(-0.95, 0.95);
            let normal = [round, 0.25, (1.0 - round * round).sqrt()];
            let shade = lerp(0.75, 0.4, smooth(56.0, 40.0, py));
            colour = mix(colour, self.lamp.lit(scale(skin, shade), normal, 0.0), neck);
            let collar = 62.0 - 0.42 * px.abs() + 0.006 * px * px;
            let clothes = self.lamp.lit(self.nuisance.background.clothes, [0.2 * round, -0.4, 0.9], 0.0);
            colour = mix(colour, clothes, cover(collar - py, pixel));
        }
        if self.hair.hides_ears() {
            return colour;
        }
        for (side, (ex, ey)) in [-1.0, 1.0].into_iter().zip(self.ears) {
            let (rx, ry) = self.ear_radii;
            let (dx, dy) = (px - ex, py - ey);
            if dx.abs() > rx + 2.0 || dy.abs() > ry + 2.0 {
                continue;
            }
            let leaned = dx - side * 0.12 * -dy;
            let alpha = cover(ellipse(leaned, dy, rx, ry), pixel);
            let hollow = smooth(0.6, -0.8, ellipse(leaned + side, dy - 0.5, rx * 0.6, ry * 0.6));
            let tone = tint(skin, mix([0.92, 0.8, 0.78], [0.5, 0.36, 0.34], hollow * 0.8));
            colour = mix(colour, self.lamp.lit(tone, [0.5 * side, 0.0, 0.85], 0.0), alpha);
        }
        colour
    }
}

/// The background's colour at a picture point.
#[inline]
fn backdrop(background: &Background, x: f32, y: f32, noise: Noise) -> Rgb {
    let (offset_x, offset_y) = ((background.texture % 64) as f32, (background.texture / 64 % 64) as f32);
    let (x, y) = (x / background.grain, y / background.grain);
    let value = noise.at(x + offset_x, y + offset_y) + 0.4 * noise.at(2.3 * x + offset_y, 2.3 * y);
    let width = lerp(1.0, 0.05, background.sharpness);
    mix(background.colours[0], background.colours[1], smooth(-width, width, value))
}

/// The light, ready to use.
struct Lamp {
    /// Towards the light: right, down, to the viewer.
    direction: [f32; 3],
    /// Half way between light and viewer.
    half_way: [f32; 3],
    colour: Rgb,
    ambient: Rgb,
}

impl Lamp {
    fn new(light: &Light) -> Self {
        let (side, front) = light.azimuth.sin_cos();
        let (up, level) = light.elevation.sin_cos();
        let direction = [side * level, -up, front * level];
        let half_way = [direction[0], direction[1], direction[2] + 1.0];
        let length = half_way.iter().map(|part| part * part).sum::<f32>().sqrt().max(1e-3);
        let warm = |by: f32| [1.0 + 0.22 * by, 1.0, 1.0 - 0.26 * by];
        Self {
            direction,
            half_way: half_way.map(|part| part / length),
            colour: scale(warm(light.warmth), light.strength),
            ambient: scale(warm(-0.3 * light.warmth), light.ambient),
        }
    }

    /// The light a surface sends to the viewer; `normal` need not have unit length.
    #[inline]
    fn lit(&self, albedo: Rgb, normal: [f32; 3], shine: f32) -> Rgb {
        let [x, y, z] = normal;
        let inverse = 1.0 / (x * x + y * y + z * z + 1e-12).sqrt();
        let along = |d: &[f32; 3]| (x * d[0] + y * d[1] + z * d[2]) * inverse;
        // Skin scatters: the light reaches a little around the edge.
        let direct = greater((along(&self.direction) + 0.22) * (1.0 / 1.22), 0.0);
        // From everywhere, but more from above, and less where the surface faces away.
        let everywhere = (0.8 - 0.2 * y * inverse) * (0.72 + 0.28 * z * inverse);
        let mirror = greater(along(&self.half_way), 0.0);
        let mirror = mirror * mirror;
        let mirror = mirror * mirror;
        let glint = shine * (mirror * mirror) * (mirror * mirror);
        std::array::from_fn(|c| {
            albedo[c] * (self.colour[c] * direct + self.ambient[c] * everywhere) + self.colour[c] * glint
        })
    }
}

/// From light to bytes.
struct Exposure {
    gain: f32,
    saturation: f32,
    contrast: f32,
    noise: f32,
    seed: u32,
}

impl Exposure {
    fn new(camera: &Camera, light: &Light) -> Self {
        // As an automatic exposure would, undo most of the light's strength.
        let level = light.ambient + 0.7 * light.strength;
        Self {
            gain: camera.gain * level.max(0.1).powf(-0.7),
            saturation: camera.saturation,
            contrast: camera.contrast,
            noise: camera.noise / 104.1,
            seed: scramble(camera.seed),
        }
    }

    /// The bytes of one row, whose channels are given one by one.
    fn expose(&self, colours: &[Vec<f32>; 3], row: u32, out: &mut [u8]) {
        let [red, green, blue] = colours;
        for (channel, colour) in colours.iter().enumerate() {
            let first = self.seed ^ scramble(3 * row + channel as u32);
            let tone = |at: usize| {
                let grey = 0.3 * red[at] + 0.59 * green[at] + 0.11 * blue[at];
                let light = greater((grey + (colour[at] - grey) * self.saturation) * self.gain, 0.0);
                // Bright parts bend towards white instead of being cut off.
                let bent = 1.0 - 0.09 / (greater(light, 0.7) - 0.4);
                let light = if light > 0.7 { bent } else { light };
                // The sum of two bytes is spread like a triangle, with deviation 104.1.
                let bits = scramble(first.wrapping_add(at as u32));
                let grain = ((bits & 255) + (bits >> 8 & 255)) as i32 as f32 - 255.0;
                255.0 * ((light.sqrt() - 0.5) * self.contrast + 0.5) + grain * self.noise
            };
            for (at, pixel) in out.chunks_exact_mut(3).enumerate() {
                pixel[channel] = (tone(at) + 0.5).clamp(0.0, 255.0) as i32 as u8;
            }
        }
    }
}
