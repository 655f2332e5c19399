"""Faces, labels and classifier, without PyTorch: ONNX Runtime's memory is measured in a process that reads them."""

import numpy as np
from safetensors.numpy import load_file


def inputs(folder):
    """Faces as the peers take them, `[batch, 3, size, size]` in [0, 1]; and all tensors of the file."""
    tensors = load_file(folder / "inputs.safetensors")
    faces = np.ascontiguousarray(tensors["pixels"].transpose(0, 3, 1, 2), dtype=np.float32) / 255
    return faces, tensors
