"""An HTTP/2 server that answers with the frames of a table: the name that a client asks for says which. It refuses to
read what it is asked."""

import socket
import ssl
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0])

from cases import frame  # noqa: E402

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def text(word):
    assert len(word) < 127
    return bytes([len(word)]) + word


def block(*fields):
    return b"".join(b"\x00" + text(name) + text(value) for name, value in fields)


def head(*fields, end=False, stream=1, status=b"200"):
    fields = ((b":status", status),) + fields
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(*fields))


def data(payload, end=True, stream=1):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def raw(*fields, end=True):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), 1, block(*fields))


def endless(piece):
    return ("endless", piece)


OK = (b":status", b"200")
LENGTH = (b"content-length", b"2")
# What it comes to: "well", "refused", "late", or "broken", which may be refused too where nothing has left yet.
TABLE = [
    ("plain", "well", [head() + data(b"ok")]),
    ("with-length", "well", [head(LENGTH) + data(b"ok")]),
    ("early-hints", "well", [head((b"link", b"</a>"), status=b"103"), head() + data(b"ok")]),
    ("trailers", "well", [head() + data(b"ok", end=False) + frame(HEADERS, END_HEADERS | END_STREAM, 1, block((b"x", b"y")))]),
    ("continuation", "well", [frame(HEADERS, 0, 1, block(OK)) + frame(CONTINUATION, END_HEADERS, 1, block((b"x", b"y"))) + data(b"ok")]),
    ("unknown-frame", "well", [frame(0x42, 0, 1, b"?") + head() + data(b"ok")]),
    ("empty-data", "well", [head() + data(b"", end=False) * 10 + data(b"ok")]),
    ("no-status", "refused", [raw((b"x", b"y"))]),
    ("two-status", "refused", [raw(OK, (b":status", b"204"))]),
    ("status-of-letters", "refused", [raw((b":status", b"2OO"))]),
    ("status-of-four", "refused", [raw((b":status", b"2000"))]),
    # Goes nowhere: of pseudo-fields only the status is read.
    ("a-requests-pseudo-field", "well", [raw(OK, (b":path", b"/"))]),
    ("an-unknown-pseudo-field", "refused", [raw(OK, (b":odd", b"y"))]),
    ("pseudo-field-last", "refused", [raw((b"x", b"y"), OK)]),
    ("upper-case", "refused", [raw(OK, (b"X", b"y"))]),
    ("connection", "refused", [raw(OK, (b"connection", b"close"))]),
    ("transfer-encoding", "refused", [raw(OK, (b"transfer-encoding", b"chunked"))]),
    ("lf-in-a-value", "refused", [raw(OK, (b"x", b"a\nb: c"))]),
    ("crlf-in-a-name", "refused", [raw(OK, (b"x\r\ny", b"z"))]),
    ("nul-in-a-value", "refused", [raw(OK, (b"x", b"a\0"))]),
    ("switching", "refused", [raw((b":status", b"101"))]),
    ("lengths-differ", "refused", [raw(OK, LENGTH, (b"content-length", b"3"), end=False) + data(b"ok")]),
    ("longer", "broken", [head(LENGTH) + data(b"smuggled")]),
    ("shorter", "broken", [head((b"content-length", b"8")) + data(b"ok")]),
    ("data-first", "refused", [data(b"ok")]),
    ("data-later", "well", [head() + data(b"ok") + data(b"smuggled")]),
    ("another-stream", "refused", [head(stream=3) + data(b"smuggled", stream=3)]),
    ("stream-0", "refused", [head(stream=0)]),
    ("push", "refused", [frame(PUSH_PROMISE, END_HEADERS, 1, (2).to_bytes(4, "big") + block((b":method", b"GET")))]),
    ("reset", "refused", [frame(RST_STREAM, 0, 1, (2).to_bytes(4, "big"))]),
    ("reset-later", "broken", [head() + data(b"ok", end=False), frame(RST_STREAM, 0, 1, (2).to_bytes(4, "big"))]),
    ("goaway", "refused", [frame(GOAWAY, 0, 0, (1).to_bytes(4, "big") + (2).to_bytes(4, "big"))]),
    ("hang-up", "refused", []),
    ("hang-up-later", "broken", [head() + data(b"ok", end=False)]),
    ("half-a-frame", "refused", [head()[:11]]),
    ("a-frame-too-large", "refused", [(20000).to_bytes(3, "big") + b"\x00\x00\x00\x00\x00\x01" + b"x" * 20000]),
    ("settings-of-five", "refused", [frame(SETTINGS, 0, 0, b"12345")]),
    ("window-overflow", "refused", [frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")]),
    ("window-of-nothing", "refused", [frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0")]),
    ("no-compression", "refused", [frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" * 20)]),
    ("http1", "refused", [b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"]),
    ("endless-continuation", "refused", [frame(HEADERS, 0, 1, block(OK)), endless(frame(CONTINUATION, 0, 1, block((b"x", b"y" * 100)) * 100))]),
    ("endless-fields", "refused", [frame(HEADERS, 0, 1, block(OK)) + b"".join(frame(CONTINUATION, 0, 1, block((b"x", b"y" * 100)) * 100) for _ in range(20)) + frame(CONTINUATION, END_HEADERS | END_STREAM, 1, b"")]),
    ("endless-hints", "late", [endless(head((b"link", b"</a>"), status=b"103"))]),
    ("endless-settings", "late", [endless(frame(SETTINGS, 0, 0, b"") * 100)]),
    ("endless-pings", "late", [endless(frame(PING, 0, 0, b"12345678") * 100)]),
    ("endless-empty-data", "broken", [head(), endless(data(b"", end=False) * 100)]),
    ("silence", "late", [("wait",)]),
    ("silence-later", "broken", [head() + data(b"ok", end=False), ("wait",)]),
]


def serve(raw_stream, context):
    raw_stream.settimeout(30)
    try:
        stream = context.wrap_socket(raw_stream, server_side=True)
        answer = next(pieces for name, _, pieces in TABLE if name == stream.context.asked[id(stream)].split(".")[0])
        stream.sendall(frame(SETTINGS, 0, 0, b""))
        heard = b""
        # The preface, and then whole frames up to the request's.
        while not any(kind == HEADERS for kind in kinds(heard[24:])):
            piece = stream.recv(65536)
            if not piece:
                return
            heard += piece
        for piece in answer:
            if piece == ("wait",):
                time.sleep(20)
            elif piece[0] == "endless":
                until = time.monotonic() + 20
                while time.monotonic() < until:
                    stream.sendall(piece[1])
            else:
                stream.sendall(piece)
                time.sleep(0.05)
        stream.settimeout(0.2)
        stream.unwrap().close()
    except (OSError, ValueError):
        pass


def kinds(frames):
    seen = []
    while len(frames) >= 9:
        length = int.from_bytes(frames[:3], "big")
        if len(frames) >= 9 + length:
            seen.append(frames[3])
        frames = frames[9 + length :]
    return seen


def main(address, certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    context.asked = {}
    context.sni_callback = lambda stream, name, own: own.asked.__setitem__(id(stream), name)
    listener = socket.create_server((address, 443), backlog=256)
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream, context), daemon=True).start()


if sys.argv[1] == "table":
    print("\n".join(f"{name} {outcome}" for name, outcome, _ in TABLE))
else:
    main(*sys.argv[1:])
