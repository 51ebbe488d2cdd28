"""Sockets from before, and from elsewhere.

usage: passed.py before ADDRESS ADDRESS ADDRESS   opens sockets to them, makes the file `opened`, waits for
                                                  the file `attached`, and speaks
       passed.py give PATH ADDRESS                opens one, and hands it to who connects to PATH
       passed.py take PATH                        takes it, and speaks
       passed.py share ADDRESS [GROUP]            hands one of its own to a process of its own (in the cgroup
                                                  GROUP), which connects it there"""

import os
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common import tell


def speak(name, one, *to):
    try:
        one.sendto(b"out", *to) if to else one.send(b"out")
        tell(attempt=name, outcome="sent")
    except OSError as error:
        tell(attempt=name, outcome=os.strerror(error.errno))


def before(stream, connected, free):
    tcp = socket.create_connection((stream, 443), 5)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((connected, 443))
    unconnected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    open("opened", "w").close()
    while not os.path.exists("attached"):
        time.sleep(0.01)
    speak("stream", tcp)
    speak("connected datagram", udp)
    speak("datagram", unconnected, (free, 443))
    # Time for what is sent again.
    time.sleep(1)


def give(path, address):
    one = socket.create_connection((address, 443), 5)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen()
    tell(attempt="give", outcome="ready")
    taker, _ = server.accept()
    socket.send_fds(taker, [b"!"], [one.fileno()])
    # It stays open on this side too, as it would, until this process is ended: closing it says so to its peer.
    taker.recv(1)
    time.sleep(60)


def take(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as giver:
        giver.connect(path)
        _, descriptors, flags, _ = socket.recv_fds(giver, 1, 1)
        if not descriptors:
            tell(attempt="passed", outcome="cut off" if flags & socket.MSG_CTRUNC else "nothing")
            return
        speak("passed", socket.socket(fileno=descriptors[0]))
        time.sleep(1)


def share(address, group=None):
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child:
        families = socket.AF_INET, socket.AF_UNIX
        made = [socket.socket(family, socket.SOCK_DGRAM) for family in families] + [open("/dev/null")]
        socket.send_fds(ours, [b"!"], [one.fileno() for one in made])
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if group:
        with open(os.path.join(group, "cgroup.procs"), "w") as procs:
            procs.write(str(os.getpid()))
    _, descriptors, _, _ = socket.recv_fds(theirs, 1, 3)
    try:
        socket.socket(fileno=descriptors[0]).connect((address, 443))
        outcome = "connected"
    except OSError as error:
        outcome = os.strerror(error.errno)
    tell(attempt="shared", outcome=outcome, descriptors=len(descriptors))


{"before": before, "give": give, "take": take, "share": share}[sys.argv[1]](*sys.argv[2:])
