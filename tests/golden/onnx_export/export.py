"""Writes values.json: what ONNX Runtime makes of two faces with the models that gdrd writes.

    GDRD_UPDATE=1 cargo test -p gdrd-tests --test it -- onnx_models
    python export.py FOLDER          (the folder that the test names; needs numpy, onnx, onnxruntime)
    cargo test -p gdrd-tests --test it -- onnx_models
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

found = {}
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [faces] = session.get_inputs()
    pixels = np.fromfile(path.with_suffix(".faces"), np.uint8)
    if faces.type == "tensor(uint8)":
        x = pixels.reshape(2, *faces.shape[1:])
    else:
        size = faces.shape[2]
        x = pixels.reshape(2, size, size, 3).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    two = session.run(["embedding"], {"faces": x})[0]
    one = session.run(["embedding"], {"faces": x[:1]})[0]
    assert np.abs(one - two[:1]).max() < 1e-6, "any number of faces"
    found[path.stem] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "embeddings": [[round(float(v), 7) for v in row] for row in two],
    }
Path(__file__).with_name("values.json").write_text(json.dumps(found) + "\n")
