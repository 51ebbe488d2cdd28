"""Sends each case of the table, byte by byte as it stands there, and tells what came back. It runs inside a
sandbox; its arguments are the seconds that an answer may take, and the name, tag and scheme of each server."""

import ctypes
import re
import select
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, __file__.rsplit("/", 2)[0])

from cases import TABLE, fill  # noqa: E402
from common import tell, trust  # noqa: E402

PR_SET_NAME = 15
libc = ctypes.CDLL(None)
printing = threading.Lock()


def connect(host, scheme, http2):
    trusted = trust("h2" if http2 else "http/1.1")
    raw = socket.create_connection((host, 80 if scheme == "http" else 443), timeout=20)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if scheme == "http":
        return raw
    return trusted.wrap_socket(raw, server_hostname=host)


def answer(stream, seconds):
    """All that comes until the end, and how it ended."""
    deadline, heard = time.monotonic() + seconds, b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return heard, "open"
        stream.settimeout(left)
        try:
            piece = stream.recv(65536)
        except (TimeoutError, socket.timeout):
            return heard, "open"
        except (ssl.SSLEOFError, ConnectionError):
            return heard, "reset"
        except OSError as error:
            return heard, str(error)
        if not piece:
            return heard, "closed"
        heard += piece


def frames(heard):
    """The types of the HTTP/2 frames, with the error code where there is one."""
    seen = []
    while len(heard) >= 9:
        length, kind = int.from_bytes(heard[:3], "big"), heard[3]
        payload, heard = heard[9 : 9 + length], heard[9 + length :]
        code = {3: payload[:4], 7: payload[4:8]}.get(kind)
        seen.append([kind, int.from_bytes(code, "big") if code else 0])
    return seen


def send(case, ident, host, scheme):
    # The gateway's records have the name of the thread that connected.
    libc.prctl(PR_SET_NAME, ident.encode(), 0, 0, 0)
    stream = connect(host, scheme, case.http2)
    try:
        for number, piece in enumerate(case.pieces):
            if number:
                time.sleep(0.05)
            stream.sendall(fill(piece, ident, host))
        if case.half_close:
            stream.shutdown(socket.SHUT_WR)
    except (ConnectionError, ssl.SSLError):
        pass  # Refused before it was all said.
    begun = time.monotonic()
    heard, end = answer(stream, SECONDS)
    took = time.monotonic() - begun
    stream.close()
    return heard, end, took


def run(job):
    number, case, (host, tag, scheme) = job
    ident = f"c{number:03}{tag}"
    try:
        heard, end, took = send(case, ident, host, scheme)
    except OSError as error:
        heard, end, took = b"", f"failed: {error!r}", 0
    statuses = [int(status) for status in re.findall(rb"(?:^|\n|ok)HTTP/1\.[01] (\d{3})", heard)]
    seen = [[method, path.replace("%I", ident), length] for method, path, length in case.passed]
    with printing:
        tell(id=ident, name=case.name, host=host, scheme=scheme, http2=case.http2, end=end, ms=int(took * 1000),
             statuses=statuses, frames=frames(heard) if case.http2 else [], passed=seen, refused=case.refused,
             in_body=case.in_body, named=b"malformed_request" in heard)


SECONDS = float(sys.argv[1])
SERVERS = [tuple(server.split(",")) for server in sys.argv[2:]]
JOBS = [
    (number, case, server)
    for number, case in enumerate(TABLE)
    for server in SERVERS
    if (case.host is None or server[0] == case.host) and (not case.http2 or server[2] == "https")
    and not (case.host is None and server[0].startswith("paths"))
]
# Most of them wait: for an end that a kept connection has not.
with ThreadPoolExecutor(max_workers=16) as pool:
    list(pool.map(run, JOBS))
