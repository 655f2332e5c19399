"""Writes values.safetensors: what the public iresnets answer to formula-made weights and inputs.

    python export.py --insightface DIR --cvlface DIR

DIR are checkouts of deepinsight/insightface and mk-minchul/CVLface; ORIGIN.md names the commits.
"""

import argparse
import importlib.util
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import fill, image  # noqa: E402


def load(path: Path, name: str):
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--insightface", required=True)
    parser.add_argument("--cvlface", required=True)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    # CVLface's files import a counter of operations that the networks themselves do not use.
    sys.modules["fvcore"] = types.ModuleType("fvcore")
    sys.modules["fvcore.nn"] = types.SimpleNamespace(flop_count=None)
    insightface = load(Path(args.insightface) / "recognition/arcface_torch/backbones/iresnet.py", "insightface")
    cvlface = load(Path(args.cvlface) / "cvlface/research/recognition/code/run_v1/models/iresnet/model.py", "cvlface")
    nets = {
        "insightface_18": lambda: insightface.iresnet18(),
        "insightface_34": lambda: insightface.iresnet34(),
        "insightface_50": lambda: insightface.iresnet50(),
        "insightface_100": lambda: insightface.iresnet100(num_features=256),
        "flat_18": lambda: cvlface.IR_18((112, 112)),
        "flat_34": lambda: cvlface.IR_34((112, 112)),
        "flat_50": lambda: cvlface.IR_50((112, 112)),
        "flat_100": lambda: cvlface.IR_101((112, 112), output_dim=256),
    }
    out = {}
    for name, make in nets.items():
        net = make()
        out[f"{name}.layout"] = torch.tensor([fill(net)])
        out[f"{name}.embedding"] = net(image("faces", (1, 3, 112, 112)))
        print(name, "standard deviation", float(out[f"{name}.embedding"].std()))
    save_file(out, HERE / "values.safetensors")


main()
