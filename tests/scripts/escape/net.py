"""Sockets and connections of odd kinds, and processes in odd places that make them. What every
client can do, and the plainer tricks, are in attempts.py."""

import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
import threading

import attempts
from attempts import dns_udp, family_of, libc, said, stream, talk

TAG = ""
# linux/sched.h
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID = 0x10000000, 0x40000000, 0x20000, 0x20000000
# linux/in.h, linux/in6.h, linux/tcp.h, asm-generic/socket.h: what the socket module does not name.
IP_TRANSPARENT, IP_UNICAST_IF, IPV6_UNICAST_IF = 19, 50, 76
IPV6_RTHDR, TCP_ULP, TCP_FASTOPEN_CONNECT, UDP_CORK, UDP_SEGMENT = 57, 31, 30, 1, 103
IP_PKTINFO = 8


def outcome(act, *arguments):
    """One step of several: its errno's name, or ''."""
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return ""


def call(code):
    """The result of a raw call as an exception would be."""
    if code < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return code


# -- sockets that are set up before they connect

def optioned(address, port, *options):
    one = socket.socket(family_of(address), socket.SOCK_STREAM)
    one.settimeout(attempts.SECONDS)
    for level, name, value in options:
        one.setsockopt(level, name, value)
    one.connect((address, int(port)))
    return talk(one)


def device():
    """The first interface that is no loopback: one that leads out, if there is any."""
    return next((name for _, name in socket.if_nameindex() if name != "lo"), "lo")


def on_device(address, port):
    """What is rewritten to a loopback address must not leave by another device."""
    return optioned(address, port, (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device().encode() + b"\0"))


def on_interface(address, port):
    index = struct.pack(">I", socket.if_nametoindex(device()))
    v6 = family_of(address) == socket.AF_INET6
    level, name = (socket.IPPROTO_IPV6, IPV6_UNICAST_IF) if v6 else (socket.IPPROTO_IP, IP_UNICAST_IF)
    return optioned(address, port, (level, name, index))


def udp_on_device(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device().encode() + b"\0")
    one.sendto(b"out", (address, int(port)))
    return said(one)


def udp_by_pktinfo(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    info = struct.pack("=i4s4s", socket.if_nametoindex(device()), b"", b"")
    one.sendmsg([b"out"], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, (address, int(port)))
    return said(one)


def transparent(address, port):
    return optioned(address, port, (socket.IPPROTO_IP, IP_TRANSPARENT, 1))


def marked(address, port):
    return optioned(address, port, (socket.SOL_SOCKET, socket.SO_MARK, 1))


def source_route(address):
    """Loose source routing (RFC 791 §3.1): the packet goes to the first hop, whatever was connected to."""
    # NOP, LSRR, length, pointer, first hop
    return struct.pack("BBBB", 1, 131, 7, 4) + socket.inet_aton(address)


def source_routed(via, address, port):
    return optioned(address, port, (socket.IPPROTO_IP, socket.IP_OPTIONS, source_route(via)))


def source_routed_udp(via, address, port):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(1)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, source_route(via))
    one.sendto(b"out", (address, int(port)))
    return said(one)


def routing_header(via, address, port):
    """A segment routing header (RFC 8754) with one segment to go: the packet goes to `via` first."""
    segments = socket.inet_pton(socket.AF_INET6, address) + socket.inet_pton(socket.AF_INET6, via)
    header = struct.pack("BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + segments
    return optioned(address, port, (socket.IPPROTO_IPV6, IPV6_RTHDR, header))


def as_smc(address, port):
    return optioned(address, port, (socket.IPPROTO_TCP, TCP_ULP, b"smc"))


def fastopen_connect(address, port):
    return optioned(address, port, (socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1))


def of_protocol(kind, protocol, address, port):
    """A socket of a type and protocol, used the way that suits the type."""
    one = socket.socket(family_of(address), int(kind), int(protocol))
    one.settimeout(attempts.SECONDS)
    if int(kind) in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        one.connect((address, int(port)))
        return "connected"
    one.sendto(b"\x08\0\xf7\xff\0\0\0\0", (address, int(port)))
    return "sent"


# -- one socket, several destinations

def again(first, address, port):
    """connect() to an address that may be tried, undo it, connect() elsewhere."""
    one = stream(first, 443)
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    call(libc.connect(one.fileno(), unspecified, len(unspecified)))
    one.connect((address, int(port)))
    return talk(one)


def again_at_once(first, address, port):
    one = stream(first, 443)
    # The first connect() waited in poll(); this one tells the kernel that its end was seen.
    one.connect_ex((first, 443))
    code = one.connect_ex((address, int(port)))
    return errno.errorcode[code] if code else "connected"


def sendto_stream(first, address, port):
    """An address given to sendto() of a connected stream counts for nothing."""
    one = stream(first, 443)
    one.sendto(b"out", (address, int(port)))
    return said(one)


def udp_again(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.connect((address, 53))
    one.connect((address, int(port)))
    one.send(b"out")
    return said(one)


def udp_beside(address, port):
    """Connected to a name server, and sends elsewhere."""
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.connect((address, 53))
    one.sendto(b"out", (address, int(port)))
    return said(one)


def udp_corked(address, port):
    """Begins a datagram to a name server, ends it to somebody else."""
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.setsockopt(socket.IPPROTO_UDP, UDP_CORK, 1)
    one.sendto(b"be", (address, 53))
    one.sendto(b"gun", (address, int(port)))
    one.setsockopt(socket.IPPROTO_UDP, UDP_CORK, 0)
    return "sent"


def udp_segmented(address, port):
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
    one.sendto(b"x" * 1000, (address, int(port)))
    return said(one)


def udp_to_any_of_them(first, second, port):
    """An IPv6 socket that speaks IPv4 by an IPv4 address proper, which has hooks of its own."""
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    raw = struct.pack("=H", socket.AF_INET) + struct.pack(">H", int(port)) + socket.inet_aton(first) + bytes(8)
    call(libc.sendto(one.fileno(), b"out", 3, 0, raw, len(raw)))
    return "sent"


def udp_unspecified_family(address, port):
    """AF_UNSPEC counts as AF_INET for a datagram's destination."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = struct.pack("=H", socket.AF_UNSPEC) + struct.pack(">H", int(port)) + socket.inet_aton(address) + bytes(8)
    call(libc.sendto(one.fileno(), b"out", 3, 0, raw, len(raw)))
    return "sent"


def quic(address):
    """A QUIC long header packet of 1200 bytes, as a browser would send first."""
    one = socket.socket(family_of(address), socket.SOCK_DGRAM)
    one.settimeout(1)
    one.connect((address, 443))
    one.send(b"\xc3\0\0\0\1\x08" + b"12345678" + bytes(1186))
    return said(one)


def broadcast(address):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    one.sendto(b"out", (address, 4444))
    return "sent"


def join(group):
    """The kernel itself tells the network of a group that is joined (IGMP, RFC 3376): 28 bits a join."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    index = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex(device()))
    one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, index)
    # The report comes a moment later.
    threading.Event().wait(1)
    return "joined"


def join32(group):
    """As above, by the 32-bit system call table."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    index = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex(device()))
    low = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40  # MAP_32BIT (asm/mman.h)
    memory = mmap.mmap(-1, 4096, flags=low, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # setsockopt: push rbx; mov eax, 366; ebx, ecx, edx, esi, edi; int 0x80; pop rbx; ret
    code = bytes.fromhex("53b86e010000")
    words = (one.fileno(), socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, start + 1024, len(index))
    for register, word in zip(b"\xbb\xb9\xba\xbe\xbf", words):
        code += struct.pack("=BI", register, word)
    code += bytes.fromhex("cd805bc3")
    memory[: len(code)] = code
    memory[1024 : 1024 + len(index)] = index
    result = ctypes.CFUNCTYPE(ctypes.c_int)(start)()
    if result < 0:
        raise OSError(-result, "setsockopt")
    threading.Event().wait(1)
    return "joined"


def join6(group):
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", socket.if_nametoindex(device()))
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    threading.Event().wait(1)
    return "joined"


# -- other families

def datagram(address):
    """A whole IPv4 packet with a UDP datagram in it."""
    payload = struct.pack(">HHHH", 4444, 4444, 11, 0) + b"out"
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 17, 0)
    return header + socket.inet_aton("203.0.113.1") + socket.inet_aton(address) + payload


def frame(address):
    """A packet that the sender makes itself, from the Ethernet type on."""
    one = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    one.sendto(datagram(address), (device(), 0x0800, 0, 0, b"\xff" * 6))
    return "sent"


def raw_header(address):
    """The same from the IP header on."""
    one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    one.sendto(datagram(address), (address, 0))
    return "sent"


def sock_packet(address):
    """The way to packet sockets of Linux 2.0 is a type of AF_INET."""
    socket.socket(socket.AF_INET, 10, socket.htons(3))
    return "created"


def families(*allowed):
    """Every family but the allowed ones; those that can be made are told."""
    made = []
    for family in set(range(1, 64)) - set(map(int, allowed)):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, socket.SOCK_RDM):
            descriptor = libc.socket(family, kind, 0)
            if descriptor >= 0:
                made.append(f"{family}/{kind}")
                os.close(descriptor)
    return "created " + " ".join(made) if made else "EAFNOSUPPORT"


# -- other places

def unshared(flags, way, *arguments):
    """From namespaces of one's own."""
    call(libc.unshare(int(flags, 0)))
    return attempts.attempt(named(way), arguments)


def raised(way, *arguments):
    """From a user and network namespace in which one has every capability, with a device that is up."""
    call(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    request = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        call(libc.ioctl(one.fileno(), 0x8914, request))  # SIOCSIFFLAGS
    # Where /proc/sys can be written, pings are for all.
    outcome(set_ping_groups)
    return attempts.attempt(named(way), arguments)


def set_ping_groups():
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as groups:
        groups.write("0 4294967294")


def in_new_pid_namespace(way, *arguments):
    call(libc.unshare(CLONE_NEWUSER | CLONE_NEWPID))
    return from_child(0, way, arguments)


def orphaned(way, *arguments):
    return from_child(2, way, arguments)


def in_session(way, *arguments):
    return from_child(1, way, arguments)


def in_thread(way, *arguments):
    said_by_it = []
    thread = threading.Thread(target=lambda: said_by_it.append(renamed(way, arguments)))
    thread.start()
    thread.join()
    return said_by_it[0]


def from_child(generations, way, arguments):
    """From a descendant whose parents have gone."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        for _ in range(generations):
            os.setsid()
            if os.fork():
                os._exit(0)
        os.write(writer, renamed(way, arguments).encode())
        os._exit(0)
    os.close(writer)
    return os.read(reader, 1000).decode()


def renamed(way, arguments):
    libc.prctl(15, TAG.encode(), 0, 0, 0)
    return attempts.attempt(named(way), arguments)


def named(way):
    name = way.replace("-", "_")
    return globals()[name] if name in globals() else getattr(attempts, name)


def nested_group(address, port):
    """From a cgroup below one's own, if one can be made."""
    for line in open("/proc/self/mounts"):
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            own = open("/proc/self/cgroup").read().split("0::")[1].split("\n")[0]
            inner = os.path.join(point, own.lstrip("/"), f"inner-{TAG}")
            if not outcome(os.mkdir, inner):
                with open(os.path.join(inner, "cgroup.procs"), "w") as procs:
                    procs.write("0")
    return attempts.tcp(address, port)


def alien_call():
    """socket(AF_PACKET) by the 32-bit system call table."""
    code = bytes.fromhex("53b867010000bb11000000b903000000ba00030000cd805bc3")  # mov eax,359 …; int 0x80
    memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    entry = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(entry)()
    return errno.errorcode.get(-result, f"created {result}")


def x32_call():
    """socket(AF_PACKET) by the x32 numbers."""
    call(libc.syscall(0x40000000 | 41, 17, 3, 0x300))
    return "created"


def core_handler():
    """A crash that somebody outside would look into."""
    os.kill(os.getpid(), signal.SIGSEGV)


def key_upcall(address):
    """Asks the kernel to have a name looked up for it by a program of the host's."""
    number = {"x86_64": 249, "aarch64": 218}[os.uname().machine]
    call(libc.syscall(number, b"dns_resolver", TAG.encode() + b".foreign.test", b"", -2))
    return "asked"


# -- the host's own services, the gateway's own listeners

def host_names(name, port):
    """A number in a spelling that the C library understands."""
    found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
    one = socket.create_connection(found[0][4][:2], attempts.SECONDS)
    return f"connected to {one.getpeername()[0]}"


def listeners(way, table):
    """Every listening TCP or bound UDP port of this namespace's loopback, spoken to directly."""
    outcomes = set()
    for line in open(f"/proc/net/{table}").readlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state in ("0A", "07"):
            address = "::1" if table.endswith("6") else "127.0.0.1"
            if local.split(":")[0] in ("0100007F", "00000000000000000000000001000000"):
                outcomes.add(attempts.attempt(named(way), [address, int(local.split(":")[1], 16)]))
    return outcomes.pop() if len(outcomes) == 1 else f"escaped {sorted(outcomes)}"


def abstract_socket(name):
    """Names without a file are the network namespace's."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.settimeout(1)
    one.connect("\0" + name)
    return "connected"


def path_socket(*paths):
    """One that is reached is the outcome, whatever the others said."""
    refusals = set()
    for path in paths:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        refusal = outcome(one.connect, path)
        if not refusal:
            return f"connected {path}"
        refusals.add(refusal)
    return " ".join(sorted(refusals))


def ask_directly(server, name, kind):
    return dns_udp(server, name, kind)
