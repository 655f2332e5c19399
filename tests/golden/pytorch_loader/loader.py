import json
import torch
from safetensors import safe_open
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, linear, normalize, relu


def load(path):
    """A student of kind `resnet-trunk`: its header, and a function of faces [batch, 3, size, size], RGB, in [0, 1]."""
    with safe_open(path, "pt") as file:
        header, t = json.loads(file.metadata()["gdrd"]), {k: file.get_tensor(k).float() for k in file.keys()}
    o = header["options"]
    bn = lambda x, n: batch_norm(x, t[n + ".running_mean"], t[n + ".running_var"], t[n + ".weight"], t[n + ".bias"])
    cv = lambda x, n, s=1, p=1: bn(conv2d(x, t[n + ".conv.weight"], stride=s, padding=p), n + ".bn")

    wavelet = o.get("downsample") == "wavelet"

    def block(x, n, s, last=relu):
        low, s = (lambda y: 2 * avg_pool2d(y, 2), 1) if wavelet and s == 2 else (lambda y: y, s)
        short = cv(low(x), n + ".shortcut", s, 0) if n + ".shortcut.conv.weight" in t else x
        return last(cv(low(relu(cv(x, n + ".first", s))), n + ".second") + short)

    def embed(x):
        x = relu(cv(2 * x - 1, "backbone.stem", o["stem_stride"]))
        places = [("backbone.stage", o["blocks"], o["strides"]),
                  ("head.stage", [o["head"]["blocks"]] * len(o["head"]["channels"]), [2] * len(o["head"]["channels"]))]
        for place, blocks, strides in places:
            for i, (count, stride) in enumerate(zip(blocks, strides)):
                for j in range(count):
                    end = place[0] == "b" and (i, j) == (len(blocks) - 1, count - 1) and not o["last_relu"]
                    x = block(x, f"{place}{i}.{j}", stride if j == 0 else 1, (lambda y: y) if end else relu)
        x = x.flatten(1) if o["head"]["pool"] == "flatten" else x.mean((2, 3))
        for i in range(len(o["head"]["hidden"])):
            x = relu(bn(linear(x, t[f"head.hidden.{i}.fc.weight"]), f"head.hidden.{i}.bn"))
        x = linear(x, t["head.embedding.weight"], t.get("head.embedding.bias"))
        return normalize(bn(x, "head.norm") if o["head"]["normalise"] else x)

    return header, embed
