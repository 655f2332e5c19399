"""Writes values.safetensors: the maps of torchvision's MobileNetV3 for formula-made weights and inputs, and a training step of MobileNetV1.

    python export.py

The weights are named as gdrd names them: torchvision numbers the layers of a block, gdrd says what each does.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import image, values  # noqa: E402


def layers(features):
    """The modules of a network and what gdrd calls them."""
    stem, *blocks, last = features
    yield "stem", stem
    for at, block in enumerate(blocks):
        convolutions = sum(not isinstance(layer, SqueezeExcitation) for layer in block.block)
        names = iter(["expand", "depthwise"][3 - convolutions :])
        for layer in block.block:
            name = "squeeze" if isinstance(layer, SqueezeExcitation) else next(names, "project")
            yield f"blocks.{at}.{name}", layer
    yield "last", last


def fill(network):
    """Gives all tensors the formula's values."""
    for place, layer in layers(network.features):
        if isinstance(layer, SqueezeExcitation):
            parts = {"down": layer.fc1, "up": layer.fc2}
        else:
            parts = {"conv": layer[0], "bn": layer[1]}
        for part, module in parts.items():
            for name, tensor in module.state_dict().items():
                if name != "num_batches_tracked":
                    tensor.copy_(values(f"backbone.{place}.{part}.{name}", tuple(tensor.shape)))


# Table 1 of Howard et al., 2017: channels and stride after each depthwise convolution.
V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), *[(512, s) for s in (2, 1, 1, 1, 1, 1)], (1024, 2), (1024, 1)]


def v1():
    """MobileNetV1 of an eighth of its width, whose first three strides are left out; torchvision has none."""

    def layer(inputs, outputs, kernel, stride, groups=1):
        return Conv2dNormActivation(inputs, outputs, kernel, stride, groups=groups, activation_layer=torch.nn.ReLU)

    network = torch.nn.ModuleDict({"stem": layer(3, 8, 3, 1), "blocks": torch.nn.ModuleList()})
    inputs, left = 8, 4
    for channels, stride in V1:
        if stride == 2:
            left -= 1
            stride = 2 if left < 2 else 1
        outputs = channels // 8
        block = {"depthwise": layer(inputs, inputs, 3, stride, groups=inputs), "project": layer(inputs, outputs, 1, 1)}
        network["blocks"].append(torch.nn.ModuleDict(block))
        inputs = outputs
    return network


def train_v1(out):
    """The map, and the gradient of its product with a made map, in training mode and double precision."""
    network = v1()
    named = {"stem": network["stem"]}
    for at, block in enumerate(network["blocks"]):
        named.update({f"blocks.{at}.{name}": layer for name, layer in block.items()})
    parts = {f"{place}.{part}": layer[at] for place, layer in named.items() for at, part in enumerate(("conv", "bn"))}
    for place, module in parts.items():
        for name, tensor in module.state_dict().items():
            if name != "num_batches_tracked":
                tensor.copy_(values(f"backbone.{place}.{name}", tuple(tensor.shape)))
    network.double().train()
    with torch.enable_grad():
        x = image("faces", (4, 3, 16, 16)).double()
        for layer in named.values():
            x = layer(x)
        (x * image("wanted", tuple(x.shape)).double()).mean().backward()
    out["v1.backbone"] = x.detach()
    for place, module in parts.items():
        for name, tensor in module.named_parameters():
            out[f"v1.grad.backbone.{place}.{name}"] = tensor.grad


def main():
    torch.set_grad_enabled(False)
    out = {}
    train_v1(out)
    for name, make in {"v3-small": mobilenet_v3_small, "v3-large": mobilenet_v3_large}.items():
        # gdrd's batch normalisation has PyTorch's usual epsilon.
        network = make(norm_layer=partial(torch.nn.BatchNorm2d, eps=1e-5)).eval()
        fill(network)
        x = image("faces", (2, 3, 32, 32))
        for at, feature in enumerate(network.features):
            x = feature(x)
            if at == 1:
                out[f"{name}.blocks.0"] = x.contiguous()
        out[f"{name}.backbone"] = x.contiguous()
        print(name, sum(p.numel() for p in network.features.parameters()), float(x.std()))
    save_file({name: tensor.float() for name, tensor in out.items()}, HERE / "values.safetensors")


main()
