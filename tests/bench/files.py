"""Weights, inputs and ONNX files: the same for every contender, and the same on every machine."""

import hashlib
import json

import numpy as np
import torch
from safetensors.numpy import save_file

from cases import IDENTITIES, faces
from networks import UnitLength, build


def draw(name, shape):
    """Values that keep the size of activations through the network, from the name of the tensor."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    normal = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return 1 + 0.2 * np.tanh(normal)
    if len(shape) == 1:
        return (1 if name.endswith("weight") else 0) + 0.1 * np.tanh(normal)
    return normal * np.float32((1.4 / np.prod(shape[1:])) ** 0.5)


def weights_of(module):
    tensors = module.state_dict()
    return {name: draw(name, tuple(t.shape)) for name, t in tensors.items() if not name.endswith("num_batches_tracked")}


def student_header(network, map_shape):
    """What gdrd's student file says of itself."""
    options = network["options"]
    card = dict(input_size=network["size"], map=map_shape, embedding=options["embedding"])
    return dict(format=1, kind="resnet-trunk", options=options, card=card, recipe="", teachers={},
                prepare=dict(size=network["size"], kernel="bicubic", antialias=True))


def map_shape(network):
    size = network["size"]
    for stride in network["options"]["strides"]:
        size = -(-size // stride)
    return [network["options"]["channels"][-1], size, size]


def load_module(network, folder):
    """The PyTorch module with the weights of `folder`."""
    from safetensors.torch import load_file

    module = build(network)
    missing, unexpected = module.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert not missing and not unexpected, (missing, unexpected)
    return module


def embedder(network, folder):
    """The module in evaluation mode, with embeddings as gdrd's API gives them."""
    module = load_module(network, folder).eval()
    return UnitLength(module) if network["kind"] == "resnet-trunk" else module


def make(network, folder, onnx=True):
    """Writes `weights.safetensors`, `inputs.safetensors` and, if it is wanted, `network.onnx` into `folder`, unless they are there."""
    count = faces(network)
    stamp = json.dumps(dict(network, faces=count), sort_keys=True)
    if (folder / "made.json").exists() and (folder / "made.json").read_text() == stamp:
        return
    folder.mkdir(parents=True, exist_ok=True)
    is_student = network["kind"] == "resnet-trunk"
    header = {"gdrd": json.dumps(student_header(network, map_shape(network)))} if is_student else None
    save_file(weights_of(build(network)), folder / "weights.safetensors", header)
    size, random = network["size"], np.random.default_rng(1)
    # Smooth faces of some contrast: noise alone would leave every embedding the same.
    coarse = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    fine = random.integers(0, 64, (count, size, size, 3), dtype=np.uint8)
    pixels = coarse.repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)[:, :size, :size] // 4 * 3 + fine
    tensors = {"pixels": np.ascontiguousarray(pixels), "labels": random.integers(0, IDENTITIES, count)}
    if is_student or network["kind"] == "mobilefacenet":
        width = network["options"]["embedding"] if is_student else 512
        tensors["classifier.weight"] = draw("classifier.weight", (IDENTITIES, width))
        tensors["classifier.bias"] = draw("classifier.bias", (IDENTITIES,))
    save_file(tensors, folder / "inputs.safetensors")
    if onnx:
        example = torch.zeros(2, 3, size, size)
        torch.onnx.export(
            embedder(network, folder), (example,), str(folder / "network.onnx"), input_names=["faces"], output_names=["features"],
            dynamic_axes={"faces": {0: "batch"}, "features": {0: "batch"}}, opset_version=17, dynamo=False,
        )
    (folder / "made.json").write_text(stamp)


def layers(network, batch):
    """The convolutions and fully connected layers that a batch goes through, each different one once, with its count."""
    found = {}

    def seen(module, given, out):
        x = given[0]
        if isinstance(module, torch.nn.Conv2d):
            key = ("conv", x.shape[1], out.shape[1], x.shape[2], module.kernel_size[0], module.stride[0], module.groups)
        else:
            key = ("linear", module.in_features, module.out_features, 1, 1, 1, 1)
        found[key] = found.get(key, 0) + 1

    module = build(network).eval()
    for inner in module.modules():
        if isinstance(inner, (torch.nn.Conv2d, torch.nn.Linear)):
            inner.register_forward_hook(seen)
    with torch.no_grad():
        module(torch.zeros(1, 3, network["size"], network["size"]))
    names = ("kind", "inputs", "outputs", "size", "kernel", "stride", "groups")
    return [dict(zip(names, key), batch=batch, count=count) for key, count in found.items()]
