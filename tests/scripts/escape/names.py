"""Questions to name servers: as tunnels write them, and as nobody should."""

import os
import socket
import struct

import attempts
from attempts import family_of, lookup, verdict

HEADER = ">HHHHHH"


def labels(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question(name, kind, flags=0x100, klass=1, number=7):
    return struct.pack(HEADER, number, flags, 1, 0, 0, 0) + labels(name) + struct.pack(">HH", kind, klass)


def send(server, message, over="udp"):
    if over == "tcp":
        one = attempts.stream(server, 53)
        one.sendall(struct.pack(">H", len(message)) + message)
        size = one.recv(2)
        return verdict(one.recv(4096)) if size else "closed"
    one = socket.socket(family_of(server), socket.SOCK_DGRAM)
    one.settimeout(1.5)
    one.sendto(message, (server, 53))
    answer, sender = one.recvfrom(4096)
    if sender[0] != server:
        return f"answered by {sender[0]}"
    return verdict(answer)


def ask(server, name, kind, over="udp"):
    """rcode and number of answers."""
    return send(server, question(name, int(kind)), over)


def ask_connected(server, name):
    one = socket.socket(family_of(server), socket.SOCK_DGRAM)
    one.settimeout(1.5)
    one.connect((server, 53))
    one.send(question(name, 1))
    if one.getpeername()[0] != server:
        return f"connected to {one.getpeername()[0]}"
    return verdict(one.recv(4096))


def ask_class(server, name, klass):
    return send(server, question(name, 16, klass=int(klass)))


def ask_opcode(server, name, opcode):
    """NOTIFY, UPDATE and what else there is."""
    return send(server, question(name, 6, flags=int(opcode) << 11))


def answer_unasked(server, name):
    """A response, which is nobody's question."""
    return send(server, question(name, 1, flags=0x8180))


def two_questions(server, first, second):
    one = labels(first) + struct.pack(">HH", 1, 1)
    two = labels(second) + struct.pack(">HH", 16, 1)
    return send(server, struct.pack(HEADER, 7, 0x100, 2, 0, 0, 0) + one + two)


def with_option(server, name):
    """Data in an EDNS option, client subnet and cookie of an allowed name's question."""
    options = struct.pack(">HH", 8, 8) + b"\0\1\x20\0data" + struct.pack(">HH", 10, 8) + b"exfiltra"
    extra = b"\0" + struct.pack(">HHIH", 41, 4096, 0, len(options)) + options
    message = question(name, 1)
    return send(server, message[:10] + b"\0\1" + message[12:] + extra)


def with_additional(server, name):
    """A TXT record that rides along in the additional section."""
    record = labels("data." + name) + struct.pack(">HHIH", 16, 1, 0, 7) + b"\6secret"
    message = question(name, 1)
    return send(server, message[:10] + b"\0\1" + message[12:] + record)


def transfer(server, name):
    return ask(server, name, 252, "tcp")


def pointer_loop(server, name):
    """A name that is a pointer to itself."""
    message = struct.pack(HEADER, 7, 0x100, 1, 0, 0, 0) + b"\xc0\x0c" + struct.pack(">HH", 1, 1)
    return send(server, message)


def pointer_bomb(server, name):
    """A hundred questions that point into each other."""
    body = labels(name) + struct.pack(">HH", 1, 1)
    body += b"".join(b"\1a" + struct.pack(">H", 0xC00C + at) + struct.pack(">HH", 1, 1) for at in range(0, 700, 7))
    return send(server, struct.pack(HEADER, 7, 0x100, 101, 0, 0, 0) + body)


def long_name(server, name):
    """255 bytes, of labels as long as may be."""
    filler = os.urandom(90).hex()
    return ask(server, f"{filler[:63]}.{filler[63:126]}.{filler[126:160]}.{name}", 1)


def too_long_name(server, name):
    return ask(server, ".".join([os.urandom(30).hex()] * 5 + [name]), 1)


def many(server, name):
    """Random names below one: fewer than what is recorded of one sandbox at once."""
    outcomes = {ask(server, f"{os.urandom(12).hex()}.{name}", 1) for _ in range(60)}
    return " ".join(sorted(outcomes))


def garbage(server):
    return send(server, os.urandom(200))


def cut_off(server):
    return send(server, question("foreign.test", 1)[:14])


def in_case(server, name):
    """The case of the letters carries a bit each, if it is passed on."""
    varied = "".join(letter.upper() if at % 2 else letter for at, letter in enumerate(name))
    return ask(server, varied, 1)


def resolver(name):
    """By the C library."""
    return lookup(name)
