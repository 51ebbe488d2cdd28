"""Looks for secrets wherever a process of the sandbox can look: environments, command lines and
memory of all processes it sees, every file, and tells where it found one.

The needles come masked (each byte xor 0x5A, in hexadecimal): nothing but this process ever holds
them plain, and this process alone is left out of the search.

usage: leaks.py SINCE NEEDLE...   (files changed before SINCE, in seconds, cannot hold a key that
was made up later, and are left out)"""

import base64
import os
import stat
import sys

from common import tell

LARGEST = 8 << 20
# Kernel interfaces: reading them blocks or does things; a fresh /proc is searched by name.
SKIPPED = {"/proc", "/sys", "/dev/pts"}


def forms(secret):
    """The secret itself, its base64 at each of the three alignments, its hexadecimal."""
    yield secret
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret)
        # The characters at the ends depend on the neighbours.
        yield encoded[4 if shift else 0 : -4]
    yield secret.hex().encode()
    yield secret[::-1]


since = float(sys.argv[1])
secrets = [bytes(byte ^ 0x5A for byte in bytes.fromhex(word)) for word in sys.argv[2:]]
needles = [form for secret in secrets for form in forms(secret)]
looked = {"files": 0, "environments": 0, "memories": 0, "bytes": 0}


def search(place, data):
    looked["bytes"] += len(data)
    if any(needle in data for needle in needles):
        tell(found=place)


def slurp(path, kind):
    try:
        with open(path, "rb") as file:
            search(path, file.read(LARGEST))
            looked[kind] += 1
    except OSError:
        pass


def processes():
    me = str(os.getpid())
    for pid in filter(str.isdigit, os.listdir("/proc")):
        slurp(f"/proc/{pid}/environ", "environments")
        slurp(f"/proc/{pid}/cmdline", "environments")
        if pid != me:
            memory(pid)


def memory(pid):
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
            looked["memories"] += 1
            for line in maps:
                span, rights, *_ = line.split()
                start, end = (int(edge, 16) for edge in span.split("-"))
                if rights.startswith("r") and end - start <= 64 << 20:
                    try:
                        mem.seek(start)
                        search(f"/proc/{pid}/mem", mem.read(end - start))
                    except (OSError, ValueError):
                        pass
    except OSError:
        pass


def files(top):
    stack = [top]
    while stack:
        folder = stack.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                if entry.path not in SKIPPED:
                    stack.append(entry.path)
            elif stat.S_ISREG(info.st_mode) and info.st_ctime >= since and info.st_size <= LARGEST:
                slurp(entry.path, "files")


for name, value in os.environb.items():
    search("environment " + name.decode(errors="replace"), name + b"=" + value)
processes()
files("/")
tell(looked=looked)
