"""Exact search of a gallery of made embeddings: gdrd (`gdrd-student/examples/search.rs`), FAISS's flat index, usearch's exact search.

    cargo build --release -p gdrd-student --example search
    python gallery.py STUDENT FOLDER [--count 1000000] [--rounds 3] [--threads 2]

STUDENT is a student file, of whose embedding the entries have the width. FOLDER takes the entries (2 GB for a million of 512 values).
All search the same entries for the same probes, each in a process of its own, in turns. Needs numpy, faiss-cpu, usearch.
"""

import argparse
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
PROBES, K = 64, 10


def peer(name, folder, width, threads):
    """Searches by a peer: milliseconds of one search, and of one among 64; its memory; the lists that are not ours."""
    import numpy as np

    entries = np.fromfile(folder / "entries.f32", np.float32).reshape(-1, width)
    probes = np.fromfile(folder / "probes.f32", np.float32).reshape(-1, width)
    ours = [[int(at) for at in line.split()] for line in (folder / "found.txt").read_text().splitlines()]
    if name == "usearch":
        from usearch.index import MetricKind
        from usearch.index import search as exact

        def search(x):
            return np.atleast_2d(exact(entries, x, K, MetricKind.IP, exact=True, threads=threads).keys)
    else:
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.IndexFlatIP(width)
        index.add(entries)
        del entries

        def search(x):
            return index.search(x, K)[1]

    search(probes[:1])
    start = time.perf_counter()
    for at in range(16):
        search(probes[at : at + 1])
    one = 1e3 * (time.perf_counter() - start) / 16
    start = time.perf_counter()
    found = search(probes)
    many = 1e3 * (time.perf_counter() - start) / len(probes)
    equal = sum(list(map(int, row)) == own for row, own in zip(found, ours))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"one {one:.3f} many {many:.3f} memory {memory:.0f} equal {equal}")


def figures(command, environment):
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+)", said.splitlines()[0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer", nargs=2, metavar=("NAME", "WIDTH"), help=argparse.SUPPRESS)
    parser.add_argument("--program", type=Path, default=HERE.parents[2] / "target/release/examples/search")
    wanted = parser.parse_args()
    if wanted.peer:
        peer(wanted.peer[0], wanted.folder, int(wanted.peer[1]), wanted.threads)
        return
    wanted.folder.mkdir(parents=True, exist_ok=True)
    threads = str(wanted.threads)
    environment = dict(os.environ, RAYON_NUM_THREADS=threads, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        environment.pop(name, None)  # what an environment sets for older programs
    found = {"gdrd": [], "FAISS flat": [], "usearch exact": []}
    for _ in range(wanted.rounds):
        ours = figures([wanted.program, wanted.student, str(wanted.count), wanted.folder], environment)
        found["gdrd"].append(ours)
        for name in list(found)[1:]:
            command = [sys.executable, HERE, wanted.student, wanted.folder, "--threads", threads]
            found[name].append(figures([*command, "--peer", name.split()[0].lower(), str(int(ours["width"]))], environment))
    width = int(found["gdrd"][0]["width"])
    print(f"| {wanted.count:,} entries of {width} values, the {K} nearest | one search, ms | among {PROBES}, ms each | memory, MiB | equal lists |")
    print("|---|--:|--:|--:|--:|")
    for name, rounds in found.items():
        median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        equal = "" if name == "gdrd" else f"{min(one['equal'] for one in rounds):.0f} of {PROBES}"
        print(f"| {name} | {median['one']:.0f} | {median['many']:.1f} | {median['memory']:.0f} | {equal} |")
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in said.get("flags", "").split()]
    print(f"\n{said.get('model name', platform.processor())} ({', '.join(flags)}), {threads} threads each, medians of {wanted.rounds} rounds in turns.")


if __name__ == "__main__":
    main()
