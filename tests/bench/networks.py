"""The networks of the benchmark in PyTorch, with the tensor names that gdrd reads. Input: RGB in [0, 1]."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(inputs, outputs, kernel=3, stride=1, groups=1, bias=False):
    padding = 0 if kernel == 7 else kernel // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)


def parts(**modules):
    """A module that only gives names to others."""
    module = nn.Module()
    for name, inner in modules.items():
        module.add_module(name, inner)
    return module


# The student: gdrd's `resnet-trunk`.


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv, self.bn = conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn(self.conv(x))


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, relu=True):
        super().__init__()
        self.first, self.second = ConvNorm(inputs, outputs, 3, stride), ConvNorm(outputs, outputs, 3, 1)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None
        self.relu = relu

    def forward(self, x):
        y = self.second(F.relu(self.first(x)))
        y = y + (x if self.shortcut is None else self.shortcut(x))
        return F.relu(y) if self.relu else y


def stage(inputs, outputs, stride, count):
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *[BasicBlock(outputs, outputs, 1) for _ in range(count - 1)])


class Student(nn.Module):
    def __init__(self, size, channels, blocks, strides, last_relu, embedding, head):
        super().__init__()
        self.backbone = parts(stem=ConvNorm(3, channels[0], 3, 1))
        width = channels[0]
        self.trunk, self.head_stages = [], []
        for at, (outputs, count, stride) in enumerate(zip(channels, blocks, strides)):
            self.backbone.add_module(f"stage{at}", stage(width, outputs, stride, count))
            self.trunk.append(f"stage{at}")
            width, size = outputs, -(-size // stride)
        self.backbone.get_submodule(self.trunk[-1])[-1].relu = last_relu
        self.head = nn.Module()
        for at, outputs in enumerate(head.get("channels", [])):
            self.head.add_module(f"stage{at}", stage(width, outputs, 2, head.get("blocks", 1)))
            self.head_stages.append(f"stage{at}")
            width, size = outputs, -(-size // 2)
        width *= size * size
        hidden = []
        for units in head.get("hidden", []):
            hidden.append(parts(fc=nn.Linear(width, units, bias=False), bn=nn.BatchNorm1d(units)))
            width = units
        self.head.hidden = nn.ModuleList(hidden)
        normalise = head.get("normalise", False)
        self.head.embedding = nn.Linear(width, embedding, bias=not normalise)
        self.head.norm = nn.BatchNorm1d(embedding) if normalise else None

    def forward(self, x):
        x = F.relu(self.backbone.stem(2 * x - 1))
        for name in self.trunk:
            x = self.backbone.get_submodule(name)(x)
        for name in self.head_stages:
            x = self.head.get_submodule(name)(x)
        x = x.flatten(1)
        for layer in self.head.hidden:
            x = F.relu(layer.bn(layer.fc(x)))
        x = self.head.embedding(x)
        return x if self.head.norm is None else self.head.norm(x)


class UnitLength(nn.Module):
    """Embeddings as gdrd's `FaceEncoder` gives them."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return F.normalize(self.inner(x))


# IResNet-50 with insightface's names.


class IresnetBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs)
        self.bn2, self.prelu = nn.BatchNorm2d(outputs), nn.PReLU(outputs)
        self.conv2, self.bn3 = conv(outputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.downsample = shortcut if stride > 1 else None

    def forward(self, x):
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class Iresnet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.prelu = conv(3, 64), nn.BatchNorm2d(64), nn.PReLU(64)
        width = 64
        for at, (outputs, count) in enumerate(zip([64, 128, 256, 512], [3, 4, 14, 3])):
            blocks = [IresnetBlock(width, outputs, 2), *[IresnetBlock(outputs, outputs, 1) for _ in range(count - 1)]]
            self.add_module(f"layer{at + 1}", nn.Sequential(*blocks))
            width = outputs
        self.bn2, self.fc, self.features = nn.BatchNorm2d(512), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(2 * x - 1)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


# MobileFaceNet with the names of insightface's `mbf`.


class Layers(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


class Residuals(Layers):
    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def with_prelu(inputs, outputs, kernel, stride=1, groups=1):
    layer = conv(inputs, outputs, kernel, stride, groups)
    return Layers(layer, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def bottleneck(inputs, hidden, outputs, stride):
    narrow = Layers(conv(hidden, outputs, 1), nn.BatchNorm2d(outputs))
    return Layers(with_prelu(inputs, hidden, 1), with_prelu(hidden, hidden, 3, stride, hidden), narrow)


class MobileFaceNet(nn.Module):
    def __init__(self):
        super().__init__()

        def residuals(count, width, hidden):
            return Residuals(*[bottleneck(width, hidden, width, 1) for _ in range(count)])

        self.layers = nn.Sequential(
            with_prelu(3, 128, 3, 2), with_prelu(128, 128, 3, 1, 64),
            bottleneck(128, 128, 128, 2), residuals(4, 128, 128),
            bottleneck(128, 256, 256, 2), residuals(6, 256, 256),
            bottleneck(256, 512, 256, 2), residuals(2, 256, 256),
        )
        self.conv_sep = with_prelu(256, 512, 1)
        depthwise = Layers(conv(512, 512, 7, groups=512), nn.BatchNorm2d(512))
        self.features = Layers(depthwise, nn.Flatten(), nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512))

    def forward(self, x):
        return self.features(self.conv_sep(self.layers(2 * x - 1)))


# The encoder of a guided-diffusion U-Net at timestep 0.


class UnetResidual(nn.Module):
    def __init__(self, inputs, outputs, time):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), conv(inputs, outputs, bias=True))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outputs))
        last = conv(outputs, outputs, bias=True)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, outputs), nn.SiLU(), nn.Identity(), last)
        self.skip_connection = conv(inputs, outputs, 1, bias=True) if inputs != outputs else nn.Identity()

    def forward(self, x, time):
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, 1)
        y = self.out_layers[0](self.in_layers(x)) * (1 + scale) + shift
        return self.skip_connection(x) + self.out_layers[1:](y)


class UnetAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x, _time):
        batch, channels, height, width = x.shape
        tokens = self.norm(x).reshape(batch, channels, height * width)
        heads = self.qkv(tokens).reshape(batch * (channels // 64), 3 * 64, height * width)
        query, key, value = heads.chunk(3, 1)
        scale = 64**-0.25
        mixed = value @ ((query * scale).transpose(1, 2) @ (key * scale)).softmax(-1).transpose(1, 2)
        return x + self.proj_out(mixed.reshape(batch, channels, height * width)).reshape(x.shape)


class UnetDown(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = conv(channels, channels, 3, 2, bias=True)

    def forward(self, x, _time):
        return self.op(x)


class DiffusionEncoder(nn.Module):
    """gdrd's `UnetConfig::pgdiff_512` up to the middle block."""

    def __init__(self):
        super().__init__()
        base, time, attends = 32, 128, {4, 5, 6}
        self.register_buffer("sinusoids", torch.tensor([[1.0] * 16 + [0.0] * 16]), persistent=False)
        self.time_embed = nn.Sequential(nn.Linear(base, time), nn.SiLU(), nn.Linear(time, time))
        blocks, width = [nn.ModuleList([conv(3, base, bias=True)])], base
        for level, (factor, count) in enumerate(zip([1, 2, 4, 8, 8, 16, 16], [1, 2, 2, 2, 2, 3, 4])):
            if level > 0:
                blocks.append(nn.ModuleList([UnetDown(width)]))
            for _ in range(count):
                steps = [UnetResidual(width, factor * base, time)]
                width = factor * base
                blocks.append(nn.ModuleList(steps + [UnetAttention(width)] * (level in attends)))
        self.input_blocks = nn.ModuleList(blocks)
        middle = [UnetResidual(width, width, time), UnetAttention(width), UnetResidual(width, width, time)]
        self.middle_block = nn.ModuleList(middle)

    def forward(self, x):
        time = self.time_embed(self.sinusoids)
        x = self.input_blocks[0][0](2 * x - 1)
        for block in [*self.input_blocks[1:], self.middle_block]:
            for step in block:
                x = step(x, time)
        return x


def build(network):
    """The module of one of `cases.NETWORKS`, without weights of any meaning."""
    kinds = {"iresnet": Iresnet50, "mobilefacenet": MobileFaceNet, "diffusion-encoder": DiffusionEncoder}
    if network["kind"] == "resnet-trunk":
        return Student(network["size"], **network["options"])
    return kinds[network["kind"]]()
