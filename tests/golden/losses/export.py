"""Writes values.safetensors: losses and their gradients, from PyTorch and from the papers' formulas.

    python export.py
"""

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import fill, image  # noqa: E402

LABELS = torch.tensor([3, 0, 4, 1, 1, 2])
IDENTITIES, WIDTH, WIDE = 5, 8, 12
out = {}


def given(name, *shape):
    """An input that gets a gradient; everything is computed in double precision."""
    return image(name, shape).double().requires_grad_()


def filled(name, module):
    """The loss's own variables with the formula's values."""
    out[f"{name}.layout"] = torch.tensor([fill(module)])
    return module.double()


def record(name, value, inputs, module=None):
    value.backward()
    out[f"{name}.value"] = value.detach()
    for key, tensor in inputs.items():
        out[f"{name}.d_{key}"] = tensor.grad
    for key, tensor in module.named_parameters() if module else []:
        out[f"{name}.grad.{key}"] = tensor.grad


def cross_entropy():
    for name, smoothing in (("cross_entropy", 0.0), ("smoothed", 0.15)):
        x = given("embedding", 6, WIDTH)
        classifier = filled(name, nn.Linear(WIDTH, IDENTITIES))
        logits = classifier(x)
        record(name, F.cross_entropy(logits, LABELS, label_smoothing=smoothing), {"embedding": x}, classifier)
        out[f"{name}.logits"] = logits.detach()


class ClassWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(IDENTITIES, WIDTH))


def margins():
    """ArcFace and CosFace by the angle itself; past pi, ArcFace has insightface's linear penalty."""
    for name, scale, margin in (("arcface", 64.0, 0.5), ("arcface_small", 16.0, 0.3), ("cosface", 64.0, 0.4)):
        classes = filled(name, ClassWeights())
        x = image("embedding", (6, WIDTH))
        # Two faces nearly opposite to their class, so that theta + margin is past pi.
        for row in (1, 5):
            x[row] = x[row] / 8 - classes.weight[LABELS[row]].detach().float()
        out[f"{name}.embedding"] = x.clone()
        x = x.double().requires_grad_()
        cosine = F.normalize(x) @ F.normalize(classes.weight).T
        target = cosine[torch.arange(6), LABELS]
        if name == "cosface":
            moved = target - margin
        else:
            theta = torch.acos(target)
            past = theta + margin >= math.pi
            assert past[1] and past[5] and past.sum() == 2
            moved = torch.where(past, target - margin * math.sin(math.pi - margin), torch.cos(theta + margin))
        logits = scale * torch.where(F.one_hot(LABELS, IDENTITIES).bool(), moved[:, None], cosine)
        record(name, F.cross_entropy(logits, LABELS), {"embedding": x}, classes)
        out[f"{name}.logits"] = (scale * cosine).detach()


def logit_distillation():
    """RepDistiller's DistillKL: KL divergence, batchmean, times T squared."""
    for name, temperature, offered in (("centres", 4.0, False), ("offered", 2.5, True)):
        student = (given("student logits", 6, IDENTITIES) * 5).detach().requires_grad_()
        if offered:
            teacher = image("teacher logits", (6, IDENTITIES)).double() * 7
        else:
            centres = F.normalize(image("centres", (IDENTITIES, WIDE)))
            out[f"{name}.centres"] = centres
            teacher = 30.0 * F.normalize(image("teacher", (6, WIDE)).double()) @ centres.double().T
        divergence = nn.KLDivLoss(reduction="batchmean")
        value = divergence(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1))
        record(name, value * temperature**2, {"logits": student})


def feature_regression():
    target = image("target", (3, 6, 4, 4)).double()
    cases = (
        ("feature_mean", 6, False, False),
        ("feature_sum", 6, True, False),
        ("feature_connected", 4, True, False),
        ("feature_standardised", 6, False, True),
    )
    given_target = target
    for name, channels, total, standardised in cases:
        target = F.batch_norm(given_target, None, None, training=True, eps=1e-8) if standardised else given_target
        x = given("map", 3, channels, 4, 4)
        module = None
        found = x
        if channels != 6:
            module = nn.Module()
            module.connector = nn.Conv2d(channels, 6, 1)
            filled(name, module)
            found = module.connector(x)
        value = F.mse_loss(found, target, reduction="sum") / 3 if total else F.mse_loss(found, target)
        record(name, value, {"map": x}, module)


def embeddings():
    teacher = image("teacher", (6, WIDE)).double()
    x = given("wide embedding", 6, WIDE)
    record("embedding", (1 - F.cosine_similarity(x, teacher)).mean(), {"embedding": x})
    x = given("embedding", 6, WIDTH)
    module = nn.Module()
    module.connector = nn.Linear(WIDTH, WIDE)
    filled("embedding_connected", module)
    record("embedding_connected", (1 - F.cosine_similarity(module.connector(x), teacher)).mean(), {"embedding": x},
           module)
    x = given("embedding", 6, WIDTH)
    pairwise = [F.cosine_similarity(a[:, None], a[None], dim=2) for a in (x, teacher)]
    record("relation_similarity", F.mse_loss(*pairwise), {"embedding": x})
    x = given("embedding", 6, WIDTH)
    pairwise = [F.cosine_similarity(a[:, None], a[None], dim=2) for a in (x, teacher)]
    record("relation_similarity_smooth", F.smooth_l1_loss(*pairwise, beta=0.3), {"embedding": x})
    # The first two faces were the batch before, whose embeddings have no gradient any longer.
    x = given("embedding", 6, WIDTH)
    found, wanted = (F.cosine_similarity(a[2:, None], b[None], dim=2) for a, b in (
        (x, torch.cat([x[2:], x[:2].detach()])), (teacher, torch.cat([teacher[2:], teacher[:2]]))))
    record("relation_similarity_queue", F.mse_loss(found, wanted), {"embedding": x})
    out["relation_similarity_queue.d_embedding"] = x.grad[2:]
    for name, unit, loss in (
        ("embedding_squared", True, lambda a, b: F.mse_loss(a, b, reduction="sum")),
        ("embedding_squared_raw", False, lambda a, b: F.mse_loss(a, b, reduction="sum")),
        ("embedding_smooth", True, lambda a, b: F.smooth_l1_loss(a, b, reduction="sum", beta=0.2)),
    ):
        x = given("wide embedding", 6, WIDE)
        pair = (F.normalize(x), F.normalize(teacher)) if unit else (x, teacher)
        record(name, loss(*pair) / 6, {"embedding": x})


class Relation(nn.Module):
    """F(a, b) = W2 ReLU(W1 (a - b)); where the widths differ, b has a map of its own."""

    def __init__(self, left, right, hidden, width, bias):
        super().__init__()
        self.w1 = nn.Linear(left, hidden)
        if left != right:
            self.w1_right = nn.Linear(right, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=bias)

    def forward(self, a, b):
        inner = self.w1(a) - self.w1_right(b) if hasattr(self, "w1_right") else self.w1(a - b)
        return self.w2(torch.relu(inner))


class Relations(nn.Module):
    def __init__(self, teacher, student, hidden, width, bias, connected):
        super().__init__()
        if connected:
            self.connector = nn.Linear(student, teacher)
            student = teacher
        self.f_t = Relation(teacher, teacher, hidden, width, bias)
        self.f_ts = Relation(teacher, student, hidden, width, bias)
        self.h1 = nn.Linear(width, width, bias=bias)
        self.h2 = nn.Linear(width, width, bias=bias)


def relational_contrastive():
    """Eq. (2) of the paper, pair by pair. The batches leave no choice of negatives."""
    cases = (
        ("relational", WIDTH, 0.4, (0, 1, 2), {}),
        ("relational_sum", WIDTH, 0.4, (0, 0, 1), {"total"}),
        ("relational_wide", WIDE, 0.1, (0, 1, 2), {}),
        ("relational_wide_sum", WIDE, 0.1, (2, 1, 1), {"total"}),
        ("relational_centred", WIDTH, 0.4, (0, 1, 2), {"centred"}),
        ("relational_wide_centred", WIDE, 0.1, (2, 1, 1), {"centred"}),
        ("relational_plain", WIDTH, 0.4, (0, 1, 2), {"centred", "plain"}),
        ("relational_scores", WIDTH, 0.4, (0, 1, 2), {"scores"}),
        ("relational_connected", WIDTH, 0.4, (0, 1, 2), {"connected"}),
        ("relational_any", WIDTH, 0.4, (0, 0), {"any"}),
        ("relational_queue", WIDTH, 0.4, (0, 1, 2), {"queue"}),
    )
    for name, width, tau, identities, options in cases:
        centred = "centred" in options
        module = filled(name, Relations(WIDE, width, 10, 7, not centred, "connected" in options))
        raw = image("teacher", (len(identities), WIDE)).double()
        x = given("small batch", len(identities), width)
        teacher, student = F.normalize(raw), F.normalize(x)
        if "connected" in options:
            student = F.normalize(module.connector(x))
        # With a queue, the batch is the last two faces, and the first was the batch before.
        batch = [1, 2] if "queue" in options else list(range(len(identities)))
        anchors = list(range(len(identities)))
        quads = []
        for i in anchors:
            for j in (j for j in batch if j != i):
                if "any" in options:
                    pairs = [(i, k) for i in anchors for k in batch if i != k]
                    same = [identities[n] for n in (i, j)]
                    fits = [p for p in pairs if p != (i, j) and [identities[n] for n in p] != same]
                else:
                    fits = [(i, k) for k in batch if k not in (i, j) and identities[k] != identities[j]]
                assert len(fits) <= 1
                quads += [(i, j, *fit) for fit in fits]
        if name == "relational_any":
            # Two faces of one person: each pair's only other pair is of the same people. Of two people, it is not.
            assert not quads
            identities = (0, 1)
            quads = [(0, 1, 1, 0), (1, 0, 0, 1)]
        ratio = 0.5  # n/m: as many negative pairs as positive ones

        def own(i, j):
            return module.h1(module.f_t(teacher[i], teacher[j]))

        def cross(i, j):
            return module.h2(module.f_ts(teacher[i], student[j]))

        first_mean = second_mean = 0.0
        if centred:
            first_mean = torch.stack([own(i, j) for i, j, _, _ in quads]).mean(0)
            second_mean = torch.stack([cross(a, b) for i, j, l, k in quads for a, b in ((i, j), (l, k))]).mean(0)

        def score(i, j, l, k):
            first, second = own(i, j) - first_mean, cross(l, k) - second_mean
            if "plain" not in options:
                first, second = F.normalize(first, dim=0), F.normalize(second, dim=0)
            return torch.dot(first, second)

        offset = 0.0
        if "scores" in options:
            offset = torch.stack([score(i, j, a, b) for i, j, l, k in quads for a, b in ((i, j), (l, k))]).mean()

        def h(*numbers):
            power = torch.exp((score(*numbers) - offset) / tau)
            return power / (power + ratio)

        value = -sum(torch.log(h(i, j, i, j)) + torch.log(1 - h(i, j, l, k)) for i, j, l, k in quads)
        value = value / len(anchors) if "total" in options else value / len(quads)
        record(name, value, {"embedding": x}, module)
        if "queue" in options:
            out[f"{name}.d_embedding"] = out[f"{name}.d_embedding"][1:]


def main():
    cross_entropy()
    margins()
    logit_distillation()
    feature_regression()
    embeddings()
    relational_contrastive()
    single = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous()
        for name, tensor in sorted(out.items())
    }
    save_file(single, HERE / "values.safetensors")


main()
