"""Writes values.safetensors: the maps of torchvision's MobileNetV3 for formula-made weights and inputs.

    python export.py

The weights are named as gdrd names them: torchvision numbers the layers of a block, gdrd says what each does.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.ops import SqueezeExcitation

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


def main():
    torch.set_grad_enabled(False)
    out = {}
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
    save_file(out, HERE / "values.safetensors")


main()
