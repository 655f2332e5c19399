//! Everything that has a form of its own on an NVIDIA GPU gives what it gives on the CPU. Needs a GPU:
//! `cargo test -p gdrd-tests --features cuda --test it cuda -- --ignored --test-threads 1`.
//!
//! One thread, so that no two of them share the GPU's memory.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, Var};
use gdrd_core::context::{Bare, BuildContext};
use gdrd_core::nn::kernels::{self, Precision, cuda_device};
use gdrd_core::nn::{Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, GroupNorm, Linear, Mode, PRelu, Weights};
use gdrd_core::observe::Recorder;
use gdrd_core::run::{Place, train};
use gdrd_core::trainer::{OptimizerConfig, Sgd};
use gdrd_tests::{Bench, losses};

use crate::golden::formula;

fn gpu() -> Device {
    cuda_device(0).expect("these tests need an NVIDIA GPU")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("values")
}

/// The largest difference as a share of the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|value| value.is_finite()), "a value is not finite");
    let largest = expected.iter().fold(1e-6f32, |most, value| most.max(value.abs()));
    found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// The result of `f` on a device, and the gradients of a weighted sum of it.
fn gradients(device: &Device, inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Vec<f32>> {
    let run = || -> Result<Vec<Vec<f32>>> {
        let vars = inputs.iter().map(|t| Var::from_tensor(&t.to_device(device)?)).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let y = f(&tensors)?;
        let weights = formula::image("weights of the sum", y.dims()).to_device(device)?;
        let found = (&y * weights)?.sum_all()?.backward()?;
        let gradient = |var: &Var| found.get(var).map(values).expect("a gradient");
        Ok(std::iter::once(values(&y)).chain(vars.iter().map(gradient)).collect())
    };
    run().expect("a result and its gradients")
}

/// Both devices agree on the result and on every gradient; without gradients too; and the GPU repeats itself to the bit.
#[track_caller]
fn agree(what: &str, tolerance: f32, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let device = gpu();
    assert!(device.same_device(&gpu()), "a GPU that is asked for twice is two devices");
    let (found, expected) = (gradients(&device, inputs, &f), gradients(&Device::Cpu, inputs, &f));
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let difference = difference(found, expected);
        assert!(difference <= tolerance, "{what}, tensor {at}: differs by {difference:.1e}");
    }
    assert!(found == gradients(&device, inputs, &f), "{what}: two runs on the GPU differ");
    let moved: Vec<Tensor> = inputs.iter().map(|t| t.to_device(&device).expect("room on the GPU")).collect();
    let plain = f(&moved).expect("a result");
    assert!(values(&plain) == found[0], "{what}: without gradients the result is another");
}

fn image(name: &str, dims: &[usize]) -> Tensor {
    formula::image(name, dims)
}

type Case = ([usize; 4], [usize; 4], usize, usize, usize);
const CONVOLUTIONS: [Case; 12] = [
    ([2, 3, 16, 16], [8, 3, 3, 3], 1, 1, 1),
    ([5, 17, 4, 4], [19, 17, 3, 3], 1, 1, 1),
    ([3, 33, 7, 11], [31, 33, 3, 3], 1, 1, 1),
    ([3, 16, 16, 16], [24, 16, 3, 3], 2, 1, 1),
    ([2, 16, 8, 8], [24, 16, 1, 1], 2, 0, 1),
    ([2, 12, 9, 9], [8, 6, 3, 3], 1, 1, 2),
    ([2, 12, 8, 8], [12, 1, 3, 3], 2, 1, 12),
    ([2, 3, 9, 7], [4, 3, 5, 2], 3, 2, 1),
    ([96, 64, 8, 8], [128, 64, 3, 3], 2, 1, 1),
    ([4, 70, 7, 7], [70, 1, 7, 7], 1, 0, 70),
    ([33, 128, 4, 4], [256, 128, 3, 3], 1, 1, 1),
    ([96, 3, 16, 16], [128, 3, 3, 3], 1, 1, 1),
];

#[test]
#[ignore = "needs a GPU"]
fn convolutions() {
    for (x, w, stride, padding, groups) in CONVOLUTIONS {
        let inputs = [image("x", &x), image("w", &w)];
        let convolution = |v: &[Tensor]| kernels::conv2d(&v[0], &v[1], stride, padding, groups);
        agree(&format!("convolution {x:?} {w:?}"), 3e-5, &inputs, convolution);
        for (precision, tolerance) in [(Precision::Tf32, 3e-3), (Precision::Bfloat16, 3e-2)] {
            let expected = gradients(&Device::Cpu, &inputs, &convolution);
            let _precision = precision.set();
            let found = gradients(&gpu(), &inputs, &convolution);
            assert!(found == gradients(&gpu(), &inputs, &convolution), "{precision} {x:?} {w:?}: two runs differ");
            let moved: Vec<Tensor> = inputs.iter().map(|t| t.to_device(&gpu()).expect("room on the GPU")).collect();
            let plain = values(&convolution(&moved).expect("a result"));
            assert!(plain == found[0], "{precision} {x:?} {w:?}: without gradients the result is another");
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let difference = difference(found, expected);
                assert!(difference <= tolerance, "{precision} {x:?} {w:?}, tensor {at}: differs by {difference:.1e}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn normalisation() {
    for dims in [vec![3, 5, 7, 11], vec![2, 33, 4, 4], vec![96, 12, 16, 16], vec![13, 5]] {
        let x = (image("x", &dims) * 3.0).and_then(|x| x + 2.0).expect("x");
        let inputs = [x, image("gamma", &dims[1..2]), image("beta", &dims[1..2]), image("add", &dims)];
        let eps = 1e-5;
        agree("batch norm", 3e-5, &inputs[..3], |v| Ok(kernels::batch_norm_train(&v[0], &v[1], &v[2], eps)?.0));
        agree("batch norm, ReLU", 3e-5, &inputs[..3], |v| {
            Ok(kernels::batch_norm_relu_train(&v[0], &v[1], &v[2], None, eps)?.0)
        });
        agree("batch norm, addition, ReLU", 3e-5, &inputs, |v| {
            Ok(kernels::batch_norm_relu_train(&v[0], &v[1], &v[2], Some(&v[3]), eps)?.0)
        });
        agree("scale and shift", 1e-5, &inputs[..3], |v| kernels::scale_shift(&v[0], &v[1], &v[2]));
        let statistics = |device: &Device| {
            let [x, gamma, beta] = [0, 1, 2].map(|at| inputs[at].to_device(device).expect("room"));
            let (_, mean, var) = kernels::batch_norm_train(&x, &gamma, &beta, eps).expect("statistics");
            [values(&mean), values(&var)].concat()
        };
        assert!(difference(&statistics(&gpu()), &statistics(&Device::Cpu)) < 1e-5);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn activations_and_pooling() {
    for dims in [vec![3, 5, 7, 11], vec![13, 5]] {
        let inputs = [image("x", &dims), image("other", &dims)];
        agree("ReLU", 0.0, &inputs[..1], |v| kernels::relu(&v[0]));
        let wide = [(&inputs[0] * 8.0).expect("x")];
        agree("ReLU6", 0.0, &wide, |v| kernels::relu6(&v[0]));
        agree("addition, ReLU", 1e-6, &inputs, |v| kernels::add_relu(&v[0], &v[1]));
        agree("SiLU", 3e-6, &inputs[..1], |v| kernels::silu(&v[0]));
        let with_slope = [inputs[0].clone(), image("slope", &dims[1..2])];
        agree("PReLU", 1e-5, &with_slope, |v| kernels::prelu(&v[0], &v[1]));
    }
    agree("pooling", 3e-6, &[image("x", &[3, 5, 7, 11])], |v| kernels::global_average_pool(&v[0]));
    agree("a transposed argument", 0.0, &[image("x", &[4, 6])], |v| kernels::relu(&v[0].t()?));
}

/// Layers with the weights of a file, in evaluation mode.
#[test]
#[ignore = "needs a GPU"]
fn layers_as_teachers_use_them() {
    let x = image("x", &[3, 8, 9, 9]);
    let evaluated = |device: &Device, layer: &dyn Fn(&Weights, &Tensor) -> gdrd_core::error::Result<Tensor>| {
        let mut tensors = BTreeMap::new();
        for (name, dims) in [("weight", vec![8, 8, 3, 3]), ("bias", vec![8])] {
            tensors.insert(format!("conv.{name}"), image(name, &dims));
        }
        for name in ["weight", "bias", "running_mean"] {
            tensors.insert(format!("bn.{name}"), image(name, &[8]));
        }
        let variance = image("running_var", &[8]).sqr().and_then(|v| v + 0.5).expect("a variance");
        tensors.insert("bn.running_var".into(), variance);
        tensors.insert("prelu.weight".into(), image("slope", &[8]));
        tensors.insert("fc.weight".into(), image("fc", &[5, 8]));
        tensors.insert("fc.bias".into(), image("fc bias", &[5]));
        let x = x.to_device(device).expect("room");
        values(&Weights::read(tensors, device, |_| true, |weights| layer(weights, &x)).expect("a layer"))
    };
    let config = ConvConfig { stride: 1, padding: 1, groups: 1, bias: true };
    let check = |what: &str, layer: &dyn Fn(&Weights, &Tensor) -> gdrd_core::error::Result<Tensor>| {
        let difference = difference(&evaluated(&gpu(), layer), &evaluated(&Device::Cpu, layer));
        assert!(difference < 3e-5, "{what} differs by {difference:.1e}");
    };
    check("convolution with bias", &|weights, x| {
        Conv2d::new(8, 8, 3, config, &weights.pp("conv"))?.forward_add(x, Some(x))
    });
    for at in 0..4 {
        check(&format!("convolution, normalisation, activation {at}"), &|weights, x| {
            let conv = Conv2d::same3(8, 8, 1, false, &weights.pp("conv"))?;
            let norm = BatchNorm::new(8, &weights.pp("bn"))?;
            let activation = match at {
                0 => Activation::Identity,
                1 => Activation::Relu,
                2 => Activation::Relu6,
                _ => Activation::PRelu(PRelu::new(8, &weights.pp("prelu"))?),
            };
            ConvNorm::new(conv, norm, activation).forward(x, Some(x), Mode::Evaluate)
        });
    }
    check("group normalisation", &|weights, x| {
        let row = x.narrow(0, 0, 1)?.mean((2, 3))?;
        GroupNorm::new(4, 8, &weights.pp("bn"))?.forward_silu(x, Some((&row, &row)))
    });
    check("fully connected", &|weights, x| Linear::new(8, 5, true, &weights.pp("fc"))?.forward(&x.mean((2, 3))?));
}

#[test]
#[ignore = "needs a GPU"]
fn running_statistics_and_steps_of_sgd() {
    let moved = |device: &Device| {
        let running = Var::from_tensor(&image("running", &[7]).to_device(device).expect("room")).expect("a variable");
        let batch = image("batch", &[7]).to_device(device).expect("room");
        kernels::move_average(&running, &batch, 1.25, 0.1).expect("moved");
        values(&running)
    };
    assert!(difference(&moved(&gpu()), &moved(&Device::Cpu)) < 1e-6);
    for (momentum, weight_decay, nesterov) in [(0.0, 0.0, false), (0.9, 5e-4, false), (0.9, 0.1, true)] {
        let stepped = |device: &Device| {
            let var = |key: &str| Var::from_tensor(&image(key, &[3, 4]).to_device(device).expect("room"));
            let parameters = BTreeMap::from([("w".to_string(), var("w").expect("a variable"))]);
            let optimizer = Sgd { momentum, weight_decay, nesterov };
            let mut optimizer = optimizer.build(&BuildContext::new(&Bare(device.clone()))).expect("an optimiser");
            for step in 0..4 {
                let gradient = image(&format!("gradient {step}"), &[3, 4]).to_device(device).expect("room");
                let gradients = BTreeMap::from([("w".to_string(), gradient)]);
                optimizer.step(&parameters, &gradients, &|_| 0.1).expect("a step");
            }
            values(&parameters["w"])
        };
        assert!(difference(&stepped(&gpu()), &stepped(&Device::Cpu)) < 1e-6);
    }
}

/// Both stages of a recipe: the numbers of every step are told, in their order, and follow the CPU's.
#[test]
#[ignore = "needs a GPU"]
fn whole_runs() {
    let bench = Bench::with_teachers();
    let run = |name: &str, device: &Device, sets: &[&str]| {
        let recorder = Recorder::default();
        let place = Place { device: device.clone(), ..bench.place(name) };
        let folder = train(&bench.tiny(sets), &place, &recorder).unwrap_or_else(|error| panic!("{error}"));
        (losses(&recorder.events(), None), std::fs::read(folder.student()).expect("a student"))
    };
    let (expected, _) = run("cpu", &Device::Cpu, &[]);
    let (found, student) = run("gpu", &gpu(), &[]);
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate().take(8) {
        assert!((found - expected).abs() < 2e-3 * expected.abs(), "step {step}: {found} and {expected} on the CPU");
    }
    let (again, same) = run("gpu again", &gpu(), &[]);
    assert!(found == again && student == same, "two runs on the GPU differ");
    for (precision, tolerance) in [("tf32", 2e-2), ("bfloat16", 1e-1)] {
        let (found, _) = run(precision, &gpu(), &[&format!("run.precision={precision}")]);
        let (first, exact) = (found[0], expected[0]);
        assert!((first - exact).abs() < tolerance * exact.abs(), "{precision}: {first} and {exact} in float32");
        assert!(found.iter().all(|loss| loss.is_finite()), "{precision}: a loss is not finite");
    }
}

/// A student of the teacher's layout that starts from it, whose layers are trained in rows as one operation on the CPU; teachers run
/// live and see every change of a face.
#[test]
#[ignore = "needs a GPU"]
fn a_student_from_its_teacher() {
    let bench = crate::from_teacher::bench();
    let sets = [
        "run.workers=3",
        "stage.distil.batch_size=12",
        "stage.distil.learning_rate=0.001",
        "stage.distil.store_features=false",
        "stage.distil.augment={ flip = true, translate = 0.05, rotate = 5.0, light = 0.1, draws = 64 }",
    ];
    let run = |name: &str, device: &Device, precision: &str| {
        let precision = format!("run.precision={precision}");
        let sets: Vec<&str> = sets.iter().copied().chain([precision.as_str()]).collect();
        let recorder = Recorder::default();
        let place = Place { device: device.clone(), ..bench.place(name) };
        let recipe = bench.recipe(&bench.file("recipe.toml"), &sets);
        train(&recipe, &place, &recorder).unwrap_or_else(|error| panic!("{error}"));
        losses(&recorder.events(), None)
    };
    let expected = run("cpu", &Device::Cpu, "float32");
    for (precision, tolerance) in [("float32", 2e-3), ("tf32", 2e-2), ("bfloat16", 1e-1)] {
        let found = run(precision, &gpu(), precision);
        assert_eq!(found.len(), expected.len());
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let most = tolerance * expected.abs();
            assert!((found - expected).abs() < most, "{precision}, step {step}: {found}, and {expected} on the CPU");
        }
    }
}
