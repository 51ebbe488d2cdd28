"""Sockets by name that stay open between orders. Each line of stdin is an order, its words split at
spaces; each line of stdout is the answer: "ok", "ok VALUE", or an errno's name."""

import ctypes
import errno
import os
import socket
import struct
import sys
import time

SECONDS = 5
ECHO_WAIT = 2
LSRR = 131
sockets = {}


def order(verb, *words):
    return globals()["do_" + verb](*words)


def do_ready():
    pass


def do_open(name, family, kind="SOCK_DGRAM", protocol="0"):
    one = socket.socket(number(family), number(kind), int(protocol))
    one.settimeout(SECONDS)
    sockets[name] = one


def number(name):
    return int(name) if name.isdigit() else getattr(socket, name)


def do_bind(name, address, port):
    sockets[name].bind((address, int(port)))


def do_listen(name):
    sockets[name].listen()


def do_connect(name, address, port):
    sockets[name].connect((address, int(port)))


def do_disconnect(name):
    """connect() to no family at all (connect(2))."""
    nowhere = struct.pack("H14x", socket.AF_UNSPEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(sockets[name].fileno(), nowhere, len(nowhere)) != 0:
        raise OSError(ctypes.get_errno(), "disconnect")


def do_accept(name, other):
    sockets[other], _ = sockets[name].accept()
    sockets[other].settimeout(SECONDS)


def do_reset(name):
    """To be closed with a reset, and no wait for its port."""
    sockets[name].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sockets[name].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def do_defer(name):
    """The SYN leaves with the first bytes (TCP_FASTOPEN_CONNECT, linux/tcp.h); without a cookie (TCP_FASTOPEN_NO_COOKIE)."""
    sockets[name].setsockopt(socket.IPPROTO_TCP, 34, 1)
    sockets[name].setsockopt(socket.IPPROTO_TCP, 30, 1)
    sockets[name].setblocking(False)


def do_close(name):
    sockets.pop(name).close()


def do_take(name):
    return sockets[name].recv(65536).decode()


def do_flood(count, address, port):
    """Connections that nobody waits for."""
    for _ in range(int(count)):
        with socket.socket() as one:
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.connect_ex((address, int(port)))


def do_join(name, group):
    membership = socket.inet_aton(group) + bytes(4)
    sockets[name].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)


def do_send(name, text):
    sockets[name].send(text.encode())


def do_sendto(name, address, port, text):
    sockets[name].sendto(text.encode(), (address, int(port)))


def do_large(name, size):
    """Sends that many bytes and waits for them to come back."""
    wanted = os.urandom(int(size))
    sockets[name].send(wanted)
    came = sockets[name].recv(65536)
    return "same" if came == wanted else f"other {len(came)}"


def do_recv(name):
    came, source = sockets[name].recvfrom(65536)
    return f"{came.decode()} {source[0]} {source[1]}"


def do_peer(name):
    peer = sockets[name].getpeername()
    return f"{peer[0]} {peer[1]}"


def do_many(name, count):
    """Sends and waits for each answer; how many came, and the microseconds one took."""
    one, came, begun = sockets[name], 0, time.monotonic()
    one.settimeout(ECHO_WAIT)
    for index in range(int(count)):
        one.send(b"%d" % index)
        came += one.recv(64) == b"%d" % index
    took = (time.monotonic() - begun) / int(count) * 1e6
    return f"{came} {took:.0f}"


def do_hammer(seconds, address, port):
    """Tries TCP and UDP to a place for so long; the set of what came of it."""
    seen, until = set(), time.monotonic() + float(seconds)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while time.monotonic() < until:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as one:
                one.settimeout(0.2)
                try:
                    if kind == socket.SOCK_STREAM:
                        one.connect((address, int(port)))
                    else:
                        one.sendto(b"out", (address, int(port)))
                    seen.add("through")
                except OSError as error:
                    seen.add(name_of(error))
    return ",".join(sorted(seen))


def do_source_route(name, address):
    """A loose source route (RFC 791): the packet's destination is not where it ends."""
    option = struct.pack("BBB", LSRR, 7, 4) + socket.inet_aton(address) + b"\0"
    sockets[name].setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, option)


def do_routing_header(name, address):
    """A segment routing header (RFC 8754) by way of `address`."""
    segments = socket.inet_pton(socket.AF_INET6, address) * 2
    header = struct.pack("BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + segments
    sockets[name].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, header)


def name_of(error):
    if isinstance(error, TimeoutError) or error.errno is None:
        return "timeout"
    return errno.errorcode.get(error.errno, str(error.errno))


for line in sys.stdin:
    try:
        value = order(*line.split())
        print("ok" if value is None else f"ok {value}", flush=True)
    except OSError as error:
        print(name_of(error), flush=True)
