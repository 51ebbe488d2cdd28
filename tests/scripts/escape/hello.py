"""The first bytes of connections: TLS that names one host and means another, HTTP likewise, and
what is neither."""

import os
import socket
import ssl
import struct
import time

import attempts
from attempts import said, stream, talk


def context(alpn="http/1.1"):
    made = attempts.anyone()
    made.set_alpn_protocols([alpn])
    return made


def secure(address, name, alpn="http/1.1"):
    return context(alpn).wrap_socket(stream(address, 443), server_hostname=name)


def request(address, name, *lines):
    """One request over TLS for `name`; lines with `\\0`-like escapes, as Python writes bytes."""
    one = secure(address, name)
    head = b"".join(line.encode().decode("unicode_escape").encode("latin-1").replace(b"~", b" ") + b"\r\n" for line in lines)
    one.sendall(head + b"\r\n")
    return said(one)


def plain(address, *lines):
    one = stream(address, 80)
    head = b"".join(line.encode().decode("unicode_escape").encode("latin-1").replace(b"~", b" ") + b"\r\n" for line in lines)
    one.sendall(head + b"\r\n")
    return said(one)


def http2(address, name, authority):
    """A request with an :authority of its own over HTTP/2; the status, or how the stream ended."""
    one = secure(address, name, "h2")
    if one.selected_alpn_protocol() != "h2":
        return "no HTTP/2"
    literal = lambda index, value: bytes([index, len(value)]) + value.encode()
    # :method GET, :scheme https, :path /, and :authority (index 1) as a literal.
    block = b"\x82\x87\x84" + literal(0x41, authority)
    frame = lambda kind, flags, number, body: struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + body
    one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, block))
    data = b""
    while True:
        piece = one.recv(4096)
        data += piece
        while len(data) >= 9:
            size, kind = int.from_bytes(data[:3], "big"), data[3]
            if len(data) < 9 + size:
                break
            body, number, data = data[9 : 9 + size], int.from_bytes(data[5:9], "big"), data[9 + size :]
            if number == 1 and kind == 1:
                return f"said HTTP/2 {status(body)}"
            if number == 1 and kind == 3:
                return f"reset {int.from_bytes(body, 'big')}"
            if kind == 7:
                return f"goaway {int.from_bytes(body[4:8], 'big')}"
        if not piece:
            return "closed"


def status(block):
    """The status of a header block: one of the seven in HPACK's static table, or a literal."""
    known = dict(zip(range(0x88, 0x8F), (200, 204, 206, 304, 400, 404, 500)))
    if block[0] in known:
        return known[block[0]]
    for at, byte in enumerate(block[:4]):
        if byte in (0x48, 0x08, 0x18, 0x58):
            size, huffman = block[at + 1] & 0x7F, block[at + 1] & 0x80
            value = block[at + 2 : at + 2 + size]
            return digits(value) if huffman else value.decode()
    return block.hex()


def digits(value):
    """Digits in HPACK's Huffman code (RFC 7541, appendix B)."""
    codes = {"00000": "0", "00001": "1", "00010": "2"}
    codes |= {format(0x19 + at, "06b"): str(3 + at) for at in range(7)}
    bits, text = "".join(format(byte, "08b") for byte in value), ""
    while len(text) < 3:
        size = 5 if bits[:5] in codes else 6
        text, bits = text + codes[bits[:size]], bits[size:]
    return text


# -- ClientHellos

def hello(name_entries, session=b""):
    """A ClientHello that nobody's library would send."""
    entries = b"".join(bytes([kind]) + struct.pack(">H", len(name)) + name for kind, name in name_entries)
    server_name = struct.pack(">HHH", 0, len(entries) + 2, len(entries)) + entries
    rest = struct.pack(">HHHH", 10, 4, 2, 29) + struct.pack(">HHB", 43, 3, 2) + b"\3\4"
    rest += struct.pack(">HHHH", 13, 4, 2, 0x0403)
    extensions = server_name + rest + session
    body = b"\3\3" + os.urandom(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0" + struct.pack(">H", len(extensions)) + extensions
    return b"\1" + struct.pack(">I", len(body))[1:] + body


def records(message, size=16384):
    cut = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\3\1" + struct.pack(">H", len(piece)) + piece for piece in cut)


def greet(address, data, pause=0.0, piece=1 << 20):
    one = stream(address, 443)
    for at in range(0, len(data), piece):
        try:
            one.sendall(data[at : at + piece])
        except OSError:
            break
        time.sleep(pause)
    return answered(one)


def answered(one):
    """What came back: an alert, a ServerHello, an HTTP status, the end."""
    try:
        data = one.recv(200)
    except ConnectionResetError:
        return "ECONNRESET"
    if data[:1] == b"\x15":
        return f"alert {data[6]}"
    if data[:1] == b"\x16":
        return "a ServerHello"
    return "said " + data.split(b"\r\n")[0].decode(errors="replace") if data else "closed"


def named_twice(address, one, other):
    return greet(address, records(hello([(0, one.encode()), (0, other.encode())])))


def named_oddly(address, name):
    """A server name as Python writes bytes."""
    return greet(address, records(hello([(0, name.encode().decode("unicode_escape").encode("latin-1"))])))


def no_library_would(address, kind, name):
    """A name of a type that does not exist."""
    return greet(address, records(hello([(int(kind), name.encode())])))


def extension_twice(address, one, other):
    entry = bytes([0]) + struct.pack(">H", len(other)) + other.encode()
    again = struct.pack(">HHH", 0, len(entry) + 2, len(entry)) + entry
    return greet(address, records(hello([(0, one.encode())], again)))


def in_pieces(address, name, size):
    """The hello of a real library in records of `size` bytes, sent a byte at a time."""
    return handshake(address, name, lambda data: records(data[5:], int(size)), 1)


def handshake_with_dot(address, name):
    """As a library that leaves the dot of a full name where it is."""
    return greet(address, records(hello([(0, name.encode())])))


def handshake(address, name, cut, piece):
    """A whole handshake over a socket whose first flight is sent in another form."""
    one = stream(address, 443)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context().wrap_bio(incoming, outgoing, server_hostname=name)
    first = True
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            data = outgoing.read()
            data, size = (cut(data), piece) if first and data else (data, 1 << 20)
            first = False
            for at in range(0, len(data), size):
                one.sendall(data[at : at + size])
            received = one.recv(65536)
            if not received:
                return "closed"
            incoming.write(received)
    tls.write(f"GET /pieces HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    one.sendall(outgoing.read())
    while True:
        try:
            return "said " + tls.read(200).split(b"\r\n")[0].decode()
        except ssl.SSLWantReadError:
            incoming.write(one.recv(65536))


def oversized(address, name):
    """64 KiB of ClientHello that name an allowed host."""
    padding = struct.pack(">HH", 21, 65000) + bytes(65000)
    return greet(address, records(hello([(0, name.encode())], padding)))


def noise(address):
    return greet(address, b"\x16\3\1" + os.urandom(600))


def opaque(address, port):
    one = stream(address, port)
    one.sendall(b"SSH-2.0-escape\r\n")
    return answered(one)


def bytes_of_no_protocol(address, port):
    one = stream(address, port)
    one.sendall(b"\0\1\2\3 not HTTP \xff\xfe" * 10)
    return answered(one)


def silence(address, port):
    return answered(stream(address, port))


def slowly(address):
    """A byte now and then, for ever."""
    one = stream(address, 443)
    data = records(hello([(0, b"echo.test")]))
    begun = time.monotonic()
    for byte in data:
        one.sendall(bytes([byte]))
        one.settimeout(1)
        try:
            return f"closed after {time.monotonic() - begun:.0f} s" if not one.recv(1) else "said"
        except socket.timeout:
            pass
        except ConnectionResetError:
            return "ECONNRESET"
    return "never ended"


def plain_http2(address, authority):
    """HTTP/2 with prior knowledge."""
    one = stream(address, 80)
    block = b"\x82\x86\x84" + bytes([0x41, len(authority)]) + authority.encode()
    one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + bytes([0, 0, len(block), 1, 5, 0, 0, 0, 1]) + block)
    data = b""
    while b"HTTP" not in data and len(data) < 4096:
        piece = one.recv(4096)
        if not piece:
            return "closed"
        data += piece
        if refusal := [code for code in (b"403", b"421", b"400") if code in data]:
            return "said HTTP/2 " + refusal[0].decode()
        at = data.find(b"\x01\x04\0\0\0\1")
        if at >= 3:
            return f"said HTTP/2 {status(data[at + 6:])}"
    return "closed"
