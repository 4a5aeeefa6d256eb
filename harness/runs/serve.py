# SPDX-License-Identifier: GPL-2.0-only
"""Shows the page of results while tests run: a small server for this host alone.

It listens on the loopback address only. It answers with the page, which it makes anew once the
results have changed, and with the texts among the results. Whatever else is asked for is refused.
What tests and modules have printed is sent as plain text, which no browser takes for a page.
"""

from __future__ import annotations

import errno
import logging
import re
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from harness.errors import HarnessError, InputError, SandboxError
from harness.host import sandbox
from harness.report.page import Reload
from harness.runs import live, pages, store

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
PORT = 8017
_SECONDS = 2  # after which a browser loads the page again
# Where making the page takes long, that is to cost no more of the host than a tenth.
_SHARE = 10
_IDLE_SECONDS = 30.0  # for somebody who connects and does not ask
_LARGEST = 64 << 20  # bytes of a file that is sent
# The texts among the results. What a machine leaves for a debugger is not sent.
_TEXTS = {".json", ".jsonl", ".log", ".md", ".txt", ".xml"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Its own policy, which allows its style and no script, is in the page. Both hold.
_OF_PAGE = {"Content-Security-Policy": "script-src 'none'; frame-ancestors 'none'"}


class Server(ThreadingHTTPServer):
    """Serves the results in a folder on ``port`` (0: any that is free) once it is made.

    Raises ``InputError`` where that port cannot be had.
    """

    daemon_threads = True  # a browser that keeps its connection open keeps nothing else

    def __init__(self, folder: Path, port: int = PORT) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._made: dict[bool, tuple[live.Stamp, str]] = {}
        self._seconds = _SECONDS
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise _no_port(port, error) from error

    def server_bind(self) -> None:
        # HTTPServer's own asks for the host's name, which may ask a server of names.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Note what went wrong with a connection; a browser that has gone away is no news."""
        log.debug("a connection from %s ended", client_address, exc_info=True)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def page(self, *, held: bool) -> str:
        """The page as it is now; the same as before while the results are the same."""
        with self._lock:  # two browsers need not both have it made
            stamp = live.stamp(self.folder)
            before = self._made.get(held)
            if before is None or before[0] != stamp:
                began = time.monotonic()
                text = pages.live(self.folder, Reload(self._seconds, held))
                self._seconds = max(_SECONDS, round(_SHARE * (time.monotonic() - began)))
                self._made[held] = before = stamp, text
            return before[1]


def _no_port(port: int, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return InputError(
            f"port {port} of {ADDRESS} is in use, maybe by another `invoke report --serve`",
            hint="--port N takes another one, --port 0 any that is free",
        )
    why = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
    return InputError(f"port {port} of {ADDRESS} cannot be had: {why}", hint="--port N")


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    timeout = _IDLE_SECONDS
    server_version = "results"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        log.debug(format, *args)

    def _answer(self) -> None:
        # A page of somebody else's whose name leads here (DNS rebinding) is not to read this one.
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in (ADDRESS, "localhost"):
            self._refuse(HTTPStatus.FORBIDDEN, f"this is {self.server.url} and nothing else")
            return
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        try:
            if path in ("/", f"/{pages.PAGE}"):
                text = self.server.page(held=asked.query == "hold")
                self._send(text.encode(errors="replace"), "text/html", _OF_PAGE)
            elif (name := _text(self.server.folder, path)) is not None:
                self._send(sandbox.take(self.server.folder, name, _LARGEST), "text/plain", {})
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "here are the page and the texts of results")
        except SandboxError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such file here")
        except ConnectionError:
            raise  # nobody listens any more
        except (HarnessError, OSError) as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}")

    def _send(
        self, data: bytes, kind: str, more: dict[str, str], status: int = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(data))}
        for name, value in (_HEADERS | headers | more).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(f"{why}\n".encode(errors="replace"), "text/plain", {}, status)


def _text(folder: Path, path: str) -> PurePosixPath | None:
    """The file among the results that is asked for, below ``folder``; None for what is none.

    ``latest``, the one link among them, is followed to a run of the same kernel. What else leads
    elsewhere is refused when it is opened (sandbox.opened).
    """
    parts = path.removeprefix("/").split("/")
    if any(not part or part.startswith(".") or re.search(r"[\0-\x1f]", part) for part in parts):
        return None
    if PurePosixPath(path).suffix not in _TEXTS:
        return None
    if len(parts) > 1 and parts[1] == store.LATEST:
        run = live.newest_run(folder / parts[0])
        if run is None:
            return None
        parts[1] = run.name
    return PurePosixPath(*parts)
