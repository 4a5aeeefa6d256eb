# SPDX-License-Identifier: GPL-2.0-only
"""An SSH session that is frozen with a machine, and that each of its clones goes on with.

A handshake costs an emulated guest a quarter of a second. So it is done once, before a template is
frozen: the guest then has a server whose client is authenticated, and shells that wait for one
command each. A clone has that server again, with the keys and counters of that moment. Here the
client's half is written down (``Session``) and made again (``Transport``).

The keys of such a session are known to whoever can read the template's folder. They are good for
one thing only: what a process writes to the descriptor of its own QEMU. Nothing listens there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shlex
import socket
import threading
from dataclasses import asdict, dataclass, replace
from typing import Any

import paramiko
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from paramiko.common import (
    cMSG_CHANNEL_CLOSE,
    cMSG_CHANNEL_DATA,
    cMSG_CHANNEL_EOF,
    cMSG_CHANNEL_EXTENDED_DATA,
)

# The cheapest of today's algorithms for a guest without an accelerator.
KEX, HOST_KEY, CIPHER, MAC = (
    "curve25519-sha256@libssh.org", "ssh-ed25519", "aes128-ctr", "hmac-sha2-256",
)  # fmt: skip
_BLOCK = 16  # bytes of AES
_MAC_BYTES = 32  # hmac-sha2-256, RFC 6668

LIBRARY = f"paramiko {paramiko.__version__}"
SHELLS = 3  # how many commands of a clone begin in a shell that has been waiting

# What a waiting shell runs: it says that it is there, and does what the next line says. The line
# is read byte by byte (dash's read builtin on a pipe), so that what follows it is the command's
# standard input. $n is there because a line cannot hold a newline.
WAIT = """n='
'
echo; IFS= read -r l && eval "$l\""""
_ROUND_SECONDS = 0.05
_START_SECONDS = 60.0  # for a thread to begin; a host that stands still may need some
_REHEARSAL_SECONDS = 60.0
_LONGEST = 4096  # bytes of such a line; a longer command is not for a waiting shell


@dataclass(frozen=True)
class Direction:
    """All that the next packet in one direction depends on.

    ``key``, ``mac_key`` and the beginning of ``counter`` are derived from the handshake (RFC 4253,
    section 7.2). The cipher is AES in counter mode: ``counter`` is the block to be encrypted next,
    one more for each block that went through (RFC 4344, section 4). ``sequence`` is the number of
    the next packet, which its MAC covers (RFC 4253, section 6.4).
    """

    key: bytes
    counter: bytes
    mac_key: bytes
    sequence: int


@dataclass(frozen=True)
class Shell:
    """A channel (RFC 4254, section 5) in whose other end a shell waits for a command.

    ``number`` is the client's, ``remote`` the server's. ``window`` and ``packet`` are the bytes
    that may be sent, in all and at once. ``taken`` are those that came and for which no more room
    was given yet.
    """

    number: int
    remote: int
    window: int
    packet: int
    taken: int


@dataclass(frozen=True)
class Session:
    """The client's half of an authenticated session.

    ``id``, both ``versions`` (the client's first) and ``strict`` (whether new keys set the sequence
    numbers to 0) are for the case that the two agree upon new keys.
    """

    id: bytes
    versions: tuple[str, str]
    strict: bool
    sent: Direction
    received: Direction
    shells: tuple[Shell, ...]

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=bytes.hex)

    @classmethod
    def from_json(cls, text: str) -> Session:
        """What ``as_json`` has written."""
        data = json.loads(text)

        def direction(of: dict[str, Any]) -> Direction:
            fields = {name: bytes.fromhex(of[name]) for name in ("key", "counter", "mac_key")}
            return Direction(**fields, sequence=of["sequence"])

        return cls(
            bytes.fromhex(data["id"]), tuple(data["versions"]), data["strict"],
            direction(data["sent"]), direction(data["received"]),
            tuple(Shell(**shell) for shell in data["shells"]),
        )  # fmt: skip


def line_for(command: str) -> bytes | None:
    """The line that makes a waiting shell behave as one that was started with ``command``.

    It says first that it has understood. None where the command is not for such a shell: too long,
    or with bytes that not every shell reads as they are.
    """
    if not command.isascii() or not all(each.isprintable() or each in "\n\t" for each in command):
        return None
    quoted = '"$n"'.join(shlex.quote(line) for line in command.split("\n"))
    line = f"echo && exec sh -c {quoted}\n".encode()
    return line if len(line) <= _LONGEST else None


class Transport(paramiko.Transport):
    """paramiko's transport, for a session that is written down or was.

    All that is used of paramiko without being public is in this class.
    """

    def __init__(self, stream: socket.socket, session: Session | None = None) -> None:
        """With a ``session`` it goes on where that one was left, without a handshake."""
        super().__init__(stream)
        options = self.get_security_options()
        options.kex, options.key_types = (KEX,), (HOST_KEY,)
        options.ciphers, options.digests = (CIPHER,), (MAC,)
        self.waiting: list[paramiko.Channel] = []  # with a shell each
        self._restored = session is not None
        self._engines: dict[object, tuple[bytes, bytes]] = {}
        self._looping = threading.Event()
        if session is not None:
            self._restore(session)

    # -- commands ------------------------------------------------------------------

    def begin(self, command: str, timeout: float) -> paramiko.Channel:
        """The channel of a shell that has been started with ``command``.

        It is one that waits, where there is one; else a channel is opened, which takes at most
        ``timeout`` seconds. Raises what paramiko does.
        """
        line = line_for(command)
        while line is not None and self.waiting:
            channel = self.waiting.pop(0)
            with contextlib.suppress(OSError):  # a shell that somebody has ended
                channel.sendall(line)
                if channel.recv(1):
                    return channel
            channel.close()
        channel = self.open_session(timeout=timeout)
        channel.exec_command(command)
        return channel

    def open_channel(self, *given: Any, **named: Any) -> paramiko.Channel:
        """A new channel; see paramiko. It sends nothing too late: see ``_Outlet``."""
        base: Any = super()
        channel: paramiko.Channel = base.open_channel(*given, **named)
        its: Any = channel
        its._set_transport(_Outlet(self))
        return channel

    def _send_message(self, message: paramiko.Message) -> None:
        """Send what was said, but for what comes too late: see ``_Outlet``.

        paramiko calls this with a lock held where it is a channel that sends.
        """
        outlet: _Outlet | None = getattr(message, "outlet", None)
        if outlet is not None and not outlet.lets_through(message.asbytes()[:1]):
            return
        base: Any = super()
        base._send_message(message)

    def open_shell(self, timeout: float) -> None:
        """Have one more shell wait."""
        channel = self.open_session(timeout=timeout)
        channel.exec_command(WAIT)
        if not channel.recv(1):
            raise paramiko.SSHException("it ended at once")
        self.waiting.append(channel)

    # -- writing down --------------------------------------------------------------

    def _get_engine(
        self, name: str, key: bytes, iv: bytes, operation: object, *more: Any, **named: Any
    ) -> Any:
        self._engines[operation] = key, iv
        make: Any = super()
        return make._get_engine(name, key, iv, operation, *more, **named)

    def session(self) -> Session:
        """The session as it is now. Nothing may be on its way in either direction."""
        me: Any = self
        return Session(
            id=me.session_id,
            versions=(me.local_version, me.remote_version),
            strict=me.agreed_on_strict_kex,
            sent=self._direction("out", "sent", me._ENCRYPT),
            received=self._direction("in", "received", me._DECRYPT),
            shells=tuple(
                Shell(
                    channel.chanid, channel.remote_chanid, channel.out_window_size,
                    channel.out_max_packet_size, channel.in_window_sofar,
                ) for channel in self.waiting
            ),
        )  # fmt: skip

    def _direction(self, which: str, done: str, operation: object) -> Direction:
        def its(name: str) -> Any:
            return getattr(self.packetizer, f"_Packetizer__{name}")

        key, start = self._engines[operation]
        # paramiko counts what has gone over the wire since there are keys.
        through = its(f"{done}_bytes") - _MAC_BYTES * its(f"{done}_packets")
        return Direction(
            key, _advanced(start, through), its(f"mac_key_{which}"),
            its(f"sequence_number_{which}"),
        )  # fmt: skip

    # -- making it again -----------------------------------------------------------

    def _restore(self, session: Session) -> None:
        me: Any = self
        me.session_id = session.id
        me.local_version, me.remote_version = session.versions
        me.agreed_on_strict_kex = session.strict
        me.local_cipher = me.remote_cipher = CIPHER
        me.local_mac = me.remote_mac = MAC
        me.local_compression = me.remote_compression = "none"
        me.host_key_type = HOST_KEY
        me.initial_kex_done = me.packetizer._initial_kex_done = me.authenticated = True
        me.clear_to_send.set()

        for each, operation in ((session.sent, me._ENCRYPT), (session.received, me._DECRYPT)):
            self._engines[operation] = each.key, each.counter
        given: tuple[Any, ...] = (_BLOCK, hashlib.sha256, _MAC_BYTES)
        me.packetizer.set_outbound_cipher(
            _cipher(session.sent).encryptor(), *given, session.sent.mac_key, sdctr=True
        )
        me.packetizer.set_inbound_cipher(
            _cipher(session.received).decryptor(), *given, session.received.mac_key
        )
        me.packetizer._Packetizer__sequence_number_out = session.sent.sequence
        me.packetizer._Packetizer__sequence_number_in = session.received.sequence
        for shell in session.shells:
            channel: Any = paramiko.Channel(shell.number)
            me._channels.put(shell.number, channel)
            channel._set_transport(_Outlet(self))
            channel._set_window(me.default_window_size, me.default_max_packet_size)
            channel.in_window_sofar = shell.taken
            channel._set_remote_channel(shell.remote, shell.window, shell.packet)
            self.waiting.append(channel)
        me._channel_counter = 1 + max((shell.number for shell in session.shells), default=-1)
        # What is still said of an earlier channel is not heard, and no error.
        me.channels_seen.update(dict.fromkeys(range(me._channel_counter), True))

    def go_on(self) -> None:
        """Begin to receive, in a thread of its own."""
        me: Any = self
        # That thread begins with the client's name and a key exchange. Neither is sent.
        me.packetizer.write_all = lambda _: None
        self.active = True
        self.start()
        rounds = int(_START_SECONDS / _ROUND_SECONDS)
        if not any(self._looping.wait(_ROUND_SECONDS) or not self.is_alive()
                   for _ in range(rounds)):  # fmt: skip
            raise paramiko.SSHException("its thread does not come to its loop")
        if not self._looping.is_set():
            raise self.get_exception() or paramiko.SSHException("its thread ended at once")

    def _check_banner(self) -> None:
        base: Any = super()
        if not self._restored:
            base._check_banner()
            return
        me: Any = self
        del me.packetizer.write_all

    def _send_kex_init(self) -> None:
        base: Any = super()
        if not self._restored:
            base._send_kex_init()

    def _expect_packet(self, *types: int) -> None:
        base: Any = super()
        if not self._restored:
            base._expect_packet(*types)
            return
        # That handshake is not waited for, or else its limit would end a session in which the first
        # packet comes later, as in a machine that waits long for its test.
        self.packetizer.complete_handshake()
        self._restored = False  # from here on it is as any other
        self._looping.set()


class _Outlet:
    """A transport as one channel sees it, which is silent after the channel's end.

    A channel looks whether it is still open, and sends a moment later. In between the transport's
    own thread may have answered the server's end of the channel, with two messages: no more data
    comes, and the channel is closed (RFC 4254, section 5.3). Data after the first is against the
    protocol. After the second a server does not know the channel any more. In both cases dropbear
    ends the whole session.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._no_more_data = False
        self._closed = False

    def lets_through(self, kind: bytes) -> bool:
        """Whether a message of that number may still be sent; it is sent then."""
        late = self._closed or (
            self._no_more_data and kind in (cMSG_CHANNEL_DATA, cMSG_CHANNEL_EXTENDED_DATA)
        )
        self._no_more_data |= kind == cMSG_CHANNEL_EOF
        self._closed |= kind == cMSG_CHANNEL_CLOSE
        return not late

    def _send_user_message(self, message: Any) -> None:
        message.outlet = self
        transport: Any = self._transport
        transport._send_user_message(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@functools.cache
def fault() -> str:
    """Why a session cannot be frozen with the installed paramiko; "" where it can.

    What is used of it may be another in another release. So two ends of a made-up session are
    connected here, without a server, and talk to each other.
    """
    try:
        _rehearse()
    except (paramiko.SSHException, OSError, EOFError, AttributeError, TypeError,
            ValueError, LookupError) as error:  # fmt: skip
        said = f"{type(error).__name__}: {error}"
        return f"{LIBRARY} is not one that this was made for ({said})"
    return ""


def _rehearse() -> None:
    key = bytes(range(_BLOCK))
    there, back = Direction(key, bytes(_BLOCK), key, 7), Direction(key[::-1], key, key[::-1], 9)
    ours = Session(
        key, ("SSH-2.0-a", "SSH-2.0-b"), True, there, back, (Shell(3, 5, 5000, 4096, 1),)
    )
    theirs = replace(ours, sent=back, received=there, shells=(Shell(5, 3, 5000, 4096, 1),))
    with contextlib.ExitStack() as ends:
        streams = [ends.enter_context(stream) for stream in socket.socketpair()]
        pair = [Transport(*each) for each in zip(streams, (ours, theirs), strict=True)]
        for each in pair:
            ends.callback(each.close)
            each.go_on()
        for sender, receiver in (pair, pair[::-1]):
            channel = receiver.waiting[0]
            channel.settimeout(_REHEARSAL_SECONDS)
            sender.waiting[0].sendall(b"x" * 100)
            # RFC 4253, section 6, and RFC 4254, section 5.2: 100 bytes are a packet of 128.
            if channel.recv(200) != b"x" * 100:
                raise ValueError("what was sent is not what came")
        after = replace(
            ours,
            sent=replace(there, counter=_advanced(there.counter, 128), sequence=8),
            received=replace(back, counter=_advanced(back.counter, 128), sequence=10),
            shells=(Shell(3, 5, 4900, 4096, 101),),
        )
        if pair[0].session() != after:
            raise ValueError("its counters are not what they should be")


def _cipher(direction: Direction) -> Cipher[modes.CTR]:
    return Cipher(algorithms.AES(direction.key), modes.CTR(direction.counter))


def _advanced(counter: bytes, through: int) -> bytes:
    """A counter after so many bytes went through the cipher (RFC 4344, section 4)."""
    number = int.from_bytes(counter, "big") + through // _BLOCK
    return (number % (1 << 8 * _BLOCK)).to_bytes(_BLOCK, "big")
