"""Stands for a PostgreSQL server, for machines without one: speaks as much of the protocol (version 3)
as a client needs to be let in and to ask one thing, and answers every query with one row, 1."""

import socketserver
import struct
import sys

SSL, GSS = 80877103, 80877104


def message(kind, body):
    return kind + struct.pack(">I", len(body) + 4) + body


READY = message(b"Z", b"I")
WELCOME = (
    message(b"R", struct.pack(">I", 0))
    + message(b"S", b"server_version\x0015.0\0")
    + message(b"S", b"client_encoding\0UTF8\0")
    + message(b"S", b"standard_conforming_strings\0on\0")
    + READY
)
ROW = (
    message(b"T", struct.pack(">H", 1) + b"?column?\0" + struct.pack(">IHIHiH", 0, 0, 23, 4, -1, 0))
    + message(b"D", struct.pack(">HI", 1, 1) + b"1")
    + message(b"C", b"SELECT 1\0")
    + READY
)


class Session(socketserver.StreamRequestHandler):
    def body(self):
        return self.rfile.read(struct.unpack(">I", self.rfile.read(4))[0] - 4)

    def handle(self):
        while struct.unpack(">I", self.body()[:4])[0] in (SSL, GSS):
            self.wfile.write(b"N")
        self.wfile.write(WELCOME)
        while (kind := self.rfile.read(1)) not in (b"", b"X"):
            self.body()
            if kind == b"Q":
                self.wfile.write(ROW)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server((sys.argv[1], int(sys.argv[2])), Session) as server:
    print("ready", flush=True)
    server.serve_forever()
