"""Ways to walk out of a sandbox. Each line of stdout is one try and whether it worked.

usage: breakout.py FILE...   (files that must not be readable by any path)"""

import ctypes
import errno
import os
import subprocess
import sys

from common import tell

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH = 16


def shell(script):
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=20)
    return done.returncode == 0, (done.stderr.strip() or done.stdout.strip())[-200:]


def write(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
        return True, "written"
    except OSError as error:
        return False, errno.errorcode[error.errno]


def namespaces():
    return {
        kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid", "cgroup", "ipc")
    }


def cgroup_files():
    for folder, folders, names in os.walk("/sys/fs/cgroup", followlinks=False):
        for name in ("cgroup.procs", "cgroup.threads", "tasks", "release_agent"):
            if name in names:
                yield os.path.join(folder, name)


def tries():
    for path in cgroup_files():
        yield f"write {path}", lambda path=path: write(path, str(os.getpid()))
    yield "mkdir in the cgroup file system", lambda: shell(
        "for d in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do mkdir $d/inner && exit 0; done; exit 1"
    )
    mounting = "mkdir -p m && mount -t cgroup2 none m && echo 0 > m/cgroup.procs"
    yield "mount cgroup2 and move", lambda: shell(mounting)
    yield "mount cgroup2 in a user namespace and move", lambda: shell(
        f"unshare --user --map-root-user --mount sh -c '{mounting}'"
    )
    yield "mount cgroup2 in a cgroup namespace and move", lambda: shell(
        f"unshare --user --map-root-user --mount --cgroup sh -c '{mounting}'"
    )
    yield "mount proc in a user namespace", lambda: shell(
        "unshare --user --map-root-user --mount --pid --fork sh -c 'mkdir -p p && mount -t proc none p'"
    )
    for kind in ("net", "mount", "pid", "cgroup", "ipc", "uts"):
        yield f"nsenter --target 1 --{kind}", lambda kind=kind: same_namespace(kind)
    yield "chroot through /proc/1/root", lambda: shell("chroot /proc/1/root true && ls /proc/1/root/root")
    yield "list /proc/1/root", lambda: shell("ls /proc/1/root/")
    yield "list /proc/1/cwd", lambda: shell("ls /proc/1/cwd/")
    yield "follow /proc/1/fd", lambda: shell("cat /proc/1/fd/0 < /dev/null || readlink /proc/1/fd/* | grep .")
    yield "read /proc/1/mem", lambda: shell("head -c 1 /proc/1/mem")
    yield "ptrace pid 1", lambda: ptrace(1)
    yield "kill pid 1", lambda: shell("kill -KILL 1 && sleep 0.2 && test ! -d /proc/1")
    yield "remount / writable", lambda: shell("mount -o remount,rw /")
    yield "remount / writable in a user namespace", lambda: shell(
        "unshare --user --map-root-user --mount sh -c 'mount -o remount,rw,bind /'"
    )
    yield "write /etc", lambda: write("/etc/postern-was-here", "x")
    yield "write /usr", lambda: write("/usr/postern-was-here", "x")
    yield "write core_pattern", lambda: write("/proc/sys/kernel/core_pattern", "|/bin/true")
    yield "write sysrq-trigger", lambda: shell(
        "test ! -c /proc/sysrq-trigger && echo h > /proc/sysrq-trigger"
    )
    yield "write ip_forward", lambda: write("/proc/sys/net/ipv4/ip_forward", "1")
    yield "make a block device", lambda: shell("mknod device b 254 0 && head -c 1 device")
    yield "read a disk", lambda: shell("cat /dev/vda /dev/sda /dev/mem 2>/dev/null | head -c 1 | grep -q .")
    yield "open the eBPF file system", lambda: shell("ls -A /sys/fs/bpf | grep .")
    yield "bpf()", lambda: syscall(321, 0, 0, 0)
    yield "io_uring_setup()", lambda: syscall(425, 1, ctypes.create_string_buffer(120))
    yield "open_by_handle_at()", lambda: syscall(304, -100, ctypes.create_string_buffer(16), 0)
    yield "keyctl()", lambda: syscall(250, 0, -3, 0)
    yield "add an address", lambda: shell("ip addr add 203.0.113.77/32 dev lo")
    yield "make an interface", lambda: shell("ip tuntap add mode tun name t0")
    yield "gain privileges by a set-uid program", lambda: shell(
        "test \"$(grep NoNewPrivs /proc/self/status | tr -dc 0-9)\" = 0"
    )
    yield "sockets of the host's services", lambda: shell(
        "find /run /var/run /tmp \"$HOME\" -type s 2>/dev/null | head -50 | while read s; do"
        " python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' \"$s\" 2>/dev/null"
        " && echo $s && exit 0; done | grep ."
    )
    for path in sys.argv[1:]:
        yield f"read {path}", lambda path=path: shell(f"cat '{path}'")
        yield f"read {path} by /proc/1/root", lambda path=path: shell(f"cat '/proc/1/root{path}'")
        folder = os.path.dirname(path)
        yield f"unmount {folder} and read", lambda path=path, folder=folder: shell(
            f"umount -l '{folder}' && cat '{path}'"
        )
        yield f"unmount {folder} in a user namespace and read", lambda path=path, folder=folder: shell(
            f"unshare --user --map-root-user --mount sh -c \"umount -l '{folder}'; cat '{path}'\""
        )
        yield f"bind the parent of {folder} and read", lambda path=path, folder=folder: shell(
            "unshare --user --map-root-user --mount sh -c \"mkdir -p b &&"
            f" mount --bind '{os.path.dirname(folder)}' b && cat 'b/{os.path.relpath(path, os.path.dirname(folder))}'\""
        )


def same_namespace(kind):
    """Entering the namespace of pid 1 is worth nothing if it is one's own."""
    names = {"mount": "mnt"}
    name = names.get(kind, kind)
    own = os.readlink(f"/proc/self/ns/{name}")
    worked, said = shell(f"nsenter --target 1 --{kind} readlink /proc/self/ns/{name}")
    return worked and said.splitlines()[-1] != own, said


def ptrace(pid):
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) == 0:
        return True, "attached"
    return False, errno.errorcode[ctypes.get_errno()]


def syscall(number, *arguments):
    code = libc.syscall(number, *arguments)
    return code >= 0, errno.errorcode[ctypes.get_errno()] if code < 0 else str(code)


before = namespaces()
for name, run in tries():
    try:
        worked, detail = run()
    except (OSError, subprocess.TimeoutExpired) as error:
        worked, detail = False, str(error)
    tell(attempt=name, worked=worked, detail=detail)
tell(attempt="end up in other namespaces", worked=namespaces() != before, detail="")
