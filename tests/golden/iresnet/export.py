"""Writes values.safetensors: what the public iresnets answer to formula-made weights and inputs.

    python export.py --insightface DIR --cvlface DIR --evolve DIR

DIR are checkouts of deepinsight/insightface, mk-minchul/CVLface and ZhaoJ9014/face.evoLVe; ORIGIN.md names the commits. The
values of a repository that is not given stay as they are.
"""

import argparse
import importlib.util
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

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
    for name in ("insightface", "cvlface", "evolve"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    # CVLface's files import a counter of operations that the networks themselves do not use.
    sys.modules["fvcore"] = types.ModuleType("fvcore")
    sys.modules["fvcore.nn"] = types.SimpleNamespace(flop_count=None)
    nets = {}
    if args.insightface:
        insightface = load(Path(args.insightface) / "recognition/arcface_torch/backbones/iresnet.py", "insightface")
        nets |= {
            "insightface_18": lambda: insightface.iresnet18(),
            "insightface_34": lambda: insightface.iresnet34(),
            "insightface_50": lambda: insightface.iresnet50(),
            "insightface_100": lambda: insightface.iresnet100(num_features=256),
            "insightface_200": lambda: insightface.iresnet200(num_features=64),
        }
    if args.cvlface:
        run = Path(args.cvlface) / "cvlface/research/recognition/code/run_v1"
        cvlface = load(run / "models/iresnet/model.py", "cvlface")
        nets |= {
            "flat_18": lambda: cvlface.IR_18((112, 112)),
            "flat_34": lambda: cvlface.IR_34((112, 112)),
            "flat_50": lambda: cvlface.IR_50((112, 112)),
            "flat_100": lambda: cvlface.IR_101((112, 112), output_dim=256),
        }
    if args.evolve:
        evolve = load(Path(args.evolve) / "backbone/model_irse.py", "evolve")
        nets |= {
            "evolve_50": lambda: evolve.IR_50((112, 112)),
            "evolve_152": lambda: evolve.IR_152((112, 112)),
            "evolve_se_50": lambda: evolve.IR_SE_50((112, 112)),
        }
    out = load_file(HERE / "values.safetensors")
    for name, make in nets.items():
        net = make()
        out[f"{name}.layout"] = torch.tensor([fill(net)])
        out[f"{name}.embedding"] = net(image("faces", (1, 3, 112, 112)))
        print(name, "standard deviation", float(out[f"{name}.embedding"].std()))
    save_file(out, HERE / "values.safetensors")


main()
