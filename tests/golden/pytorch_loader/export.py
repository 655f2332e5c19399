"""Writes values.json: what `loader.py` makes in PyTorch of a face with `tests/files/student-format-1.safetensors` and with the student
that the test writes.

    GDRD_UPDATE=1 cargo test -p gdrd-tests --test it -- pytorch_loader
    python export.py FILE            (the file that the test names; needs torch and safetensors)
    cargo test -p gdrd-tests --test it -- pytorch_loader
"""

import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from formula import uniform  # noqa: E402
from loader import load  # noqa: E402

found = {}
for name, path in [("format-1", HERE.parent.parent / "files/student-format-1.safetensors"), ("wavelet", sys.argv[1])]:
    header, embed = load(path)
    size = header["card"]["input_size"]
    pixels = ((uniform("pytorch loader", 3 * size * size) + 1) * 128).astype("uint8").reshape(1, size, size, 3)
    faces = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        found[name] = embed(faces)[0].tolist()
(HERE / "values.json").write_text(json.dumps(found) + "\n")
