"""Ways to get a packet out. Each line of stdin is one try, a kind and its arguments; each line of
stdout says what came of it: an errno's name, or how far it got."""

import ctypes
import errno
import os
import socket
import ssl
import struct
import sys
import time

from common import tell

SECONDS = 5
MPTCP = 262
DCCP, SOCK_DCCP = 33, 6
UDPLITE, L2TP, SCTP = 136, 115, 132
libc = ctypes.CDLL(None, use_errno=True)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def stream(address, port, protocol=0):
    one = socket.socket(family_of(address), socket.SOCK_STREAM, protocol)
    one.settimeout(SECONDS)
    one.connect((address, int(port)))
    return one


def anyone():
    """Takes every certificate: who answers is not what is tried. Reads no authorities, which a gateway that waits for an
    opening need not wait for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def talk(one, server_name=None):
    """Speaks TLS over a connection; the first thing the other side says over it."""
    secure = anyone().wrap_socket(one, server_hostname=server_name)
    secure.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    return said(secure)


def said(one):
    data = one.recv(200)
    return "said " + data.split(b"\r\n")[0].decode(errors="replace") if data else "closed"


def tcp(address, port):
    return "connected to {}".format(stream(address, port).getpeername()[0])


def tls(address, port):
    return talk(stream(address, port))


def tls_named(address, port, name):
    return talk(stream(address, port), name)


def http(address, port):
    one = stream(address, port)
    one.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    return said(one)


def nonblocking(address, port):
    one = socket.socket(family_of(address), socket.SOCK_STREAM)
    one.setblocking(False)
    code = one.connect_ex((address, int(port)))
    if code == errno.EINPROGRESS:
        time.sleep(1)
        code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[code] if code else tls_over(one)


def tls_over(one):
    one.settimeout(SECONDS)
    return talk(one)


def twice(allowed, address, port):
    """connect() to an allowed address, undo it, connect() again elsewhere."""
    one = stream(allowed, port)
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    if libc.connect(one.fileno(), unspecified, len(unspecified)) != 0:
        return "AF_UNSPEC: " + errno.errorcode[ctypes.get_errno()]
    one.connect((address, int(port)))
    return talk(one)


def fastopen(address, port):
    one = socket.socket(family_of(address), socket.SOCK_STREAM)
    one.settimeout(SECONDS)
    one.sendto(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", socket.MSG_FASTOPEN, (address, int(port)))
    return said(one)


def mptcp(address, port):
    return talk(stream(address, port, MPTCP))


def udp(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.sendto(b"out", (address, int(port)))
    return said(one)


def udp_connected(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.connect((address, int(port)))
    one.send(b"out")
    return said(one)


def sendmsg(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.sendmsg([b"o", b"ut"], [], 0, (address, int(port)))
    return said(one)


def ping(address):
    family = family_of(address)
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    one = socket.socket(family, socket.SOCK_DGRAM, protocol)
    one.settimeout(1)
    # The kernel fills the checksum in.
    kind = 128 if family == socket.AF_INET6 else 8
    one.sendto(struct.pack(">BBHHH", kind, 0, 0, 0, 0), (address, 0))
    return said(one)


def raw(address):
    one = socket.socket(family_of(address), socket.SOCK_RAW, socket.IPPROTO_UDP)
    one.sendto(struct.pack(">HHHH", 53, 53, 8, 0), (address, 0))
    return "sent"


def sctp(address, port):
    return "connected" if stream(address, port, SCTP) else ""


def dccp(address, port):
    one = socket.socket(family_of(address), SOCK_DCCP, DCCP)
    one.connect((address, int(port)))
    return "connected"


def udplite(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM, UDPLITE)
    one.sendto(b"out", (address, int(port)))
    return "sent"


def l2tp(address):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM, L2TP)
    one.sendto(b"out", (address, 0))
    return "sent"


def packet():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    return "created"


def vsock():
    one = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    one.settimeout(1)
    one.connect((socket.VMADDR_CID_HOST, 1024))
    return "connected"


def family(number):
    socket.socket(int(number), socket.SOCK_STREAM)
    return "created"


def io_uring():
    """Setting a ring up is all it takes to open sockets behind a seccomp filter."""
    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 8, parameters)
    return "created" if ring >= 0 else errno.errorcode[ctypes.get_errno()]


def bound_elsewhere(address, port):
    """A socket bound to a source address of its own before it connects."""
    one = socket.socket(family_of(address), socket.SOCK_STREAM)
    one.settimeout(SECONDS)
    one.bind(("127.0.0.77", 0))
    one.connect((address, int(port)))
    return talk(one)


def child_cgroup(address, port):
    """A process that moves itself into a group it makes, if it can, and goes out from there."""
    for line in open("/proc/self/mounts"):
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            inner = os.path.join(point, "inner")
            os.mkdir(inner)
            with open(os.path.join(inner, "cgroup.procs"), "w") as procs:
                procs.write("0")
            break
    return tls(address, port)


def new_namespace(address, port):
    """From a user and network namespace of its own."""
    unshare = libc.unshare(0x10000000 | 0x40000000)
    if unshare != 0:
        return "unshare: " + errno.errorcode[ctypes.get_errno()]
    return tls(address, port)


def daemon(address, port):
    """From a process that has left its parents and its session."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, attempt(tls, [address, port]).encode())
        os._exit(0)
    os.close(writer)
    return os.read(reader, 1000).decode()


def listeners():
    """Every listening socket of this network namespace, spoken to directly."""
    seen = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(table).readlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.split(":")
                words = [address[at : at + 8] for at in range(0, len(address), 8)]
                packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
                kind = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
                seen.add((socket.inet_ntop(kind, packed), int(port, 16)))
    for address, port in sorted(seen):
        # Listening everywhere means listening on the loopback.
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        for way in (http, tls):
            tell(attempt=f"listener {way.__name__}", address=address, port=port,
                 outcome=attempt(way, [address, port]))
    return f"{len(seen)} listeners"


def question(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def verdict(answer):
    _, flags, _, answers, *_ = struct.unpack(">HHHHHH", answer[:12])
    return f"rcode {flags & 15}, {answers} answers"


def dns_udp(server, name, kind=1):
    one = socket.socket(family_of(server), socket.SOCK_DGRAM)
    one.settimeout(3)
    one.sendto(question(name, int(kind)), (server, 53))
    return verdict(one.recv(4096))


def dns_tcp(server, name, kind=1):
    one = stream(server, 53)
    asked = question(name, int(kind))
    one.sendall(struct.pack(">H", len(asked)) + asked)
    one.recv(2)
    return verdict(one.recv(4096))


def lookup(name):
    found = {entry[4][0] for entry in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)}
    return f"{len(found)} addresses"


def attempt(way, arguments):
    try:
        return way(*arguments)
    except socket.timeout:
        return "timeout"
    except socket.gaierror as error:
        return f"gai {error.errno}"
    except ssl.SSLError as error:
        return f"ssl {error.reason}"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


if __name__ == "__main__":
    for line in sys.stdin:
        kind, *arguments = line.split()
        begun = time.monotonic()
        outcome = attempt(globals()[kind.replace("-", "_")], arguments)
        tell(attempt=line.strip(), outcome=outcome, ms=int((time.monotonic() - begun) * 1000))
