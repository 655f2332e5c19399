"""Writes values.safetensors: figures of verification from scikit-learn, and from NumPy by brute force.

    python export.py
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.optimize import brentq
from sklearn.metrics import accuracy_score, auc, roc_auc_score, roc_curve
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.model_selection import LeaveOneGroupOut

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import uniform  # noqa: E402

out = {}


def best(scores, same):
    """Of all thresholds that split the scores anew, the strictest of the best, and its accuracy."""
    places = np.unique(scores)
    candidates = np.concatenate([[places[0] - 1], (places[1:] + places[:-1]) / 2, [places[-1] + 1]])
    accuracy = np.array([accuracy_score(same, scores >= threshold) for threshold in candidates])
    at = np.flatnonzero(accuracy == accuracy.max())[-1]
    return candidates[at], accuracy[at]


def protocol(name, scores, same, folds):
    accuracies, thresholds = [], []
    for others, judged in LeaveOneGroupOut().split(scores, same, folds):
        threshold, _ = best(scores[others], same[others])
        thresholds.append(threshold)
        accuracies.append(accuracy_score(same[judged], scores[judged] >= threshold))
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    # Accepted different pairs are as many as rejected same pairs where the drawn curve meets far = 1 - tar.
    equal = brentq(lambda rate: np.interp(rate, far, tar) - (1 - rate), 0, 1, xtol=1e-15)
    area = auc(far, tar)
    assert abs(area - roc_auc_score(same, scores)) < 1e-12
    rates = [tar[far <= limit].max() for limit in (0.1, 0.01, 0.005)]
    out[f"{name}.scores"], out[f"{name}.same"] = scores, same.astype(np.uint8)
    out[f"{name}.folds"] = folds.astype(np.int64)
    out[f"{name}.accuracies"], out[f"{name}.thresholds"] = np.array(accuracies), np.array(thresholds)
    out[f"{name}.single"] = np.array(best(scores, same))
    error = np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))
    out[f"{name}.figures"] = np.array([np.mean(accuracies), error, area, equal, *rates])


def main():
    u = uniform("verification", 1800).astype(np.float64).reshape(3, 600)
    same = np.arange(600) % 2 == 0
    folds = np.arange(600) * 10 // 600
    scores = 0.35 * same + 0.3 * (u[0] + u[1] + u[2]) / 1.5
    protocol("fine", scores, same, folds)
    # Many ties, and folds of uneven size and numbering.
    protocol("tied", np.round(scores, 1), same, np.where(folds < 5, 3, folds * 2))

    rows = uniform("rows", 20 * 16).reshape(20, 16)
    left, right = np.arange(20), (np.arange(20) * 7 + 3) % 20
    out["cosines"] = 1 - paired_cosine_distances(rows[left].astype(np.float64), rows[right].astype(np.float64))
    save_file({name: np.ascontiguousarray(value) for name, value in sorted(out.items())}, HERE / "values.safetensors")


main()
