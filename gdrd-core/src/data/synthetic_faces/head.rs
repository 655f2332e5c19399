//! The head as a solid: an ellipse at each height, turned by the pose, seen from the front.
//!
//! At height `y` the head's cross-section is the ellipse `(x / W)² + (z / D)² = 1`, with `x` to the
//! right, `y` down, `z` towards the viewer, in template pixels. Turned by the yaw it is
//! still an ellipse, so the visible surface point of a picture point has a closed form. The pitch
//! moves `y` by an amount that depends on the depth found: one step from a guess settles it.

use super::identity::Identity;
use super::nuisance::Pose;
use super::shape::{greater, lerp, lesser, smooth};

/// The height of the first slice, slices per template pixel, and their number.
const TOP: f32 = -84.0;
const PER_PIXEL: f32 = 2.0;
const SLICES: usize = 288;

/// At this distance from a solid its exact outline does not matter.
const FAR: f32 = 14.0;
/// And at this distance from its outline the surface is smooth.
const SMOOTH: f32 = 5.0;

/// The template: eyes, nose tip, mouth corners, relative to the picture point (56, 62) of 112.
pub(super) const TEMPLATE: [(f32, f32); 5] = [(-17.7, -10.3), (17.5, -10.5), (0.0, 9.7), (-14.5, 30.4), (14.7, 30.2)];

/// Half widths and half depths of a solid, one of each per slice.
pub(super) struct Slices(Vec<(f32, f32)>);

impl Slices {
    fn new(shape: impl Fn(f32) -> (f32, f32)) -> Self {
        Self((0..=SLICES).map(|row| shape(TOP + row as f32 / PER_PIXEL)).collect())
    }

    /// Half width and half depth at height `y`.
    fn at(&self, y: f32) -> (f32, f32) {
        let (row, t) = place(y);
        let (here, next) = (self.0[row], self.0[row + 1]);
        (lerp(here.0, next.0, t), lerp(here.1, next.1, t))
    }

    /// Half the width at height `y`.
    pub(super) fn width(&self, y: f32) -> f32 {
        self.at(y).0
    }

    /// The depth of the front surface at a point.
    pub(super) fn depth(&self, x: f32, y: f32) -> f32 {
        let (w, d) = self.at(y);
        d * (1.0 - (x / w.max(1.0)).powi(2)).max(0.0).sqrt()
    }

    /// The solid as a view sees it.
    pub(super) fn turned(&self, view: &View) -> TurnedSolid {
        let (sin, cos) = (view.sin_yaw, view.cos_yaw);
        let rows = self.0.windows(2).map(|pair| {
            let ((w, d), (next_w, next_d)) = (pair[0], pair[1]);
            let (dw, dd) = ((next_w - w) * PER_PIXEL, (next_d - d) * PER_PIXEL);
            let (w, d) = (w.max(0.05), d.max(0.05));
            let squared = (w * cos).powi(2) + (d * sin).powi(2);
            let reach = squared.sqrt();
            let slope = (w * cos * cos * dw + d * sin * sin * dd) / reach;
            Row {
                reach,
                depth: [(d * d - w * w) * sin * cos / squared, w * d / squared],
                x: [w * w * cos / squared, -w * d * sin / squared],
                z: [d * d * sin / squared, w * d * cos / squared],
                width: w,
                over_width: 1.0 / w,
                over_depth: 1.0 / d,
                bend: [dw / w, dd / d],
                lean: 1.0 / (1.0 + slope * slope).sqrt(),
            }
        });
        TurnedSolid(rows.collect())
    }
}

/// The row of a height, and how far it is on the way to the next.
#[inline]
fn place(y: f32) -> (usize, f32) {
    let place = ((y - TOP) * PER_PIXEL).clamp(0.0, (SLICES - 1) as f32);
    // By way of `i32`, for which processors have an instruction.
    let row = place as i32 as usize;
    (row, place - row as f32)
}

/// One cross-section, turned by the yaw: what the visible point at distance `a` from the middle
/// is computed from. With `b² = reach² - a²`, a pair `[p, q]` stands for `p a + q b`.
struct Row {
    /// Half the width that is seen.
    reach: f32,
    /// Towards the viewer, after the turn.
    depth: [f32; 2],
    /// To the right on the head.
    x: [f32; 2],
    /// To the front of the head.
    z: [f32; 2],
    /// Half width on the head.
    width: f32,
    over_width: f32,
    over_depth: f32,
    /// Relative change of half width and half depth with the height.
    bend: [f32; 2],
    /// Cosine of the outline's slope.
    lean: f32,
}

/// A solid turned by a view's yaw.
pub(super) struct TurnedSolid(Vec<Row>);

/// A surface point that is seen at a picture point.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// On the head, to the right, before it turned.
    pub(super) x: f32,
    /// On the head, down, before it turned.
    pub(super) y: f32,
    /// Half the head's width at that height.
    pub(super) width: f32,
    /// Distance to the outline in the picture; negative inside.
    pub(super) edge: f32,
    /// The surface's normal, before the head turned; not of unit length.
    pub(super) normal: [f32; 3],
}

impl Seen {
    /// Nothing is seen: far outside of the outline.
    pub(super) const BESIDE: Self = Self { x: 0.0, y: 0.0, width: 1.0, edge: 1e6, normal: [0.0, 0.0, 1.0] };

    #[inline]
    fn midway(&self, other: &Self) -> Self {
        let half = |a: f32, b: f32| 0.5 * (a + b);
        Self {
            x: half(self.x, other.x),
            y: half(self.y, other.y),
            width: half(self.width, other.width),
            edge: half(self.edge, other.edge),
            normal: std::array::from_fn(|axis| half(self.normal[axis], other.normal[axis])),
        }
    }
}

/// A pose, ready to use: the turn of the head, and the alignment of the picture.
pub(super) struct View {
    pub(super) sin_yaw: f32,
    pub(super) cos_yaw: f32,
    pub(super) sin_pitch: f32,
    pub(super) cos_pitch: f32,
    /// Picture point to head plane: `x' = a x - b y + tx`, `y' = b x + a y + ty`.
    align: [f32; 4],
}

impl View {
    /// The pose, aligned such that the five turned `landmarks` (x, y, z) lie on the template as
    /// well as turn, size and shift can bring them there (least squares), and then moved by what
    /// the pose says about misalignment.
    pub(super) fn new(pose: &Pose, landmarks: &[[f32; 3]; 5]) -> Self {
        let (sin_yaw, cos_yaw) = pose.yaw.sin_cos();
        let (sin_pitch, cos_pitch) = pose.pitch.sin_cos();
        let mut view = Self { sin_yaw, cos_yaw, sin_pitch, cos_pitch, align: [1.0, 0.0, 0.0, 0.0] };
        let seen = landmarks.map(|at| view.turned(at));
        let (roll_sin, roll_cos) = pose.roll.sin_cos();
        let wanted = TEMPLATE.map(|(x, y)| {
            let (x, y) = (x * pose.scale, y * pose.scale);
            (roll_cos * x - roll_sin * y + pose.shift[0], roll_sin * x + roll_cos * y + pose.shift[1])
        });
        // Least squares from the picture to the head plane: wanted -> seen.
        let mean = |points: &[(f32, f32); 5]| {
            points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / 5.0, sum.1 + point.1 / 5.0))
        };
        let (from, to) = (mean(&wanted), mean(&seen));
        let (mut dot, mut cross, mut square) = (0.0, 0.0, 0.0);
        for (&(wx, wy), &(sx, sy)) in wanted.iter().zip(&seen) {
            let (wx, wy, sx, sy) = (wx - from.0, wy - from.1, sx - to.0, sy - to.1);
            dot += wx * sx + wy * sy;
            cross += wx * sy - wy * sx;
            square += wx * wx + wy * wy;
        }
        let (a, b) = (dot / square, cross / square);
        view.align = [a, b, to.0 - a * from.0 + b * from.1, to.1 - b * from.0 - a * from.1];
        view
    }

    /// Where a point of the head lies in the head plane after the turn.
    pub(super) fn turned(&self, [x, y, z]: [f32; 3]) -> (f32, f32) {
        let depth = z * self.cos_yaw - x * self.sin_yaw;
        (x * self.cos_yaw + z * self.sin_yaw, y * self.cos_pitch + depth * self.sin_pitch)
    }

    /// From the picture (relative to the point (56, 62) of 112) to the head plane.
    #[inline]
    pub(super) fn plane(&self, x: f32, y: f32) -> (f32, f32) {
        let [a, b, tx, ty] = self.align;
        (a * x - b * y + tx, b * x + a * y + ty)
    }

    /// Lengths in the head plane over lengths in the picture.
    pub(super) fn zoom(&self) -> f32 {
        (self.align[0].powi(2) + self.align[1].powi(2)).sqrt()
    }

    /// A direction on the head, turned with it.
    #[inline]
    pub(super) fn rotate(&self, [x, y, z]: [f32; 3]) -> [f32; 3] {
        let across = x * self.cos_yaw + z * self.sin_yaw;
        let depth = z * self.cos_yaw - x * self.sin_yaw;
        [across, y * self.cos_pitch + depth * self.sin_pitch, depth * self.cos_pitch - y * self.sin_pitch]
    }

    /// The point of a flat thing at depth `z` in front of the head's middle.
    #[inline]
    pub(super) fn on_plane(&self, px: f32, py: f32, z: f32) -> (f32, f32) {
        let x = (px - z * self.sin_yaw) / self.cos_yaw;
        let depth = z * self.cos_yaw - x * self.sin_yaw;
        (x, (py - depth * self.sin_pitch) / self.cos_pitch)
    }

    /// What is seen of a solid at a row of points of the head plane, for those that are `wanted`;
    /// the others get what is seen beside a solid. Away from the outline the surface is so smooth
    /// that every second point can be the middle between its neighbours.
    pub(super) fn look_along(
        &self,
        solid: &TurnedSolid,
        points: &[(f32, f32)],
        wanted: impl Fn(usize) -> bool,
        out: &mut [Seen],
    ) {
        let look = |at: usize| if wanted(at) { self.look(solid, points[at].0, points[at].1) } else { Seen::BESIDE };
        for at in (0..points.len()).step_by(2) {
            out[at] = look(at);
        }
        for at in (1..points.len()).step_by(2) {
            let left = out[at - 1];
            let right = out.get(at + 1).copied().unwrap_or(Seen::BESIDE);
            let inside = greater(left.edge, right.edge) < -SMOOTH;
            let outside = lesser(left.edge, right.edge) > SMOOTH;
            out[at] = if inside || outside { left.midway(&right) } else { look(at) };
        }
    }

    /// The surface point of a solid that is seen at a point of the head plane.
    #[inline(always)]
    pub(super) fn look(&self, solid: &TurnedSolid, px: f32, py: f32) -> Seen {
        let over_cos = 1.0 / self.cos_pitch;
        let mut y = py * over_cos;
        if self.sin_pitch != 0.0 {
            // How deep the surface lies says how far the pitch moved it: a guess, then one step from there.
            let (across, down) = (px * (1.0 / 46.0), py * (1.0 / 58.0));
            let guess = 40.0 * greater(1.0 - across * across, 0.0) * greater(1.0 - down * down, 0.0);
            let row = &solid.0[place((py - guess * self.sin_pitch) * over_cos).0];
            let inside = greater(lesser(px, row.reach), -row.reach);
            if px.abs() > row.reach + FAR {
                return Seen { x: inside, y, width: row.width, edge: px.abs() - row.reach, normal: [0.0, 0.0, 1.0] };
            }
            let root = (row.reach * row.reach - inside * inside).sqrt();
            y = (py - (row.depth[0] * inside + row.depth[1] * root) * self.sin_pitch) * over_cos;
        }
        let (at, t) = place(y);
        let (row, next) = (&solid.0[at], &solid.0[(at + 1).min(SLICES - 1)]);
        let reach = lerp(row.reach, next.reach, t);
        let inside = greater(lesser(px, reach), -reach);
        let root = (reach * reach - inside * inside).sqrt();
        let x = lerp(row.x[0], next.x[0], t) * inside + lerp(row.x[1], next.x[1], t) * root;
        let z = row.z[0] * inside + row.z[1] * root;
        let (u, v) = (x * row.over_width, z * row.over_depth);
        let normal = [u * row.over_width, -(u * u * row.bend[0] + v * v * row.bend[1]), v * row.over_depth];
        Seen { x, y, width: row.width, edge: (px.abs() - reach) * row.lean, normal }
    }
}

/// The head's outline: crown, temples, cheekbones, jaw, chin. The mouth's opening lowers the chin.
fn outline(identity: &Identity, chin_drop: f32) -> impl Fn(f32) -> (f32, f32) {
    let head = identity.head.clone();
    let chin = head.chin_y + chin_drop;
    move |y: f32| {
        let temple = head.temple;
        let side =
            if y < 0.0 { lerp(temple, 1.0, smooth(-38.0, -2.0, y)) } else { lerp(1.0, head.jaw, smooth(2.0, 34.0, y)) };
        let down = ((y - 8.0) / (chin - 8.0)).clamp(0.0, 1.0);
        let up = ((-22.0 - y) / 50.0).clamp(0.0, 1.0);
        let cap = (1.0 - down.powf(head.chin_square)).max(0.0).sqrt() * (1.0 - up * up).max(0.0).sqrt();
        (head.cheek_width * side * cap, head.cheek_width * head.depth * cap.sqrt())
    }
}

/// The head without hair.
pub(super) fn skull(identity: &Identity, chin_drop: f32) -> Slices {
    Slices::new(outline(identity, chin_drop))
}

/// The head with hair that stands off by `volume`, wider towards the ends by `flare`.
pub(super) fn hair_shell(identity: &Identity, volume: f32, flare: f32) -> Slices {
    let shape = outline(identity, 0.0);
    Slices::new(move |y| {
        let (width, depth) = shape((y + volume * smooth(-20.0, -50.0, y)).min(4.0));
        let (grow, low) = (if width > 0.0 { volume } else { 0.0 }, smooth(0.0, 50.0, y) * flare);
        (width + grow * 0.8 + low, depth + grow * 0.6 + low)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic_faces::Nuisance;

    #[test]
    fn looking_finds_the_point_that_was_turned() {
        let identity = Identity::from_seed(3);
        let solid = skull(&identity, 0.0);
        let pose = Pose { yaw: 0.3, pitch: -0.15, ..Nuisance::neutral().pose };
        let view = View::new(&pose, &TEMPLATE.map(|(x, y)| [x, y, 30.0]));
        let turned = solid.turned(&view);
        for (x, y) in [(0.0, 0.0), (17.0, -10.0), (-15.0, 30.0), (10.0, -30.0)] {
            let (px, py) = view.turned([x, y, solid.depth(x, y)]);
            let seen = view.look(&turned, px, py);
            assert!((seen.x - x).abs() < 0.3 && (seen.y - y).abs() < 0.3, "{x},{y} -> {},{}", seen.x, seen.y);
            assert!(seen.edge < 0.0);
        }
    }

    #[test]
    fn aligned_landmarks_lie_on_the_template() {
        let pose = Nuisance::neutral().pose;
        // A face that is larger and off the middle comes back to the template.
        let view = View::new(&pose, &TEMPLATE.map(|(x, y)| [1.2 * x + 3.0, 1.2 * y - 5.0, 0.0]));
        for (x, y) in TEMPLATE {
            let (px, py) = view.plane(x, y);
            assert!((px - (1.2 * x + 3.0)).abs() < 1e-3 && (py - (1.2 * y - 5.0)).abs() < 1e-3);
        }
        assert!((view.zoom() - 1.2).abs() < 1e-4);
    }
}
