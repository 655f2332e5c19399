"""Weights and inputs that Python and Rust make alike, so that golden files hold only expected values.

`it/golden/formula.rs` is the same formula.
"""

from __future__ import annotations

import numpy as np

try:
    import torch
except ImportError:  # `uniform` and `pixels` need none
    torch = None


def fnv1a(text: str) -> int:
    """The 32-bit FNV-1a hash of a string."""
    state = 0x811C9DC5
    for byte in text.encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


def uniform(name: str, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1) that depend on the name: exact in float32."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(fnv1a(name))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


def values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight: keeps the variance where it is a matrix, near 0.75 where it scales, small where it shifts."""
    u = uniform(name, int(np.prod(shape)))
    if len(shape) > 1:
        fan_in = int(np.prod(shape[1:]))
        v = u * np.float32(np.sqrt(3.0 / fan_in))
    elif name.endswith(("weight", "running_var")):
        v = np.float32(0.75) + np.float32(0.5) * u
    else:
        v = np.float32(0.125) * u
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


def fill(module: torch.nn.Module) -> int:
    """Gives every tensor of a module its formula's values; returns a hash of all names and shapes."""
    lines = []
    with torch.no_grad():
        for name, tensor in sorted(module.state_dict().items()):
            if name.endswith("num_batches_tracked"):
                continue
            tensor.copy_(values(name, tuple(tensor.shape)))
            lines.append(f"{name} {list(tensor.shape)}\n")
    module.eval()
    return fnv1a("".join(lines))


def image(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """An input in [-1, 1)."""
    return torch.from_numpy(uniform(name, int(np.prod(shape))).reshape(shape))


def pixels(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of an image."""
    return ((uniform(name, int(np.prod(shape))) + 1) * 128).astype(np.uint8).reshape(shape)
