"""The searches of `gdrd-student/examples/search.rs` with FAISS's flat index and usearch's exact search: time, memory, ranks.

    python gallery.py FOLDER WIDTH          (needs numpy, faiss-cpu, usearch)
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

folder, width = Path(sys.argv[1]), int(sys.argv[2])
entries = np.fromfile(folder / "entries.f32", np.float32).reshape(-1, width)
probes = np.fromfile(folder / "probes.f32", np.float32).reshape(-1, width)
ours = [[int(at) for at in line.split()] for line in (folder / "found.txt").read_text().splitlines()]


def memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most"


def report(name: str, one: float, many: float, found: np.ndarray) -> None:
    equal = sum(list(map(int, row)) == own for row, own in zip(found, ours))
    print(f"{name}: one search {one:.1f} ms, among 64 {many:.1f} ms, {equal} of {len(ours)} lists equal, {memory()}")


def timed(search) -> tuple[float, float, np.ndarray]:
    search(probes[:1])
    start = time.perf_counter()
    for at in range(16):
        search(probes[at : at + 1])
    one = (time.perf_counter() - start) / 16
    start = time.perf_counter()
    found = search(probes)
    return 1e3 * one, 1e3 * (time.perf_counter() - start) / len(probes), found


if "usearch" in sys.argv[3:]:
    from usearch.index import MetricKind, search

    report("usearch", *timed(lambda x: np.atleast_2d(search(entries, x, 10, MetricKind.IP, exact=True).keys)))
else:
    import faiss

    index = faiss.IndexFlatIP(width)
    index.add(entries)
    del entries
    report("faiss flat", *timed(lambda x: index.search(x, 10)[1]))
