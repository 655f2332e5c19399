use super::super::pixels;
use super::super::testing::{flat, random, with_threads};
use super::*;

/// The units of this machine.
fn units() -> Vec<ByteUnit> {
    #[cfg(target_arch = "x86_64")]
    let all = [ByteUnit::Portable, ByteUnit::Avx2, ByteUnit::AvxVnni, ByteUnit::Avx512Vnni];
    #[cfg(not(target_arch = "x86_64"))]
    let all = [ByteUnit::Portable];
    all.into_iter().filter(|unit| unit.is_here()).collect()
}

/// Maps `[images, channels, plane]` with channels side by side.
fn side_by_side(maps: &[f32], images: usize, channels: usize, plane: usize) -> Vec<f32> {
    let mut to = vec![f32::NAN; pixels::len(images, channels, plane)];
    pixels::from_maps(maps, channels, plane, &mut to);
    to
}

/// Whole numbers of at most `most` and what one of them stands for.
fn rounded(values: &[f32], most: f32) -> (Vec<f64>, f64) {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let (scale, factor) = if largest == 0.0 { (0.0, 0.0) } else { (largest / most, most / largest) };
    (values.iter().map(|value| f64::from((factor * value).round_ties_even())).collect(), f64::from(scale))
}

/// By the definition, in float64, of an image and one output's kernel: at each pixel the sum, and what it stands for.
fn defined(shape: &ConvShape, image: &[f32], kernel: &[f32]) -> Vec<f64> {
    let most = if image.iter().any(|value| *value < 0.0) { 127.0 } else { 255.0 };
    let ((x, x_scale), (w, w_scale)) = (rounded(image, most), rounded(kernel, 127.0));
    let mut sums = Vec::new();
    for y in 0..shape.out_height() {
        for column in 0..shape.out_width() {
            let mut sum = 0.0;
            for (at, weight) in w.iter().enumerate() {
                let (channel, tap) = (at / shape.taps(), at % shape.taps());
                let line = (y * shape.stride + tap / shape.kernel_w).wrapping_sub(shape.padding);
                let column = (column * shape.stride + tap % shape.kernel_w).wrapping_sub(shape.padding);
                if line < shape.height && column < shape.width {
                    sum += weight * x[(channel * shape.height + line) * shape.width + column];
                }
            }
            sums.push(sum * x_scale * w_scale);
        }
    }
    sums
}

#[test]
fn sums_are_exact_and_the_same_on_every_unit() {
    for (x, w, stride, padding) in [
        ((3, 17, 8, 8), (19, 17, 3, 3), 1, 1),
        ((2, 19, 9, 7), (40, 19, 3, 3), 2, 1),
        ((2, 40, 7, 7), (33, 40, 1, 1), 1, 0),
        ((3, 12, 4, 4), (70, 12, 4, 4), 1, 0),
        ((1, 64, 16, 16), (64, 64, 3, 3), 1, 1),
    ] {
        let shape = ConvShape::new(x, w, stride, padding, 1).expect("sizes");
        assert!(applies(&shape));
        let (mut maps, weight) = (flat(&random(x, 1).expect("x")), flat(&random(w, 2).expect("weight")));
        let image = shape.inputs * shape.plane();
        // The second image has no negative value, the third no value at all.
        maps.iter_mut().skip(image).take(image).for_each(|value| *value = value.abs());
        maps.iter_mut().skip(2 * image).for_each(|value| *value = 0.0);
        let from = side_by_side(&maps, shape.batch, shape.inputs, shape.plane());
        let [scale, shift] = [3, 4].map(|seed| filled_up(flat(&random(shape.outputs, seed).expect("values"))));
        let epilogue = Epilogue { scale_shift: Some((&scale, &shift)), ..Epilogue::default() };
        let found = |unit: ByteUnit, shape: &ConvShape, from: &[f32]| {
            let kernels = ByteKernels::pack(unit, shape, &weight);
            let mut out = vec![f32::NAN; pixels::len(shape.batch, shape.outputs, shape.out_plane())];
            forward(shape, from, &kernels, epilogue, &mut out);
            let mut maps = vec![0f32; shape.batch * shape.outputs * shape.out_plane()];
            pixels::to_maps(&out, shape.outputs, shape.out_plane(), &mut maps);
            maps
        };
        let all = found(ByteUnit::Portable, &shape, &from);
        for (at, plane) in all.chunks_exact(shape.out_plane()).enumerate() {
            let (number, output) = (at / shape.outputs, at % shape.outputs);
            let kernel = &weight[output * shape.inputs * shape.taps()..][..shape.inputs * shape.taps()];
            let expected = defined(&shape, &maps[number * image..][..image], kernel);
            for (found, expected) in plane.iter().zip(expected) {
                let expected = f64::from(scale[output]) * expected + f64::from(shift[output]);
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 1e-5 * (1.0 + expected.abs()), "{shape:?}: {found} for {expected}");
            }
        }
        for unit in units() {
            for threads in [1, 3] {
                assert!(with_threads(threads, || found(unit, &shape, &from)) == all, "{unit:?}, {threads} threads");
            }
            // An image's result does not depend on those beside it.
            let one = ConvShape { batch: 1, ..shape };
            let alone = found(unit, &one, &from[..pixels::len(1, shape.inputs, shape.plane())]);
            assert!(alone == all[..alone.len()], "{unit:?}");
        }
    }
}

#[test]
fn kernels_are_what_they_were_rounded_to_however_often() {
    let shape = ConvShape::new((1, 18, 5, 5), (21, 18, 3, 3), 1, 1, 1).expect("sizes");
    let mut weight = flat(&random((21, 18, 3, 3), 5).expect("weight"));
    weight[..18 * 9].fill(0.0);
    let expected: Vec<f32> = weight
        .chunks_exact(18 * 9)
        .flat_map(|kernel| {
            let (whole, scale) = rounded(kernel, 127.0);
            whole.into_iter().map(move |value| (value * scale) as f32)
        })
        .collect();
    for unit in units() {
        let once = ByteKernels::pack(unit, &shape, &weight).unpack(&shape);
        assert!(once.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()));
        let twice = ByteKernels::pack(unit, &shape, &once);
        assert!(twice.unpack(&shape).iter().zip(&once).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()));
        assert_eq!(twice.less[1], ByteKernels::pack(unit, &shape, &weight).less[1]);
    }
}

#[test]
fn few_channels_groups_and_long_sums_stay_as_they_are() {
    let shape = ConvShape::new((1, 16, 8, 8), (16, 16, 3, 3), 1, 1, 1).expect("sizes");
    assert!(applies(&shape));
    assert!(!applies(&ConvShape { inputs: 3, ..shape }) && !applies(&ConvShape { outputs: 3, ..shape }));
    assert!(!applies(&ConvShape { groups: 16, ..shape }));
    assert!(!applies(&ConvShape { inputs: 1 << 13, ..shape }));
    // The largest sums of products there are fit.
    let deepest = ConvShape::linear((1, DEPTH), (16, DEPTH)).expect("sizes");
    let (x, weight) = (vec![1.0; DEPTH], vec![1.0; 16 * DEPTH]);
    for unit in units() {
        let mut out = vec![0f32; 16];
        let none = Epilogue::default();
        forward(&deepest, &x, &ByteKernels::pack(unit, &deepest, &weight), none, &mut out);
        assert!(out.iter().all(|sum| (sum - DEPTH as f32).abs() < 1.0), "{unit:?}: {out:?}");
    }
}
