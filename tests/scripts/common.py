"""What the small clients share. They run inside a sandbox that nobody configured."""

import functools
import json
import socket
import ssl
import sys
import threading


def tell(**facts):
    """One JSON object a line, at once."""
    # One write: others may write to the same pipe.
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


@functools.cache
def context(*alpn):
    read = ssl.create_default_context()
    read.set_alpn_protocols(list(alpn))
    return read


READING = threading.Lock()


def trust(*alpn):
    """The system's own trust, read once, by one thread while the others wait: that takes longer than a connection does, and
    is done before one is made."""
    with READING:
        return context(*alpn)


def tls(host, port=443, alpn=("http/1.1",)):
    """A TLS connection to host, verified against the system's own trust."""
    trusted = trust(*alpn)
    raw = socket.create_connection((host, port), timeout=20)
    return trusted.wrap_socket(raw, server_hostname=host)


def main(table):
    """Runs the function of table that the first argument names, with the other arguments."""
    table[sys.argv[1]](*sys.argv[2:])
