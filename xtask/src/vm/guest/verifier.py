#!/usr/bin/python3
"""Has the gateway load all its programs into this kernel and reports, a line a program, whether the verifier took it,
how many instructions it has and how many the verifier looked at. Speaks as libtest does.

With --unsupported it is the other way round: this kernel is too old, and the gateway has to say so in words that its
operator understands, which a verifier log is not."""

import glob
import json
import os
import subprocess
import sys
import time

PATIENCE = 120
DOCTOR = "doctor tells whether BPF LSM is active"


def refusal(policy):
    command = [os.environ["POSTERN_BIN"], "exec", "--policy", policy, "--", "true"]
    gateway = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    said = gateway.stderr
    open("/postern/results/verifier.gateway", "w").write(said)
    command = [os.environ["POSTERN_BIN"], "doctor"]
    doctor = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    checks = {
        "an old kernel is refused": gateway.returncode != 0,
        "the refusal names the minimum": "or later" in said and "Linux" in said,
        "the refusal is no verifier log": "stack depth" not in said and "processed " not in said,
        "doctor says that it does not work here": doctor.returncode == 1 and "missing" in doctor.stdout,
    }
    said += doctor.stdout + doctor.stderr
    for name, held in checks.items():
        print(f"test {name} ... {'ok' if held else 'FAILED'}")
    failed = list(checks.values()).count(False)
    if failed:
        print("the gateway said:", said)
    print(f"test result: {'FAILED' if failed else 'ok'}. {len(checks) - failed} passed; {failed} failed; 0 ignored")
    return 1 if failed else 0


def main():
    if sys.argv[1] == "--unsupported":
        return refusal(sys.argv[2])
    policy, expected = sys.argv[1], sys.argv[2:]
    error = open("/postern/results/verifier.gateway", "w+")
    gateway = subprocess.Popen(
        [os.environ["POSTERN_BIN"], "--log-level", "debug", "exec", "--policy", policy, "--", "sleep", "600"],
        stderr=error,
    )
    begun = time.monotonic()
    programs = []
    while gateway.poll() is None and time.monotonic() - begun < PATIENCE:
        programs = [program for program in loaded() if program["name"].startswith("postern_")]
        if len(programs) >= len(expected) and attached():
            break
        time.sleep(0.5)
    verified, attach = verified_instructions(), attached()
    failed = 0
    left = list(programs)
    print(f"running {len(expected) + 1} tests")
    for name in expected:
        # The kernel keeps fifteen bytes of a name; bpftool gives all of it where it finds type information.
        found = next((p for p in left if p["name"] == name), None)
        found = found or next((p for p in left if p["name"] == name[:15]), None)
        if found is None:
            failed += 1
            print(f"test {name} ... FAILED")
            continue
        left.remove(found)
        number = found["id"]
        print(f"test {name} ... ok")
        print(
            f"program {name} instructions={found['bytes_xlated'] // 8} verified={verified.get(number, 'unknown')} "
            f"native_bytes={found.get('bytes_jited', 0)} attached={attach.get(number, 'no')}"
        )
    gateway.terminate()
    gateway.wait()
    expected = expected + [DOCTOR]
    if tells_modules():
        print(f"test {DOCTOR} ... ok")
    else:
        failed += 1
        print(f"test {DOCTOR} ... FAILED")
    if failed:
        error.seek(0)
        lines = [line.rstrip() for line in error if " DEBUG " not in line]
        print("the gateway said:", *lines[-15:], sep="\n    ")
    print(f"test result: {'FAILED' if failed else 'ok'}. {len(expected) - failed} passed; {failed} failed; 0 ignored")
    return 1 if failed else 0


def tells_modules():
    """Whether `postern doctor` says of the BPF LSM what this kernel says itself."""
    modules = open("/sys/kernel/security/lsm").read().strip().split(",")
    command = [os.environ["POSTERN_BIN"], "doctor", "--json"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    found = [f for f in json.loads(said.stdout) if f["name"] == "BPF LSM"]
    print(f"program doctor says {found} of {modules}")
    return [f["verdict"] == "ok" for f in found] == ["bpf" in modules]


def bpftool(*arguments):
    said = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True)
    try:
        return json.loads(said.stdout)
    except ValueError:
        return []


def loaded():
    programs = bpftool("prog", "show")
    return [p for p in programs if "name" in p] if isinstance(programs, list) else []


def attached():
    """Program number to the hook it is attached at."""
    groups = bpftool("cgroup", "tree")
    groups = groups if isinstance(groups, list) else []
    return {p["id"]: p["attach_type"] for group in groups for p in group.get("programs", [])}


def verified_instructions():
    """Program number to the instructions that the verifier went through (Linux 5.16 and later tell it)."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/fdinfo/*"):
        try:
            fields = dict(line.split(":", 1) for line in open(path) if ":" in line)
        except OSError:
            continue
        if "prog_id" in fields and "verified_insns" in fields:
            found[int(fields["prog_id"])] = int(fields["verified_insns"])
    return found


sys.exit(main())
