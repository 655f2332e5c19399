"""PyTorch and ONNX Runtime held to AVX2 where the processor has more, for `compare --instructions avx2`.

PyTorch and its libraries have variables for that. ONNX Runtime has none, so a copy of its package stands in, in which its two tests for
AVX-512 always fail; a convolution then shows by its layout that it took the form for AVX2.
"""

import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

# What its tests look like, and what makes them fail: bits 5 to 7 of XCR0 say that the system saves the registers of AVX-512.
TESTS = [
    # `not rax; test al, 0xe0; je`: with `or al, 1` in the middle the result is never zero.
    (bytes.fromhex("48f7d0a8e00f84"), bytes.fromhex("48f7d00c010f84")),
    # `and r9d, 0xe6`, zeros elsewhere, `cmp r9d, 0xe6`: never equal to 0xe7.
    (bytes.fromhex("4181e1e60000004531d231c94181f9e6000000"), bytes.fromhex("4181e1e60000004531d231c94181f9e7000000")),
]

# Kernels of 24 outputs are filled up to 32 where vectors have 16 values, and are as they are where they have 8.
LAYOUT = """
import sys, numpy, onnx, onnxruntime
from onnx import TensorProto, helper
kernels = numpy.ones((24, 16, 3, 3), numpy.float32)
value = lambda name, channels: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 16, 16])
weight = helper.make_tensor("w", TensorProto.FLOAT, kernels.shape, kernels.tobytes(), raw=True)
graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], "g", [value("x", 16)], [value("y", 24)], [weight])
options = onnxruntime.SessionOptions()
options.optimized_model_filepath, options.log_severity_level = sys.argv[1], 3
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
print(onnx.load(sys.argv[1]).graph.initializer[0].dims[0])
"""


def held_to_avx2(out):
    """The environment of such peers. Makes the copy below `out`, unless it is there."""
    folder = out / f"onnxruntime-{version('onnxruntime')}-avx2"
    environment = dict(ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2", PYTHONPATH=str(folder))
    if not folder.exists():
        package = Path(importlib.util.find_spec("onnxruntime").origin).parent
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(package, partial / "onnxruntime")
        alter(next((partial / "onnxruntime/capi").glob("onnxruntime_pybind11_state*.so")))
        model = partial / "layout.onnx"
        command = [sys.executable, "-c", LAYOUT, str(model)]
        found = subprocess.run(command, env=dict(environment, PYTHONPATH=str(partial)), capture_output=True, text=True)
        if found.stdout.strip() != "24":
            sys.exit(f"ONNX Runtime does not keep to AVX2: expected kernels of 24 outputs, found {found.stdout.strip()}\n{found.stderr}")
        partial.rename(folder)
    return environment


def alter(library):
    code = library.read_bytes()
    for test, failing in TESTS:
        if code.count(test) != 1:
            sys.exit(f"{library.name}: expected one test for AVX-512 of the form {test.hex()}, found {code.count(test)}; is it another version?")
        code = code.replace(test, failing)
    library.write_bytes(code)
