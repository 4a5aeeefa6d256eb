# SPDX-License-Identifier: GPL-2.0-only
"""What a module needs to be loaded: modules of its kernel, and firmware.

A kernel's packages are unpacked and never installed, so that there is no modules.dep. It is made
once for each kernel by depmod(8). The modules that one needs are put into the guest together with
all that these need, as an archive in cpio's newc format, which the guest can unpack.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import zstandard

from harness import config
from harness.build.kernel import Kernel
from harness.errors import InputError, SandboxError
from harness.host import sandbox
from harness.host.cache import Cache
from harness.host.proc import Deadline

ARCHIVE = "files.cpio"
_DEPMOD_SECONDS = 300.0
_MAX_KO = 256 << 20  # bytes of a module that was packed
_SYMVERS_BYTES = 16 << 20


def unpacked(data: bytes, limit: int = _MAX_KO) -> bytes:
    """A .ko file as the kernel takes it, whichever way it was packed (.xz, .zst, .gz, or not).

    Told by its first bytes. Raises ``InputError`` for what cannot be unpacked, or is larger than
    ``limit`` bytes then.
    """
    try:
        if data.startswith(b"\xfd7zXZ\x00"):
            found = lzma.LZMADecompressor().decompress(data, limit + 1)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                found = stream.read(limit + 1)
        elif data.startswith(b"\x1f\x8b"):
            found = zlib.decompressobj(wbits=31).decompress(data, limit + 1)
        else:
            found = data
    except (lzma.LZMAError, zstandard.ZstdError, zlib.error) as error:
        raise InputError(f"a packed module cannot be unpacked: {error}") from error
    if len(found) > limit:
        raise InputError(f"a packed module has more than {limit >> 20} MiB")
    return found


@dataclass(frozen=True)
class KernelModules:
    """The modules that a kernel has.

    ``files`` are the files that each one needs by its name, in the order in which they are
    loaded, its own file last, and all of them below the kernel's ``modules`` folder; ``built_in``
    are the names of what is no file; ``vermagic`` is what modinfo says of one of them, if there
    is one.
    """

    files: Mapping[str, tuple[str, ...]]
    built_in: frozenset[str]
    vermagic: str = ""

    def has(self, name: str) -> bool:
        return name in self.files or name in self.built_in


def modules_of(kernel: Kernel, cache: Cache) -> KernelModules:
    """The index of a kernel's modules, made if it is not in the cache."""
    entry = cache.get(
        "index", kernel.name, {"recipe": 1, "kernel": kernel.digest},
        lambda folder: _depmod(folder, kernel),
    )  # fmt: skip
    built_in = kernel.modules / "modules.builtin"
    return read_index(
        (entry.path / "modules.dep").read_text(),
        built_in.read_text() if built_in.exists() else "",
        (entry.path / "vermagic").read_text().strip(),
    )


def _depmod(folder: Path, kernel: Kernel) -> None:
    inside = f"lib/modules/{kernel.release}"
    # A folder of links, since depmod of Debian 11 writes beside what it reads.
    script = (
        f"mkdir -p /tmp/{inside} && cd /tmp/{inside} && ln -s /mnt/modules/* . && "
        f"rm -f modules.dep* && depmod -b /tmp {kernel.release} && cp modules.dep /mnt/out/ && "
        "find kernel/ -name '*.ko*' -exec modinfo -F vermagic {} ';' -quit >/mnt/out/vermagic"
    )
    sandbox.run(
        kernel.sysroot.root,
        ["sh", "-ec", script],
        deadline=Deadline(_DEPMOD_SECONDS),
        read_only={"/mnt/modules": kernel.modules},
        writable={"/mnt/out": folder},
    )


def read_index(modules_dep: str, built_in: str, vermagic: str = "") -> KernelModules:
    """The index from the texts of modules.dep and modules.builtin (depmod(8))."""
    files = {}
    for line in modules_dep.splitlines():
        file, _, others = line.partition(":")
        # modules.dep has what is needed in the order in which it would be unloaded.
        files[name_of(file)] = (*reversed(others.split()), file)
    return KernelModules(files, frozenset(map(name_of, built_in.split())), vermagic)


def name_of(file: str) -> str:
    """The name that lsmod has for a module's file."""
    return PurePosixPath(file).name.partition(".ko")[0].replace("-", "_")


def loading_order(names: Iterable[str], index: KernelModules) -> list[str]:
    """The files of the modules and of all that they need, each once, first what others need.

    What is built in, or not there, is left out.
    """
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(index.files.get(name, ())))
    return list(found)


def archive(
    kernel: Kernel, needed: Collection[str], firmware: Mapping[str, Path], cache: Cache
) -> tuple[Path, str]:
    """The archive of what a guest needs besides the module, and a digest of it.

    ``needed`` are names of the kernel's modules, ``firmware`` files by their names below
    /lib/firmware.
    """
    contents = {name: path.read_bytes() for name, path in sorted(firmware.items())}
    key = {
        "recipe": 1,
        "kernel": kernel.digest,
        "modules": sorted(needed),
        "firmware": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }

    def make(folder: Path) -> None:
        files = {f"usr/lib/firmware/{name}": data for name, data in contents.items()}
        for file in loading_order(needed, modules_of(kernel, cache)):
            # Unpacked here, where it takes no time, and not in a guest without accelerator.
            name = re.sub(r"\.ko\.\w+$", ".ko", f"usr/lib/modules/{kernel.release}/{file}")
            files[name] = unpacked((kernel.modules / file).read_bytes())
        (folder / ARCHIVE).write_bytes(cpio(files))

    entry = cache.get("needs", kernel.name, key, make)
    return entry.path / ARCHIVE, entry.digest


_MODE_FILE, _MODE_FOLDER = 0o100644, 0o040755


def cpio(files: Mapping[str, bytes]) -> bytes:
    """An archive of files by their names, with the folders that they are in.

    The format is newc: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
    """
    folders = {
        parent.as_posix() for name in files for parent in PurePosixPath(name).parents
    } - {"."}  # fmt: skip
    parts = []
    entries = [(name, _MODE_FOLDER, b"") for name in sorted(folders)]
    entries += [(name, _MODE_FILE, data) for name, data in files.items()]
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        encoded = name.encode(errors="surrogateescape") + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
    return b"".join(parts)


# -- what a kernel lacks -----------------------------------------------------------


def exporters(symbols: Collection[str], symvers: str) -> dict[str, str]:
    """Which part of a kernel exports each symbol, from the text of its Module.symvers.

    A line is CRC, symbol, module, how it is exported, and a namespace, with tabs in between
    (Documentation/kbuild/modules.rst).
    """
    wanted = set(symbols)
    found = {}
    for line in symvers.splitlines():
        fields = line.split("\t")
        if len(fields) >= 3 and fields[1] in wanted:
            found[fields[1]] = fields[2]
    return found


def option_of(part: str, options: Iterable[str]) -> str:
    """The option that a module was built by, told by its name; nothing where that is not clear.

    ``options`` are names such as CONFIG_VIDEO_DEV, of which videodev is the module.
    """
    name = PurePosixPath(part).name.replace("_", "").replace("-", "").upper()
    fitting = [one for one in options if one.removeprefix("CONFIG_").replace("_", "") == name]
    return fitting[0] if len(fitting) == 1 else ""


def options_in(text: str) -> frozenset[str]:
    """The options that are y or m in the text of a kernel's .config."""
    return frozenset(re.findall(r"^(CONFIG_\w+)=[ym]$", text, re.MULTILINE))


def lacks_symbols(symbols: Collection[str], kernel: Kernel, cache: Cache) -> str:
    """What to do where a kernel does not have some symbols: which one has them, by what option.

    Only kernels that are in the cache can be asked. Empty if there is nothing to say.
    """
    own = options_in(kernel.config.read_text()) if kernel.config.exists() else frozenset()
    asked, nowhere = [kernel.name], set(symbols)
    for name, symvers, options in _cached_kernels(kernel, cache):
        found = exporters(symbols, symvers)
        asked.append(name)
        nowhere -= found.keys()
        if set(found) == set(symbols):
            parts = sorted({part for part in found.values() if part != "vmlinux"})
            named = [
                f"{PurePosixPath(part).name}{f' ({option})' if option else ''}"
                for part in parts
                for option in [option_of(part, options - own)]
            ]
            what = f", in {', '.join(named)}" if named else ""
            return (
                f"this kernel was built without what it needs; {name} has it{what}: --kernel {name}"
            )
    fuller = _fuller(kernel)
    if nowhere and (not fuller or fuller in asked):
        named = sorted(nowhere)[:_NAMED_MAX]
        return (
            f"no kernel that was looked at ({', '.join(asked)}) exports {', '.join(named)}; where "
            "a C file of the module's own has it, the module has to be made of that file too: "
            "`NAME-objs := main.o other.o`"
        )
    return _more_drivers(fuller)


def lacks_options(wanted: Collection[str], kernel: Kernel, cache: Cache) -> str:
    """The same where a kernel was built without some options (CONFIG_...)."""
    missing = sorted(set(wanted) - options_in(kernel.config.read_text()))
    if not missing:
        return ""
    what = f"this kernel was built without {', '.join(missing)}"
    for name, _, options in _cached_kernels(kernel, cache):
        if options.issuperset(wanted):
            return f"{what}; {name} has all of it: --kernel {name}"
    more = _more_drivers(_fuller(kernel))
    return f"{what}; {more}" if more else what


_NAMED_MAX = 5  # symbols that are named


def _more_drivers(fuller: str) -> str:
    """That a kernel has more drivers, if there is one."""
    return fuller and f"a cloud kernel has few drivers, {fuller} has them all: --kernel {fuller}"


def _fuller(kernel: Kernel) -> str:
    """The matrix' other flavour of a cloud kernel, which has more drivers; else nothing."""
    for name, spec in config.load().kernels.items():
        if (
            spec.suite == kernel.spec.suite
            and spec.flavour
            and (kernel.spec.flavour == f"cloud-{spec.flavour}")
        ):
            return name
    return ""


def _cached_kernels(kernel: Kernel, cache: Cache) -> Iterable[tuple[str, str, frozenset[str]]]:
    """Name, Module.symvers and options of the matrix' other kernels that are in the cache.

    Those of the same suite come first.
    """
    matrix = config.load().kernels
    found = {}
    for stored in cache.stored():
        name = stored.entry.label.removeprefix("kernel-")
        if stored.entry.kind == "sysroot" and name in matrix and name != kernel.name:
            found[name] = stored.entry.path / "root"
    for name in sorted(found, key=lambda name: (matrix[name].suite != kernel.spec.suite, name)):
        for headers in sorted(found[name].glob("usr/src/linux-headers-*")):
            try:
                symvers = sandbox.take(headers, "Module.symvers", _SYMVERS_BYTES)
                options = sandbox.take(headers, ".config", _SYMVERS_BYTES)
            except SandboxError:  # another headers' folder, or being removed
                continue
            yield name, symvers.decode(errors="replace"), options_in(options.decode())
