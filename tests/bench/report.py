"""What a run of `compare` shows: tables in Markdown, and a plot."""

import platform
from importlib.metadata import version
from pathlib import Path

TITLES = {
    "gdrd": "gdrd",
    "pytorch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-int8": "ONNX Runtime, int8",
    "candle": "candle's own layers",
}
TASKS = {"embed": "embed", "train": "training step"}


def machine(threads):
    """The processor, the threads of each contender, and the versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    widest = next((name for name in ("amx_bf16", "avx512f", "avx2") if name in flags), platform.machine())
    versions = {name: version(name) for name in ("torch", "onnxruntime")}
    return dict(processor=fields.get("model name", platform.processor()), vectors=widest, threads=threads, versions=versions)


def speed(contender, batch):
    """Milliseconds of one image, or images a second."""
    if contender is None:
        return "-"
    return f"{1000 * contender['seconds']:.2f} ms" if batch == 1 else f"{contender['images_per_second']:.1f}/s"


def table(result):
    """The comparison, a row for each case."""
    named = {name for case in result["cases"] for name in case["contenders"]}
    titles = {name: title for name, title in TITLES.items() if name in named}
    ratios = [f"vs {title}" for name, title in titles.items() if name != "gdrd"]
    heads = ["network", "task", "batch", *titles.values(), *ratios, "peak MB"]
    rows = ["| " + " | ".join(heads) + " |", "|---|---|--:|" + "--:|" * (len(heads) - 3)]
    for case in result["cases"]:
        found = case["contenders"]
        speeds = [speed(found.get(name), case["batch"]) for name in titles]
        ratios = [f"{case['ratios'][name]:.2f}x" if name in case["ratios"] else "-" for name in titles if name != "gdrd"]
        peaks = " / ".join(f"{found[name]['peak_bytes'] / 1e6:.0f}" if found.get(name, {}).get("peak_bytes") else "-" for name in titles)
        cells = [case["network"], TASKS[case["task"]], str(case["batch"]), *speeds, *ratios, peaks]
        rows.append("| " + " | ".join(cells) + " |")
    about, peak = result["machine"], result["peak_gflops"]
    options = result.get("options", {})
    weights = options.get("weights", "float32")
    held = "float32" if weights == "float32" else f"gdrd's weights of students in {weights}"
    limited = "gdrd, PyTorch and ONNX Runtime use" if result.get("peers_held") else "gdrd uses"
    limit = f"; {limited} at most {options['instructions']}" if "instructions" in options else ""
    others = [case["cores_taken_by_others"] for case in result["cases"]]
    rows.append(
        f"\n{about['processor']} ({about['vectors']}), {about['threads']} threads for each contender; "
        f"PyTorch {about['versions']['torch']}, ONNX Runtime {about['versions']['onnxruntime']}; {held}{limit}. "
        f"Medians of {result['rounds']} rounds in which the contenders take turns; ratios are the median over rounds of the peer's time "
        "over gdrd's (above 1: gdrd is faster). Peak memory is that of the whole process, in the order of the columns. "
        f"Largest difference of outputs {max(c['difference'] for case in result['cases'] for c in case['contenders'].values()):.0e}. "
        f"Other programs took {min(others):.1f} to {max(others):.1f} cores meanwhile. Products of 512x512 matrices: "
        f"{peak['one_thread']:.0f} GFLOP/s on one thread, {peak['all_threads']:.0f} on all."
    )
    return "\n".join(rows)


def layers(case, peak):
    """Where the time of a network goes: its layers by the time they take, and what is not in them."""
    found = [dict(layer, ms=1000 * layer["count"] * layer["forward_seconds"]) for layer in case["layers"]]
    rows = [
        f"\n{case['network']}, batch {case['batch']}: layers of gdrd, GFLOP/s of the direct form (peak {peak:.0f})\n",
        "| layer | times | ms | GFLOP/s | of peak | with gradients, GFLOP/s |",
        "|---|--:|--:|--:|--:|--:|",
    ]

    def row(name, count, ms, gflop, training=""):
        speed = 1000 * gflop / ms
        rows.append(f"| {name} | {count} | {ms:.2f} | {speed:.0f} | {100 * speed / peak:.0f} % | {training} |")

    for layer in sorted(found, key=lambda layer: -layer["ms"]):
        training = f"{3 * layer['gflop'] / layer['training_seconds']:.0f}"
        row(layer_name(layer), layer["count"], layer["ms"], layer["count"] * layer["gflop"], training)
    inside, gflop = sum(layer["ms"] for layer in found), sum(layer["count"] * layer["gflop"] for layer in found)
    whole = 1000 * case["contenders"]["gdrd"]["seconds"]
    row("all of these", "", inside, gflop)
    row("the whole network", "", whole, gflop)
    rows.append(f"| not in these layers | | {whole - inside:.2f} | | | |")
    return "\n".join(rows)


def layer_name(layer):
    channels = f"{layer['inputs']}-{layer['outputs']}"
    if layer["kind"] == "linear":
        return f"fully connected {channels}"
    groups = f", {layer['groups']} groups" if layer["groups"] > 1 else ""
    stride = f" /{layer['stride']}" if layer["stride"] > 1 else ""
    return f"{layer['kernel']}x{layer['kernel']} {channels} at {layer['size']}{stride}{groups}"


def plot(curves, path):
    """Milliseconds an image over batch size, resolution and width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    axes = list(dict.fromkeys(point["axis"] for point in curves))
    figure, places = pyplot.subplots(1, len(axes), figsize=(4.5 * len(axes), 3.8), constrained_layout=True)
    for place, axis in zip(places, axes):
        points = [point for point in curves if point["axis"] == axis]
        for name in points[0]["contenders"]:
            values = [1000 / point["contenders"][name]["images_per_second"] for point in points]
            place.plot([point["value"] for point in points], values, marker="o", label=TITLES[name])
        ticks = [point["value"] for point in points]
        place.set(xscale="log", yscale="log", xlabel=axis, ylabel="ms an image")
        place.set_title("paper's student" + (f", batch {points[0]['batch']}" if axis != "batch size" else ", 16x16"))
        place.set_xticks(ticks, [str(tick) for tick in ticks])
        place.minorticks_off()
        place.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        place.yaxis.set_major_formatter("{x:g}")
        place.grid(alpha=0.3)
    places[0].legend()
    figure.savefig(path, dpi=110)
