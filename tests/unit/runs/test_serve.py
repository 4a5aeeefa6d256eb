# SPDX-License-Identifier: GPL-2.0-only
"""harness/runs/serve.py: the page while tests run, for this host and nobody else."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import config
from harness.commands import report
from harness.errors import InputError
from harness.report.result import Case, Cell, KernelResult
from harness.runs import pages, pytest_process, serve, store
from harness.runs.pytest_process import EndedTest
from harness.runs.serve import Server

SECONDS = 60.0  # at most, for what a quiet host does at once
DONE = KernelResult(
    "trixie", "6.12", "6.12-1", 0, 1e9, 1.0, 2.0, {"boot": Cell(False, "ok")},
    (Case("test_a::test_old", "contract", "passed", 0.1),),
)  # fmt: skip


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of one run, and a secret beside them."""
    folder = tmp_path / "results"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(config, "RESULTS", folder)
    with store.begin("trixie", whole=True) as run:
        (run.folder / "test_a").mkdir()
        (run.folder / "test_a" / "console.log").write_text("<script>alert(1)</script>")
        (run.folder / "test_a" / "memory.kdump").write_text("memory")
        store.write(run, DONE, whole=True)
    return folder


@pytest.fixture
def server(results: Path) -> Iterator[Server]:
    """A server that answers."""
    with Server(results, 0) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: Server, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """Status, text and headers of an answer."""
    connection = http.client.HTTPConnection(serve.ADDRESS, server.server_port, timeout=SECONDS)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    with connection.getresponse() as answer:
        return answer.status, answer.read().decode(), answer.headers


def test_the_page_follows_the_tests(server: Server, results: Path) -> None:
    """What has ended is on it at once; it is made anew when something has changed."""
    status, first, headers = ask(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "test_old" in first
    assert '<meta http-equiv="refresh" content="2">' in first
    assert ask(server, "/index.html")[1] == first
    with store.begin("trixie", whole=True) as run:
        pytest_process.add_ended(run.folder, EndedTest("a/test_a.py::test_new", "passed", 0.1))
        during = ask(server, "/")[1]
    assert "test_new" in during
    assert "is being tested" in during
    assert "<title>1 passed, 0 failed, 0 skipped so far</title>" in during
    assert not (results / pages.PAGE).exists()  # that is the page of a run that has ended


def test_a_page_that_is_held_is_not_loaded_again(server: Server) -> None:
    """So that somebody can read; and either leads to the other."""
    held, followed = ask(server, "/?hold")[1], ask(server, "/")[1]
    assert 'http-equiv="refresh"' not in held
    assert 'href="/"' in held
    assert 'href="/?hold"' in followed


def test_no_script_ever_runs_in_it(server: Server) -> None:
    """The page's policy is as strict as the file's, and a text is sent as a text."""
    page, headers = ask(server, "/")[1:]
    assert "default-src 'none'; style-src 'sha256-" in page
    assert "<script" not in page
    assert "script-src 'none'" in headers["Content-Security-Policy"]
    text, headers = ask(server, "/trixie/latest/test_a/console.log")[1:]
    assert text == "<script>alert(1)</script>"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_texts_of_results_are_sent(server: Server, results: Path) -> None:
    """Such as for a script; a head has no body."""
    said = (results / "trixie" / "report.json").read_text()
    assert ask(server, "/trixie/report.json")[1] == said
    status, nothing, headers = ask(server, "/trixie/report.json", "HEAD")
    assert (status, nothing) == (200, "")
    assert int(headers["Content-Length"]) == len(said)


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/trixie/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt",
     "//secret.txt", "/trixie//report.json", "/link.txt", "/trixie/elsewhere/secret.txt",
     "/trixie", "/trixie/", "/trixie/report.json/", "/trixie/report.json%00", "/missing.txt",
     "/trixie/latest/test_a/memory.kdump", "/trixie/latest", "/CACHEDIR.TAG", "/trixie/pipe.txt",
     "/" + "a" * 5000 + ".txt", "/trixie/latest/../../../secret.txt",
     "/.gitignore"],
)  # fmt: skip
def test_nothing_else_is_sent(server: Server, results: Path, path: str) -> None:
    """Neither what lies elsewhere, by whatever way, nor what is no text, nor what never ends."""
    (results / "link.txt").symlink_to(results.parent / "secret.txt")
    (results / "trixie" / "elsewhere").symlink_to(results.parent)
    os.mkfifo(results / "trixie" / "pipe.txt")
    status, text, _ = ask(server, path)
    assert status == 404
    assert "secret" not in text
    assert len(text) < 200


def test_a_browser_that_goes_away_is_no_news(
    server: Server, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As one does that loads the page again before all of it has come; others are answered."""
    (results / "trixie" / "large.txt").write_bytes(b"x" * (32 << 20))
    with socket.create_connection((serve.ADDRESS, server.server_port), timeout=SECONDS) as gone:
        gone.sendall(b"GET /trixie/large.txt HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert gone.recv(12) == b"HTTP/1.0 200"
        # Closed without what has come being read, so that the other side is told at once.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(SECONDS)
            assert not thread.is_alive()
    assert ask(server, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_done(server: Server, method: str) -> None:
    """It only shows."""
    assert ask(server, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example"])
def test_another_name_leads_nowhere(server: Server, host: str) -> None:
    """A page elsewhere could give itself a name that leads to this host."""
    status, text, _ = ask(server, "/", host=host)
    assert status == 403
    assert "trixie" not in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_this_host_has_two_names(server: Server, host: str) -> None:
    """With the port and without."""
    assert ask(server, "/", host=host)[0] == 200
    assert ask(server, "/", host=f"{host}:{server.server_port}")[0] == 200


def test_a_port_in_use_is_a_sentence(server: Server, results: Path) -> None:
    """And it says which option takes another one."""
    with pytest.raises(InputError, match="is in use") as caught:
        report.serve(None, server.server_port)
    assert "--port N" in str(caught.value)


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_what_is_no_port_is_a_sentence(results: Path, port: int) -> None:
    """Python has an error of its own for that."""
    with pytest.raises(InputError, match="cannot be had: ports are 0 to 65535"):
        report.serve(None, port)


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    """Whoever has named it has meant another one."""
    with pytest.raises(InputError, match="there is no folder"):
        report.serve(tmp_path / "missing", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_by_a_signal(
    results: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """With status 0, and at once, although a browser keeps its connection open."""
    # What a shell starts in the background ignores Ctrl-C, and so would what is started here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    command = [sys.executable, "-m", "invoke", "report", "--serve", "--port=0"]
    command += [f"--folder={results}"]
    with subprocess.Popen(
        command, cwd=config.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = int(line.split("127.0.0.1:")[1].split("/")[0])
            with socket.create_connection((serve.ADDRESS, port), timeout=SECONDS) as idle:
                idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert idle.recv(12) == b"HTTP/1.0 200"
                with socket.create_connection((serve.ADDRESS, port), timeout=SECONDS):
                    process.send_signal(number)
                    rest, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (process.returncode, rest) == (0, "")
    assert errors.endswith(": report is interrupted, and ends what it has started\n")
    assert errors.count("\n") == 2
