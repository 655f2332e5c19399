"""Writes values.safetensors: what the public U-Nets answer to formula-made weights and inputs.

    python export.py --guided-diffusion DIR --pgdiff DIR

DIR are checkouts of openai/guided-diffusion and pq-yang/PGDiff; ORIGIN.md names the commits.
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import fill, image  # noqa: E402


def load(checkout: str):
    """The package `guided_diffusion` of a checkout; both repositories call it so."""
    for name in [name for name in sys.modules if name.split(".")[0] == "guided_diffusion"]:
        del sys.modules[name]
    sys.path.insert(0, checkout)
    unet = importlib.import_module("guided_diffusion.unet")
    diffusion = importlib.import_module("guided_diffusion.gaussian_diffusion")
    respace = importlib.import_module("guided_diffusion.respace")
    sys.path.remove(checkout)
    return unet.UNetModel, diffusion, respace


def encode(model, x, t):
    """The outputs of every input block and of the middle block, as the model's own forward makes them."""
    found = {}
    hooks = [
        block.register_forward_hook(lambda _m, _i, out, key=f"input_blocks.{index}": found.__setitem__(key, out))
        for index, block in enumerate(model.input_blocks)
    ]
    hooks.append(model.middle_block.register_forward_hook(lambda _m, _i, out: found.__setitem__("middle_block", out)))
    try:
        out = model(x, t)
    except RuntimeError:  # The decoder cannot join the sizes of an odd input; the encoder has run by then.
        out = None
    for hook in hooks:
        hook.remove()
    return found, out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--guided-diffusion", required=True)
    parser.add_argument("--pgdiff", required=True)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    out = {}

    def case(name, model, size, times, keep, whole=True):
        out[f"{name}.layout"] = torch.tensor([fill(model)])
        t = torch.tensor(times)
        found, answer = encode(model, image(f"{name}.{size}", (len(times), 3, size, size)), t)
        for tap in keep:
            out[f"{name}.{size}.{tap}"] = found[tap].contiguous()
        if whole:
            out[f"{name}.{size}.out"] = answer.contiguous()

    # Real resolutions for attention, blocks per level, strided convolutions: PGDiff's class.
    pgdiff, _, _ = load(args.pgdiff)
    small = dict(in_channels=3, out_channels=6, dropout=0.0)
    model = pgdiff(image_size=16, model_channels=32, num_res_blocks=[1, 2, 1], attention_resolutions=(8, 4),
                   channel_mult=(1, 2, 2), num_head_channels=16, use_scale_shift_norm=True, **small)
    taps = [f"input_blocks.{i}" for i in range(2, 7)] + ["middle_block"]
    case("levels", model, 8, [0.0, 421.5], taps)
    case("levels", model, 9, [999.0], ["input_blocks.5", "middle_block"], whole=False)
    model = pgdiff(image_size=16, model_channels=32, num_res_blocks=1, attention_resolutions=(16,),
                   channel_mult=(1, 2), num_head_channels=16, use_scale_shift_norm=False,
                   use_new_attention_order=True, **small)
    case("added", model, 8, [7.0, 999.0], ["input_blocks.1", "input_blocks.2", "input_blocks.3", "middle_block"])

    # The published 512x512 model at its full size; the encoder at 128, the size of a face of 16 pixels times 8.
    model = pgdiff(image_size=512, model_channels=32, num_res_blocks=[1, 2, 2, 2, 2, 3, 4],
                   attention_resolutions=(32, 16, 8), channel_mult=(1, 2, 4, 8, 8, 16, 16), num_head_channels=64,
                   use_scale_shift_norm=True, **small)
    case("pgdiff_512", model, 128, [0.0], ["input_blocks.13", "input_blocks.17", "input_blocks.22", "middle_block"],
         whole=False)
    del model

    # Downsampling rates for attention, residual blocks that change the size: OpenAI's class.
    openai, diffusion, respace = load(args.guided_diffusion)
    model = openai(image_size=16, model_channels=32, num_res_blocks=2, attention_resolutions=(2, 4),
                   channel_mult=(1, 2, 3), num_head_channels=32, use_scale_shift_norm=True, resblock_updown=True,
                   use_new_attention_order=True, **small)
    taps = ["input_blocks.3", "input_blocks.5", "input_blocks.6", "input_blocks.8", "middle_block"]
    case("openai", model, 8, [3.0, 250.0], taps)
    case("openai", model, 9, [999.0], ["input_blocks.5", "middle_block"], whole=False)
    plain = openai(image_size=16, model_channels=32, num_res_blocks=1, attention_resolutions=(2,), channel_mult=(1, 1),
                   num_heads=4, use_scale_shift_norm=False, resblock_updown=True, **small)
    case("openai_added", plain, 8, [3.0, 250.0], ["input_blocks.2", "middle_block"])

    # Noise levels, and DDIM.
    for name in ("linear", "cosine"):
        betas = diffusion.get_named_beta_schedule(name, 1000)
        out[f"{name}.alphas_cumprod"] = torch.from_numpy(np.cumprod(1.0 - betas)[[0, 1, 10, 500, 998, 999]])
    spaced = respace.SpacedDiffusion(
        use_timesteps=respace.space_timesteps(1000, [8]),
        betas=diffusion.get_named_beta_schedule("linear", 1000),
        model_mean_type=diffusion.ModelMeanType.EPSILON,
        model_var_type=diffusion.ModelVarType.LEARNED_RANGE,
        loss_type=diffusion.LossType.MSE,
    )
    out["ddim.timesteps"] = torch.tensor(spaced.timestep_map)
    # A denoiser whose images are partly in range: a formula-made network's would all be clipped.
    out["ddim.sample"] = spaced.ddim_sample_loop(
        lambda x, t: torch.cat([x * (t.float() / 1000).view(-1, 1, 1, 1), x], dim=1),
        (2, 3, 8, 8), noise=image("ddim", (2, 3, 8, 8)), device="cpu", eta=0.0,
    )

    save_file({name: tensor.contiguous() for name, tensor in sorted(out.items())}, HERE / "values.safetensors")


main()
