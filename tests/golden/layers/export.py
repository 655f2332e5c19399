"""Writes values.safetensors: PyTorch's layers and a twin of the student `resnet-trunk`, forward and backward.

    python export.py
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import fill, image  # noqa: E402

out = {}


def backward(name, module, x, *answers):
    """The gradients of the sum of all answers, each weighted by formula-made numbers."""
    total = sum((answer * image(f"{name}.probe{at}", tuple(answer.shape)).double()).sum()
                for at, answer in enumerate(answers))
    total.backward()
    out[f"{name}.d_x"] = x.grad
    for key, tensor in module.named_parameters():
        out[f"{name}.grad.{key}"] = tensor.grad


def case(name, module, shape, train=True):
    out[f"{name}.layout"] = torch.tensor([fill(module)])
    module.double().train(train)
    x = image(f"{name}.x", shape).double().requires_grad_()
    y = module(x)
    out[f"{name}.y"] = y
    backward(name, module, x, y)
    for key, tensor in module.named_buffers():
        if not key.endswith("num_batches_tracked"):
            out[f"{name}.after.{key}"] = tensor


def layers():
    case("bn_maps", nn.BatchNorm2d(5), (3, 5, 4, 6))
    case("bn_maps_used", nn.BatchNorm2d(5), (3, 5, 4, 6), train=False)
    case("bn_rows", nn.BatchNorm1d(7), (4, 7))
    case("bn_rows_used", nn.BatchNorm1d(7), (4, 7), train=False)
    case("bn_wide", nn.BatchNorm2d(33), (2, 33, 3, 3))
    case("prelu", nn.PReLU(5), (2, 5, 3, 4))
    case("group_norm", nn.GroupNorm(4, 12), (2, 12, 3, 5))
    case("group_norm_one", nn.GroupNorm(1, 6), (2, 6, 4, 4))
    case("linear", nn.Linear(9, 5), (3, 9))
    case("linear_plain", nn.Linear(9, 5, bias=False), (3, 9))
    for name, shape, outputs, kernel, options in (
        ("conv_same", (2, 16, 8, 8), 24, 3, dict(padding=1, bias=False)),
        ("conv_same_odd", (3, 5, 7, 9), 6, 3, dict(padding=1)),
        ("conv_four", (2, 32, 4, 4), 32, 3, dict(padding=1, bias=False)),
        ("conv_strided", (2, 6, 9, 8), 10, 3, dict(padding=1, stride=2)),
        ("conv_point", (2, 12, 5, 5), 7, 1, dict()),
        ("conv_point_strided", (2, 12, 8, 8), 7, 1, dict(stride=2, bias=False)),
        ("conv_valid", (2, 4, 7, 7), 6, 3, dict()),
        ("conv_five", (1, 3, 11, 11), 4, 5, dict(padding=2, stride=2)),
        ("conv_groups", (2, 12, 6, 6), 8, 3, dict(padding=1, groups=4)),
        ("conv_depthwise", (2, 10, 7, 7), 10, 3, dict(padding=1, groups=10)),
        ("conv_depthwise_strided", (2, 10, 8, 8), 10, 3, dict(padding=1, stride=2, groups=10, bias=False)),
        ("conv_depthwise_whole", (2, 6, 7, 7), 6, 7, dict(groups=6, bias=False)),
    ):
        case(name, nn.Conv2d(shape[1], outputs, kernel, **options), shape)


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn(self.conv(x))


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, ends_in_relu):
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3, 1)
        if stride != 1 or inputs != outputs:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride)
        self.ends_in_relu = ends_in_relu

    def forward(self, x):
        y = self.second(F.relu(self.first(x)))
        y = y + (self.shortcut(x) if hasattr(self, "shortcut") else x)
        return F.relu(y) if self.ends_in_relu else y


class Student(nn.Module):
    """The trunk of a ResNet-18 without its stem's reduction, and a fully connected head."""

    def __init__(self, channels, blocks, strides, embedding, size, last_relu=True, average=False, hidden=(),
                 normalise=False):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stem = ConvNorm(3, channels[0], 3, 1)
        self.blocks, inputs = [], channels[0]
        for stage, outputs in enumerate(channels):
            made = nn.Sequential()
            for block in range(blocks[stage]):
                last = stage + 1 == len(channels) and block + 1 == blocks[stage]
                made.append(BasicBlock(inputs, outputs, strides[stage] if block == 0 else 1, last_relu or not last))
                inputs = outputs
            setattr(self.backbone, f"stage{stage}", made)
            self.blocks.append(made)
        for stride in strides:
            size = -(-size // stride)
        self.average = average
        width = inputs if average else inputs * size * size
        self.head = nn.Module()
        self.head.hidden = nn.ModuleList()
        for units in hidden:
            self.head.hidden.append(nn.ModuleDict({"fc": nn.Linear(width, units, bias=False),
                                                   "bn": nn.BatchNorm1d(units)}))
            width = units
        self.head.embedding = nn.Linear(width, embedding, bias=not normalise)
        if normalise:
            self.head.norm = nn.BatchNorm1d(embedding)

    def forward(self, faces):
        x = F.relu(self.backbone.stem(2 * faces - 1))
        for made in self.blocks:
            x = made(x)
        flat = x.mean((2, 3)) if self.average else x.flatten(1)
        for layer in self.head.hidden:
            flat = F.relu(layer["bn"](layer["fc"](flat)))
        flat = self.head.embedding(flat)
        return x, self.head.norm(flat) if hasattr(self.head, "norm") else flat


def student(name, size, **options):
    module = Student(size=size, **options)
    out[f"{name}.layout"] = torch.tensor([fill(module)])
    module.double().train()
    faces = ((image(f"{name}.x", (4, 3, size, size)) + 1) / 2).double().requires_grad_()
    answers = module(faces)
    out[f"{name}.map"], out[f"{name}.embedding"] = answers
    backward(name, module, faces, *answers)
    for key, tensor in module.named_buffers():
        if not key.endswith("num_batches_tracked"):
            out[f"{name}.after.{key}"] = tensor
    # Used after one batch, so with running statistics that have moved.
    module.eval()
    out[f"{name}.used"] = module(faces)[1]


layers()
student("student", 16, channels=[6, 8, 12], blocks=[2, 1, 2], strides=[1, 2, 2], embedding=5)
student("student_other", 9, channels=[8, 6], blocks=[1, 2], strides=[2, 2], embedding=5, last_relu=False,
        average=True, hidden=[7], normalise=True)
default = Student(channels=[128, 256, 512], blocks=[2, 2, 2], strides=[1, 2, 2], embedding=512, size=16)
out["default.parameters"] = torch.tensor([sum(p.numel() for p in default.parameters())])
out["default.layout"] = torch.tensor([fill(default)])
save_file({name: (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous()
           for name, tensor in sorted(out.items())}, HERE / "values.safetensors")
