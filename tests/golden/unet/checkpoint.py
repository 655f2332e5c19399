"""Writes a checkpoint of PGDiff's 512x512 model as it is published, with formula-made weights: 639 MB, not for committing.

    python checkpoint.py --pgdiff DIR --out FILE.pth

The test `pgdiffs_published_file` reads it.
"""

import argparse
import sys
from collections import OrderedDict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from formula import fill  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pgdiff", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    sys.path.insert(0, args.pgdiff)
    from guided_diffusion.unet import UNetModel

    model = UNetModel(image_size=512, in_channels=3, out_channels=6, dropout=0.0, model_channels=32,
                      num_res_blocks=[1, 2, 2, 2, 2, 3, 4], attention_resolutions=(32, 16, 8),
                      channel_mult=(1, 2, 4, 8, 8, 16, 16), num_head_channels=64, use_scale_shift_norm=True)
    fill(model)
    # The published file comes from DistributedDataParallel.
    torch.save(OrderedDict((f"module.{name}", tensor) for name, tensor in model.state_dict().items()), args.out)


main()
