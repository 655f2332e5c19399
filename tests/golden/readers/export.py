"""Writes small files of faces with the writers that people use: run it here, with the packages that ORIGIN.md names.

    python export.py                          # everything but the files of Python 2
    python2 export.py python2                 # lfw_py2_0.bin, lfw_py2_2.bin

The faces are drawn: two circles and a line on a colour. Each is known by the colour of its upper left corner.
"""
import io
import os
import pickle
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
COUNT = 6


def place(name):
    return os.path.join(HERE, name)


def jpegs():
    """The drawn faces as JPEG; kept as a file so that Python 2 needs no imaging library."""
    from PIL import Image, ImageDraw

    out = []
    for at in range(COUNT):
        image = Image.new("RGB", (24, 24), (40 * at, 90, 250 - 40 * at))
        draw = ImageDraw.Draw(image)
        draw.ellipse((6, 7, 10, 11), fill=(20, 20, 20))
        draw.ellipse((14, 7, 18, 11), fill=(20, 20, 20))
        draw.line((8, 17, 16, 17), fill=(180, 20, 20), width=2)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        out.append(buffer.getvalue())
    return out


PEOPLE = [0, 0, 1, 1, 2, 2]
SAME = [True, True, False]


def bins(faces, suffix, protocols):
    for protocol in protocols:
        with open(place("lfw_%s_%d.bin" % (suffix, protocol)), "wb") as out:
            pickle.dump((faces, SAME), out, protocol=protocol)


def record(payload):
    """A record as dmlc-core's recordio.h documents it: split where the magic word stands at a multiple of four bytes."""
    magic = struct.pack("<I", 0xCED7230A)
    cuts = [at for at in range(0, len(payload) - 3, 4) if payload[at : at + 4] == magic]
    starts = [0] + [at + 4 for at in cuts]
    ends = cuts + [len(payload)]
    out = b""
    for number, (start, end) in enumerate(zip(starts, ends)):
        flag = 0 if not cuts else 1 if number == 0 else 3 if number == len(cuts) else 2
        part = payload[start:end]
        out += magic + struct.pack("<I", flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def records(faces):
    """The layout of insightface's packing script: a header of ranges, the images, a record for each person."""
    header = lambda flag, label, key: struct.pack("<IfQQ", flag, label, key, 0)
    all_records = []
    labels = struct.pack("<2f", COUNT + 1, COUNT + 4)
    all_records.append(header(2, 0.0, 0) + labels)
    for at, face in enumerate(faces):
        # The last image is followed by the magic word, so that its record comes in two parts.
        tail = b"" if at < COUNT - 1 else b"\0" * (-(24 + len(face)) % 4) + struct.pack("<I", 0xCED7230A) + b"end."
        all_records.append(header(0, PEOPLE[at], at + 1) + face + tail)
    for person in range(3):
        ranges = struct.pack("<2f", 2 * person + 1, 2 * person + 3)
        all_records.append(header(2, 0.0, COUNT + 1 + person) + ranges)
    position = 0
    with open(place("train.rec"), "wb") as rec, open(place("train.idx"), "w") as idx:
        for key, payload in enumerate(all_records):
            idx.write("%d\t%d\n" % (key, position))
            position += rec.write(record(payload))


def tars(faces):
    import webdataset

    with webdataset.TarWriter(place("faces.tar")) as sink:
        for at, face in enumerate(faces):
            sink.write({"__key__": "%06d" % at, "jpg": face, "cls": PEOPLE[at], "json": {"session": at % 2 + 1}})
    import tarfile

    long = "/".join(["a-folder-with-a-long-name"] * 6)
    for name, form in (("long_pax.tar", tarfile.PAX_FORMAT), ("long_gnu.tar", tarfile.GNU_FORMAT)):
        with tarfile.open(place(name), "w", format=form) as out:
            for at, face in enumerate(faces[:2]):
                info = tarfile.TarInfo("%s/%d.jpg" % (long, at))
                info.size = len(face)
                out.addfile(info, io.BytesIO(face))


def mats():
    import numpy
    import scipy.io

    names = numpy.empty((COUNT, 1), dtype=object)
    for at in range(COUNT):
        names[at, 0] = "%d_%d.jpg" % (PEOPLE[at], at)
    ids = numpy.array(PEOPLE, dtype=numpy.float64).reshape(-1, 1)
    for name, compressed in (("gallery.mat", False), ("gallery_packed.mat", True)):
        values = {"gallery_set": names, "gallery_ids": ids}
        scipy.io.savemat(place(name), values, do_compression=compressed)
    # QMUL-SurvFace's numbers are of 16 bits; TinyFace's names also come as rows of characters.
    rows = numpy.array(["%d_%d.jpg" % (PEOPLE[at], at) for at in range(COUNT)])
    values = {"mated_probe_set": rows, "mated_probe_ids": ids.astype(numpy.uint16)}
    scipy.io.savemat(place("probes.mat"), values)
    # QMUL-SurvFace's pairs: the first two images of each person, and the first images of one person and the next.
    first = {}
    for at in range(COUNT):
        first.setdefault(PEOPLE[at], []).append("%d_%d.jpg" % (PEOPLE[at], at))
    several = sorted(person for person in first if len(first[person]) > 1)
    same = [first[person][:2] for person in several]
    different = [[first[one][0], first[other][0]] for one, other in zip(sorted(first), sorted(first)[1:])]
    for name, pairs in (("positive_pairs_names", same), ("negative_pairs_names", different)):
        cells = numpy.empty((len(pairs), 2), dtype=object)
        for row, pair in enumerate(pairs):
            cells[row, 0], cells[row, 1] = pair
        scipy.io.savemat(place(name + ".mat"), {name: cells}, do_compression=True)
    for at, face in enumerate(jpegs()):
        with open(place("images/%d_%d.jpg" % (PEOPLE[at], at)), "wb") as out:
            out.write(face)


def odd():
    """Images that are not plain 8-bit RGB, with what PIL makes of them: the colour in the middle, in the file's name."""
    from PIL import Image

    flat = lambda mode, colour: Image.new(mode, (16, 12), colour)
    flat("CMYK", (0, 128, 255, 20)).save(place("odd/cmyk.jpg"), quality=100)
    flat("L", 77).save(place("odd/grey.jpg"), quality=100)
    flat("I;16", 40000).save(place("odd/grey16.png"))
    flat("P", 3).save(place("odd/palette.png"))
    turned = Image.new("RGB", (16, 12))
    turned.paste((250, 0, 0), (0, 0, 8, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(place("odd/turned.jpg"), quality=100, exif=exif)
    # 30,000 x 30,000 pixels in a small file.
    Image.new("1", (30000, 30000)).save(place("odd/huge.png"), optimize=True)
    open(place("odd/empty.jpg"), "wb").close()
    with open(place("odd/cmyk.jpg"), "rb") as whole, open(place("odd/cut.jpg"), "wb") as out:
        out.write(whole.read()[:300])


if __name__ == "__main__":
    if sys.argv[1:] == ["python2"]:
        with open(place("faces.bytes"), "rb") as stored:
            faces = pickle.load(stored)
        bins([str(face) for face in faces], "py2", (0, 2))
    else:
        for folder in ("images", "odd"):
            os.makedirs(place(folder), exist_ok=True)
        faces = jpegs()
        bins(faces, "py3", (0, 1, 2, 3, 4, 5))
        records(faces)
        tars(faces)
        mats()
        odd()
        with open(place("faces.bytes"), "wb") as stored:
            pickle.dump([bytearray(face) for face in faces], stored, protocol=2)
