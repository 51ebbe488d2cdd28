"""grpc_client.py HOST SLOW: calls of every shape, with a key that is worth nothing; tells what came of each."""

import queue
import sys
import time

import grpc

from common import tell

MINE = (("authorization", "Bearer worthless"), ("x-mine", "kept"))
MOST = 4_000_000
# How many times slower than others this machine is.
SLOW = int(sys.argv[2])


def ask(to):
    """Messages that are sent as they are put; None ends them."""
    return iter(to.get, None)


channel = grpc.secure_channel(f"{sys.argv[1]}:443", grpc.ssl_channel_credentials())
one = channel.unary_unary("/postern.Test/One")
answer, call = one.with_call(b"abc", metadata=MINE, timeout=20)
first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
tell(call="one", same=answer == b"cba", first=first.get("x-first"), last=last.get("x-last"))

tell(call="big", length=len(one(b"big", metadata=MINE, timeout=30)))

try:
    one(b"fail", metadata=MINE, timeout=20)
except grpc.RpcError as error:
    detail = dict(error.trailing_metadata()).get("x-detail-bin")
    tell(call="fail", code=error.code().name, details=error.details(), bin=detail == b"\x00\xff")

down = channel.unary_stream("/postern.Test/Down")(b"1000", metadata=MINE, timeout=30)
tell(call="down", whole=[int(number) for number in down] == list(range(1000)))

up = channel.stream_unary("/postern.Test/Up")
tell(call="up", length=int(up(iter([b"y" * 100_000] * 50), metadata=MINE, timeout=30)))

# Each answer is waited for before the next question is asked: nothing may be held back on the way.
questions = queue.Queue()
both = channel.stream_stream("/postern.Test/Both")(ask(questions), metadata=MINE, timeout=30 * SLOW)
slowest = 0.0
for number in range(100):
    begun = time.monotonic()
    questions.put(f"q{number}".encode())
    if next(both) != f"Q{number}".encode():
        tell(call="both", wrong=number)
    slowest = max(slowest, time.monotonic() - begun)
questions.put(None)
tell(call="both", ended=list(both) == [], code=both.code().name, slowest=round(slowest, 3))

# One that nobody ends is cancelled, and the server learns of it.
questions = queue.Queue()
both = channel.stream_stream("/postern.Test/Both")(ask(questions), metadata=MINE)
questions.put(b"x")
next(both)
both.cancel()
questions.put(None)
time.sleep(1)
tell(call="cancel", code=both.code().name)

begun = time.monotonic()
try:
    channel.stream_stream("/postern.Test/Both")(ask(queue.Queue()), metadata=MINE, timeout=SLOW).next()
except grpc.RpcError as error:
    tell(call="deadline", code=error.code().name, seconds=round(time.monotonic() - begun, 1))

try:
    channel.unary_unary("/postern.Other/One")(b"abc", metadata=MINE, timeout=20)
except grpc.RpcError as error:
    tell(call="denied", code=error.code().name)
