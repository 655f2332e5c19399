"""insightface's Python API under the load that `gdrd-load` puts on `gdrd serve`: decode a JPEG of an aligned face, embed it, find the
nearest of 1,000 people.

    python insightface_load.py RECOGNISER.onnx FACE.jpg SECONDS CALLERS

insightface has no server, so this is what a service around it could reach at most: its callers are threads of one process, and there is
no HTTP. Needs insightface, opencv-python-headless and onnxruntime.
"""

import resource
import sys
import threading
import time

import cv2
import numpy as np
from insightface.model_zoo import get_model

PEOPLE = 1000


def main():
    model_file, image_file, seconds, callers = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    model = get_model(model_file, providers=["CPUExecutionProvider"])
    with open(image_file, "rb") as file:
        body = np.frombuffer(file.read(), np.uint8)
    width = model.get_feat(cv2.imdecode(body, cv2.IMREAD_COLOR)).shape[1]
    people = np.random.default_rng(1).standard_normal((PEOPLE, width), dtype=np.float32)
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    took, lock, end = [], threading.Lock(), time.monotonic() + seconds

    def call():
        own = []
        while time.monotonic() < end:
            start = time.monotonic()
            embedding = model.get_feat(cv2.imdecode(body, cv2.IMREAD_COLOR))[0]
            similarities = people @ (embedding / np.linalg.norm(embedding))
            assert 0 <= int(similarities.argmax()) < PEOPLE
            own.append(time.monotonic() - start)
        with lock:
            took.extend(own)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(np.array(took) * 1e3, [50, 99])
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{callers} callers: {len(took) / seconds:.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, peak {resident:.0f} MB")


main()
