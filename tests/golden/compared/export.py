"""Writes values.safetensors: losses of other systems and their gradients, by public code where there is some.

    REPDISTILLER=... OCTUPLET=... python export.py

REPDISTILLER is a checkout of HobbitLong/RepDistiller, OCTUPLET one of Martlgap/octuplet-loss.
"""

import math
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, reducers
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), os.environ["REPDISTILLER"], os.environ["OCTUPLET"]]
from distiller_zoo import Attention, PKT, RKDLoss, Similarity  # noqa: E402
from formula import fill, image  # noqa: E402
from pt_octuplet_loss import OctupletLoss  # noqa: E402

LABELS = torch.tensor([3, 0, 4, 1, 1, 2])
PAIRS = torch.tensor([3, 0, 3, 1, 1, 0])
IDENTITIES, WIDTH, WIDE = 5, 8, 12
out = {}


def given(name, *shape, scale=1.0):
    """An input that gets a gradient; everything is computed in double precision."""
    return (image(name, shape).double() * scale).requires_grad_()


def filled(name, module):
    """The loss's own variables with the formula's values."""
    out[f"{name}.layout"] = torch.tensor([fill(module)])
    return module.double()


def record(name, value, inputs, module=None):
    value.backward()
    out[f"{name}.value"] = value.detach().reshape(())
    for key, tensor in inputs.items():
        out[f"{name}.d_{key}"] = tensor.grad
    for key, tensor in module.named_parameters() if module else []:
        out[f"{name}.grad.{key}"] = tensor.grad


class ClassWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(IDENTITIES, WIDTH))


def classes(name, scale):
    """Class weights, embeddings of different lengths, and their cosines."""
    module = filled(name, ClassWeights())
    x = image("embedding", (6, WIDTH)) * torch.linspace(1, 40, 6)[:, None]
    # One face is near its class and one nearly opposite.
    x[2] = x[2] / 60 + 3 * module.weight[LABELS[2]].detach().float()
    x[5] = x[5] / 60 - 3 * module.weight[LABELS[5]].detach().float()
    out[f"{name}.embedding"] = x.clone()
    x = x.double().requires_grad_()
    cosine = F.normalize(x) @ F.normalize(module.weight).T
    out[f"{name}.logits"] = (scale * cosine).detach()
    return module, x, cosine, F.one_hot(LABELS, IDENTITIES).bool()


def turned(target, margin):
    """cos(theta + m), and insightface's linear penalty past pi."""
    theta = torch.acos(target)
    return torch.where(theta + margin > math.pi, target - margin * math.sin(margin), torch.cos(theta + margin))


def recognition():
    # pytorch-metric-learning has its class weights as columns.
    module, x, cosine, own = classes("sphereface", 1.0)
    public = losses.SphereFaceLoss(IDENTITIES, WIDTH, margin=4).double()
    with torch.no_grad():
        public.W.copy_(module.weight.T)
    value = public(x, LABELS)
    value.backward()
    out["sphereface.value"] = value.detach()
    out["sphereface.d_embedding"] = x.grad
    out["sphereface.grad.weight"] = public.W.grad.T

    # The official code's magnitudes and its easy margin.
    for name, easy in (("magface", False), ("magface_easy", True)):
        module, x, cosine, own = classes(name, 64.0)
        length = x.norm(dim=1, keepdim=True).clamp(10, 110)
        margin = 0.45 + (0.8 - 0.45) / (110 - 10) * (length - 10)
        target = cosine[own][:, None]
        theta = torch.acos(target)
        moved = torch.cos(theta + margin)
        if easy:
            moved = torch.where(target > 0, moved, target)
        else:
            moved = torch.where(target > torch.cos(math.pi - margin), moved, target - torch.sin(math.pi - margin) * margin)
        logits = 64.0 * torch.where(own, moved, cosine)
        regulariser = (1 / length + length / 110**2).mean()
        record(name, F.cross_entropy(logits, LABELS) + 35.0 * regulariser, {"embedding": x}, module)

    module, x, cosine, own = classes("adaface", 64.0)
    norms = x.norm(dim=1, keepdim=True).clamp(0.001, 100).detach()
    mean = 0.3 * norms.mean() + 0.7 * 20
    std = 0.3 * norms.std() + 0.7 * 100
    scaler = ((norms - mean) / (std + 1e-3) * 3.0).clamp(-1, 1)
    theta = torch.acos(cosine[own][:, None])
    moved = torch.cos((theta - 0.4 * scaler).clamp(1e-3, math.pi - 1e-3)) - (0.4 + 0.4 * scaler)
    record("adaface", F.cross_entropy(64.0 * torch.where(own, moved, cosine), LABELS), {"embedding": x}, module)

    module, x, cosine, own = classes("curricularface", 64.0)
    target = cosine[own][:, None]
    t = 0.2 * target.detach().mean()
    bar = torch.cos(torch.acos(target.detach()) + 0.5)
    others = torch.where(cosine.detach() > bar, cosine * (t + cosine), cosine)
    logits = 64.0 * torch.where(own, turned(target, 0.5), others)
    record("curricularface", F.cross_entropy(logits, LABELS), {"embedding": x}, module)

    # The rule of the authors' code, face by face: the rival of largest cosine, where that is above the threshold.
    for name, angular, easy in (("rival", False, False), ("rival_angular", True, True)):
        module, x, cosine, own = classes(name, 16.0)
        target = cosine[own][:, None]
        moved = turned(target, 0.3) if angular else target - 0.3
        if easy:
            moved = torch.where(target > 0, moved, target)
        logits = torch.where(own, moved, cosine)
        rows = []
        for face in range(6):
            rival = max((c for c in range(IDENTITIES) if c != LABELS[face]), key=lambda c: cosine[face, c].item())
            raised = torch.zeros(IDENTITIES, dtype=torch.double)
            near = cosine[face, rival]
            if near > 0.2:
                raised[rival] = torch.cos(torch.acos(near) - 0.5 * 0.3) - near if angular else 0.5 * 0.3
            rows.append(logits[face] + raised)
        record(name, F.cross_entropy(16.0 * torch.stack(rows), LABELS), {"embedding": x}, module)


def pairs_and_triplets():
    squared = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    x = given("embedding", 6, WIDTH)
    triplet = losses.TripletMarginLoss(margin=0.7, distance=squared, reducer=reducers.MeanReducer())
    hard = miners.BatchHardMiner(distance=squared)
    record("triplet_hard", triplet(x, PAIRS, hard(x, PAIRS)), {"embedding": x})
    x = given("embedding", 6, WIDTH)
    costly = losses.TripletMarginLoss(margin=0.7, distance=squared, reducer=reducers.AvgNonZeroReducer())
    record("triplet_all", costly(x, PAIRS), {"embedding": x})
    # FaceNet's rule, triplet by triplet.
    x = given("embedding", 6, WIDTH)
    d = torch.cdist(F.normalize(x), F.normalize(x)) ** 2
    terms = []
    for a in range(6):
        for p in (p for p in range(6) if p != a and PAIRS[p] == PAIRS[a]):
            negatives = [n for n in range(6) if PAIRS[n] != PAIRS[a]]
            farther = [n for n in negatives if d[a, n] > d[a, p]]
            n = min(farther, key=lambda n: d[a, n].item()) if farther else max(negatives, key=lambda n: d[a, n].item())
            terms.append(F.relu(d[a, p] - d[a, n] + 0.2))
    record("triplet_semi", torch.stack(terms).mean(), {"embedding": x})
    x = given("embedding", 6, WIDTH)
    unit = F.normalize(x)
    sorts = {True: [], False: []}
    for a in range(6):
        for b in (b for b in range(6) if b != a):
            d, same = (unit[a] - unit[b]).norm(), bool(PAIRS[a] == PAIRS[b])
            sorts[same].append(d**2 if same else F.relu(1.0 - d) ** 2)
    means = [sum(costs) / max(1, sum(bool(cost > 0) for cost in costs)) for costs in sorts.values()]
    record("siamese", sum(means), {"embedding": x})
    # The authors' code, by cosines: for Euclidean distances it copies them and loses the gradient. High against high is a constant and
    # left out.
    x = given("wide embedding", 6, WIDE)
    high = F.normalize(image("teacher", (6, WIDE)).double())
    public = OctupletLoss(margin=0.5, metric="cosine", configuration=[False, True, True, True])
    record("octuplet", public(torch.cat([high, F.normalize(x)]), PAIRS), {"embedding": x})


def maps_of_unequal_size():
    return given("map", 3, 4, 4, 4), image("target", (3, 6, 8, 8)).double()


class Connected(nn.Module):
    def __init__(self, width, target):
        super().__init__()
        self.connector = nn.Linear(width, target)


class MapConnected(nn.Module):
    def __init__(self):
        super().__init__()
        self.connector = nn.Conv2d(4, 6, 1)


def distillation():
    teacher = image("teacher", (6, WIDE)).double()
    x, target = maps_of_unequal_size()
    record("attention", Attention()([x], [target])[0], {"map": x})
    x, target = maps_of_unequal_size()
    attention = [F.normalize(m.pow(2).mean(1).flatten(1)) for m in (x, F.adaptive_avg_pool2d(target, 4))]
    each = 1 - (attention[0] * attention[1]).sum(1)
    weights = each.detach() ** 2 / (each.detach() ** 2).sum()
    record("attention_cosine", (each * weights).sum(), {"map": x})
    x, target = maps_of_unequal_size()
    record("similarity_maps", Similarity()([x], [target])[0], {"map": x})
    x = given("embedding", 6, WIDTH)
    record("similarity_embeddings", Similarity()([x], [teacher])[0], {"embedding": x})
    x = given("embedding", 6, WIDTH)
    # The function divides its arguments in place.
    record("pkt", PKT()(x * 1.0, teacher * 1.0), {"embedding": x})
    x = given("embedding", 6, WIDTH)
    record("rkd", RKDLoss(w_d=25, w_a=50)(x, teacher), {"embedding": x})

    x, target = maps_of_unequal_size()
    module = filled("hint", MapConnected())
    record("hint", F.mse_loss(module.connector(x), F.adaptive_avg_pool2d(target, 4)), {"map": x}, module)

    module = filled("map_similarity", MapConnected())
    x, target = maps_of_unequal_size()
    s, t = module.connector(x), F.adaptive_avg_pool2d(target, 4)
    # Of three faces, the first and the last are of one person: each is the other's only partner.
    first, second = [0, 2], [2, 0]

    def relation(a, b):
        a, b = F.normalize(a.flatten(1)).view(2, 6, 16), F.normalize(b.flatten(1)).view(2, 6, 16)
        return torch.einsum("bcm,bcn->bmn", a, b)

    def apart(a, b):
        return (1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean()

    tt = relation(t[first], t[second])
    crossed = (apart(tt, relation(t[first], s[second])) + apart(tt, relation(s[first], t[second]))) / 2
    value = apart(s, t) + 0.2 * (crossed + apart(tt, relation(s[first], s[second])))
    record("map_similarity", value, {"map": x}, module)

    module = filled("wavelet", MapConnected())
    x, target = maps_of_unequal_size()
    s, t = module.connector(x), F.adaptive_avg_pool2d(target, 4)
    signs = [[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]
    kernels = torch.tensor(signs, dtype=torch.double)[:, None] / 2

    def bands(m):
        return F.conv2d(m.reshape(-1, 1, 4, 4), kernels, stride=2).view(3, 6, 4, 2, 2)

    costs = [apart(bands(s)[:, :, band], bands(t)[:, :, band]) for band in range(4)]
    record("wavelet", costs[0] + 0.5 * sum(costs[1:]) / 3, {"map": x}, module)

    module = filled("mmd", Connected(WIDTH, WIDE))
    x = given("embedding", 6, WIDTH)
    s, t = F.normalize(module.connector(x)), F.normalize(teacher)
    both = torch.cat([s, t])
    square = torch.cdist(both, both) ** 2
    width = square.detach().sum() / (12 * 11)
    value = 0
    for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
        k = [[torch.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (width * factor)).mean() for b in (s, t)] for a in (s, t)]
        value = value + (k[0][0] + k[1][1] - k[0][1] - k[1][0]) / 5
    record("mmd", value, {"embedding": x}, module)

    for name, adaptive in (("reuse", True), ("reuse_plain", False)):
        module = filled(name, Connected(WIDTH, WIDE))
        x = given("embedding", 6, WIDTH)
        centres = F.normalize(image("centres", (IDENTITIES, WIDE)))
        out[f"{name}.centres"] = centres
        s = F.normalize(module.connector(x))
        cosine = s @ centres.double().T
        out[f"{name}.logits"] = (16.0 * cosine).detach()
        read = (s.detach() * F.normalize(teacher)).sum(1, keepdim=True).relu() if adaptive else 1.0
        own = F.one_hot(LABELS, IDENTITIES).double()
        record(name, F.cross_entropy(16.0 * (cosine - 0.4 * own * read), LABELS), {"embedding": x}, module)

    # The batch before is the first two faces, who are two people: the normaliser of each role is its mean over their negatives.
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_s = nn.Linear(WIDTH, 7)
            self.embed_t = nn.Linear(WIDE, 7)

    module = filled("crd", Two())
    x = given("embedding", 6, WIDTH)
    s, t = F.normalize(module.embed_s(x)), F.normalize(module.embed_t(teacher))
    order = [2, 3, 4, 5, 0, 1]
    rows = {"s": torch.cat([s[2:], s[:2].detach()]), "t": torch.cat([t[2:], t[:2].detach()])}
    value = 0
    for face in range(4):
        others = [o for o in range(6) if o != face and LABELS[order[o]] != LABELS[order[face]]]
        for one, other in (("s", "t"), ("t", "s")):
            # Of the batch before, whose faces are 4 and 5 here.
            z = (torch.exp(rows[one][4] @ rows[other][5] / 0.2) + torch.exp(rows[one][5] @ rows[other][4] / 0.2)).detach() / 2

            def h(a, b):
                power = torch.exp(torch.dot(a, b) / 0.2)
                return power / (power + len(others) * z)

            value = value - torch.log(h(rows[one][face], rows[other][face]))
            value = value - sum(torch.log(1 - h(rows[one][face], rows[other][o])) for o in others)
    record("crd", value / 4, {"embedding": x}, module)
    out["crd.d_embedding"] = x.grad[2:]


def main():
    recognition()
    pairs_and_triplets()
    distillation()
    single = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous()
        for name, tensor in sorted(out.items())
    }
    save_file(single, HERE / "values.safetensors")


main()
