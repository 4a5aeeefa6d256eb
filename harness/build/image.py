# SPDX-License-Identifier: GPL-2.0-only
"""The guest: an initramfs of Debian packages with an init of our own.

Two archives in one file, which the kernel unpacks one after the other: the guest's files,
the same for every kernel, and a small one with the few modules that one kernel needs to
reach its virtual devices. Neither is compressed: without an accelerator, unpacking costs
more than QEMU's copying.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from harness.build.kernel import Kernel
from harness.config import PROJECT, GuestSpec
from harness.errors import GoneError, InputError
from harness.host import debian, sandbox
from harness.host.cache import Cache
from harness.host.debian import Sysroot
from harness.host.proc import Deadline

INIT = PROJECT / "vm" / "init"
AGENT = PROJECT / "vm" / "agent"
# The part of the tree that is not worth carrying into every guest's memory.
_NOT_IN_GUEST = (
    "./boot", "./var/cache", "./var/lib/apt", "./var/lib/dpkg", "./usr/share/perl5",
    "./usr/share/common-licenses", "./usr/share/pam*", "./usr/share/keyrings", "./usr/include",
    "./usr/lib/x86_64-linux-gnu/gconv", "./usr/lib/x86_64-linux-gnu/security",
    "./usr/lib/x86_64-linux-gnu/perl-base/unicore", "./usr/lib/systemd",
    "./dev/*", "./proc/*", "./mnt/*", "./tmp/*",
    "./usr/bin/perl5*", "./usr/bin/*-sum", "./usr/share/debconf", "./etc/pam.d",
    "./usr/lib/x86_64-linux-gnu/libsqlite3*", "./usr/lib/x86_64-linux-gnu/libdb-*",
    "./usr/sbin/modprobe",  # vm/init makes it, and says why
)  # fmt: skip
# Of these: what other packages than the guest's own may need.
_MAY_BE_NEEDED = (
    "./usr/share/perl5", "./usr/lib/x86_64-linux-gnu/perl-base/unicore", "./usr/lib/systemd",
    "./usr/bin/perl5*", "./usr/bin/*-sum", "./usr/lib/x86_64-linux-gnu/libsqlite3*",
    "./usr/lib/x86_64-linux-gnu/libdb-*",
)  # fmt: skip
_FSTAB = """\
proc       /proc                proc       defaults
sysfs      /sys                 sysfs      defaults
devtmpfs   /dev                 devtmpfs   defaults
devpts     /dev/pts             devpts     gid=5,mode=620,X-mount.mkdir
tmpfs      /dev/shm             tmpfs      X-mount.mkdir
debugfs    /sys/kernel/debug    debugfs    defaults,nofail
tracefs    /sys/kernel/tracing  tracefs    defaults,nofail
securityfs /sys/kernel/security securityfs defaults,nofail
"""
# Commands for `ip -batch`. There is no IPv6 to talk to, so eth0 does without an address and
# the half second of probing for it. The IPv4 address is the one that QEMU forwards to by default.
_NETWORK = """\
link set lo up
address add 10.0.2.15/24 dev eth0
link set eth0 up
"""
# newc is the one format that the kernel unpacks (its initramfs/buffer-format.rst).
_CPIO = "cpio --quiet --create --format=newc --owner=0:0"


@dataclass(frozen=True)
class Keys:
    """The SSH keys of one cache: the client's own, and the guest's, which is pinned.

    ``client`` is a private key file in OpenSSH's format, ``host`` the guest's public key
    as base64 (the second word of an OpenSSH public key line).
    """

    client: Path
    host: str


@dataclass(frozen=True)
class GuestImage:
    """The guest for one kernel: its initramfs, and the keys to get in."""

    initrd: Path
    keys: Keys
    digest: str


def tree(spec: GuestSpec, cache: Cache, more: Sequence[str] = ()) -> Sysroot:
    """The unpacked packages that the guest is made of, with ``more`` that somebody wants.

    Those are of the guest's suite, whichever kernel it has: their programs need the libraries that
    are there. Raises ``InputError`` where there is none of that name.
    """
    try:
        return debian.unpack_packages(
            cache,
            label="guest",
            suite=spec.suite,
            packages=[*spec.packages, *more],
            note=f"guest: downloading and unpacking packages from Debian {spec.suite} (about 10 s)",
        )
    except GoneError as error:
        if not more:
            raise
        # It is no kernel that is gone.
        raise InputError(
            f"{error.what}, so the guest cannot have it",
            hint="--guest-packages takes names as `apt-cache search WORD` shows them",
        ) from error


def prepare_image(
    spec: GuestSpec, tree: Sysroot, kernel: Kernel, cache: Cache, *, complete: bool = False
) -> GuestImage:
    """The guest's image for ``kernel``, made of what is cached where that is possible.

    ``complete``: with what only the tree's own packages can do without.
    """
    left_out = [each for each in _NOT_IN_GUEST if not (complete and each in _MAY_BE_NEEDED)]
    keys = cache.get("keys", "ssh", {"recipe": 4}, lambda folder: _make_keys(folder, tree))
    base = cache.get(
        "guest",
        "base",
        {
            "recipe": [2, _FSTAB, _NETWORK, *left_out],
            "tree": tree.entry.digest,
            "init": hashlib.sha256(INIT.read_bytes() + AGENT.read_bytes()).hexdigest(),
            "keys": (keys.path / "host.pub").read_text(),
        },
        lambda folder: _make_base(folder, tree, keys.path, left_out),
    )
    whole = cache.get(
        "guest",
        kernel.name,
        {"recipe": 1, "base": base.digest, "kernel": kernel.digest, "modules": spec.modules},
        lambda folder: _add_layer(folder, base.path / "base.cpio", tree, kernel, spec.modules),
    )
    return GuestImage(
        initrd=whole.path / "initrd.cpio",
        keys=Keys(keys.path / "client", (keys.path / "host.pub").read_text().split()[1]),
        digest=whole.digest,
    )


def _make_keys(folder: Path, tree: Sysroot) -> None:
    """Two pairs of keys. The guest's is converted to the form that dropbear reads.

    Each is of the kind that costs the guest less: it signs with its own (Ed25519), and checks
    what the client has signed (RSA with a small exponent).
    """
    pairs: dict[str, Ed25519PrivateKey | rsa.RSAPrivateKey] = {
        "client": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "host": Ed25519PrivateKey.generate(),
    }
    for name, private in pairs.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (folder / f"{name}.pub").write_bytes(public + b"\n")
    sandbox.run(
        tree.root,
        ["dropbearconvert", "openssh", "dropbear", "/mnt/keys/host", "/mnt/keys/host.dropbear"],
        deadline=Deadline(30),
        writable={"/mnt/keys": folder},
    )


def _make_base(folder: Path, tree: Sysroot, keys: Path, left_out: Sequence[str]) -> None:
    """The guest's files: the tree, and over it what its packages' scripts would make."""
    added = folder / "added"
    etc = added / "etc"
    (etc / "eudyptula").mkdir(parents=True)
    shutil.copy(INIT, added / "init")
    (added / "init").chmod(0o755)
    shutil.copy(AGENT, etc / "eudyptula/agent")
    shutil.copy(keys / "host.dropbear", etc / "eudyptula/host_key")
    (etc / "eudyptula/host_key").chmod(0o600)
    ssh = added / "root" / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    (added / "root").chmod(0o700)
    shutil.copy(keys / "client.pub", ssh / "authorized_keys")
    (ssh / "authorized_keys").chmod(0o600)

    masters = tree.root / "usr/share/base-passwd"
    passwd = (masters / "passwd.master").read_text()
    # dash is what runs each command over SSH: it starts in a third of bash's time.
    passwd = passwd.replace("root:*:0:0:root:/root:/bin/bash", "root:x:0:0:root:/root:/bin/sh")
    users = [line.split(":")[0] for line in passwd.splitlines()]
    (etc / "passwd").write_text(passwd)
    shutil.copy(masters / "group.master", etc / "group")
    # No user has a password, and "*" lets in only those who bring a key.
    (etc / "shadow").write_text("".join(f"{user}:*:19000:0:99999:7:::\n" for user in users))
    (etc / "shadow").chmod(0o600)
    (etc / "shells").write_text("/bin/sh\n/bin/bash\n")
    (etc / "fstab").write_text(_FSTAB)
    (etc / "eudyptula/network").write_text(_NETWORK)
    (etc / "hostname").write_text("eudyptula\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 eudyptula\n")

    prune = " -o ".join(f"-path '{pattern}'" for pattern in left_out)
    script = (
        f"cd / && find . \\( {prune} \\) -prune -o -print | {_CPIO} >/mnt/out/base.cpio; "
        f"cd /mnt/added && find . | {_CPIO} >>/mnt/out/base.cpio"
    )
    _pack(folder, tree, script, {"/mnt/added": added})
    shutil.rmtree(added)


def _add_layer(
    folder: Path, base: Path, tree: Sysroot, kernel: Kernel, wanted: tuple[str, ...]
) -> None:
    """The base, and after it the few modules needed to boot, with what they depend on."""
    inside = f"lib/modules/{kernel.release}"
    script = f"depmod -b /mnt/kernel -o /mnt/out {kernel.release}"
    _pack(folder, tree, script, {f"/mnt/kernel/{inside}": kernel.modules})
    index = folder / inside / "modules.dep"
    needed = dependencies(index.read_text(), wanted)
    shutil.rmtree(folder / "lib")

    added = folder / "added"
    target = added / "usr" / inside
    for name in needed:
        packed = kernel.modules / name
        unpacked = target / name.removesuffix(".xz")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        # Unpacked here, where it takes no time, and not in a guest without accelerator.
        data = packed.read_bytes()
        unpacked.write_bytes(lzma.decompress(data) if name.endswith(".xz") else data)
    target.mkdir(parents=True, exist_ok=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (kernel.modules / name).exists():
            shutil.copy(kernel.modules / name, target / name)
    (added / "etc/eudyptula").mkdir(parents=True)
    (added / "etc/eudyptula/modules").write_text("".join(f"{name}\n" for name in wanted))
    shutil.copy(base, folder / "initrd.cpio")
    script = (
        f"depmod -b /mnt/added/usr {kernel.release}; "
        f"cd /mnt/added && find . | {_CPIO} >>/mnt/out/initrd.cpio"
    )
    sandbox.run(
        tree.root,
        ["bash", "-euo", "pipefail", "-c", script],
        deadline=Deadline(120),
        writable={"/mnt/out": folder, "/mnt/added": added},
    )
    shutil.rmtree(added)


def dependencies(modules_dep: str, wanted: tuple[str, ...]) -> list[str]:
    """Files of the wanted modules and all they depend on, from the text of modules.dep.

    A name that the index does not have is built in, or this kernel does without it.
    """
    needed: dict[str, None] = {}
    names = {_module_name(name) for name in wanted}
    for line in modules_dep.splitlines():
        file, _, others = line.partition(":")
        if _module_name(file) in names:
            needed.update(dict.fromkeys([*others.split(), file]))
    return list(needed)


def _module_name(file: str) -> str:
    return Path(file).name.split(".ko")[0].replace("-", "_")


def _pack(folder: Path, tree: Sysroot, script: str, read_only: dict[str, Path]) -> None:
    sandbox.run(
        tree.root,
        ["bash", "-euo", "pipefail", "-c", script],
        deadline=Deadline(120),
        read_only=read_only,
        writable={"/mnt/out": folder},
    )
