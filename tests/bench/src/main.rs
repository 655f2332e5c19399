//! gdrd, and candle's own layers, as contenders of `tests/bench/compare`.
//!
//! The first line of stdin is a [`Case`]. After that `{"run": N}` runs N iterations and answers, on stdout, with the seconds
//! of each and the values of the last; `worker.py` is the same for PyTorch and ONNX Runtime.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use gdrd_core::nn::kernels::{Instructions, Precision, WeightPrecision, cuda_device, let_candle_sleep};
use serde::Deserialize;
use serde_json::{Value, json};

mod candle;
mod faces;
mod gdrd;
mod layers;

/// As in the `gdrd` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a contender or a measurement may fail with.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One iteration; returns the embeddings or the loss.
type Iteration = Box<dyn FnMut() -> Result<Values>>;

/// What an iteration came to; a GPU may still compute it.
enum Values {
    Known(Vec<f32>),
    Later(Tensor),
}

impl Values {
    fn read(self) -> Result<Vec<f32>> {
        match self {
            Self::Known(values) => Ok(values),
            Self::Later(tensor) => Ok(tensor.flatten_all()?.to_vec1()?),
        }
    }
}

/// What is run, as `compare.py` says it.
#[derive(Deserialize)]
struct Case {
    contender: String,
    threads: usize,
    #[serde(default)]
    network: Network,
    /// Holds `weights.safetensors` and `inputs.safetensors`.
    #[serde(default)]
    folder: PathBuf,
    #[serde(default)]
    task: String,
    #[serde(default)]
    batch: usize,
    /// Learning rate of the training step.
    #[serde(default)]
    rate: f64,
    /// The number of the GPU; the CPU when left out.
    gpu: Option<usize>,
    /// What products round to on a GPU.
    #[serde(default)]
    precision: Precision,
    /// The highest level of instructions that gdrd may use; the machine's when left out.
    instructions: Option<String>,
    /// What gdrd holds a student's weights in; float32 when left out.
    #[serde(default)]
    weights: Held,
    /// What the contender `layers` measures.
    #[serde(default)]
    layers: Vec<layers::Layer>,
}

/// What a student's weights are held in.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Held {
    #[default]
    Float32,
    Bfloat16,
    Int8,
}

impl Held {
    fn precision(self) -> WeightPrecision {
        match self {
            Self::Float32 => WeightPrecision::Float32,
            Self::Bfloat16 => WeightPrecision::Bfloat16,
            Self::Int8 => WeightPrecision::Int8,
        }
    }
}

/// A network of `cases.py`.
#[derive(Default, Deserialize)]
struct Network {
    kind: String,
    size: usize,
    #[serde(default)]
    options: Value,
}

impl Case {
    fn device(&self) -> Result<Device> {
        Ok(self.gpu.map_or(Ok(Device::Cpu), cuda_device)?)
    }
}

fn main() -> Result<()> {
    let_candle_sleep();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let case: Case = serde_json::from_str(&line)?;
    if let Some(name) = &case.instructions {
        let level = Instructions::ALL.into_iter().find(|level| level.name() == name);
        let level = level.filter(|level| *level <= Instructions::detected());
        level.ok_or_else(|| format!("this machine has no instructions `{name}`"))?.limit_process()?;
    }
    rayon::ThreadPoolBuilder::new().num_threads(case.threads).stack_size(8 << 20).build_global()?;
    // On a thread of the pool, as the `gdrd` command runs.
    rayon::scope(|_| serve(&case)).map_err(Into::into)
}

fn serve(case: &Case) -> std::result::Result<(), String> {
    let served = match case.contender.as_str() {
        "peak" => layers::peaks(case.threads).and_then(|peaks| answer(&json!(peaks))),
        "layers" => layers::measure(&case.layers, case.weights.precision()).and_then(|speeds| answer(&json!(speeds))),
        _ => contend(case),
    };
    served.map_err(|error| error.to_string())
}

fn contend(case: &Case) -> Result<()> {
    let _precision = case.precision.set();
    let mut iteration: Iteration = match (case.contender.as_str(), case.task.as_str()) {
        ("gdrd", "embed") => gdrd::embedding(case)?,
        ("gdrd", "train") => gdrd::training(case)?,
        ("candle", "embed") => candle::embedding(case)?,
        ("candle", "train") => candle::training(case)?,
        other => return Err(format!("no contender and task {other:?}").into()),
    };
    for line in std::io::stdin().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let count = command["run"].as_u64().ok_or("expected `run`")?;
        let (mut seconds, mut values, begin) = (Vec::new(), Values::Known(Vec::new()), Instant::now());
        for _ in 0..count {
            let start = Instant::now();
            values = iteration()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let values = values.read()?;
        if case.gpu.is_some() {
            // A GPU runs behind: only all iterations together have a time.
            seconds.fill(begin.elapsed().as_secs_f64() / count as f64);
        }
        answer(&json!({ "seconds": seconds, "values": values }))?;
    }
    Ok(())
}

fn answer(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}
