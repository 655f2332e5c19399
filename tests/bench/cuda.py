"""The driver of `cuda`: see there. Contenders are processes that take turns on one GPU."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from cases import NETWORKS, Case

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / "target" / "bench"
RATE = 1e-3  # learning rate of the training step
ROUNDS = 5
TURN = 0.3  # seconds that a contender's turn takes at least
MEASURING = 6  # seconds for all turns of a case
# Largest difference of outputs from PyTorch's in the same precision, as a share of the largest value.
TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 6e-2}
# Cases, each in one precision, whose contenders start together: most of the time goes into starting and compiling PyTorch.
LOT = 4
# What matters most comes first: time may end the list.
CASES = [
    Case("paper", "train", 96),
    Case("paper", "train", 1024),
    Case("paper", "embed", 96),
    Case("iresnet50", "embed", 96),
    Case("paper", "embed", 1),
    Case("paper", "embed", 4096),
    Case("mobilefacenet", "embed", 96),
    Case("diffusion", "embed", 96),
    Case("narrow", "train", 96),
]
CONTENDERS = {"gdrd": "gdrd", "eager": "PyTorch, eager", "compiled": "PyTorch, compiled"}


class Worker:
    """A contender of one case as a process."""

    def __init__(self, contender, case, profile):
        native = [os.environ["GDRD_BENCH_WORKER"]]
        command = native if contender == "gdrd" else [sys.executable, HERE / "cuda_worker.py"]
        self.contender = contender
        environment = dict(os.environ)
        environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(1, os.cpu_count() // LOT)))
        if contender == "gdrd":
            environment["LD_LIBRARY_PATH"] = environment.get("GDRD_LIBRARY_PATH", "")
            if profile:
                environment["GDRD_CUDA_PROFILE"] = str(profile)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.say(dict(case, contender=contender, threads=os.cpu_count()))

    def say(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def run(self, iterations):
        """Seconds of an iteration, and the values of the last."""
        self.say({"run": iterations})
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contender} ended without an answer (exit code {self.process.wait()})")
        answer = json.loads(line)
        return statistics.fmean(answer["seconds"]), np.array(answer["values"])

    def warm(self):
        """What the case gives: an embedding, or the losses of three steps, of which later ones depend on every gradient."""
        first = [self.run(1)[1] for _ in range(3)]
        self.run(10)
        return np.concatenate(first)

    def close(self):
        """The process ends, whatever it is doing."""
        self.process.kill()
        self.process.wait()


def folder_of(network):
    import files

    folder = OUT / "cuda-networks" / re.sub("[^a-z0-9]+", "-", network["title"].lower())
    files.make(network, folder, onnx=False)
    return folder


class Race:
    """One case in one precision, with its contenders."""

    def __init__(self, case, precision):
        self.case, self.precision, self.name = case, precision, f"{case.name} in {precision}"
        self.workers, self.values = {}, {}

    def start(self, contenders, pool, profile):
        """Contenders start and warm up, all at once."""
        given = dict(network=NETWORKS[self.case.network], folder=str(folder_of(NETWORKS[self.case.network])), rate=RATE, gpu=0,
                     task=self.case.task, batch=self.case.batch, precision=self.precision)
        path = OUT / f"profile-{self.case.name.replace('/', '-')}-{self.precision}.txt" if profile else None
        self.workers = {name: Worker(name, given, path) for name in contenders}
        self.values = {name: pool.submit(worker.warm) for name, worker in self.workers.items()}

    def ready(self, end, miss):
        """Waits for all of them, to `end` at most; those that do not come are told to `miss`, and the others race."""
        awaited, self.values = self.values, {}
        for name, found in awaited.items():
            try:
                self.values[name] = found.result(max(0, end - time.monotonic()))
            except (RuntimeError, OSError) as error:
                miss(f"{self.name}, {name}", error)
                self.workers.pop(name).close()

    def measure(self):
        """Rounds in which each contender has a turn; median seconds and ratios."""
        case = self.case
        result = dict(network=NETWORKS[case.network]["title"], task=case.task, batch=case.batch, precision=self.precision,
                      contenders={}, ratios={})
        turns = {name: max(1, round(TURN / worker.run(5)[0])) for name, worker in self.workers.items()}
        times = {name: [] for name in self.workers}
        for _ in range(ROUNDS):
            for name, worker in self.workers.items():
                times[name].append(worker.run(turns[name])[0])
        for name, found in self.values.items():
            truth = self.values.get("eager", found)
            difference = float(np.abs(found - truth).max() / np.abs(truth).max())
            seconds = statistics.median(times[name])
            result["contenders"][name] = dict(
                seconds=seconds, images_per_second=case.batch / seconds, rounds=times[name], difference=difference,
                right=bool(difference < TOLERANCE[self.precision]),
            )
            if name != "gdrd" and "gdrd" in times:
                result["ratios"][name] = statistics.median(peer / own for peer, own in zip(times[name], times["gdrd"]))
        return result

    def close(self):
        for worker in self.workers.values():
            worker.close()


def table(result):
    """The comparison, a row for each case and precision."""
    rows = [
        "| network | task | batch | precision | " + " | ".join(CONTENDERS.values()) + " | vs eager | vs compiled | difference |",
        "|---|---|--:|---|" + "--:|" * 6,
    ]
    for case in result["cases"]:
        found = case["contenders"]
        speeds = [f"{found[name]['images_per_second']:.0f}/s" if name in found else "-" for name in CONTENDERS]
        ratios = [f"{case['ratios'][name]:.2f}x" if name in case["ratios"] else "-" for name in ("eager", "compiled")]
        own = found.get("gdrd")
        compared = own and "eager" in found
        difference = f"{own['difference']:.0e}" + ("" if own["right"] else ", WRONG") if compared else "-"
        cells = [case["network"], case["task"], str(case["batch"]), case["precision"], *speeds, *ratios, difference]
        rows.append("| " + " | ".join(cells) + " |")
    rows.append(
        f"\n{result['gpu']}; PyTorch {result['torch']}, channels-last. Images a second from faces in main memory to what comes back "
        f"there; medians of {ROUNDS} rounds in which the contenders take turns; ratios are the median over rounds of the peer's time "
        "over gdrd's (above 1: gdrd is faster)."
    )
    rows += [f"Left out: {what}" for what in result["left_out"]]
    return "\n".join(rows)


def race_all(lot, args, end, result):
    """Measures the cases of a lot, in turn, while none of their contenders starts or compiles."""

    def miss(what, error):
        is_late = isinstance(error, TimeoutError)
        result["left_out"].append(f"{what}, for want of time" if is_late else f"{what}: {error}")
        result["failed"] = result.get("failed", False) or not is_late

    left = end - time.monotonic()
    if left < 15:
        result["left_out"] += [f"{race.name}, for want of time" for race in lot]
        return
    wanted = args.contenders.split(",")
    contenders = [name for name in CONTENDERS if name in wanted and (name != "compiled" or left > 60)]
    with ThreadPoolExecutor(len(lot) * len(CONTENDERS)) as pool:
        try:
            for race in lot:
                race.start(contenders, pool, args.profile)
            for race in lot:
                race.ready(end - MEASURING * len(lot), miss)
            for race in lot:
                if end - time.monotonic() < MEASURING or not race.workers:
                    miss(race.name, TimeoutError())
                    continue
                print(f"measuring {race.name}", file=sys.stderr, flush=True)
                try:
                    result["cases"].append(race.measure())
                except (RuntimeError, OSError) as error:
                    miss(race.name, error)
                (OUT / "cuda.json").write_text(json.dumps(result, indent=1) + "\n")
        finally:
            for race in lot:
                race.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, prog="tests/bench/cuda")
    parser.add_argument("--seconds", type=float, default=560, help="seconds for the whole call (560)")
    parser.add_argument("--spent", type=float, default=0, help="seconds of them that are spent")
    parser.add_argument("--cases", default="*", help="names, with wildcards and commas: paper/*,*/embed/96")
    parser.add_argument("--precisions", default="tf32,bfloat16,float32", help="in this order")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="who takes part: gdrd,eager,compiled")
    parser.add_argument("--profile", action="store_true", help="time gdrd's launches too, which slows it: target/bench/profile-*")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds - args.spent
    import torch

    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    result = dict(gpu=torch.cuda.get_device_name(0), torch=torch.__version__, cases=[], left_out=[])
    OUT.mkdir(parents=True, exist_ok=True)
    chosen = [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in args.cases.split(","))]
    races = [Race(case, precision) for case in chosen for precision in args.precisions.split(",")]
    for lot in (races[at : at + LOT] for at in range(0, len(races), LOT)):
        race_all(lot, args, end, result)
    print(table(result))
    wrong = [case for case in result["cases"] if not all(found["right"] for found in case["contenders"].values())]
    sys.exit(1 if wrong or result.get("failed") else 0)


if __name__ == "__main__":
    main()
