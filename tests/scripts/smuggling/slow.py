"""Heads that come byte by byte and do not end: in the clear, over TLS, and over HTTP/2 as a block of fields that is
continued for ever. It runs inside a sandbox; its argument is the host."""

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, __file__.rsplit("/", 2)[0])

from cases import USUAL, fill, frame  # noqa: E402
from common import tell, tls  # noqa: E402

HOST = sys.argv[1]
EVERY = 0.5
LONGEST = 120


def begin(kind):
    if kind == "http":
        return socket.create_connection((HOST, 80), timeout=20)
    return tls(HOST, alpn=["h2" if kind == "h2" else "http/1.1"])


def pieces(kind):
    if kind != "h2":
        yield f"GET /slow-head HTTP/1.1\r\nHost: {HOST}\r\nX-Slow: ".encode()
        while True:
            yield b"x"
    block = b"".join(b"\x00" + b"".join(bytes([len(word)]) + word for word in (fill(part, "slow-head", HOST) for part in pair)) for pair in USUAL)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 1, 1, block + b"\x00\x06x-slow\x7f\x00")
    while True:
        yield frame(9, 0, 1, b"x")


def drip(kind):
    stream, begun, heard, ended = begin(kind), time.monotonic(), b"", False
    try:
        for piece in pieces(kind):
            stream.sendall(piece)
            stream.settimeout(EVERY)
            try:
                came = stream.recv(65536)
                heard += came
                if not came:
                    ended = True
                    break
            except (TimeoutError, socket.timeout):
                pass
            if time.monotonic() - begun > LONGEST:
                break
    except OSError:
        ended = True
    tell(kind=kind, seconds=time.monotonic() - begun, heard=heard[:12].decode("latin-1"), ended=ended)


with ThreadPoolExecutor() as pool:
    list(pool.map(drip, ["http", "https", "h2"]))
