"""Writes the small files that PyTorch's own writer makes, and values.safetensors with what is in them.

    python export.py
"""

import argparse
import datetime
import os
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import fill, image  # noqa: E402


class Hook:
    """An object whose unpickling would run a command."""

    def __reduce__(self):
        return os.system, ("true",)


def main() -> None:
    torch.manual_seed(0)
    values = {}

    # Types, views and memory layouts, in a state dict of DataParallel within a checkpoint.
    whole = image("whole", (4, 6))
    tensors = {
        "single": image("single", (2, 3)),
        "half": image("half", (2, 3)).half(),
        "brain": image("brain", (2, 3)).bfloat16(),
        "double": image("double", (2, 3)).double(),
        "scalar": image("scalar", ()),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(image("parameter", (5,))),
        "rows": whole[1:3],
        "columns": whole[:, 2:4],
        "turned": image("turned", (3, 4)).t(),
        "channels_last": image("channels_last", (2, 3, 2, 2)).contiguous(memory_format=torch.channels_last),
    }
    values.update({f"types.{name}": tensor.detach().double().contiguous() for name, tensor in tensors.items()})
    state = OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items())
    state["module.bn.num_batches_tracked"] = torch.tensor(7)
    state["module.mask"] = torch.tensor([True, False])
    torch.save({"epoch": 3, "best": 0.5, "names": ["a"], "state_dict": state}, HERE / "types.pth")

    # A network's own state dict, with its metadata.
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    fill(net)
    torch.save(net.state_dict(), HERE / "network.pth")
    values.update({f"network.{name}": tensor.double() for name, tensor in net.state_dict().items()})

    # All that insightface's training program saves.
    head = torch.nn.Linear(2, 5, bias=False)
    fill(head)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    net.train()
    head(net(image("x", (2, 2, 1, 1))).flatten(1)[:, :2]).sum().backward()
    optimizer.step()
    fill(net)
    fill(head)
    checkpoint = {
        "epoch": 1,
        "global_step": 10,
        "state_dict_backbone": net.state_dict(),
        "state_dict_softmax_fc": head.state_dict(),
        "state_optimizer": optimizer.state_dict(),
        "state_lr_scheduler": scheduler.state_dict(),
    }
    torch.save(checkpoint, HERE / "checkpoint_gpu_0.pt")
    values["checkpoint.classes"] = head.weight.detach().double()

    # Other protocols, and the format before PyTorch 1.6.
    for protocol in (4, 5):
        torch.save(net.state_dict(), HERE / f"protocol_{protocol}.pth", pickle_protocol=protocol)
    torch.save(net.state_dict(), HERE / "legacy.pth", _use_new_zipfile_serialization=False)

    # What Lightning saves: tensors and objects of any kind beside the state dict.
    lightning = {
        "epoch": 2,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict((f"model.{name}", tensor) for name, tensor in net.state_dict().items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": {"best_model_score": torch.tensor(0.9), "dirpath": Path("runs")}},
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {"args": argparse.Namespace(lr=0.1), "head": torch.nn.Linear(1, 1)},
    }
    torch.save(lightning, HERE / "lightning.ckpt")

    # A state dict with plain values of many kinds among its tensors.
    beside = {
        **net.state_dict(),
        "best": np.float64(0.5),
        "means": np.zeros(3, dtype=np.float32),
        "args": argparse.Namespace(size=torch.Size([112, 112]), device=torch.device("cpu")),
        "shape": torch.Size([2, 3]),
        "type": torch.float16,
        "when": datetime.datetime(2024, 1, 2),
        "where": Path("runs"),
        "seen": {1, 2},
        "more": defaultdict(list, {"a": [1]}),
    }
    torch.save(beside, HERE / "beside.pth", pickle_protocol=4)

    # A compiled and parallel network under another key, and an average beside the weights.
    wrapped = {f"_orig_mod.module.feat_net.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"model_state_dict": wrapped, "optimizer_state_dict": optimizer.state_dict()}, HERE / "compiled.pth")
    average = {name: tensor * 0 for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": net.state_dict(), "state_dict_ema": average}, HERE / "average.pth")

    # What is refused: an object that would run a command, a whole network.
    torch.save({"weight": torch.zeros(1), "hook": Hook()}, HERE / "command.pth")
    torch.save(torch.nn.Linear(1, 1), HERE / "module.pth")

    save_file(values, HERE / "values.safetensors")


main()
