"""An HTTP/1.1 server made of h11, the strictest parser Python has: a JSON line for each request that it has
read to its end, and for each that it could not read. It refuses to answer anything but "ok"."""

import json
import socket
import ssl
import sys
import threading

import h11

lock = threading.Lock()


def tell(out, **facts):
    with lock:
        print(json.dumps(facts), file=out, flush=True)


def serve(raw, context, out):
    try:
        stream = context.wrap_socket(raw, server_side=True) if context else raw
        while True:
            if not one_connection(stream, out):
                break
        stream.close()
    except OSError:
        pass


def one_connection(stream, out):
    connection = h11.Connection(h11.SERVER)
    request, length = None, 0
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            tell(out, error=str(error), target=request.target.decode() if request else "")
            return False
        if event is h11.NEED_DATA:
            connection.receive_data(stream.recv(65536))
        elif isinstance(event, h11.Request):
            request, length = event, 0
        elif isinstance(event, h11.Data):
            length += len(event.data)
        elif isinstance(event, h11.EndOfMessage):
            hosts = [value.decode() for name, value in request.headers if name == b"host"]
            tell(out, method=request.method.decode(), target=request.target.decode(), host=",".join(hosts), length=length)
            answer = h11.Response(status_code=200, headers=[("content-length", "2")])
            parts = [answer] if request.method == b"HEAD" else [answer, h11.Data(data=b"ok")]
            for part in parts + [h11.EndOfMessage()]:
                stream.sendall(connection.send(part) or b"")
            if connection.our_state is h11.MUST_CLOSE:
                return False
            connection.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return False


def listen(address, port, context, out):
    listener = socket.create_server((address, port), backlog=256)
    while True:
        stream, _ = listener.accept()
        stream.settimeout(30)
        threading.Thread(target=serve, args=(stream, context, out), daemon=True).start()


def main(address, certificate, key, log):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    out = open(log, "w")
    threading.Thread(target=listen, args=(address, 80, None, out), daemon=True).start()
    listen(address, 443, context, out)


main(*sys.argv[1:])
