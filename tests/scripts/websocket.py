"""websocket.py HOST [NAME=VALUE...]: a WebSocket by hand; says what came back of what was sent."""

import base64
import hashlib
import os
import struct
import sys
import time

from common import tell, tls

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode, payload):
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", len(payload))
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def read_frame(stream):
    first, length = stream.read(2)
    if length == 126:
        (length,) = struct.unpack(">H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", stream.read(8))
    return first & 0x0F, stream.read(length)


host, *headers = sys.argv[1:]
key = base64.b64encode(os.urandom(16)).decode()
extra = "".join("{}: {}\r\n".format(*header.split("=", 1)) for header in headers)
connection = tls(host)
connection.sendall(
    (
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extra}\r\n"
    ).encode()
)
stream = connection.makefile("rb")
status = stream.readline().decode().split()[1]
fields = {}
while (line := stream.readline().strip()) != b"":
    name, value = line.decode().split(":", 1)
    fields[name.lower()] = value.strip()
accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
tell(status=int(status), accepted=fields.get("sec-websocket-accept") == accept)
if status == "101":
    for payload in [b"hello", b"m" * 1000, b"l" * 65536]:
        connection.sendall(frame(1, payload))
        opcode, back = read_frame(stream)
        tell(sent=len(payload), same=opcode == 1 and back == payload)
    # Both sides silent for a while: an idle socket stays open.
    time.sleep(1)
    connection.sendall(frame(9, b"still there?"))
    opcode, back = read_frame(stream)
    tell(pong=opcode == 10 and back == b"still there?")
    connection.sendall(frame(8, struct.pack(">H", 1000)))
    opcode, _ = read_frame(stream)
    tell(closed=opcode == 8, end=stream.read(1) == b"")
