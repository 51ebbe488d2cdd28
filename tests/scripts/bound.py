"""An HTTPS request from a source port of one's own choice: connects, says "connected", and goes on when a file
appears. Arguments: bundle of authorities, source address and port, destination address and port, name, path, file.
Says the answer's body, or the errno's name."""

import errno
import os
import socket
import ssl
import sys
import time

bundle, source, source_port, address, port, name, path, go = sys.argv[1:]
with socket.socket() as one:
    one.settimeout(15)
    # Several sockets of one namespace may have the port: what they connect to is not the same.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((source, int(source_port)))
    try:
        one.connect((address, int(port)))
        print("connected", flush=True)
        until = time.monotonic() + 60
        while not os.path.exists(go) and time.monotonic() < until:
            time.sleep(0.01)
        context = ssl.create_default_context(cafile=bundle)
        with context.wrap_socket(one, server_hostname=name) as tls:
            head = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            tls.sendall(head.encode())
            answer = b"".join(iter(lambda: tls.recv(65536), b""))
        print(answer.split(b"\r\n\r\n", 1)[1].decode(), flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno, repr(error)), flush=True)
        sys.exit(1)
