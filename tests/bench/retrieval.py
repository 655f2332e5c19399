"""The protocol `retrieval` at TinyFace's full size (`gdrd-core/examples/retrieval.rs`) against a bare product of float32 in NumPy.

    cargo build --release -p gdrd-core --example retrieval
    python retrieval.py [--rounds 3] [--threads 2]

157,871 gallery faces and 3,728 probes of 512 values: the protocol ranks, counts and averages; the product is a product, in blocks of 8,192
gallery faces as the protocol has them. Each in a process of its own, in turns. Needs numpy.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
GALLERY, PROBES, WIDTH, BLOCK = 157_871, 3_728, 512, 8_192


def product():
    import numpy as np

    random = np.random.default_rng(7)
    probes = random.standard_normal((PROBES, WIDTH), np.float32)
    spent = 0.0
    for first in range(0, GALLERY, BLOCK):
        block = random.standard_normal((min(BLOCK, GALLERY - first), WIDTH), np.float32)
        start = time.perf_counter()
        probes @ block.T
        spent += time.perf_counter() - start
    print(f"seconds {spent:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--product", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--program", type=Path, default=HERE.parents[2] / "target/release/examples/retrieval")
    wanted = parser.parse_args()
    if wanted.product:
        product()
        return
    threads = str(wanted.threads)
    environment = dict(os.environ, RAYON_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        environment.pop(name, None)  # what an environment sets for older programs
    ratios, memory = [], []
    for _ in range(wanted.rounds):
        found = []
        for command in ([wanted.program], [sys.executable, HERE, "--product"]):
            said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            found.append(dict(re.findall(r"(\w+) ([\d.]+)", said)))
        ours, bare = (float(one["seconds"]) for one in found)
        ratios.append(ours / bare)
        memory.append(float(found[0]["memory"]))
        print(f"protocol {ours:.2f} s, {memory[-1]:.0f} MiB at most; product in NumPy {bare:.2f} s; ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}, {max(memory):.0f} MiB at most, {threads} threads")


if __name__ == "__main__":
    main()
