"""Runs attempts to get out of a sandbox, several at a time and each in a process of its own, and
tells what came of each: one JSON object a line.

usage: run.py C_PROGRAM RUST_PROGRAM TOGETHER < attempts   (one JSON object a line: tag, words, seconds, timed)

The first word says what is tried: a function of the modules beside this one, or, after `c:`, `rust:`
or `sh:`, a program. A process calls itself by its attempt's tag, so that a record in which the kernel
names the process is that attempt's and no other's."""

import ctypes
import json
import os
import select
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import attempts
import cage
import hello
import names
import net
from common import tell

PR_SET_NAME = 15
MODULES = (net, names, hello, cage, attempts)


def function(word):
    name = word.replace("-", "_")
    return next(vars(module)[name] for module in MODULES if name in vars(module))


def act(job, programs):
    """In the attempt's process: does not come back."""
    tag, (kind, *arguments) = job["tag"], job["words"]
    attempts.SECONDS = job["seconds"] - 1
    net.TAG = tag
    ctypes.CDLL(None).prctl(PR_SET_NAME, tag.encode(), 0, 0, 0)
    language, _, call = kind.partition(":")
    if call and language == "sh":
        script = f"printf {tag} > /proc/self/comm; {' '.join([call, *arguments])}"
        os.execvp("bash", ["bash", "-c", script])
    if call:
        os.execve(programs[language], [tag, call, *arguments], {**os.environ, "ESCAPE_TAG": tag})
    quickest = 1e9
    # Where the time counts it is not a busy machine's.
    for _ in range(5 if job["timed"] else 1):
        begun = time.monotonic()
        try:
            outcome = attempts.attempt(function(kind), arguments)
        except BaseException as error:
            outcome = f"broken {type(error).__name__}: {error}"
        quickest = min(quickest, (time.monotonic() - begun) * 1000)
    print(f"{outcome} ms={quickest}", flush=True)
    os._exit(0)


def start(job, programs):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(writer, 1)
        if not os.environ.get("ESCAPE_DEBUG"):
            os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
        os.closerange(3, 64)
        act(job, programs)
    os.close(writer)
    now = time.monotonic()
    return {"job": job, "pid": pid, "pipe": reader, "said": b"", "begun": now, "until": now + job["seconds"]}


def listen(one, now):
    """What was said, or None while the attempt is under way."""
    ready, _, _ = select.select([one["pipe"]], [], [], 0)
    data = os.read(one["pipe"], 4096) if ready else None
    one["said"] += data or b""
    if b"\n" in one["said"]:
        return one["said"].split(b"\n")[0].decode(errors="replace")
    if data == b"":
        _, status = os.waitpid(one["pid"], 0)
        one["pid"] = None
        by_signal = os.WIFSIGNALED(status)
        return f"died {signal.Signals(os.WTERMSIG(status)).name}" if by_signal else "said nothing"
    return "stall" if now > one["until"] else None


def end(one):
    os.close(one["pipe"])
    if one["pid"]:
        try:
            os.killpg(one["pid"], signal.SIGKILL)
        except OSError:
            pass
        os.waitpid(one["pid"], 0)


def main():
    programs = {"c": sys.argv[1], "rust": sys.argv[2]}
    together = int(sys.argv[3])
    waiting = [json.loads(line) for line in sys.stdin]
    open_ones = []
    while waiting or open_ones:
        while waiting and len(open_ones) < together:
            open_ones.append(start(waiting.pop(0), programs))
        select.select([one["pipe"] for one in open_ones], [], [], 0.05)
        now = time.monotonic()
        for one in list(open_ones):
            outcome = listen(one, now)
            if outcome is not None:
                open_ones.remove(one)
                end(one)
                # Told by those that measure; else how long it was under way.
                outcome, _, ms = outcome.partition(" ms=")
                ms = float(ms or (now - one["begun"]) * 1000)
                tell(tag=one["job"]["tag"], outcome=outcome, ms=ms)


main()
