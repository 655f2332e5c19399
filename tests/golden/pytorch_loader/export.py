"""Writes values.json: what `loader.py` makes of `tests/files/student-format-1.safetensors` and a face in PyTorch.

    python export.py
"""

import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from formula import uniform  # noqa: E402
from loader import load  # noqa: E402

header, embed = load(HERE.parent.parent / "files/student-format-1.safetensors")
size = header["card"]["input_size"]
pixels = ((uniform("pytorch loader", 3 * size * size) + 1) * 128).astype("uint8").reshape(1, size, size, 3)
faces = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
with torch.no_grad():
    values = embed(faces)[0].tolist()
(HERE / "values.json").write_text(json.dumps(values) + "\n")
