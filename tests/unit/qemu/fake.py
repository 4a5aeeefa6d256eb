# SPDX-License-Identifier: GPL-2.0-only
"""A QEMU that is a Python script, and what several of these files use."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

from harness.qemu import MachineSpec

PATIENCE = 20.0


SPEC = MachineSpec(Path("/cache/vmlinuz"), Path("/cache/initrd.cpio"))


FAKE_QEMU = """\
import json, os, re, socket, sys
line = " ".join(sys.argv)
act = os.environ["FAKE_QEMU"]
if act == "hates-kvm":
    if " kvm " in line:
        os.abort()
    act = "ready"
if act == "refuses":
    sys.exit("qemu: -accel nonesuch: invalid accelerator")
def channel(name):
    return socket.socket(fileno=int(re.search(rf"id={name},fd=(\\d+)", line)[1]))
qmp, control = channel("qmp"), channel("control")
console = open(re.search(r"path=(\\S+),append", line)[1], "ab", buffering=0)
def tell(**message):
    qmp.sendall(json.dumps(message).encode() + b"\\n")
def event(name, **data):
    tell(event=name, data=data, timestamp={"seconds": 0, "microseconds": 0})
version = {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}
if act == "is-killed-early":
    os.kill(os.getpid(), 9)
tell(QMP={"version": version, "capabilities": []})
console.write(b"[    0.000000] Linux version\\r\\n\\x1b[31mlast words\\n")
def requests():
    text = ""
    while data := qmp.recv(65536):  # JSON without line ends, as the protocol has it
        text += data.decode()
        while text.strip():
            try:
                request, end = json.JSONDecoder().raw_decode(text.lstrip())
            except ValueError:
                break
            text = text.lstrip()[end:]
            yield request
saving = 3  # how often somebody must ask until the machine has been saved
for request in requests():
    command = request["execute"]
    same = {"id": request["id"]} if "id" in request else {}
    def answer(value):
        tell(**{"return": value}, **same)
    if command == "qmp_capabilities":
        answer({})
        if act == "ready":
            control.sendall(b"ready 1.5\\n")
        elif act == "fails":
            control.sendall(b"failed no network device\\n")
    elif command == "query-cpus-fast":
        answer([{"cpu-index": 0, "thread-id": os.getpid()}])
    elif command == "human-monitor-command":
        text = "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port\\r\\n"
        text += "  TCP[HOST_FORWARD]  12       127.0.0.1 34567       10.0.2.15    22\\r\\n"
        answer(text if act != "no-port" else "")
    elif command == "stop":
        if act == "ends":
            sys.exit(0)
        event("GUEST_PANICKED" if act == "panics" else "STOP")
        answer({})
    elif command == "say":
        control.sendall(request["arguments"]["line"].encode() + b"\\n")
        answer({})
    elif command == "quit":
        answer({})
        if act != "stays":
            sys.exit(0)
    elif command == "query-status":
        saving -= act != "clings"
        status = "finish-migrate" if saving > 0 else "postmigrate"
        status = act if act == "internal-error" else status
        answer({"running": False, "singlestep": False, "status": status})
    elif command == "cont" and saving <= 0:
        answer({})
    elif command == "migrate-set-capabilities":
        answer({})
    elif command == "migrate-incoming" and act == "misfits":
        sys.exit("qemu: load of migration failed: Invalid argument")
    elif command == "migrate-incoming":
        os.kill(os.getpid(), 9)
    elif command == "die":
        sys.exit("qemu: assertion failed")
    else:
        tell(error={"class": "CommandNotFound", "desc": f"no {command}"}, **same)
"""


@contextlib.contextmanager
def ignored_leaks() -> Iterator[None]:
    """Keep what was left open from being blamed on whichever test runs when it is collected."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
