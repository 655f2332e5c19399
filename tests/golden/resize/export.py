"""Writes values.safetensors: formula-made images resized by Pillow and OpenCV.

    python export.py
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import pixels, uniform  # noqa: E402

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
}
out = {}


def resized(source, size, resample):
    return np.asarray(Image.fromarray(source).resize((size, size), resample))


def cubic(source, size):
    """Four taps of the cubic with a = -0.5, fewer at the border; rows become bytes before columns, as in Pillow."""
    def weights(x):
        x = np.abs(x)
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        return np.where(x < 1, near, np.where(x < 2, far, 0))

    def along(image, count):
        place = (np.arange(size) + 0.5) * count / size - 0.5
        taps = np.floor(place).astype(int)[:, None] + np.arange(-1, 3)
        weight = np.where((taps >= 0) & (taps < count), weights(place[:, None] - taps), 0)
        weight /= weight.sum(axis=1, keepdims=True)
        return np.einsum("ot,ot...->o...", weight, image[np.clip(taps, 0, count - 1)])

    def bytes_of(image):
        return np.clip(np.floor(image + 0.5), 0, 255)

    rows = bytes_of(along(source.swapaxes(0, 1).astype(np.float64), source.shape[1]).swapaxes(0, 1))
    return bytes_of(along(rows, source.shape[0])).astype(np.uint8)


def main():
    large, small, wide = pixels("large", (112, 112, 3)), pixels("small", (16, 16, 3)), pixels("wide", (60, 112, 3))
    for name, resample in PILLOW.items():
        for source, image, sizes in (("large", large, (16, 32)), ("small", small, (48 if name == "nearest" else 40,)), ("wide", wide, (16,))):
            for size in sizes:
                out[f"{source}.{size}.{name}"] = resized(image, size, resample)
    out["small.112.bicubic"] = resized(small, 112, PILLOW["bicubic"])

    # Without antialiasing.
    for source, image, sizes in (("large", large, (20, 32)), ("small", small, (40, 112)), ("wide", wide, (20,))):
        for size in sizes:
            linear = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
            out[f"{source}.{size}.bilinear.sharp"] = linear
            out[f"{source}.{size}.bicubic.sharp"] = cubic(image, size)

    # In floats.
    for count, sizes in ((112, (16, 50)), (16, (8, 64)), (15, (15, 16))):
        plane = uniform(f"plane {count}", count * count).reshape(count, count)
        for size in sizes:
            out[f"plane.{count}.{size}"] = resized(plane, size, PILLOW["bicubic"])

    save_file({name: np.ascontiguousarray(value) for name, value in sorted(out.items())}, HERE / "values.safetensors")


main()
