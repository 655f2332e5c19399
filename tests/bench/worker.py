"""A contender as a process: PyTorch or ONNX Runtime. Commands are lines of JSON on stdin, answers on stdout.

The first line is the case; after that `{"run": N}` runs N iterations and answers with the seconds of each and the values of the last.
src/main.rs is the same for gdrd and candle.
"""

import json
import sys
import time
from pathlib import Path

from inputs import inputs


def pytorch(case, folder):
    import torch

    from files import embedder, load_module

    torch.set_num_threads(case["threads"])
    faces, tensors = inputs(folder)
    faces = torch.from_numpy(faces[: case["batch"]].copy())
    if case["task"] == "embed":
        module = embedder(case["network"], folder)

        def embed():
            with torch.inference_mode():
                return module(faces).numpy()

        return embed
    module = load_module(case["network"], folder).train()
    classifier = torch.nn.Linear(*reversed(tensors["classifier.weight"].shape))
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(tensors["classifier.weight"]))
        classifier.bias.copy_(torch.from_numpy(tensors["classifier.bias"]))
    labels = torch.from_numpy(tensors["labels"][: case["batch"]].copy())
    parameters = [*module.parameters(), *classifier.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=case["rate"], momentum=0.9, weight_decay=5e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(classifier(module(faces)), labels)
        loss.backward()
        optimizer.step()
        return loss.detach().reshape(1).numpy()

    return step


def onnxruntime_int8(case, folder):
    """Weights by channel and activations in 8 bits, with the ranges of the inputs: more than gdrd is told, which finds each image's."""
    path = folder / "network-int8.onnx"
    if not path.exists():
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Inputs(CalibrationDataReader):
            def __init__(self):
                self.left = iter([{"faces": inputs(folder)[0]}])

            def get_next(self):
                return next(self.left, None)

        prepared = folder / "network-prepared.onnx"
        quant_pre_process(folder / "network.onnx", prepared)
        quantize_static(prepared, path, Inputs(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return onnxruntime(case, folder, path.name)


def onnxruntime(case, folder, name="network.onnx"):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    path = str(folder / name)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"faces": inputs(folder)[0][: case["batch"]].copy()}
    return lambda: session.run(None, feed)[0]


def main():
    case = json.loads(sys.stdin.readline())
    run = {"pytorch": pytorch, "onnxruntime": onnxruntime, "onnxruntime-int8": onnxruntime_int8}[case["contender"]](case, Path(case["folder"]))
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)["run"]):
            start = time.perf_counter()
            values = run()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "values": values.ravel().tolist()}), flush=True)


main()
