"""How far one gets, in the words of `postern explain`. Each line of stdin is one try, `url METHOD URL [ADDRESS]`,
`tcp HOST PORT`, `dns NAME` or `udp ADDRESS PORT`; each line of stdout says what came of it: `reached` and what was said, or
where it ended and the reason if one was told."""

import errno
import json
import socket
import ssl
import struct
import sys
from urllib.parse import urlsplit

from common import tell

SECONDS = 20


def connect(host, port):
    """A connection to a name that is looked up, or to an address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return None, "no such name"
    family, kind, protocol, _, address = found[0]
    one = socket.socket(family, kind, protocol)
    one.settimeout(SECONDS)
    try:
        one.connect(address)
    except OSError as error:
        return None, errno.errorcode[error.errno]
    return one, None


def url(method, url, address=None):
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    one, failure = connect(address or parts.hostname, port)
    if failure:
        return dict(outcome=failure)
    try:
        if parts.scheme == "https":
            one = secured(one, parts.hostname)
        one.sendall(f"{method} {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        head, body = everything(one)
    except (ssl.SSLError, ConnectionError) as error:
        return dict(outcome="closed", detail=str(error))
    if not head:
        return dict(outcome="closed")
    status = int(head.split()[1])
    if "application/problem+json" not in head.lower():
        return dict(outcome="reached", status=status)
    problem = json.loads(body)
    kind = problem["type"].split(":")[2]
    # The policy let it through, and the upstream was not who it had to be.
    outcome = "reached" if kind == "failed" else "problem"
    return dict(outcome=outcome, status=status, reason=problem["reason"])


def secured(one, host):
    # Whom to trust is no question here: bytes that pass unread come with the upstream's own certificate.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # No server name is sent for an address (RFC 6066 section 3).
    is_name = not host.replace(".", "").isdigit() and ":" not in host
    return context.wrap_socket(one, server_hostname=host if is_name else None)


def everything(one):
    data = b""
    while more := one.recv(65536):
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        body = body.split(b"\r\n", 1)[1].rsplit(b"\r\n0\r\n", 1)[0]
    return head.decode(), body


def tcp(host, port):
    one, failure = connect(host, int(port))
    if failure:
        return dict(outcome=failure)
    try:
        # Neither TLS nor HTTP.
        one.sendall(b"\x00\x01hello\n")
        said = one.recv(100)
    except ConnectionError as error:
        return dict(outcome="closed", detail=str(error))
    return dict(outcome="reached" if said else "closed", said=said.decode())


def dns(name):
    try:
        socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return dict(outcome="no such name")
    return dict(outcome="reached")


def udp(address, port):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(3)
    question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\4echo\4test\0" + struct.pack(">HH", 1, 1)
    try:
        one.sendto(question, (address, int(port)))
        one.recv(4096)
    except socket.timeout:
        return dict(outcome="silence")
    except OSError as error:
        return dict(outcome=errno.errorcode[error.errno])
    return dict(outcome="reached")


for line in sys.stdin:
    kind, *arguments = line.split()
    tell(attempt=line.strip(), **globals()[kind](*arguments))
