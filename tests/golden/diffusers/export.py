"""Writes values.safetensors and CASE.json: what diffusers' encoders answer to formula-made weights and inputs.

    python export.py
"""

import re
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import image, values  # noqa: E402

# What the attention of google/ddpm-celebahq-256's file is called: names from before diffusers 0.15.
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


# Every step of an encoder that a teacher offers.
TAP = re.compile(
    r"conv_(in|act|out)|quant_conv|(down_blocks\.\d+|mid_block)(\.(resnets|attentions|downsamplers)\.\d+)?"
)


def old(name: str) -> str:
    for new, was in OLD.items():
        name = name.replace(f".{new}.", f".{was}.")
    return name


def main() -> None:
    torch.set_grad_enabled(False)
    out = {}

    def fill(name, model, rename=lambda key: key):
        """Formula-made weights under the names of the file; its shapes go to the golden values, its options beside them."""
        (HERE / f"{name}.json").write_text(model.to_json_string())
        made = {}
        for key, tensor in model.state_dict().items():
            out[f"{name}.shape.{rename(key)}"] = torch.tensor(tensor.shape)
            made[key] = values(rename(key), tuple(tensor.shape))
        model.load_state_dict(made)
        model.eval()

    def run(name, modules, size, call):
        """The outputs of the modules that are taps, for one input of `size` pixels."""
        hooks = [
            module.register_forward_hook(
                # A block of the U-Net answers with its output and with all that its skip connections need.
                lambda _m, _i, found, tap=tap: out.__setitem__(
                    f"{name}.{size}.{tap}", (found[0] if isinstance(found, tuple) else found).contiguous().clone()
                )
            )
            for tap, module in modules.items()
            if TAP.fullmatch(tap)
        ]
        answer = call(image(f"{name}.{size}", (2, 3, size, size)))
        for hook in hooks:
            hook.remove()
        return answer

    def unet(name, model, size, timestep, rename=lambda key: key):
        fill(name, model, rename)

        def call(x):
            try:
                model(x, timestep)
            except RuntimeError:  # The decoder cannot join the sizes of an odd input; the encoder has run by then.
                pass

        decoder = ("conv_act", "conv_out")
        run(name, {tap: module for tap, module in model.named_modules() if tap not in decoder}, size, call)

    # The options of google/ddpm-celebahq-256, with fewer channels and levels.
    celebahq = UNet2DModel(
        sample_size=16, block_out_channels=(32, 32, 64), layers_per_block=2, downsample_padding=0, flip_sin_to_cos=False,
        freq_shift=1, norm_eps=1e-6, attention_head_dim=None, norm_num_groups=32,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    unet("celebahq", celebahq, 9, 421, old)
    # The defaults of the class, and attention at the last level, which has no downsampler.
    plain = UNet2DModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    unet("defaults", plain, 9, 0)
    bare = UNet2DModel(
        sample_size=8, block_out_channels=(32, 32), layers_per_block=1, add_attention=False,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    unet("bare", bare, 8, 999)

    # Stable Diffusion's options, and those of its newer relatives.
    common = dict(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64), sample_size=16,
    )
    for name, options in [
        ("stable_diffusion", dict(layers_per_block=2, latent_channels=4)),
        ("no_quant", dict(layers_per_block=1, latent_channels=6, use_quant_conv=False, use_post_quant_conv=False,
                          mid_block_add_attention=False)),
    ]:
        model = AutoencoderKL(**common, **options)
        fill(name, model)
        modules = dict(model.encoder.named_modules())
        if model.quant_conv is not None:
            modules["quant_conv"] = model.quant_conv
        distribution = run(name, modules, 9, lambda x: model.encode(x).latent_dist)
        out[f"{name}.9.latent"] = distribution.mean.contiguous().clone()

    for name, tensor in sorted(out.items()):
        if ".shape." not in name:
            print(name, list(tensor.shape), "standard deviation", float(tensor.std()))
    save_file(dict(sorted(out.items())), HERE / "values.safetensors")


main()
