"""grpc_server.py ADDRESS CERTIFICATE KEY: a gRPC service of bytes, in all four shapes of a call.

The key that it takes is the first line of standard input. It tells what metadata each call came with."""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

from common import tell

SERVICE = "postern.Test"
BIG = 3_000_000


def begin(settings, context, method):
    sent = dict(context.invocation_metadata())
    tell(method=method, key=sent.get("authorization") == f"Bearer {settings['key']}", mine=sent.get("x-mine"))
    if sent.get("authorization") != f"Bearer {settings['key']}":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key")
    context.send_initial_metadata((("x-first", method),))


def service(settings):
    def one(request, context):
        begin(settings, context, "One")
        if request == b"fail":
            context.set_trailing_metadata((("x-detail-bin", b"\x00\xff"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more: 100 % \u00fc")
        context.set_trailing_metadata((("x-last", "of all"),))
        return b"x" * BIG if request == b"big" else request[::-1]

    def down(request, context):
        begin(settings, context, "Down")
        for number in range(int(request)):
            yield str(number).encode()

    def up(requests, context):
        begin(settings, context, "Up")
        return str(sum(len(request) for request in requests)).encode()

    def both(requests, context):
        begin(settings, context, "Both")
        ended = threading.Event()
        context.add_callback(lambda: (tell(method="Both", cancelled=not ended.is_set())))
        for request in requests:
            yield request.upper()
        # What the client sends may end a moment before this side is told that the call was cancelled.
        time.sleep(0.5)
        if context.is_active():
            ended.set()

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "One": grpc.unary_unary_rpc_method_handler(one),
            "Down": grpc.unary_stream_rpc_method_handler(down),
            "Up": grpc.stream_unary_rpc_method_handler(up),
            "Both": grpc.stream_stream_rpc_method_handler(both),
        },
    )


address, certificate, key = sys.argv[1:]
settings = json.loads(sys.stdin.readline())
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((service(settings),))
pair = (open(key, "rb").read(), open(certificate, "rb").read())
if not server.add_secure_port(f"{address}:443", grpc.ssl_server_credentials([pair])):
    sys.exit("no port")
server.start()
tell(ready=True)
server.wait_for_termination()
