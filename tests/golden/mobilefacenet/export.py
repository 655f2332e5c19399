"""Writes values.safetensors: what the public MobileFaceNets answer to formula-made weights and inputs.

    python export.py --foamliu DIR --insightface DIR

DIR are checkouts of foamliu/MobileFaceNet and deepinsight/insightface; ORIGIN.md names the commits.
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


def load(path: Path):
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--foamliu", required=True)
    parser.add_argument("--insightface", required=True)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    # foamliu's file asks the training script for settings that the network itself does not use.
    sys.modules["custom_config"] = types.SimpleNamespace(device="cpu", num_classes=2, emb_size=128)
    backbones = Path(args.insightface) / "recognition" / "arcface_torch" / "backbones"
    insightface = load(backbones / "mobilefacenet.py")
    nets = {
        "foamliu": load(Path(args.foamliu) / "mobilefacenet.py").MobileFaceNet(),
        "get_mbf": insightface.get_mbf(False, 512),
        "get_mbf_large": insightface.get_mbf_large(False, 256),
    }
    out = {}
    for name, net in nets.items():
        out[f"{name}.layout"] = torch.tensor([fill(net)])
        out[f"{name}.embedding"] = net(image("faces", (2, 3, 112, 112)))
        print(name, "standard deviation", float(out[f"{name}.embedding"].std()))
    save_file(out, HERE / "values.safetensors")


main()
