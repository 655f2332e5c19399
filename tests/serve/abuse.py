"""Hostile requests against `gdrd serve`: abuse.py GDRD STUDENT FACES [REQUESTS]. Every answer must be one, and the server must go on."""

import http.client
import os
import random
import socket
import sys
import time

from common import Server, people

program, student, folder = sys.argv[1:4]
count = int(sys.argv[4]) if len(sys.argv) > 4 else 2000
chance = random.Random(7)
images = [open(path, "rb").read() for paths in people(folder, 20).values() for path in paths]
EDGE = "edge"


def memory(process):
    with open(f"/proc/{process.pid}/status") as lines:
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def form(image):
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode()
    return head + image + f"\r\n--{EDGE}--\r\n".encode()


def damaged(image):
    """An image with bytes changed, cut, doubled, or in a form that is damaged itself."""
    bytes_ = bytearray(image)
    for _ in range(chance.choice([1, 3, 30])):
        bytes_[chance.randrange(len(bytes_))] = chance.randrange(256)
    kind = chance.randrange(5)
    if kind == 0:
        del bytes_[chance.randrange(len(bytes_)):]
    if kind == 1:
        bytes_ = bytes_ * chance.randrange(2, 5)
    body = bytearray(form(bytes(bytes_)))
    if kind == 2:
        body[chance.randrange(100)] = chance.randrange(256)
    return bytes(body)


with Server(program, student, "--timeout", "5") as server:
    host = server.address.removeprefix("http://")
    headers = {"x-api-key": server.key, "Content-Type": f"multipart/form-data; boundary={EDGE}"}
    seen = {}

    def ask(body, path="/api/v1/recognition/recognize"):
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    begin, before = time.time(), memory(server.process)
    for _ in range(count):
        status = ask(damaged(chance.choice(images)))
        seen[status] = seen.get(status, 0) + 1
    print(f"{count} damaged images and forms in {time.time() - begin:.0f} s: answers {seen}, {before} to {memory(server.process)} MB")
    assert set(seen) <= {200, 400}, seen

    large = {}
    for size in [11 << 20, 30 << 20, 100 << 20]:
        try:
            large[size >> 20] = ask(b"x" * size)
        except (BrokenPipeError, ConnectionResetError) as error:
            large[size >> 20] = type(error).__name__
    print(f"bodies of so many MB: {large}, {memory(server.process)} MB")

    # Many who say nothing, or half a request, while one is served.
    address = tuple(host.split(":"))
    slow = [socket.create_connection(address) for _ in range(400)]
    for number, one in enumerate(slow):
        one.sendall([b"", b"POST / HTTP/1.1\r\nHost", b"POST /api/v1/recognition/recognize HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 50][number % 3])
    begin, took = time.time(), []
    while time.time() - begin < 4:
        start = time.time()
        assert ask(form(images[0])) == 200
        took.append(time.time() - start)
    print(f"beside 400 silent connections: {len(took)} requests, the slowest {1000 * max(took):.0f} ms, {memory(server.process)} MB")
    for one in slow:
        one.close()
    junk = 0
    for _ in range(500):
        with socket.create_connection(address) as one:
            one.sendall(os.urandom(chance.randrange(1, 2000)) + b"\r\n\r\n")
            junk += 1
    assert ask(form(images[0])) == 200
    print(f"{junk} connections of noise: still served, {memory(server.process)} MB")
