"""Size, cold start and memory of the smallest program that embeds one face: gdrd-student, ort and fastembed; one network, one face.

    cargo build --release && cargo build --release -p gdrd-student --example embed
    python start.py STUDENT [--rounds 11]

STUDENT is a student file; `gdrd export` makes the ONNX model that the others open, with the ONNX Runtime of the Python package onnxruntime (its shared
library is loaded, `load-dynamic`). Programs are built with `opt-level = 3` and `strip`; runs are in turns, figures are medians. Needs cargo,
onnxruntime.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = {
    "ort": 'ort = { version = "=2.0.0-rc.15", default-features = false, features = ["std", "load-dynamic", "ndarray", "api-24"] }',
    "fastembed": 'fastembed = { version = "=5.17.4", default-features = false, features = ["image-models", "ort-load-dynamic"] }\n'
    'image = { version = "0.25", default-features = false }',
}
PROFILE = "[profile.release]\nopt-level = 3\nstrip = true\n"


def build(folder, name):
    """The program of a peer, in a workspace of its own."""
    project = folder / name
    (project / "src").mkdir(parents=True, exist_ok=True)
    manifest = f'[package]\nname = "{name}-start"\nversion = "0.0.0"\nedition = "2024"\n\n[dependencies]\n{PEERS[name]}\n\n{PROFILE}\n[workspace]\n'
    (project / "Cargo.toml").write_text(manifest)
    shutil.copyfile(HERE / f"start/src/bin/{name}.rs", project / "src/main.rs")
    subprocess.run(["cargo", "build", "--release", "--quiet", "--manifest-path", project / "Cargo.toml"], check=True)
    return project / f"target/release/{name}-start"


def once(command, environment):
    """Milliseconds of the whole process, of opening, until the first embedding; MiB at most; the first value."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, env=environment, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        out.seek(0)
        said = out.read()
    milliseconds = {"ms": 1.0, "µs": 1e-3, "s": 1e3}
    opened, first = [float(value) * milliseconds[unit] for value, unit in re.findall(r"(?:open|after) ([\d.]+) ?(ms|µs|s)", said)]
    return opened, first, usage.ru_maxrss / 1024, float(re.search(r"first (-?[\d.]+)", said)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student", type=Path)
    parser.add_argument("--gdrd", type=Path, default=ROOT / "target/release/gdrd")
    parser.add_argument("--embed", type=Path, default=ROOT / "target/release/examples/embed")
    parser.add_argument("--folder", type=Path, default=ROOT / "target/bench/start")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", type=int, default=16, help="pixels of the student's input")
    wanted = parser.parse_args()
    import onnxruntime

    runtime = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    wanted.folder.mkdir(parents=True, exist_ok=True)
    model, face = wanted.folder / "student.onnx", wanted.folder / "face.rgb"
    subprocess.run([wanted.gdrd, "export", wanted.student, "--onnx", model, "--preprocess", "metadata"], check=True, stdout=subprocess.DEVNULL)
    face.write_bytes(bytes([127]) * (3 * 112 * 112))
    programs = {"gdrd": wanted.embed} | {name: build(wanted.folder, name) for name in PEERS}
    environment = dict(os.environ, ORT_DYLIB_PATH=str(runtime))
    commands = {"gdrd": [programs["gdrd"], wanted.student, face]} | {name: [programs[name], model, str(wanted.size)] for name in PEERS}
    found = {name: [] for name in commands}
    for _ in range(wanted.rounds):
        for name, command in commands.items():
            found[name].append(once(command, environment))
    values = {rounds[0][3] for rounds in found.values()}
    assert max(values) - min(values) < 2e-4, found
    print("| smallest program | size, MB | open, ms | first embedding after, ms | memory, MiB |")
    print("|---|--:|--:|--:|--:|")
    for name, rounds in found.items():
        opened, first, memory = (statistics.median(column) for column in list(zip(*rounds))[:3])
        size = programs[name].stat().st_size / 1e6
        note = "" if name == "gdrd" else f" + {runtime.stat().st_size / 1e6:.1f}"
        print(f"| {name} | {size:.1f}{note} | {opened:.1f} | {first:.1f} | {memory:.1f} |")
    print(f"\nMedians of {wanted.rounds} starts in turns; files in the system's cache. ONNX Runtime {onnxruntime.__version__} is the second part of a size.")


if __name__ == "__main__":
    main()
