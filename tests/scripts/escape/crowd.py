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
    time.sleep(3)
    closed = 0
    for one in held:
        one.setblocking(False)
        try:
            closed += not one.recv(1)
        except BlockingIOError:
            pass
        except OSError:
            closed += 1
    tell(connected=len(held), closed=closed)


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
