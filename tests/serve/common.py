"""A server on a new database, for the scripts beside this one."""

import os
import re
import signal
import subprocess
import tempfile


class Server:
    def __init__(self, program, student, *more):
        self.folder = tempfile.TemporaryDirectory()
        database = os.path.join(self.folder.name, "people.db")
        command = [program, "serve", database, "--student", student, "--listen", "127.0.0.1:0", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.key = re.search(r"again: (\S+)", self.process.stdout.readline()).group(1)
        self.address = re.search(r"on (\S+)", self.process.stdout.readline()).group(1)
        self.domain, _, self.port = self.address.rpartition(":")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self.folder.cleanup()


def people(folder, count, images=2):
    """Names of people with the paths of their first images."""
    found = {}
    for name in sorted(os.listdir(folder)):
        paths = [os.path.join(folder, name, image) for image in sorted(os.listdir(os.path.join(folder, name)))]
        if len(paths) >= images and len(found) < count:
            found[name] = paths[:images]
    assert len(found) == count, f"{folder}: expected {count} people with {images} images"
    return found
