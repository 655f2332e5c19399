//! How fast the kernels are against candle's own, for the paper's student at 16x16:
//! `cargo run --release -p gdrd-core --example kernel_speed -- [batch] [rounds] [alone]`
//! (`alone` leaves out candle's own kernels, for a profiler)
//!
//! Every figure is the median over rounds in which the contenders take turns. GFLOP/s count the multiplications and
//! additions of the direct form, whatever the kernel does.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use gdrd_core::nn::kernels::{add_relu, batch_norm_train, conv2d, relu, scale_shift};

/// `(name, inputs, outputs, size, kernel, stride, how often it occurs)`
const LAYERS: [(&str, usize, usize, usize, usize, usize, usize); 9] = [
    ("stem 3x3", 3, 128, 16, 3, 1, 1),
    ("128@16 3x3", 128, 128, 16, 3, 1, 4),
    ("128-256 3x3 /2", 128, 256, 16, 3, 2, 1),
    ("128-256 1x1 /2", 128, 256, 16, 1, 2, 1),
    ("256@8 3x3", 256, 256, 8, 3, 1, 3),
    ("256-512 3x3 /2", 256, 512, 8, 3, 2, 1),
    ("256-512 1x1 /2", 256, 512, 8, 1, 2, 1),
    ("512@4 3x3", 512, 512, 4, 3, 1, 3),
    ("512@4 1x1", 512, 512, 4, 1, 1, 0),
];

#[derive(Clone, Copy)]
enum Side {
    Ours,
    Candle,
}

fn conv(side: Side, x: &Tensor, w: &Tensor, stride: usize) -> Result<Tensor> {
    let padding = w.dims()[2] / 2;
    match side {
        Side::Ours => conv2d(x, w, stride, padding, 1),
        Side::Candle => x.conv2d(w, padding, stride, 1, 1),
    }
}

/// A basic residual block: 3x3, 3x3, and a 1x1 shortcut where the shape changes.
struct Block {
    convs: [Var; 2],
    norms: [[Var; 2]; 2],
    shortcut: Option<(Var, [Var; 2])>,
    stride: usize,
}

/// The paper's student: stem, three stages of two blocks, one fully connected layer.
struct Student {
    stem: (Var, [Var; 2]),
    blocks: Vec<Block>,
    head: Var,
}

fn normal(dims: &[usize]) -> Result<Var> {
    let fan_in: usize = dims[1..].iter().product();
    Var::randn(0f32, (2.0 / fan_in as f32).sqrt(), dims, &Device::Cpu)
}

fn norm(count: usize) -> Result<[Var; 2]> {
    Ok([
        Var::from_tensor(&Tensor::ones(count, candle_core::DType::F32, &Device::Cpu)?)?,
        Var::zeros(count, candle_core::DType::F32, &Device::Cpu)?,
    ])
}

impl Student {
    fn new() -> Result<Self> {
        let mut blocks = Vec::new();
        for (inputs, outputs, stride) in
            [(128, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        {
            let shortcut = if stride == 2 { Some((normal(&[outputs, inputs, 1, 1])?, norm(outputs)?)) } else { None };
            blocks.push(Block {
                convs: [normal(&[outputs, inputs, 3, 3])?, normal(&[outputs, outputs, 3, 3])?],
                norms: [norm(outputs)?, norm(outputs)?],
                shortcut,
                stride,
            });
        }
        Ok(Self { stem: (normal(&[128, 3, 3, 3])?, norm(128)?), blocks, head: normal(&[512, 8192])? })
    }

    fn embed(&self, side: Side, x: &Tensor, train: bool) -> Result<Tensor> {
        let normalise = |x: &Tensor, [gamma, beta]: &[Var; 2]| match (side, train) {
            (Side::Ours, true) => batch_norm_train(x, gamma, beta, 1e-5).map(|(y, _, _)| y),
            (Side::Ours, false) => scale_shift(x, gamma, beta),
            (Side::Candle, _) => {
                let count = gamma.elem_count();
                let (gamma, beta) = (gamma.reshape((1, count, 1, 1))?, beta.reshape((1, count, 1, 1))?);
                let mut x = x.clone();
                if train {
                    x = x.broadcast_sub(&x.mean_keepdim((0, 2, 3))?)?;
                    x = x.broadcast_div(&(x.sqr()?.mean_keepdim((0, 2, 3))? + 1e-5)?.sqrt()?)?;
                }
                x.broadcast_mul(&gamma)?.broadcast_add(&beta)
            }
        };
        let activate = |x: &Tensor| match side {
            Side::Ours => relu(x),
            Side::Candle => x.relu(),
        };
        let mut x = activate(&normalise(&conv(side, x, &self.stem.0, 1)?, &self.stem.1)?)?;
        for block in &self.blocks {
            let y = activate(&normalise(&conv(side, &x, &block.convs[0], block.stride)?, &block.norms[0])?)?;
            let y = normalise(&conv(side, &y, &block.convs[1], 1)?, &block.norms[1])?;
            let beside = match &block.shortcut {
                Some((weight, parameters)) => normalise(&conv(side, &x, weight, block.stride)?, parameters)?,
                None => x,
            };
            x = match side {
                Side::Ours => add_relu(&y, &beside)?,
                Side::Candle => (y + beside)?.relu()?,
            };
        }
        x.flatten_from(1)?.matmul(&self.head.t()?)
    }
}

/// The median seconds of each contender over `rounds` rounds in turn, after one round that does not count.
fn measure(rounds: usize, contenders: &[&dyn Fn() -> Result<()>]) -> Result<Vec<f64>> {
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (times, run) in times.iter_mut().zip(contenders) {
            let start = Instant::now();
            run()?;
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    Ok(times.iter().map(|times| times[times.len() / 2]).collect())
}

fn layers(batch: usize, rounds: usize, alone: bool) -> Result<()> {
    let rival = if alone { Side::Ours } else { Side::Candle };
    println!("{:<16}{:>8} {:>21} {:>7}  {:>21} {:>7}", "layer", "times", "forward, GFLOP/s", "", "and back", "");
    println!(
        "{:<16}{:>8} {:>10} {:>10} {:>7}  {:>10} {:>10} {:>7}",
        "", "", "ours", "candle", "ratio", "ours", "candle", "ratio"
    );
    for (name, inputs, outputs, size, kernel, stride, times) in LAYERS {
        let x = Var::randn(0f32, 1.0, (batch, inputs, size, size), &Device::Cpu)?;
        let w = normal(&[outputs, inputs, kernel, kernel])?;
        let out = size / stride;
        let giga = 2e-9 * (batch * outputs * inputs * kernel * kernel * out * out) as f64;
        let still = (x.as_detached_tensor(), w.as_detached_tensor());
        let forward = |side| conv(side, &still.0, &still.1, stride).map(drop);
        let both = |side| conv(side, &x, &w, stride)?.backward().map(drop);
        let seconds =
            measure(rounds, &[&|| forward(Side::Ours), &|| forward(rival), &|| both(Side::Ours), &|| both(rival)])?;
        println!(
            "{name:<16}{times:>8} {:>10.0} {:>10.0} {:>7.2}  {:>10.0} {:>10.0} {:>7.2}",
            giga / seconds[0],
            giga / seconds[1],
            seconds[1] / seconds[0],
            3.0 * giga / seconds[2],
            3.0 * giga / seconds[3],
            seconds[3] / seconds[2],
        );
    }
    Ok(())
}

fn network(batch: usize, rounds: usize, alone: bool) -> Result<()> {
    let rival = if alone { Side::Ours } else { Side::Candle };
    let student = Student::new()?;
    let x = Tensor::randn(0f32, 1.0, (batch, 3, 16, 16), &Device::Cpu)?;
    let embed = |side| student.embed(side, &x, false).map(drop);
    let step = |side| student.embed(side, &x, true)?.backward().map(drop);
    let seconds = measure(rounds, &[&|| embed(Side::Ours), &|| embed(rival), &|| step(Side::Ours), &|| step(rival)])?;
    println!("\nwhole network, batch {batch}: images/s (ours, candle, ratio)");
    for (name, at) in [("embed", 0), ("train", 2)] {
        println!(
            "{name:<16} {:>10.1} {:>10.1} {:>7.2}",
            batch as f64 / seconds[at],
            batch as f64 / seconds[at + 1],
            seconds[at + 1] / seconds[at]
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise| arguments.get(at).and_then(|a| a.parse().ok()).unwrap_or(otherwise);
    let (batch, rounds, alone) = (number(0, 96), number(1, 5), arguments.get(2).is_some_and(|a| a == "alone"));
    layers(batch, rounds, alone)?;
    network(batch, rounds, alone)
}
