"""The driver of `compare`: see there. Contenders are processes that take turns, and outputs are compared before anything is timed."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

import report
from cases import NETWORKS, Case, chosen, curves
from peers import held_to_avx2

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
OUT = TARGET / "bench"
NATIVE = TARGET / "release" / "bench-worker"
RATE = 1e-3  # learning rate of the training step
TOLERANCE = 1e-3  # largest difference of outputs, as a share of the largest value
ROUNDED = {"bfloat16": 5e-2, "int8": 0.3}  # the same for who holds weights in these
TURN = 0.5  # seconds that a contender's turn takes at least


class Worker:
    """A contender as a process."""

    def __init__(self, contender, threads, **case):
        command = [NATIVE] if contender in ("gdrd", "candle", "layers", "peak") else [sys.executable, HERE / "worker.py"]
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        self.contender = contender
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.say(dict(case, contender=contender, threads=threads))

    def say(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.contender} ended without an answer (exit code {self.process.wait()})")
        return json.loads(line)

    def run(self, iterations):
        self.say({"run": iterations})
        return self.answer()

    def peak_bytes(self):
        """The most memory that the process has held."""
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)

    def cpu_seconds(self):
        stat = Path(f"/proc/{self.process.pid}/stat")
        fields = stat.read_text().rsplit(")", 1)[1].split() if stat.exists() else [0] * 15
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def busy_seconds():
    """Seconds that all cores together have worked since the start of the machine."""
    stat = Path("/proc/stat")
    fields = stat.read_text().split("\n", 1)[0].split()[1:9] if stat.exists() else [0] * 8
    return sum(int(fields[at]) for at in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def outputs(worker, task):
    """The features of a batch, or the losses of three steps, whose later ones depend on every gradient; and seconds per iteration."""
    answers = [worker.run(1) for _ in range(3)]
    values = [value for answer in answers for value in answer["values"]] if task == "train" else answers[-1]["values"]
    return np.array(values), min(answer["seconds"][0] for answer in answers)


def measure(case, network, contenders, rounds, threads, options):
    """One case: outputs, then rounds in which each contender has a turn. Median seconds, ratios and peak memory."""
    import files

    folder = OUT / "networks" / re.sub("[^a-z0-9]+", "-", network["title"].lower())
    files.make(network, folder)
    given = dict(options, network=network, folder=str(folder), task=case.task, batch=case.batch, rate=RATE)
    workers = {name: Worker(name, threads, **given) for name in contenders}
    found = {name: outputs(worker, case.task) for name, worker in workers.items()}
    reference = found["pytorch"][0]
    differences = {}
    for name, (values, _) in found.items():
        if values.shape != reference.shape:
            sys.exit(f"{case.name}: {name} answers with {values.size} values, pytorch with {reference.size}")
        differences[name] = float(np.abs(values - reference).max() / np.abs(reference).max())
        rounded = name == "gdrd" or name.endswith("int8")
        most = ROUNDED.get(options["weights"], TOLERANCE) if rounded else TOLERANCE
        if not differences[name] < most:
            sys.exit(f"{case.name}: {name} differs from pytorch by {differences[name]:.1e}, more than {most}")
    turns = {name: max(1, round(TURN / seconds)) for name, (_, seconds) in found.items()}
    before = busy_seconds(), sum(worker.cpu_seconds() for worker in workers.values())
    times, fastest = {name: [] for name in workers}, {}
    start = os.times().elapsed
    for _ in range(rounds):
        for name, worker in workers.items():
            # One more that does not count: while others had their turns, memory went back to the system.
            seconds = worker.run(turns[name] + 1)["seconds"][1:]
            times[name].append(statistics.median(seconds))
            fastest[name] = min(fastest.get(name, seconds[0]), *seconds)
    ours = sum(worker.cpu_seconds() for worker in workers.values()) - before[1]
    others = (busy_seconds() - before[0] - ours) / (os.times().elapsed - start)
    result = dict(network=network["title"], task=case.task, batch=case.batch, contenders={}, ratios={})
    for name, worker in workers.items():
        seconds = statistics.median(times[name])
        result["contenders"][name] = dict(
            seconds=seconds, images_per_second=case.batch / seconds, fastest_seconds=fastest[name],
            peak_bytes=worker.peak_bytes(), difference=differences[name],
        )
        if name != "gdrd":
            # Of neighbours in time, so that what slows the machine for a while slows both.
            result["ratios"][name] = statistics.median(peer / own for peer, own in zip(times[name], times["gdrd"]))
        worker.close()
    result["cores_taken_by_others"] = max(0.0, others)
    return result


def layer_speeds(network, batch, threads, options):
    """Every different layer of a network with its speed in gdrd."""
    import files

    layers = files.layers(network, batch)
    worker = Worker("layers", threads, layers=layers, **options)
    speeds = worker.answer()
    worker.close()
    return [dict(layer, **speed) for layer, speed in zip(layers, speeds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, prog="tests/bench/compare")
    parser.add_argument("--cases", default="*", help="names, with wildcards and commas: paper/*,*/embed/8")
    parser.add_argument("--rounds", type=int, help="rounds in which each contender has a turn (7; 3 with --quick)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contender (every core)")
    parser.add_argument("--instructions", help="the highest level that gdrd uses: portable, avx2 (PyTorch and ONNX Runtime too), avx512 (the machine's)")
    parser.add_argument("--weights", default="float32", choices=["float32", *ROUNDED], help="what gdrd holds the weights of students in")
    parser.add_argument("--quick", action="store_true", help="three rounds, and no batch of 96 through large networks")
    parser.add_argument("--layers", action="store_true", help="the speed of each layer of the embed cases")
    parser.add_argument("--plot", action="store_true", help="how the cost grows with batch, resolution and width")
    args = parser.parse_args()
    rounds = args.rounds or (3 if args.quick else 7)
    cases = chosen(args.cases, args.quick)
    if not cases:
        parser.error(f"no case is called {args.cases}")
    options = dict(weights=args.weights)
    if args.instructions:
        options["instructions"] = args.instructions
    OUT.mkdir(parents=True, exist_ok=True)
    machine = report.machine(args.threads)
    peers_held = args.instructions == "avx2" and machine["vectors"] in ("amx_bf16", "avx512f")
    if peers_held:
        # All contenders inherit it; ours do not look at it.
        os.environ.update(held_to_avx2(OUT))
    worker = Worker("peak", args.threads)
    result = dict(machine=machine, rounds=rounds, options=options, peers_held=peers_held, peak_gflops=worker.answer(), cases=[])
    worker.close()
    for case in cases:
        print(f"measuring {case.name}", file=sys.stderr)
        result["cases"].append(measure(case, NETWORKS[case.network], case.contenders(args.weights), rounds, args.threads, options))
        # After each case, so that a run that is cut short has not been in vain.
        (OUT / "compare.json").write_text(json.dumps(result, indent=1) + "\n")
    print(report.table(result))
    if args.layers:
        for case, found in zip(cases, result["cases"]):
            if case.task == "embed":
                print(f"measuring the layers of {case.name}", file=sys.stderr)
                found["layers"] = layer_speeds(NETWORKS[case.network], case.batch, args.threads, options)
                print(report.layers(found, result["peak_gflops"]["all_threads"]))
    if args.plot:
        result["curves"] = []
        for axis, value, network, batch in curves():
            print(f"measuring {axis} {value}", file=sys.stderr)
            case = Case(network["title"], "embed", batch)
            contenders = ["gdrd", "pytorch", "onnxruntime"]
            found = measure(case, network, contenders, rounds, args.threads, options)
            result["curves"].append(dict(found, axis=axis, value=value))
        report.plot(result["curves"], OUT / "growth.png")
        print(f"how the cost grows: {(OUT / 'growth.png').relative_to(TARGET.parent)}")
    (OUT / "compare.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
