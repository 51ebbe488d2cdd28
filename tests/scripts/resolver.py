"""A client of the name service that does as it likes. Each line of stdin is one try, a kind and its
arguments; each line of stdout says what came of it."""

import os
import socket
import struct
import sys
import time

from common import tell

SECONDS = 5


def question(name, kind, number=7):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def facts(answer):
    number, flags, questions, answers, *_ = struct.unpack(">HHHHHH", answer[:12])
    return {"rcode": flags & 15, "answers": answers, "truncated": bool(flags & 0x200), "bytes": len(answer)}


def datagram(server):
    one = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(SECONDS)
    return one


def unconnected(server, name):
    """Whom the answer comes from, by recvfrom() and by recvmsg()."""
    one = datagram(server)
    one.sendto(question(name, 1), (server, 53))
    answer, source = one.recvfrom(4096)
    one.sendto(question(name, 1), (server, 53))
    again = one.recvmsg(4096)[3]
    return {"source": source[0], "port": source[1], "again": again[0], **facts(answer)}


def connected(server, name):
    """A connected socket takes answers from its peer alone."""
    one = datagram(server)
    one.connect((server, 53))
    one.send(question(name, 1))
    answer, source = one.recvfrom(4096)
    return {"source": source[0], "port": source[1], "again": one.getpeername()[0], **facts(answer)}


def connected_twice(server, name):
    """First to another server: the answer is from the second."""
    one = datagram(server)
    # Of the same kind: a socket that got an address of one family keeps it, and hears nothing of the other.
    first = "2001:db8::99" if "." not in server else server.rpartition(":")[0] + ":" * (":" in server) + "198.51.100.99"
    one.connect((first, 53))
    one.connect((server, 53))
    one.send(question(name, 1))
    answer, source = one.recvfrom(4096)
    return {"source": source[0], "port": source[1], "again": one.getpeername()[0], **facts(answer)}


def raw(server, text):
    """Any bytes at all; what is answered, or silence."""
    one = datagram(server)
    one.settimeout(0.5)
    one.sendto(bytes.fromhex(text), (server, 53))
    try:
        return facts(one.recv(4096))
    except TimeoutError:
        return {"rcode": None}


def over_tcp(server, name, kind):
    one = socket.create_connection((server, 53), timeout=SECONDS)
    asked = question(name, int(kind))
    one.sendall(struct.pack(">H", len(asked)) + asked)
    length = struct.unpack(">H", one.recv(2))[0]
    return facts(one.recv(length))


def flood(server, zone, count):
    """As many random names under zone, each asked once: how many times which code was the answer, in how many seconds."""
    one = datagram(server)
    codes, begun = {}, time.monotonic()
    for number in range(int(count)):
        name = os.urandom(12).hex() + "." + zone
        one.sendto(question(name, 1, number), (server, 53))
        code = str(facts(one.recv(4096))["rcode"])
        codes[code] = codes.get(code, 0) + 1
    return {**codes, "seconds": time.monotonic() - begun}


KINDS = {
    "unconnected": unconnected,
    "connected": connected,
    "connected-twice": connected_twice,
    "raw": raw,
    "tcp": over_tcp,
    "flood": flood,
}

for line in sys.stdin:
    kind, *arguments = line.split()
    try:
        outcome = KINDS[kind](*arguments)
    except OSError as error:
        outcome = {"error": str(error)}
    tell(attempt=line.strip(), **outcome)
