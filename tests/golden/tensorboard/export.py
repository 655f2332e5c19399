"""Writes `events.bin` by TensorBoard's own writer, and checks event files that gdrd wrote.

    python export.py                 writes the golden file again
    python export.py FOLDER          reads the event files below FOLDER with TensorBoard's EventAccumulator, and says what is in them
"""

import os
import struct
import sys
import zlib

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter


def png(width, height, rgb):
    """A PNG of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(rgb) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def events():
    yield Event(wall_time=1.5, file_version="brain.Event:2")
    text = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype="DT_STRING", tensor_shape=TensorShapeProto(), string_val=[b"`seed` = 7"])
    yield Event(wall_time=1.5, step=0, summary=Summary(value=[Summary.Value(tag="recipe", tensor=tensor, metadata=text)]))
    image = Summary.Image(height=2, width=3, colorspace=3, encoded_image_string=png(3, 2, (200, 10, 30)))
    yield Event(wall_time=1.5, step=0, summary=Summary(value=[Summary.Value(tag="samples", image=image)]))
    values = [Summary.Value(tag="one/loss", simple_value=2.5), Summary.Value(tag="one/rate", simple_value=0.001)]
    yield Event(wall_time=2.25, step=300, summary=Summary(value=values))


def write(path):
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in events():
            writer.write(event.SerializeToString(deterministic=True))


def show(folder):
    for root, _, names in sorted(os.walk(folder)):
        if not any("tfevents" in name for name in names):
            continue
        found = EventAccumulator(root, size_guidance={"scalars": 0, "images": 0, "tensors": 0})
        found.Reload()
        tags = found.Tags()
        print(root)
        for tag in tags["scalars"]:
            values = found.Scalars(tag)
            print(f"  scalar {tag}: {len(values)} values, last {values[-1].value:.6g} at step {values[-1].step}")
        for tag in tags["images"]:
            image = found.Images(tag)[0]
            print(f"  image {tag}: {image.width}x{image.height}, {len(image.encoded_image_string)} bytes")
        for tag in tags["tensors"]:
            text = found.Tensors(tag)[0].tensor_proto.string_val[0]
            print(f"  text {tag}: {len(text)} bytes, {text[:40]!r}")


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    show(sys.argv[1]) if len(sys.argv) > 1 else write(os.path.join(here, "events.bin"))
