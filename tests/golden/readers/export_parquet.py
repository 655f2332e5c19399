"""Writes Parquet files of the faces of `export.py` with the writers that the Hub's datasets come from: see ORIGIN.md.

    python export_parquet.py
"""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, Value

from export import PEOPLE, jpegs, place

NAMES = ["Ann", "Bob", "Cy"]


def encodings(images):
    """Values as differences, and numbers byte by byte, in both versions of pages; some are absent."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "face": pa.array(images[:3], struct),
        "who": [NAMES[at] for at in PEOPLE[:3]],
        "label": pa.array([7, -7, 1 << 40], pa.int64()),
        "session": pa.array([1, None, -2], pa.int32()),
        "glasses": pa.array([True, None, False]),
    }
    texts = ["face.bytes", "face.path", "who"]
    for name, version, compression, text, number, truth in [
        ("delta.parquet", "2.0", "snappy", "DELTA_BYTE_ARRAY", "DELTA_BINARY_PACKED", "RLE"),
        ("delta_length.parquet", "1.0", "gzip", "DELTA_LENGTH_BYTE_ARRAY", "BYTE_STREAM_SPLIT", "PLAIN"),
    ]:
        encoding = {column: text for column in texts}
        encoding |= {"label": number, "session": number, "glasses": truth}
        how = dict(data_page_version=version, compression=compression, column_encoding=encoding)
        pq.write_table(pa.table(columns), place(name), use_dictionary=False, write_statistics=False, store_schema=False, **how)


def main():
    faces = jpegs()
    images = [{"bytes": face, "path": f"{at:04d}.jpg"} for at, face in enumerate(faces)]
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES), "session": Value("int32")})
    columns = {"image": images, "label": PEOPLE, "session": [1, None, 2, 2, 3, 3]}
    data = Dataset.from_dict(columns, features=features)
    data.to_parquet(place("faces.parquet"), batch_size=4)

    # Without what datasets says: names as text, several pages and groups of rows, no compression, no dictionary.
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {"face": pa.array(images, struct), "who": [NAMES[at] for at in PEOPLE], "score": [0.5 * at for at in range(6)]}
    )
    plain = dict(compression="none", use_dictionary=False, row_group_size=3, data_page_size=1, write_batch_size=1)
    pq.write_table(table, place("groups.parquet"), **plain)
    pq.write_table(table.slice(0, 2), place("version_2.parquet"), compression="gzip", data_page_version="2.0")
    pq.write_table(table.slice(0, 1), place("zstd.parquet"), compression="zstd")

    encodings(images)

    # Images that are not there.
    paths = pa.array([{"bytes": None, "path": "0000.jpg"}], struct)
    pq.write_table(pa.table({"image": paths, "label": [0]}), place("paths.parquet"))
    pq.write_table(pa.table({"text": ["no image"], "label": [0]}), place("no_images.parquet"))


if __name__ == "__main__":
    main()
