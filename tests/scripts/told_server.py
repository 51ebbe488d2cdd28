"""told_server.py ADDRESS CERTIFICATE KEY: says over HTTP/1.1, byte for byte, what it is told to by the first line of its
standard input: for each path pieces, and after how many milliseconds each. `%KEY%` is the request's X-Api-Key."""

import json
import re
import socket
import ssl
import sys
import threading
import time

from common import tell


def serve(raw):
    try:
        stream = context.wrap_socket(raw, server_side=True)
        heard = b""
        while True:
            while b"\r\n\r\n" not in heard:
                piece = stream.recv(65536)
                if not piece:
                    return
                heard += piece
            head, _, heard = heard.partition(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            key = re.search(rb"\r\nx-api-key: ([^\r]*)", head, re.IGNORECASE)
            for delay, text in told[path]:
                time.sleep(delay / 1000)
                stream.sendall(text.encode("latin-1").replace(b"%KEY%", key.group(1) if key else b""))
    except OSError:
        pass


address, certificate, key_file = sys.argv[1:]
told = json.loads(sys.stdin.readline())
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key_file)
listener = socket.create_server((address, 443))
tell(ready=True)
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
