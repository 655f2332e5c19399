//! An ONNX file that turns an image into a vector, run by tract.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use gdrd_core::error::{Context, Error, ErrorKind, Result};
use gdrd_core::nn::weights::{check_finite, is_safetensors, looks_like};
use gdrd_core::recipe::diagnostic::{list, suggest};
use tract_onnx::prelude::{
    Arc, Datum, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, Tensor, TypedRunnableModel,
    tvec,
};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::infer::Factoid;

/// A network of one image `[1, 3, size, size]`.
pub struct OnnxModel {
    plan: Arc<TypedRunnableModel>,
    size: usize,
    width: usize,
}

/// tract's errors tell a story; its last sentence is what went wrong.
fn failed(what: &str, error: impl std::fmt::Debug) -> Error {
    let story = format!("{error:?}");
    let lines: Vec<&str> = story.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let (first, last) = (lines.first().copied().unwrap_or_default(), lines.last().copied().unwrap_or_default());
    let last = last.split_once(": ").filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(last, |(_, rest)| rest);
    Error::weights(if first == last { format!("{what}: {last}") } else { format!("{what}: {first}: {last}") })
}

impl OnnxModel {
    /// Reads the file at `path` for images of `size` pixels; `output` names the output that is wanted.
    ///
    /// # Errors
    /// If it is no ONNX model, has not one such input, or has an operator that tract lacks; if there are several outputs
    /// and none is named, or there is none of that name.
    pub fn open(path: &Path, size: usize, output: Option<&str>) -> Result<Self> {
        Self::read(path, size, output).at(|| format!("`{}`", path.display()))
    }

    fn read(path: &Path, size: usize, output: Option<&str>) -> Result<Self> {
        let mut start = Vec::new();
        let unreadable = |e: std::io::Error| Error::new(ErrorKind::Io, e.to_string());
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        file.take(512).read_to_end(&mut start).map_err(unreadable)?;
        // Any bytes may begin a model; these are surely something else.
        let other = [&b"<"[..], b"version https://git-lfs", b"PK", b"\x93NUMPY", b"\x89HDF", b"\x1f\x8b"];
        let known =
            start.trim_ascii_start().is_empty() || other.iter().any(|s| start.trim_ascii_start().starts_with(s));
        if let Some(what) = looks_like(&start, length).filter(|_| known || is_safetensors(&start)) {
            return Err(Error::weights(format!("not a model: {what}")));
        }
        // Declared shapes after the input may name the batch; tract infers them from the input's.
        let onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
        let mut model = onnx.model_for_path(path).map_err(|e| failed("not a readable ONNX model", e))?;
        check_input(&model, size)?;
        check_constants(&model)?;
        let outlet = match (output, model.outputs.clone().as_slice()) {
            (None, [only]) => *only,
            (None, _) => {
                return Err(Error::recipe(format!("several outputs, name one with `output`; {}", list(names(&model)))));
            }
            (Some(wanted), all) => {
                let at = names(&model).position(|name| name == wanted);
                at.map(|at| all[at]).ok_or_else(|| {
                    Error::recipe(format!("no output is called `{wanted}`; {}", suggest(wanted, names(&model))))
                })?
            }
        };
        let shape = [1, 3, size, size];
        let plan = (|| {
            model.select_output_outlets(&[outlet])?;
            model.set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), shape))?;
            model.into_optimized()?.into_runnable()
        })();
        let plan = plan.map_err(|e| failed(&format!("cannot be run on an input {shape:?}"), e))?;
        let mut made = Self { plan, size, width: 0 };
        let black = made.run(&vec![0.0; 3 * size * size])?;
        if let Some(at) = black.iter().position(|value| !value.is_finite()) {
            return Err(Error::weights(format!("value {at} of the output for an image of zeros is {}", black[at])));
        }
        made.width = black.len();
        Ok(made)
    }

    /// Values in the output.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The output for one image, its `3 * size * size` values channel by channel.
    ///
    /// # Errors
    /// If the network fails, or answers with something else than floats.
    pub fn run(&self, image: &[f32]) -> Result<Vec<f32>> {
        let answer = Tensor::from_shape(&[1, 3, self.size, self.size], image)
            .and_then(|input| self.plan.run(tvec!(input.into())))
            .and_then(|outputs| {
                let output = outputs[0].cast_to::<f32>()?;
                Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            });
        answer.map_err(|e| failed("the model failed", e))
    }
}

/// Whether no constant has a NaN. Infinities may be meant, as bounds and masks are.
fn check_constants(model: &InferenceModel) -> Result<()> {
    for node in &model.nodes {
        let Some(constant) = node.op_as::<Const>() else { continue };
        let tensor = constant.val();
        if !tensor.datum_type().is_float() {
            continue;
        }
        let values =
            tensor.cast_to::<f32>().and_then(|tensor| Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()));
        let mut values = values.map_err(|e| failed(&format!("`{}`", node.name), e))?;
        values.iter_mut().filter(|value| value.is_infinite()).for_each(|value| *value = 0.0);
        let values = candle_core::Tensor::from_vec(values, tensor.shape(), &candle_core::Device::Cpu)?;
        check_finite(&node.name, &values)?;
    }
    Ok(())
}

/// The names of all outputs.
fn names(model: &InferenceModel) -> impl Iterator<Item = &str> {
    model.outputs.iter().map(|outlet| model.outlet_label(*outlet).unwrap_or(&model.node(outlet.node).name))
}

/// Whether the model has one input, and takes images of this size there.
fn check_input(model: &InferenceModel, size: usize) -> Result<()> {
    let [input] = model.inputs[..] else {
        let names = model.inputs.iter().map(|input| model.node(input.node).name.as_str());
        return Err(Error::weights(format!("expected one input, found {}; {}", model.inputs.len(), list(names))));
    };
    let fact = model.input_fact(0).map_err(|e| failed("the input", e))?;
    let dims: Vec<Option<usize>> = fact
        .shape
        .dims()
        .map(|dim| dim.concretize().and_then(|dim| dim.to_i64().ok()).and_then(|dim| usize::try_from(dim).ok()))
        .collect();
    let expected = [1, 3, size, size];
    let fits = dims.iter().zip(expected).all(|(dim, expected)| dim.is_none_or(|dim| dim == expected));
    let rank = if fact.shape.is_open() { dims.len() <= 4 } else { dims.len() == 4 };
    let floats = fact.datum_type.concretize().is_none_or(|kind| kind == f32::datum_type());
    if fits && rank && floats {
        return Ok(());
    }
    let found: Vec<String> = dims.iter().map(|dim| dim.map_or("any".into(), |dim| dim.to_string())).collect();
    let kind = fact.datum_type.concretize().map_or("any type".into(), |kind| format!("{kind:?}"));
    Err(Error::weights(format!(
        "expected an input [1, 3, {size}, {size}] of F32, found `{}` [{}] of {kind}",
        model.node(input.node).name,
        found.join(", ")
    )))
}
