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


def onnxruntime(case, folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    path = str(folder / "network.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"faces": inputs(folder)[0][: case["batch"]].copy()}
    return lambda: session.run(None, feed)[0]


def main():
    case = json.loads(sys.stdin.readline())
    run = {"pytorch": pytorch, "onnxruntime": onnxruntime}[case["contender"]](case, Path(case["folder"]))
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)["run"]):
            start = time.perf_counter()
            values = run()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "values": values.ravel().tolist()}), flush=True)


main()
