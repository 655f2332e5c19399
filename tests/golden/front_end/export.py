"""Writes small detectors as ONNX files, and values.safetensors: what public code makes of them and of landmarks.

    python export.py INSIGHTFACE

`INSIGHTFACE` is the folder `insightface` of its source package (`pip download --no-deps insightface`, unpacked).
"""

import importlib
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file
from skimage.transform import SimilarityTransform

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import pixels, uniform  # noqa: E402

STRIDES = (8, 16, 32)
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


def scrfd_module(folder: str):
    """insightface's scrfd.py without the rest of the package."""
    for name, path in (("insightface", folder), ("insightface.model_zoo", f"{folder}/model_zoo")):
        module = types.ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module
    return importlib.import_module("insightface.model_zoo.scrfd")


def grid(family: str, stride: int, output: str, channels: int, scale: float, shift: float, activation: str | None, size: float):
    """One output of a grid: a convolution that sees 4x4 pixels of each cell, as rows [1, cells, values]."""
    name = f"{family}.{output}_{stride}"
    weight = uniform(f"{name}.weight", channels * 48).reshape(channels, 3, 4, 4) * np.float32(scale * size)
    bias = uniform(f"{name}.bias", channels) * np.float32(0.1) + np.float32(shift)
    constants = [numpy_helper.from_array(weight, f"{name}.weight"), numpy_helper.from_array(bias.astype(np.float32), f"{name}.bias")]
    values = {"obj": 1, "cls": 1, "score": 1, "bbox": 4, "kps": 10}[output]
    constants.append(numpy_helper.from_array(np.array([1, -1, values], np.int64), f"{name}.shape"))
    nodes = [
        helper.make_node("Conv", ["input", f"{name}.weight", f"{name}.bias"], [f"{name}.a"], kernel_shape=[4, 4], strides=[stride] * 2),
        helper.make_node("Transpose", [f"{name}.a"], [f"{name}.b"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", [f"{name}.b", f"{name}.shape"], [f"{name}.c" if activation else f"{output}_{stride}"]),
    ]
    if activation:
        nodes.append(helper.make_node(activation, [f"{name}.c"], [f"{output}_{stride}"]))
    return nodes, constants, helper.make_tensor_value_info(f"{output}_{stride}", TensorProto.FLOAT, [1, "cells", values])


def model(family: str, outputs, sides: list, size: float) -> onnx.ModelProto:
    parts = [grid(family, stride, *output, size) for output in outputs for stride in STRIDES]
    graph = helper.make_graph(
        sum((nodes for nodes, _, _ in parts), []),
        family,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *sides])],
        [info for _, _, info in parts],
        sum((constants for _, constants, _ in parts), []),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def main() -> None:
    out = {}
    # YuNet by OpenCV, any size: 250x190 pixels, which OpenCV pads to 256x192.
    yunet = [("cls", 1, 1.2, -0.2, "Sigmoid"), ("obj", 1, 1.2, -0.2, "Sigmoid"), ("bbox", 4, 0.3, 0.6, None), ("kps", 10, 0.5, 0.3, None)]
    onnx.save(model("yunet", yunet, ["height", "width"], 1 / 128), HERE / "yunet.onnx")
    image = pixels("photograph", (190, 250, 3))
    detector = cv2.FaceDetectorYN.create(str(HERE / "yunet.onnx"), "", (250, 190), 0.6, 0.3, 5000)
    _, faces = detector.detect(np.ascontiguousarray(image[:, :, ::-1]))
    out["yunet"] = faces.astype(np.float32)
    print("yunet", faces.shape, faces[:3, -1], faces[-3:, -1])
    # SCRFD by insightface, one size: 192x160 pixels.
    scrfd = [("score", 2, 1.5, -0.3, "Sigmoid"), ("bbox", 8, 0.3, 1.4, None), ("kps", 20, 0.5, 0.3, None)]
    onnx.save(model("scrfd", scrfd, [160, 192], 1.0), HERE / "scrfd.onnx")
    image = pixels("frame", (160, 192, 3))
    detector = scrfd_module(sys.argv[1]).SCRFD(str(HERE / "scrfd.onnx"))
    detector.prepare(-1, input_size=(192, 160), nms_thresh=1.0, det_thresh=0.6)
    boxes, points = detector.detect(np.ascontiguousarray(image[:, :, ::-1]))
    boxes[:, 2:4] -= boxes[:, :2]
    out["scrfd"] = np.concatenate([boxes[:, :4], points.reshape(-1, 10), boxes[:, 4:]], 1).astype(np.float32)
    print("scrfd", boxes.shape, boxes[:3, 4], boxes[-3:, 4])
    # Alignment by scikit-image and OpenCV, as insightface's norm_crop: upright, turned, and half out of the picture.
    image = pixels("photograph", (190, 250, 3))
    for name, scale, degrees, move in (("upright", 1.0, 3, (60, 40)), ("turned", 1.3, -50, (20, 90)), ("border", 0.9, 10, (-35, 110))):
        turn = SimilarityTransform(scale=scale, rotation=np.deg2rad(degrees), translation=move)
        landmarks = (turn(TEMPLATE) + 3 * uniform(f"landmarks {name}", 10).reshape(5, 2)).astype(np.float32)
        for size in (112, 224):
            found = SimilarityTransform.from_estimate(landmarks, TEMPLATE * (size / 112))
            out[f"align.{name}.{size}"] = found.params[:2].astype(np.float64)
        matrix = out[f"align.{name}.112"]
        out[f"align.{name}.face"] = cv2.warpAffine(image, matrix, (112, 112), borderValue=0.0)
        out[f"align.{name}.landmarks"] = landmarks
    Image.new("CMYK", (16, 16), (10, 100, 180, 30)).save(HERE / "cmyk.jpg", quality=95)
    print("cmyk", Image.open(HERE / "cmyk.jpg").convert("RGB").getpixel((3, 3)))
    save_file(out, HERE / "values.safetensors")


main()
