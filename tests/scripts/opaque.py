"""Connections that carry no name. Each line of stdin is a step; each line of stdout says what came of it."""

import socket
import sys
import time

from common import tell


def lookup(name):
    """By the resolver of the system, as any program."""
    found = socket.getaddrinfo(name, 22, type=socket.SOCK_STREAM)
    return " ".join(sorted({entry[4][0] for entry in found}))


def ssh(address, port="22"):
    """The banner of an SSH server, which waits for nobody; ours goes first all the same."""
    with socket.create_connection((address, int(port)), timeout=10) as one:
        one.sendall(b"SSH-2.0-test\r\n")
        return banner(one)


def banner(one):
    """Its one line; the offer of algorithms may be close behind."""
    line = one.makefile("rb").readline()
    return line.decode().strip() or "closed"


def sleep(seconds):
    time.sleep(float(seconds))
    return "slept"


KINDS = {"lookup": lookup, "ssh": ssh, "sleep": sleep}

for line in sys.stdin:
    kind, *arguments = line.split()
    try:
        outcome = KINDS[kind](*arguments)
    except OSError as error:
        outcome = type(error).__name__
    tell(step=line.strip(), outcome=outcome)
