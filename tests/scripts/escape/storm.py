"""Tries to get out, again and again, by several processes at once, and keeps the file `heartbeat` fresh.

usage: storm.py SECONDS ADDRESS   (each line of stdout: what came of a way, and how often)"""

import collections
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import attempts
import names
from common import tell

WAYS = (
    (attempts.tcp, ("4444",)),
    (attempts.tls, ("443",)),
    (attempts.udp, ("443",)),
    (names.ask, ("storm.foreign.test", "1")),
)


def storm(until, way, address, arguments):
    outcomes = collections.Counter()
    while time.monotonic() < until:
        outcomes[attempts.attempt(way, [address, *arguments])] += 1
        with open("heartbeat", "w") as file:
            file.write(str(time.time()))
    for outcome, count in outcomes.items():
        tell(way=way.__name__, outcome=outcome, count=count)


attempts.SECONDS = 1
until = time.monotonic() + float(sys.argv[1])
for way, arguments in WAYS * 3:
    if os.fork() == 0:
        storm(until, way, sys.argv[2], arguments)
        os._exit(0)
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
