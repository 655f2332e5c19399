"""Images a second of gdrd's readers and of PyTorch's DataLoader, on the same files, in turns: read, decode, flip, 16x16, batch of 96.

    cargo build --release -p gdrd-core --example loading && cargo build --release
    python tests/bench/loading.py FACES WORK [ROUNDS] [PROFILE]

FACES is a folder of people; WORK gets the same images as .rec, .tar and packed files. Two workers each. The tar is read from its
beginning to its end by Python, as img2dataset's and webdataset's readers do, and in any order by gdrd.
"""
import io
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tarfile
import time

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

FACES, WORK = sys.argv[1], sys.argv[2]
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
PROFILE = sys.argv[4] if len(sys.argv) > 4 else "release"
PEOPLE = sorted(name for name in os.listdir(FACES) if os.path.isdir(os.path.join(FACES, name)))
FILES = [
    (os.path.join(FACES, person, name), label)
    for label, person in enumerate(PEOPLE)
    for name in sorted(os.listdir(os.path.join(FACES, person)))
]


def prepare():
    os.makedirs(WORK, exist_ok=True)
    position = 0
    with open(WORK + "/all.rec", "wb") as rec, open(WORK + "/all.idx", "w") as idx, tarfile.open(WORK + "/all.tar", "w") as tar:
        for key, (path, label) in enumerate(FILES):
            with open(path, "rb") as file:
                image = file.read()
            payload = struct.pack("<IfQQ", 0, label, key, 0) + image
            idx.write("%d\t%d\n" % (key, position))
            part = struct.pack("<II", 0xCED7230A, len(payload)) + payload + b"\0" * (-len(payload) % 4)
            position += rec.write(part)
            for ending, data in (("jpg", image), ("cls", str(label).encode())):
                info = tarfile.TarInfo("%06d.%s" % (key, ending))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    gdrd = "target/%s/gdrd" % PROFILE
    subprocess.run([gdrd, "data", "import", FACES, "--out", WORK + "/images.pack"], check=True)
    subprocess.run([gdrd, "data", "import", FACES, "--size", "112", "--out", WORK + "/pixels.pack"], check=True)


def ready(image):
    image = image.convert("RGB")
    if random.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    image = image.resize((16, 16), Image.BICUBIC)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(16, 16, 3)


class Folder(Dataset):
    def __len__(self):
        return len(FILES)

    def __getitem__(self, at):
        return ready(Image.open(FILES[at][0]))


class Tar(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        with tarfile.open(WORK + "/all.tar", "r|") as tar:
            images = 0
            for entry in tar:
                if entry.name.endswith(".jpg"):
                    images += 1
                    if images % worker.num_workers == worker.id:
                        yield ready(Image.open(io.BytesIO(tar.extractfile(entry).read())))


def torch_rate(dataset):
    shuffle = not isinstance(dataset, IterableDataset)
    loader = DataLoader(dataset, batch_size=96, shuffle=shuffle, num_workers=2, drop_last=True)
    started, images = time.time(), 0
    for batch in loader:
        images += len(batch)
    return images / (time.time() - started)


def gdrd_rates():
    sources = [
        ("identity-folders", {"folders": [FACES]}),
        ("mxnet-record", {"file": WORK + "/all.rec"}),
        ("webdataset", {"shards": [WORK + "/all.tar"]}),
        ("packed", {"file": WORK + "/images.pack"}),
        ("packed", {"file": WORK + "/pixels.pack"}),
    ]
    words = [word for kind, options in sources for word in (kind, json.dumps(options))]
    said = subprocess.run(["target/%s/examples/loading" % PROFILE] + words, check=True, capture_output=True, text=True).stdout
    names = ["folder", ".rec", "tar", "packed images", "packed pixels"]
    return {"gdrd " + name: float(line.split(": ")[1].split()[0]) for name, line in zip(names, said.splitlines())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare()
    rates = {}
    for _ in range(ROUNDS):
        found = gdrd_rates()
        found["PyTorch folder"] = torch_rate(Folder())
        found["PyTorch tar"] = torch_rate(Tar())
        for name, rate in found.items():
            rates.setdefault(name, []).append(rate)
    print("| %d images of %d people, two workers | images/s, median of %d |\n|---|--:|" % (len(FILES), len(PEOPLE), ROUNDS))
    for name, found in rates.items():
        print("| %s | %.0f |" % (name, statistics.median(found)))
