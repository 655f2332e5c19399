"""PyTorch on a GPU as a contender: `worker.py`, with tensors that are channels-last and in the precision of the case."""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from files import embedder, load_module
from inputs import inputs


def on_gpu(module):
    return module.to("cuda", memory_format=torch.channels_last)


def embedding(case, folder, faces, autocast):
    module = on_gpu(embedder(case["network"], folder))
    if case["contender"] == "compiled":
        module = torch.compile(module)

    def embed():
        with torch.inference_mode(), autocast():
            given = faces.to("cuda", non_blocking=True).contiguous(memory_format=torch.channels_last)
            return module(given).float().cpu()

    return embed


def training(case, folder, faces, autocast):
    module = on_gpu(load_module(case["network"], folder)).train()
    tensors = inputs(folder)[1]
    classifier = torch.nn.Linear(*reversed(tensors["classifier.weight"].shape)).cuda()
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(tensors["classifier.weight"]))
        classifier.bias.copy_(torch.from_numpy(tensors["classifier.bias"]))
    labels = torch.from_numpy(tensors["labels"][: case["batch"]].copy()).cuda()
    parameters = [*module.parameters(), *classifier.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=case["rate"], momentum=0.9, weight_decay=5e-4)

    def loss_of(given):
        return torch.nn.functional.cross_entropy(classifier(module(given)), labels)

    if case["contender"] == "compiled":
        loss_of = torch.compile(loss_of)

    def step():
        optimizer.zero_grad(set_to_none=True)
        given = faces.to("cuda", non_blocking=True).contiguous(memory_format=torch.channels_last)
        with autocast():
            loss = loss_of(given)
        loss.backward()
        optimizer.step()
        return loss.detach().reshape(1)

    return step


def main():
    case = json.loads(sys.stdin.readline())
    precision, folder = case["precision"], Path(case["folder"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"

    def autocast():
        return torch.autocast("cuda", dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()

    faces = torch.from_numpy(inputs(folder)[0][: case["batch"]].copy()).pin_memory()
    run = {"embed": embedding, "train": training}[case["task"]](case, folder, faces, autocast)
    for line in sys.stdin:
        count = json.loads(line)["run"]
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            values = run()
        values = values.float().cpu()
        seconds = (time.perf_counter() - start) / count
        print(json.dumps({"seconds": [seconds] * count, "values": values.flatten().tolist()}), flush=True)


main()
