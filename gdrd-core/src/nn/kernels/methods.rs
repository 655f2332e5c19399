//! The methods of convolution, and which of them computes what.

#[cfg(target_arch = "x86_64")]
use super::amx::Amx;
use super::convolution::Convolution;
use super::depthwise::Depthwise;
use super::direct::Direct;
use super::im2col::Im2col;
use super::instructions::Instructions;
use super::shape::ConvShape;
use super::winograd::{Winograd, WinogradSmall, WinogradStrided};

/// All methods; the first that applies is the fastest. The last one always applies.
pub(super) const METHODS: &[&dyn Convolution] = &[
    #[cfg(target_arch = "x86_64")]
    &Amx,
    &Depthwise,
    &Winograd,
    &WinogradSmall,
    &WinogradStrided,
    &Direct,
    &Im2col,
];

/// The place in [`METHODS`] of the one that computes a convolution, and the gradient of its input, on this thread.
pub(super) fn place(shape: &ConvShape) -> usize {
    first(|method, instructions| method.applies(shape, instructions))
}

/// The method that computes a convolution, and the gradient of its input, on this thread.
pub(super) fn method(shape: &ConvShape) -> &'static dyn Convolution {
    METHODS[place(shape)]
}

/// The place of the one for maps whose channels lie side by side.
pub(super) fn place_for_pixels(shape: &ConvShape) -> usize {
    first(|method, instructions| method.applies_to_pixels(shape, instructions))
}

/// The one for the gradient of the weight.
pub(super) fn weight_gradient_method(shape: &ConvShape) -> &'static dyn Convolution {
    METHODS[first(|method, instructions| method.applies_to_weight_gradient(shape, instructions))]
}

fn first(applies: impl Fn(&dyn Convolution, Instructions) -> bool) -> usize {
    let instructions = Instructions::now();
    METHODS.iter().position(|method| applies(*method, instructions)).unwrap_or(METHODS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::super::buffer::Filling;
    use super::super::convolution::ConvWeights;
    use super::super::epilogue::Epilogue;
    use super::super::pixels::{self, PixelForm, PixelWeights};
    use super::super::testing::{CONVOLUTIONS, assert_close, convolution, flat, on_each_level, random, with_threads};
    use super::*;

    /// Every method on every shape that it applies to, also where another is faster, on any number of threads.
    #[test]
    fn every_method_follows_the_definition() {
        for (x, w, stride, padding, groups) in CONVOLUTIONS {
            let shape = ConvShape::new(x, w, stride, padding, groups).expect("fits");
            let out = (shape.batch, shape.outputs, shape.out_height(), shape.out_width());
            let [x, w] = [flat(&random(x, 1).expect("x")), flat(&random(w, 2).expect("weight"))];
            let grad = flat(&random(out, 3).expect("gradient"));
            let mask = flat(&random(x.len(), 4).expect("mask"));
            let through = Im2col.input_gradient(&shape, &w, &grad);
            let beside = through.iter().zip(&x).zip(&mask);
            let expected = [
                convolution(&x, &w, &shape),
                beside.map(|((value, add), mask)| if *mask > 0.0 { value + add } else { *value }).collect(),
                through,
                Im2col.weight_gradient(&shape, &x, &grad),
            ];
            on_each_level(|| {
                for method in METHODS.iter().filter(|method| method.applies(&shape, Instructions::now())) {
                    let forward = |weights: ConvWeights<'_>| {
                        let write = |out: &mut [_]| method.forward(&shape, &x, weights, Epilogue::default(), out);
                        // SAFETY: all values are written.
                        unsafe { Filling::by(shape.output_len(), write) }
                    };
                    let run = |threads| {
                        with_threads(threads, || {
                            let output = forward(ConvWeights::Plain(&w));
                            if let Some(packed) = method.pack(&shape, &w) {
                                assert!(
                                    output == forward(ConvWeights::Packed(&packed)),
                                    "{}: {shape:?}",
                                    method.name()
                                );
                            }
                            let after = Epilogue { add: Some(&x), mask: Some(&mask), ..Epilogue::default() };
                            let with = method.input_gradient_with(&shape, &w, &grad, after);
                            let input = method.input_gradient(&shape, &w, &grad);
                            [output, with, input, method.weight_gradient(&shape, &x, &grad)]
                        })
                    };
                    let found = run(1);
                    assert!(found == run(3), "{}: {shape:?}", method.name());
                    assert_close(&found, &expected, 2e-5);
                }
            });
        }
    }

    /// Likewise where channels lie side by side.
    #[test]
    fn every_method_follows_the_definition_over_pixels() {
        for (x, w, stride, padding, groups) in CONVOLUTIONS {
            let shape = ConvShape::new(x, w, stride, padding, groups).expect("fits");
            let [x, w] = [flat(&random(x, 1).expect("x")), flat(&random(w, 2).expect("weight"))];
            let expected = convolution(&x, &w, &shape);
            let mut pixels = vec![0f32; pixels::len(shape.batch, shape.inputs, shape.plane())];
            pixels::from_maps(&x, shape.inputs, shape.plane(), &mut pixels);
            on_each_level(|| {
                for method in METHODS.iter().filter(|method| method.applies_to_pixels(&shape, Instructions::now())) {
                    let packed = method.pack_pixels(&shape, &w);
                    let run = |threads| {
                        with_threads(threads, || {
                            let mut out = vec![f32::NAN; pixels::len(shape.batch, shape.outputs, shape.out_plane())];
                            let weights = PixelWeights { values: &packed, form: PixelForm::Packed };
                            method.forward_pixels(&shape, &pixels, weights, Epilogue::default(), &mut out);
                            let mut maps = vec![0f32; shape.output_len()];
                            pixels::to_maps(&out, shape.outputs, shape.out_plane(), &mut maps);
                            maps
                        })
                    };
                    let found = run(1);
                    assert!(found == run(3), "{}: {shape:?}", method.name());
                    assert_close(&[found], std::slice::from_ref(&expected), 2e-5);
                }
            });
        }
    }

    /// The methods of the layers of a student, as they are chosen for a face and for a batch.
    #[test]
    fn the_first_method_that_applies_is_chosen() {
        let shape = |batch, (inputs, outputs), (size, kernel), stride, groups| {
            let weight = (outputs, inputs / groups, kernel, kernel);
            ConvShape::new((batch, inputs, size, size), weight, stride, kernel / 2, groups).expect("fits")
        };
        let names = |shape: &ConvShape| (method(shape).name(), weight_gradient_method(shape).name());
        let vectors = |level: Instructions| {
            let check = || {
                for (shape, expected) in [
                    (shape(96, (3, 64), (16, 3), 1, 1), "im2col"),
                    (shape(1, (64, 64), (16, 3), 1, 1), "winograd"),
                    (shape(1, (128, 128), (8, 3), 1, 1), "winograd-small"),
                    (shape(1, (128, 128), (4, 3), 1, 1), "direct"),
                    (shape(2, (128, 128), (8, 3), 1, 1), "winograd"),
                    (shape(96, (64, 128), (16, 3), 2, 1), "winograd-strided"),
                    (shape(1, (64, 128), (16, 3), 2, 1), "direct"),
                    (shape(96, (64, 128), (16, 1), 2, 1), "direct"),
                    (shape(96, (32, 32), (16, 3), 1, 32), "depthwise"),
                    (shape(96, (32, 32), (16, 3), 1, 2), "im2col"),
                ] {
                    assert_eq!(names(&shape), (expected, expected), "{shape:?}");
                }
            };
            level.scope(check).expect("the machine has it");
        };
        Instructions::available().filter(|level| *level < Instructions::Amx).for_each(vectors);
        if Instructions::detected() == Instructions::Amx {
            let check = || {
                assert_eq!(names(&shape(96, (64, 64), (16, 3), 1, 1)), ("amx", "amx"));
                assert_eq!(names(&shape(1, (64, 64), (16, 3), 1, 1)), ("amx", "winograd"));
            };
            Instructions::Amx.scope(check).expect("the machine has it");
        }
    }
}
