"""Writes values.safetensors: what the public MobileFaceNets answer to formula-made weights and inputs.

    python export.py --foamliu DIR --insightface DIR --facexzoo DIR

DIR are checkouts of foamliu/MobileFaceNet, deepinsight/insightface and JDAI-CV/FaceX-Zoo; ORIGIN.md names the commits. The values
of a repository that is not given stay as they are.
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


def load(path: Path):
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("foamliu", "insightface", "facexzoo"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    # foamliu's file asks the training script for settings that the network itself does not use.
    sys.modules["custom_config"] = types.SimpleNamespace(device="cpu", num_classes=2, emb_size=128)
    nets = {}
    if args.foamliu:
        nets["foamliu"] = load(Path(args.foamliu) / "mobilefacenet.py").MobileFaceNet()
    if args.insightface:
        backbones = Path(args.insightface) / "recognition" / "arcface_torch" / "backbones"
        insightface = load(backbones / "mobilefacenet.py")
        nets["get_mbf"] = insightface.get_mbf(False, 512)
        nets["get_mbf_large"] = insightface.get_mbf_large(False, 256)
    if args.facexzoo:
        nets["facexzoo"] = load(Path(args.facexzoo) / "backbone" / "MobileFaceNets.py").MobileFaceNet(512, 7, 7)
    out = load_file(HERE / "values.safetensors")
    for name, net in nets.items():
        out[f"{name}.layout"] = torch.tensor([fill(net)])
        out[f"{name}.embedding"] = net(image("faces", (2, 3, 112, 112)))
        print(name, "standard deviation", float(out[f"{name}.embedding"].std()))
    save_file(out, HERE / "values.safetensors")


main()
