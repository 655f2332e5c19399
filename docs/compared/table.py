"""The tables of docs/compared.md from `cells.jsonl` and `real.jsonl`: a line for each finished cell of `gdrd ablate`, from whichever machine.

    python docs/compared/table.py add runs/ablation/*-seed*                 # cells that are not there yet
    python docs/compared/table.py                                           # the table, as Markdown
    python docs/compared/table.py real add runs/compared-real/*-seed*       # the same for real faces
    python docs/compared/table.py real

`gdrd ablate` makes such a table of cells that one program has trained on one machine. This file lets several machines share the work. A cell is
the accuracy on the same held-out pairs, pair by pair (`items`, a bit for each, as hexadecimal digits), and what its steps cost. Needs numpy.
"""

import json
import statistics
import sys
from pathlib import Path

import numpy

ARGUMENTS = sys.argv[1:]
REAL = ARGUMENTS[:1] == ["real"]
CELLS = Path(__file__).with_name("real.jsonl" if REAL else "cells.jsonl")
PROTOCOL = "lfw-dev.json" if REAL else "held-out.json"
AGAINST = "GDRD"
RESAMPLES = 1000


def cell(run):
    lock = json.loads((run / "lock.json").read_text())
    student = json.loads((run / "evaluation" / PROTOCOL).read_text())[0]["outcome"]
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = 0.0
    for stage in {step["stage"] for step in steps}:
        of_stage = [step["processor_seconds"] for step in steps if step["stage"] == stage]
        # Logs of before 2026-11-28 have what came before a stage, such as the features of teachers, in its first step.
        seconds += sum(of_stage[1:]) + statistics.median(of_stage)
    items = student["items"]
    return {
        "row": lock["name"],
        "seed": int(run.name.rsplit("-seed", 1)[1].split("-")[0]),
        "accuracy": student["figures"][0]["value"],
        "seconds": round(seconds, 1),
        "peak_mb": round(max(step["peak_bytes"] for step in steps) / 1e6),
        "pairs": len(items),
        "items_digest": student["items_digest"][:16],
        "recipe": lock["recipe"][:12],
        "program": lock["program"][:12],
        "kernels": lock["machine"]["kernels"],
        "items": f"{int(items, 2):0{len(items) // 4}x}",
    }


def read():
    return [json.loads(line) for line in CELLS.read_text().splitlines()] if CELLS.exists() else []


def add(runs):
    known = {(one["row"], one["seed"]): one["recipe"] for one in read()}
    with CELLS.open("a") as file:
        for run in map(Path, runs):
            if not (run / "evaluation" / PROTOCOL).exists():
                continue
            one = cell(run)
            kept = known.get((one["row"], one["seed"]))
            if kept is None:
                file.write(json.dumps(one) + "\n")
            elif kept != one["recipe"]:
                print(f"{run}: not added, {CELLS.name} has this row and seed of another recipe: take that line out first", file=sys.stderr)


def bits(one):
    return numpy.array([int(bit) for bit in f"{int(one['items'], 16):0{one['pairs']}b}"], dtype=float)


def resampled(system, draws):
    """Means over seeds drawn with replacement and the items of `draws`; the same seeds for systems with as many, so that they are paired."""
    per_seed = numpy.stack([bits(one) for one in system])
    chosen = numpy.random.default_rng(1).integers(0, len(system), (RESAMPLES, len(system)))
    by_seed = numpy.stack([per_seed[:, items].mean(axis=1) for items in draws])
    return numpy.take_along_axis(by_seed, chosen, axis=1).mean(axis=1)


def interval(values, sign):
    low, high = 100 * numpy.percentile(values, [2.5, 97.5])
    return f"{low:{sign}.2f} to {high:{sign}.2f}"


def table():
    rows = {}
    for one in read():
        rows.setdefault(one["row"], []).append(one)
    digests = {one["items_digest"] for cells in rows.values() for one in cells}
    if len(digests) != 1:
        sys.exit(f"expected the same pairs in every cell, found {sorted(digests)}")
    pairs = rows[AGAINST][0]["pairs"]
    draws = [numpy.random.default_rng([7, at]).integers(0, pairs, pairs) for at in range(RESAMPLES)]
    print(f"| system | accuracy % | 95 % interval | seeds | less {AGAINST} | 95 % interval | CPU s | peak MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    mean = lambda cells: statistics.mean(one["accuracy"] for one in cells)
    for row, cells in sorted(rows.items(), key=lambda entry: -mean(entry[1])):
        cells.sort(key=lambda one: one["seed"])
        of_row = resampled(cells, draws)
        spread = f" ± {statistics.stdev(one['accuracy'] for one in cells):.2f}" if len(cells) > 1 else ""
        # The difference is over the seeds that both have.
        base = sorted((one for one in rows[AGAINST] if one["seed"] in {other["seed"] for other in cells}), key=lambda one: one["seed"])
        both = [one for one in cells if one["seed"] in {other["seed"] for other in base}]
        less = ["-", "-"]
        if row != AGAINST and base:
            less = [f"{mean(both) - mean(base):+.2f}", interval(resampled(both, draws) - resampled(base, draws), "+")]
        cost = f"{statistics.mean(one['seconds'] for one in cells):.0f} | {max(one['peak_mb'] for one in cells)}"
        print(f"| {row} | {mean(cells):.2f}{spread} | {interval(of_row, '')} | {len(cells)} | {less[0]} | {less[1]} | {cost} |")


if __name__ == "__main__":
    arguments = ARGUMENTS[1:] if REAL else ARGUMENTS
    add(arguments[1:]) if arguments[:1] == ["add"] else table()
