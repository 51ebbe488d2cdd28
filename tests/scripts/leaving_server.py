"""leaving_server.py ADDRESS CERTIFICATE KEY: an HTTP/2 server by hand that goes away as it is told to by the first line of
its standard input: {"wait": STREAMS, "say": [[TYPE, LAST OR STREAM, CODE]...], "answer": [STREAMS...], "on": CONNECTIONS}.

On the first `on` connections it waits until so many streams are whole, sends GOAWAY (7) or RST_STREAM (3) frames, and answers
the named streams, where there is {"until": FILE} when those frames have been heard, which it tells, and that file is there;
what it is not to answer it leaves open, and a connection that answers nothing is closed. On the others it answers everything.
It tells of each stream that came whole."""

import json
import os
import socket
import ssl
import sys
import threading
import time

from common import tell

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
STATUS_200 = b"\x88"  # RFC 7541, appendix A


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def number(value):
    return value.to_bytes(4, "big")


def frames(stream):
    reader = stream.makefile("rb")
    reader.read(24)
    while len(head := reader.read(9)) == 9:
        payload = reader.read(int.from_bytes(head[:3], "big"))
        yield head[3], head[4], int.from_bytes(head[5:9], "big"), payload


def answer(stream, ident, connection):
    text = json.dumps({"connection": connection, "stream": ident}).encode()
    stream.sendall(frame(HEADERS, END_HEADERS, ident, STATUS_200) + frame(DATA, END_STREAM, ident, text))


def serve(raw, connection):
    bodies, whole = {}, []
    leaves = connection <= told["on"]
    try:
        stream = context.wrap_socket(raw, server_side=True)
        # A window of a megabyte a stream, and for all.
        stream.sendall(frame(SETTINGS, 0, 0, b"\0\4" + number(1 << 20)) + frame(WINDOW_UPDATE, 0, 0, number(1 << 20)))
        reader = frames(stream)
        for kind, flags, ident, payload in reader:
            if kind == SETTINGS and not flags & ACK:
                stream.sendall(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                stream.sendall(frame(PING, ACK, 0, payload))
            elif kind == HEADERS:
                bodies[ident] = b""
            elif kind == DATA:
                bodies[ident] += payload
            if kind not in (DATA, HEADERS) or not flags & END_STREAM:
                continue
            body = bodies[ident]
            tell(connection=connection, stream=ident, body=body[:20].decode(), length=len(body))
            whole.append(ident)
            if not leaves:
                answer(stream, ident, connection)
            elif len(whole) == told["wait"]:
                for kind, first, code in told["say"]:
                    last = number(first) + number(code)
                    stream.sendall(frame(GOAWAY, 0, 0, last) if kind == GOAWAY else frame(RST_STREAM, 0, first, number(code)))
                if "until" in told:
                    # Acknowledged, what was said before it has been read.
                    stream.sendall(frame(PING, 0, 0, bytes(8)))
                    next(kind for kind, flags, *_ in reader if kind == PING and flags & ACK)
                    tell(heard=connection)
                    while not os.path.exists(told["until"]):
                        time.sleep(0.02)
                for ident in told["answer"]:
                    answer(stream, ident, connection)
                if not told["answer"]:
                    stream.close()
                    return
    except OSError:
        pass


address, certificate, key_file = sys.argv[1:]
told = json.loads(sys.stdin.readline())
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key_file)
context.set_alpn_protocols(["h2"])
listener = socket.create_server((address, 443))
tell(ready=True)
count = 0
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    count += 1
    threading.Thread(target=serve, args=(accepted, count), daemon=True).start()
