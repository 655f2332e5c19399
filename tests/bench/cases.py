"""What is measured."""

from dataclasses import dataclass
from fnmatch import fnmatch

PAPER = dict(channels=[128, 256, 512], blocks=[2, 2, 2], strides=[1, 2, 2], last_relu=True, embedding=512, head={})
# The student of assets/recipes/quickstart.toml.
NARROW = dict(channels=[32, 64], blocks=[1, 1], strides=[1, 2], last_relu=False, embedding=128,
              head=dict(channels=[128], hidden=[512], normalise=True))


def student(title, size=16, options=PAPER):
    return dict(title=title, kind="resnet-trunk", size=size, options=options)


NETWORKS = {
    "paper": student("the paper's student, 16x16"),
    "narrow": student("the quick start's narrow student, 16x16", options=NARROW),
    "iresnet50": dict(title="IResNet-50, 112x112", kind="iresnet", size=112),
    "mobilefacenet": dict(title="MobileFaceNet, 112x112", kind="mobilefacenet", size=112),
    "diffusion": dict(title="PGDiff's encoder, 128x128", kind="diffusion-encoder", size=128),
}
IDENTITIES = 1000  # classes of the training step
LARGEST_BATCH = 96  # on a CPU


def faces(network):
    """How many faces there are: as many as the largest batch has, on a GPU too."""
    return 4096 if network["kind"] == "resnet-trunk" else LARGEST_BATCH


@dataclass(frozen=True)
class Case:
    network: str
    task: str  # embed or train
    batch: int

    @property
    def name(self):
        return f"{self.network}/{self.task}/{self.batch}"

    def contenders(self, weights="float32"):
        """Who takes part: candle has no layers of its own for the large networks' activations, ONNX Runtime does not train."""
        is_student = NETWORKS[self.network]["kind"] == "resnet-trunk"
        names = ["gdrd", "pytorch", "onnxruntime" if self.task == "embed" else None, "candle" if is_student else None]
        if weights == "int8" and self.task == "embed":
            names.insert(3, "onnxruntime-int8")
        return [name for name in names if name]


def listed():
    """Every case of the table. A MobileFaceNet is a teacher that embeds, and a student that trains; other teachers are frozen."""
    for name, network in NETWORKS.items():
        yield from (Case(name, "embed", batch) for batch in (1, 8, LARGEST_BATCH))
        if network["kind"] == "resnet-trunk":
            yield Case(name, "train", LARGEST_BATCH)
        if network["kind"] == "mobilefacenet":
            yield Case(name, "train", 64)


def chosen(patterns, quick):
    """The cases whose name fits one of the comma-separated patterns, such as `paper/*,*/embed/8`."""
    cases = [case for case in listed() if any(fnmatch(case.name, pattern) for pattern in patterns.split(","))]
    is_student = lambda case: NETWORKS[case.network]["kind"] == "resnet-trunk"  # noqa: E731
    return [case for case in cases if not quick or case.batch <= 8 or is_student(case)]


def curves():
    """How the cost grows: `(axis, value, network, batch)`; the networks are the paper's student but for one option."""
    for batch in (1, 2, 4, 8, 16, 32, 64, 96):
        yield "batch size", batch, NETWORKS["paper"], batch
    for size in (8, 16, 32):
        yield "resolution", size, student(f"resolution {size}", size=size), 32
    for width in (32, 64, 128, 192):
        options = dict(PAPER, channels=[width, 2 * width, 4 * width])
        yield "width of the first stage", width, student(f"width {width}", options=options), 32
