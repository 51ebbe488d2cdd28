"""Breaks off, on either side, after every byte: requests of its own in both versions, and an upstream that ends its
answer wherever the path says. It runs inside a sandbox, and counts with the descriptors of the gateway that another
process looks at while the files "settled" and "done" are there."""

import http.client
import os
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, __file__.rsplit("/", 2)[0])

from cases import USUAL, http2  # noqa: E402
from common import tell, tls, trust  # noqa: E402

GOOD, BAD = sys.argv[1:3]
WHOLE, PLACES = int(sys.argv[3]), int(sys.argv[4])
HTTP1 = f"POST /broken HTTP/1.1\r\nHost: {GOOD}\r\nContent-Length: 5\r\n\r\nhello".encode()
HTTP2 = http2(*USUAL, data=b"hello")("broken", GOOD)
KINDS = ["http", "https", "h2"]
WAYS = ["fin", "reset", "reset and read"]


def connect(kind):
    if kind == "http":
        return socket.create_connection((GOOD, 80), timeout=20)
    return tls(GOOD, alpn=["h2" if kind == "h2" else "http/1.1"])


def broken(kind, way, count):
    """A request of which `count` bytes are sent. Nothing may come of it but an answer to the whole."""
    try:
        stream = connect(kind)
        stream.sendall((HTTP2 if kind == "h2" else HTTP1)[:count])
        if way == "reset and read":
            stream.settimeout(0.02)
            try:
                stream.recv(1 + count)
            except (TimeoutError, OSError):
                pass
        if way != "fin":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
    except OSError:
        pass


def ended(way, count):
    """What an upstream that ends after `count` bytes comes to."""
    connection = http.client.HTTPConnection(BAD, timeout=20)
    try:
        connection.request("GET", f"/{way}/{count}")
        answer = connection.getresponse()
        body = answer.read()
        said = f"{answer.status} {body.decode()}" if answer.status == 200 else str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        said = type(error).__name__
    connection.close()
    tell(way=way, count=count, said=said)


def good():
    connection = http.client.HTTPSConnection(GOOD, timeout=20, context=trust("http/1.1"))
    connection.request("POST", "/good", body=b"hello")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def meet(name):
    open(name, "w").close()
    begun = time.monotonic()
    while os.path.exists(name):
        assert time.monotonic() - begun < 60, f"nobody looked at {name}"
        time.sleep(0.02)


assert good() == 200
with ThreadPoolExecutor(max_workers=8) as pool:
    # As many of everything as there may be at once.
    list(pool.map(lambda _: good(), range(16)))
    meet("settled")
    jobs = [(kind, way, count) for kind in KINDS for way in WAYS for count in range(len(HTTP2 if kind == "h2" else HTTP1) + 1)]
    list(pool.map(lambda job: broken(*job), jobs))
    list(pool.map(lambda job: ended(*job), [(way, count) for way in ["fin", "reset"] for count in range(WHOLE + 1)]))
meet("done")
# All places but one, which serves.
held = [connect("https") for _ in range(PLACES)]
tell(good=good(), broken=len(jobs))
