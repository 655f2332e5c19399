//! A network's inference form as an ONNX model, opset 17.
//!
//! The few messages of `onnx.proto` that are needed are written by hand: a field is its number, the kind of its value, and the value.

use super::super::kernels::EpilogueActivation;
use super::{Entrance, Inference, Layer, Map, Operation};
use crate::error::{Error, Result};

/// What an ONNX model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnnxInput {
    /// `faces`, bytes `[batch, size, size, 3]`, RGB: the division by 255 and the order of channels are nodes of the model.
    Bytes,
    /// `faces`, float32 `[batch, 3, size, size]`, RGB in `[0, 1]`; metadata says how they are made.
    Floats,
}

/// The version of ONNX's operators.
pub const OPSET: u64 = 17;
/// The version of the file.
const IR_VERSION: u64 = 8;
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT64: u64 = 7;

/// A message of protobuf, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn of(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn all(self, field: u64, values: impl IntoIterator<Item = Self>) -> Self {
        values.into_iter().fold(self, |message, value| message.of(field, value))
    }
}

/// An attribute of a node that is a list of numbers, or one.
enum Attribute<'a> {
    Ints(&'a [u64]),
    Int(u64),
}

/// The nodes and constants of a graph.
#[derive(Default)]
struct Graph {
    nodes: Vec<Message>,
    constants: Vec<Message>,
}

impl Graph {
    /// A node with one output, whose name it returns.
    fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = format!("{}_{}", operator.to_lowercase(), self.nodes.len());
        self.named(operator, inputs, attributes, &output);
        output
    }

    fn named(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)], output: &str) {
        let attribute = |(name, value): &(&str, Attribute)| {
            let message = Message::default().text(1, name);
            match value {
                Attribute::Int(value) => message.int(3, *value).int(20, 2),
                Attribute::Ints(values) => {
                    values.iter().fold(message, |message, value| message.int(8, *value)).int(20, 7)
                }
            }
        };
        let node = inputs.iter().fold(Message::default(), |node, input| node.text(1, input)).text(2, output);
        self.nodes.push(node.text(3, output).text(4, operator).all(5, attributes.iter().map(attribute)));
    }

    fn constant(&mut self, dims: &[usize], kind: u64, bytes: &[u8]) -> String {
        let name = format!("constant_{}", self.constants.len());
        let tensor = dims.iter().fold(Message::default(), |tensor, dim| tensor.int(1, *dim as u64));
        self.constants.push(tensor.int(2, kind).text(8, &name).bytes(9, bytes));
        name
    }

    fn floats(&mut self, dims: &[usize], values: impl IntoIterator<Item = f32>) -> String {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.constant(dims, FLOAT, &bytes)
    }

    /// `x` with these channels, height and width for each face.
    fn shaped(&mut self, x: &str, dims: &[i64]) -> String {
        let bytes: Vec<u8> = [-1].iter().chain(dims).flat_map(|dim| dim.to_le_bytes()).collect();
        let shape = self.constant(&[dims.len() + 1], INT64, &bytes);
        self.node("Reshape", &[x, &shape], &[])
    }

    fn clipped(&mut self, x: &str, low: f32, high: f32) -> String {
        let (low, high) = (self.floats(&[], [low]), self.floats(&[], [high]));
        self.node("Clip", &[x, &low, &high], &[])
    }

    fn scaled(&mut self, x: &str, dims: &[usize], scale: Vec<f32>, shift: Vec<f32>) -> String {
        let (scale, shift) = (self.floats(dims, scale), self.floats(dims, shift));
        let x = self.node("Mul", &[x, &scale], &[]);
        self.node("Add", &[&x, &shift], &[])
    }

    fn enter(&mut self, x: &str, entrance: &Entrance) -> String {
        let mut x = x.to_string();
        if let Some(filter) = entrance.filter() {
            let (from, to) = (filter.from, filter.taps.len());
            let mut rows = vec![0f32; to * from];
            for (row, (first, weights)) in rows.chunks_exact_mut(from).zip(&filter.taps) {
                row[*first..][..weights.len()].copy_from_slice(weights);
            }
            let columns =
                (0..from).flat_map(|input| rows.iter().skip(input).step_by(from).copied().collect::<Vec<_>>());
            let columns = self.floats(&[from, to], columns);
            let wide = self.node("MatMul", &[&x, &columns], &[]);
            let wide = self.clipped(&wide, 0.0, 1.0);
            let rows = self.floats(&[to, from], rows.iter().copied());
            let large = self.node("MatMul", &[&rows, &wide], &[]);
            x = self.clipped(&large, 0.0, 1.0);
        }
        let (order, mean, std) = entrance.contract();
        if order != [0, 1, 2] {
            let bytes: Vec<u8> = order.iter().flat_map(|channel| (*channel as i64).to_le_bytes()).collect();
            let order = self.constant(&[3], INT64, &bytes);
            x = self.node("Gather", &[&x, &order], &[("axis", Attribute::Int(1))]);
        }
        let (mean, std) = (self.floats(&[1, 3, 1, 1], mean), self.floats(&[1, 3, 1, 1], std));
        let x = self.node("Sub", &[&x, &mean], &[]);
        self.node("Div", &[&x, &std], &[])
    }

    fn layer(&mut self, layer: &Layer, x: &str, add: Option<&str>) -> Result<String> {
        match &layer.kind {
            Operation::Affine(scale, shift) => Ok(self.scaled(x, &[], vec![*scale], vec![*shift])),
            Operation::Average => Ok(self.node("GlobalAveragePool", &[x], &[])),
            Operation::ScaleShift(scale, shift) => {
                Ok(self.scaled(x, &[1, scale.len(), 1, 1], scale.clone(), shift.clone()))
            }
            Operation::Enter(entrance) => Ok(self.enter(x, entrance)),
            Operation::Conv(conv) => {
                let parts = conv.parts()?;
                let each: usize = parts.dims[1..].iter().product();
                let factor = |at: usize| parts.scale_shift.map_or(1.0, |(scale, _)| scale[at / each]);
                let weight = self.floats(&parts.dims, parts.weight.iter().enumerate().map(|(at, w)| w * factor(at)));
                let bias = parts.scale_shift.map(|(_, shift)| self.floats(&[shift.len()], shift.iter().copied()));
                let inputs: Vec<&str> = [Some(x), Some(&weight), bias.as_deref()].into_iter().flatten().collect();
                let (kernel, stride, padding) =
                    ([parts.dims[2] as u64, parts.dims[3] as u64], [parts.stride as u64; 2], [parts.padding as u64; 4]);
                let attributes = [
                    ("kernel_shape", Attribute::Ints(&kernel)),
                    ("strides", Attribute::Ints(&stride)),
                    ("pads", Attribute::Ints(&padding)),
                    ("group", Attribute::Int(parts.groups as u64)),
                ];
                let mut y = self.node("Conv", &inputs, &attributes);
                if let Some(add) = add {
                    y = self.node("Add", &[&y, add], &[]);
                }
                Ok(match parts.activation {
                    EpilogueActivation::Identity => y,
                    EpilogueActivation::Relu => self.node("Relu", &[&y], &[]),
                    EpilogueActivation::Relu6 => self.clipped(&y, 0.0, 6.0),
                    EpilogueActivation::PRelu(slopes) => {
                        let slopes = self.floats(&[slopes.len(), 1, 1], slopes.iter().copied());
                        self.node("PRelu", &[&y, &slopes], &[])
                    }
                })
            }
        }
    }
}

impl Inference {
    /// The network as an ONNX model of opset 17: `faces` to `embedding`, float32 `[batch, width]`, rows of unit length. `metadata`
    /// goes into the file. Equal networks give equal bytes.
    ///
    /// # Errors
    /// If the input does not have three channels.
    pub fn to_onnx(&self, input: OnnxInput, metadata: &[(String, String)]) -> Result<Vec<u8>> {
        let [channels, height, width] = self.input.dims;
        if channels != 3 {
            return Err(Error::component(format!("expected a network for faces, found one for {channels} channels")));
        }
        let mut graph = Graph::default();
        let (kind, dims) = match input {
            OnnxInput::Bytes => (UINT8, [height, width, 3]),
            OnnxInput::Floats => (FLOAT, [3, height, width]),
        };
        let mut names = vec!["faces".to_string()];
        if input == OnnxInput::Bytes {
            let x = graph.node("Cast", &["faces"], &[("to", Attribute::Int(FLOAT))]);
            let most = graph.floats(&[], [255.0]);
            let x = graph.node("Div", &[&x, &most], &[]);
            names[0] = graph.node("Transpose", &[&x], &[("perm", Attribute::Ints(&[0, 3, 1, 2]))]);
        }
        let mut dims_of = vec![self.input.dims];
        let shown =
            |graph: &mut Graph, map: Map, names: &[String], dims_of: &[[usize; 3]]| match dims_of[map.at] == map.dims {
                true => names[map.at].clone(),
                false => graph.shaped(&names[map.at], &map.dims.map(|dim| dim as i64)),
            };
        for layer in &self.layers {
            let x = shown(&mut graph, layer.x, &names, &dims_of);
            let add = layer.add.map(|map| shown(&mut graph, map, &names, &dims_of));
            names.push(graph.layer(layer, &x, add.as_deref())?);
            dims_of.push(layer.y.dims);
        }
        let values: usize = self.output.dims.iter().product();
        let flat = graph.shaped(&names[self.output.at], &[values as i64]);
        let axes = [("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(1))];
        let length = graph.node("ReduceL2", &[&flat], &axes);
        graph.named("Div", &[&flat, &length], &[], "embedding");
        let graph = Message::default()
            .all(1, graph.nodes)
            .text(2, "student")
            .all(5, graph.constants)
            .of(11, value("faces", kind, &dims))
            .of(12, value("embedding", FLOAT, &[values]));
        let property = |(key, value): &(String, String)| Message::default().text(1, key).text(2, value);
        let model = Message::default()
            .int(1, IR_VERSION)
            .text(2, "gdrd")
            .text(3, env!("CARGO_PKG_VERSION"))
            .of(7, graph)
            .of(8, Message::default().text(1, "").int(2, OPSET))
            .all(14, metadata.iter().map(property));
        Ok(model.0)
    }
}

/// An input or output: any number of faces of these dimensions.
fn value(name: &str, kind: u64, dims: &[usize]) -> Message {
    let batch = Message::default().text(2, "batch");
    let dims = dims.iter().map(|dim| Message::default().int(1, *dim as u64));
    let shape = Message::default().all(1, std::iter::once(batch).chain(dims));
    let tensor = Message::default().int(1, kind).of(2, shape);
    Message::default().text(1, name).of(2, Message::default().of(1, tensor))
}
