"""Writes values.safetensors: PyTorch's optimisers, schedules and gradient clipping, step by step.

    python export.py
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import fill, image, pixels  # noqa: E402

out = {}


def optimizers():
    """Five steps of two tensors with gradients that do not depend on them; the second has none at the third step."""
    cases = {
        "sgd_plain": lambda p: torch.optim.SGD(p, 0.1),
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=5e-4),
        "sgd_decay": lambda p: torch.optim.SGD(p, 0.1, momentum=0.7, weight_decay=0.3),
        "sgd_nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        "adamw": lambda p: torch.optim.AdamW(p, 0.1),
        "adamw_options": lambda p: torch.optim.AdamW(p, 0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.4),
    }
    for name, new in cases.items():
        weights = [image(key, (3, 4)).double().requires_grad_() for key in ("a", "b")]
        optimizer = new(weights)
        for step in range(5):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (1 + step)
            for key, weight in zip(("a", "b"), weights):
                missing = key == "b" and step == 2
                weight.grad = None if missing else image(f"gradient {key} {step}", (3, 4)).double()
            optimizer.step()
            for key, weight in zip(("a", "b"), weights):
                out[f"{name}.{step}.{key}"] = weight.detach().float()


def schedules():
    """The learning rate of each of 20 steps, relative to the first."""
    cases = {
        "step": lambda o: MultiStepLR(o, [10, 15, 18], gamma=0.1),
        "step_other": lambda o: MultiStepLR(o, [5, 6], gamma=0.5),
        "cosine": lambda o: CosineAnnealingLR(o, 20),
        "cosine_end": lambda o: CosineAnnealingLR(o, 20, eta_min=0.1),
    }
    for name, new in cases.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
        schedule = new(optimizer)
        rates = []
        for _ in range(20):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        out[f"schedule.{name}"] = torch.tensor(rates, dtype=torch.float64)


def stage():
    """A whole stage: six faces of 4x4 pixels in one batch, a linear student and a classifier, a clipped gradient."""
    faces = pixels("stage faces", (6, 4, 4, 3))
    x = torch.from_numpy(faces).double().permute(0, 3, 1, 2).flatten(1) / 255
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    model = nn.ModuleDict({"head": nn.Linear(48, 5), "loss": nn.Linear(5, 3)})
    out["stage.layout"] = torch.tensor([fill(model)])
    model.double()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9, weight_decay=0.01, nesterov=True)
    steps = 8
    schedule = CosineAnnealingLR(optimizer, steps)
    losses, norms = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = cross_entropy(model["loss"](model["head"](x)), labels)
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.4)))
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    assert min(norms) < 0.4 < max(norms), norms  # Some are clipped and some are not.
    out["stage.losses"] = torch.tensor(losses, dtype=torch.float64)
    out["stage.norms"] = torch.tensor(norms, dtype=torch.float64)
    for key, tensor in model.state_dict().items():
        out[f"stage.after.{key}"] = tensor.float()


optimizers()
schedules()
stage()
save_file({name: tensor.contiguous() for name, tensor in sorted(out.items())}, HERE / "values.safetensors")
