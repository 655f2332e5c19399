//! An ONNX network that takes a photograph, run by tract.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use gdrd_core::error::{Error, Result};
use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, Tensor, TypedRunnableModel, tvec,
};
use tract_onnx::tract_hir::infer::Factoid;

/// Canvases of different sizes that a network is kept ready for.
const READY: usize = 64;

/// An output of a network.
pub(super) struct Output {
    /// Its name in the file.
    pub(super) name: String,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// Its values, row by row.
    pub(super) values: Vec<f32>,
}

/// A network of one image `[1, 3, height, width]`.
pub(super) struct Network {
    model: InferenceModel,
    outputs: Vec<String>,
    /// The one size of its input, `[height, width]`; none if it takes any.
    fixed: Option<[usize; 2]>,
    ready: Mutex<HashMap<[usize; 2], Arc<TypedRunnableModel>>>,
}

/// tract's errors tell a story; its last sentence is what went wrong.
fn failed(what: &str, error: impl std::fmt::Debug) -> Error {
    let story = format!("{error:?}");
    let last = story.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let last = last.split_once(": ").filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(last, |(_, rest)| rest);
    Error::weights(format!("{what}: {last}"))
}

impl Network {
    /// Reads an ONNX file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
        let model = onnx.model_for_read(&mut Cursor::new(bytes)).map_err(|e| failed("not a readable ONNX model", e))?;
        let name = |outlet| model.outlet_label(outlet).unwrap_or(&model.node(outlet.node).name).to_string();
        let outputs: Vec<String> = model.outputs.iter().map(|outlet| name(*outlet)).collect();
        let fixed = input_size(&model)?;
        Ok(Self { model, outputs, fixed, ready: Mutex::default() })
    }

    /// The one size of its input, `[height, width]`; none if it takes any.
    pub(super) fn fixed(&self) -> Option<[usize; 2]> {
        self.fixed
    }

    /// The names of its outputs.
    pub(super) fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// What it says of an image, the `3 * height * width` values of `canvas` channel by channel.
    pub(super) fn run(&self, size: [usize; 2], canvas: &[f32]) -> Result<Vec<Output>> {
        let [height, width] = size;
        let plan = self.ready(size)?;
        let input = Tensor::from_shape(&[1, 3, height, width], canvas);
        let answer = input.and_then(|input| plan.run(tvec!(input.into()))).and_then(|outputs| {
            let mut read = Vec::with_capacity(outputs.len());
            for (name, output) in self.outputs.iter().zip(&outputs) {
                let output = output.cast_to::<f32>()?;
                let values = output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
                read.push(Output { name: name.clone(), shape: output.shape().to_vec(), values });
            }
            Ok(read)
        });
        answer.map_err(|e| failed("the detector failed", e))
    }

    /// The network for canvases of one size.
    fn ready(&self, [height, width]: [usize; 2]) -> Result<Arc<TypedRunnableModel>> {
        // Others wait: the one that is made may be the one that they want.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = ready.get(&[height, width]) {
            return Ok(plan.clone());
        }
        let mut model = self.model.clone();
        let shape = [1, 3, height, width];
        let plan = (|| {
            model.set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), shape))?;
            model.into_optimized()?.into_runnable()
        })();
        let plan = plan.map_err(|e| failed(&format!("cannot be run on an input {shape:?}"), e))?;
        if ready.len() >= READY {
            ready.clear();
        }
        ready.insert([height, width], plan.clone());
        Ok(plan)
    }
}

/// The size of the one input, if it takes images of float32; none if it takes any size.
fn input_size(model: &InferenceModel) -> Result<Option<[usize; 2]>> {
    let expected = "expected one input [1, 3, height, width] of float32";
    let [input] = model.inputs[..] else {
        return Err(Error::weights(format!("{expected}, found {} inputs", model.inputs.len())));
    };
    let fact = model.input_fact(0).map_err(|e| failed("the input", e))?;
    let dims: Vec<Option<usize>> = fact
        .shape
        .dims()
        .map(|dim| dim.concretize().and_then(|dim| dim.to_i64().ok()).and_then(|dim| usize::try_from(dim).ok()))
        .collect();
    let floats = fact.datum_type.concretize().is_none_or(|kind| kind == f32::datum_type());
    match dims[..] {
        [None | Some(1), None | Some(3), None, None] if floats => Ok(None),
        [None | Some(1), None | Some(3), Some(height @ 1..=8192), Some(width @ 1..=8192)] if floats => {
            Ok(Some([height, width]))
        }
        _ => {
            let found: Vec<String> = dims.iter().map(|dim| dim.map_or("any".into(), |dim| dim.to_string())).collect();
            let kind = fact.datum_type.concretize().map_or("any type".into(), |kind| format!("{kind:?}"));
            let name = &model.node(input.node).name;
            Err(Error::weights(format!("{expected}, found `{name}` [{}] of {kind}", found.join(", "))))
        }
    }
}
