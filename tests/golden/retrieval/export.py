"""Writes values.safetensors: figures of identification and retrieval from scikit-learn, and from NumPy by brute force.

    python export.py
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, log_loss, top_k_accuracy_score
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import uniform  # noqa: E402

PEOPLE, WIDTH, L2 = 12, 16, 1e-3
out = {}


def faces(name, people, spread):
    """Embeddings about a centre for each person, in float32 as the test reads them."""
    centres = uniform("centres", PEOPLE * WIDTH).reshape(PEOPLE, WIDTH)
    noise = uniform(name, len(people) * WIDTH).reshape(-1, WIDTH)
    return (centres[people] + np.float32(spread) * noise).astype(np.float32)


def trapezoid(hits):
    """Average precision as retrieval scripts since the Oxford buildings' have it, one rank after the other."""
    recall, precision, found, area = 0.0, 1.0, 0, 0.0
    for rank, hit in enumerate(hits, 1):
        found += hit
        area += (found / hits.sum() - recall) * (precision + found / rank) / 2
        recall, precision = found / hits.sum(), found / rank
        if found == hits.sum():
            return area


def retrieval(name, gallery, gallery_people, probes, probe_people):
    scores = normalize(probes.astype(np.float64)) @ normalize(gallery.astype(np.float64)).T
    # Equal embeddings have equal scores but for rounding.
    scores = np.round(scores, 9)
    mates = probe_people[:, None] == gallery_people[None, :]
    # From the highest score down; of equals those of others first.
    order = np.lexsort((mates, -scores), axis=1)
    hits = np.take_along_axis(mates, order, axis=1)
    precision = [average_precision_score(m, s) for m, s in zip(mates, scores)]
    assert abs(np.mean(precision) - label_ranking_average_precision_score(mates, scores)) < 1e-12
    figures = [hits[:, :rank].any(axis=1).mean() for rank in (1, 5, 10, 20)]
    out[f"{name}.figures"] = np.array([*figures, np.mean(precision), np.mean([trapezoid(h) for h in hits])])


def main():
    gallery_people, probe_people = np.arange(60) % PEOPLE, np.arange(48) * 5 % PEOPLE
    strangers = uniform("strangers", 40 * WIDTH).reshape(40, WIDTH)
    for name, form in (("fine", lambda rows: rows), ("tied", np.sign)):
        gallery = form(faces("gallery", gallery_people, 1.0))
        probes, others = form(faces("probes", probe_people, 1.4)), form(strangers)
        out[f"{name}.gallery"], out[f"{name}.probes"], out[f"{name}.strangers"] = gallery, probes, others
        everyone = np.concatenate([gallery, others])
        retrieval(name, everyone, np.concatenate([gallery_people, np.full(40, -1)]), probes, probe_people)

    gallery = normalize(out["fine.gallery"].astype(np.float64))
    probes = normalize(out["fine.probes"].astype(np.float64))
    layer = LogisticRegression(C=1 / (L2 * len(gallery)), tol=1e-10, max_iter=100_000).fit(gallery, gallery_people)
    scores = layer.decision_function(probes)
    loss = log_loss(gallery_people, layer.predict_proba(gallery)) + L2 / 2 * (layer.coef_**2).sum()
    ranks = [top_k_accuracy_score(probe_people, scores, k=k) for k in (1, 3, 5)]
    assert ranks[0] == layer.score(probes, probe_people)
    out["softmax.figures"] = np.array([*ranks, loss])

    # The nearest mean by cosine is the nearest by distance once the means have unit length.
    means = normalize(NearestCentroid().fit(gallery, gallery_people).centroids_)
    cosines = probes @ means.T
    out["means.figures"] = np.array([top_k_accuracy_score(probe_people, cosines, k=k) for k in (1, 3, 5)])

    # Open set: the first eight people are enrolled, the strangers and all others are not.
    enrolled = gallery_people < 8
    means = normalize(NearestCentroid().fit(gallery[enrolled], gallery_people[enrolled]).centroids_)
    mated = probe_people < 8
    cosines = probes @ means.T
    top = cosines.max(axis=1)
    right = cosines.argmax(axis=1) == probe_people
    nobody = np.concatenate([top[~mated], (normalize(strangers.astype(np.float64)) @ means.T).max(axis=1)])
    figures = []
    for fpir in (0.05, 0.1, 0.3):
        # The lowest threshold that lets so many in: just above the first score that is one too many.
        threshold = np.nextafter(np.sort(nobody)[::-1][int(fpir * len(nobody) + 1e-9)], 2)
        figures.append((right & (top >= threshold))[mated].mean())
    out["open.figures"] = np.array([*figures, right[mated].mean()])
    save_file({name: np.ascontiguousarray(value) for name, value in sorted(out.items())}, HERE / "values.safetensors")


main()
