"""Writes values.safetensors: open-set identification with templates as probes, by NumPy.

    python export.py
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from formula import uniform  # noqa: E402

PEOPLE, ENROLLED, WIDTH = 12, 8, 16


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def images(name, person, media):
    """Embeddings about a centre for each person; frames of one video are much alike, and far from it."""
    centres = uniform("centres", PEOPLE * WIDTH).reshape(PEOPLE, WIDTH)
    video = uniform(f"{name} video", (media.max() + 1) * WIDTH).reshape(-1, WIDTH)
    noise = uniform(f"{name} image", len(person) * WIDTH).reshape(-1, WIDTH)
    return (centres[person] + np.float32(1.5) * video[media] + np.float32(0.5) * noise).astype(np.float32)


def templates(rows, template, media):
    """The mean of each medium's images, the sum over a template's media, unit length; in the order of `np.unique`."""
    found = []
    for one in np.unique(template):
        own = template == one
        found.append(sum(rows[own & (media == medium)].mean(axis=0) for medium in np.unique(media[own])))
    return unit(np.array(found))


def figures(gallery, probes, person):
    """TPIR at FPIR 0.05, 0.1 and 0.3, and rank 1 of the enrolled."""
    cosines = probes @ gallery.T
    top, right = cosines.max(axis=1), cosines.argmax(axis=1) == person
    mated = person < ENROLLED
    found = []
    for fpir in (0.05, 0.1, 0.3):
        others = np.sort(top[~mated])[::-1]
        # The lowest threshold that lets so many in: just above the first score that is one too many.
        threshold = np.nextafter(others[int(fpir * len(others) + 1e-9)], 2)
        found.append((right & (top >= threshold))[mated].mean())
    return np.array([*found, right[mated].mean()])


def main():
    out = {}
    # Five images of each who is enrolled; of a probe one to seven. Behind two of them all are frames of one video.
    sizes = {"gallery": np.full(ENROLLED, 5), "probes": 1 + np.arange(120) * 7 % 11 % 7}
    whose = {"gallery": np.arange(ENROLLED), "probes": np.arange(120) * 5 % PEOPLE}
    for side, size in sizes.items():
        template = np.repeat(np.arange(len(size)), size)
        place = np.concatenate([np.arange(n) for n in size])
        out[f"{side}.template"], out[f"{side}.media"] = template, 3 * template + np.minimum(place, 2)
        out[f"{side}.person"] = whose[side][template]
        out[f"{side}.rows"] = images(side, out[f"{side}.person"], out[f"{side}.media"])
    for name in ("media", "images"):
        of = {}
        for side in sizes:
            rows = unit(out[f"{side}.rows"].astype(np.float64))
            media = out[f"{side}.media"] if name == "media" else np.arange(len(rows))
            of[side] = templates(rows, out[f"{side}.template"], media)
        out[f"{name}.figures"] = figures(of["gallery"], of["probes"], whose["probes"])
        print(name, out[f"{name}.figures"])
    save_file({name: np.ascontiguousarray(value) for name, value in sorted(out.items())}, HERE / "values.safetensors")


main()
