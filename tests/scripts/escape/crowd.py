"""Too much of everything.

usage: crowd.py idle COUNT ADDRESS      COUNT connections that say nothing, held for a while
       crowd.py refused COUNT ADDRESS   COUNT connections that are refused, as fast as may be
       crowd.py headers ADDRESS         a request whose head does not end"""

import os
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import attempts
import hello
from common import tell


def idle(count, address):
    held = []
    for _ in range(int(count)):
        one = socket.socket()
        one.settimeout(3)
        try:
            one.connect((address, 443))
            held.append(one)
        except OSError:
            pass
    open("crowded", "w").close()
    connected = len(held)
    begun = moved = time.monotonic()
    # Until no more are closed.
    while time.monotonic() - moved < 3 and time.monotonic() - begun < 60:
        still = [one for one in held if is_open(one)]
        if len(still) < len(held):
            held, moved = still, time.monotonic()
        time.sleep(0.1)
    tell(connected=connected, closed=connected - len(held))


def is_open(one):
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def refused(count, address):
    refusals = 0
    for _ in range(int(count)):
        with socket.socket() as one:
            refusals += one.connect_ex((address, 4444)) == 1  # EPERM
    # What was too much to record is told once a second.
    time.sleep(2.5 if refusals > 1 else 0)
    tell(refused=refusals)


def headers(address):
    one = hello.secure(address, "echo.test")
    one.sendall(b"GET /crowd HTTP/1.1\r\nHost: echo.test\r\n")
    sent = 0
    try:
        while sent < 4 << 20:
            sent += one.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")
        outcome = "took it all"
    except OSError:
        outcome = "cut off"
    try:
        outcome = attempts.said(one)
    except OSError:
        pass
    tell(outcome=outcome, sent=sent)


{"idle": idle, "refused": refused, "headers": headers}[sys.argv[1]](*sys.argv[2:])
