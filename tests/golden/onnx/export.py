"""Writes small recognisers as ONNX files, and values.safetensors: what ONNX Runtime makes of faces with them.

    python export.py
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import pixels, values  # noqa: E402

SIZE, WIDTH = 8, 6


def model(batch: int | str, outputs: int) -> onnx.ModelProto:
    """Convolution, batch normalisation, PReLU, twice; then an embedding, as recognisers have them."""
    shapes = {"conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 1, 3, 3), "head.weight": (WIDTH, 8 * 4 * 4)}
    shapes |= {f"bn{i}.{name}": (8,) for i in (1, 2) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {f"prelu{i}.weight": (8, 1, 1) for i in (1, 2)} | {"head.bias": (WIDTH,)}
    weights = [numpy_helper.from_array(values(name, shape).numpy(), name) for name, shape in shapes.items()]
    bn = lambda i: [f"bn{i}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]  # noqa: E731
    nodes = [
        helper.make_node("Conv", ["face", "conv1.weight"], ["a1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["a1", *bn(1)], ["b1"], epsilon=1e-5),
        helper.make_node("PRelu", ["b1", "prelu1.weight"], ["c1"]),
        helper.make_node("Conv", ["c1", "conv2.weight"], ["a2"], kernel_shape=[3, 3], pads=[1] * 4, group=8),
        helper.make_node("BatchNormalization", ["a2", *bn(2)], ["b2"], epsilon=1e-5),
        helper.make_node("PRelu", ["b2", "prelu2.weight"], ["c2"]),
        helper.make_node("Flatten", ["c2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["embedding"], transB=1),
    ]
    declared = [("embedding", [batch, WIDTH]), ("flat", [batch, 8 * 4 * 4])][:outputs]
    graph = helper.make_graph(
        nodes, "recogniser",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in declared],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def main() -> None:
    for name, made in {"fixed": model(1, 1), "dynamic": model("batch", 2)}.items():
        onnx.save(made, HERE / f"{name}.onnx")
    faces = torch.from_numpy(pixels("onnx faces", (3, SIZE, SIZE, 3)).astype(np.float32)) / 255
    # Blue first, each channel with numbers of its own, in the order of the network's input.
    x = faces.flip(3).permute(0, 3, 1, 2).contiguous()
    mean, std = torch.tensor([0.4, 0.45, 0.5]), torch.tensor([0.2, 0.25, 0.3])
    x = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    session = onnxruntime.InferenceSession(HERE / "dynamic.onnx", providers=["CPUExecutionProvider"])
    embedding, flat = session.run(["embedding", "flat"], {"face": x.numpy()})
    fixed = onnxruntime.InferenceSession(HERE / "fixed.onnx", providers=["CPUExecutionProvider"])
    assert np.allclose(fixed.run(None, {"face": x[1:2].numpy()})[0], embedding[1:2], atol=1e-6)
    save_file({"embedding": torch.from_numpy(embedding), "flat": torch.from_numpy(flat)}, HERE / "values.safetensors")
    print("standard deviation", embedding.std())


main()
