# SPDX-License-Identifier: GPL-2.0-only
"""harness/plugin/late.py: no machine that goes on after its test is forgotten."""

from __future__ import annotations

import pytest

from harness.errors import Status
from harness.runs import pytest_process

pytest_plugins = ["pytester"]

# Stands in for the judge of a real machine: of test_judged it has reported when the next begins.
CONFTEST = """
import pytest
from harness.plugin import late

class Judge:
    def __init__(self):
        self.waiting = []
    def goes_on(self):
        return list(self.waiting)
    def report(self, *, wait=False):
        if wait:
            print("judged to the end:", *self.waiting)
        self.waiting = [one for one in self.waiting if "test_judged" not in one and not wait]

@pytest.fixture
def goes_on(request):
    yield
    request.config.stash.setdefault(late._JUDGE, Judge()).waiting.append(request.node.nodeid)
"""
TESTS = """
import os
def test_loads_nothing(): pass
def test_judged(goes_on): pass
def test_waits(goes_on): pass
def test_waits_too(goes_on): pass
def test_last():
    {ends}
"""
EXITS = "os._exit(0)"


@pytest.mark.parametrize("dies", [True, False])
def test_what_a_worker_had_still_to_judge_is_not_green(
    pytester: pytest.Pytester, dies: bool
) -> None:
    """It has died in a later test. Where it ends as it should, there is nothing to say."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS.format(ends=EXITS if dies else "pass"))
    done = pytester.runpytest("-p", "no:cacheprovider", "-n1", "-rEf")
    if not dies:
        done.assert_outcomes(passed=5)
        return
    done.assert_outcomes(passed=4, failed=1, errors=2)
    for name in ("test_waits", "test_waits_too"):
        done.stdout.fnmatch_lines([f"*_ ERROR at teardown of {name} _*"])
    done.stdout.fnmatch_lines(["The process that ran this test has died in a later one. *"])


@pytest.mark.parametrize("invoked", [True, False])
def test_a_pytest_that_a_test_ends_says_what_it_had_still_to_judge(
    pytester: pytest.Pytester, invoked: bool
) -> None:
    """Its status is no green one, and the task that has started it can say the same."""
    pytester.makeconftest(CONFTEST)
    file = pytester.makepyfile(TESTS.format(ends=EXITS)).name
    folder = pytester.path / "run"
    options = [f"--kernel-results={folder}"] if invoked else []
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n0", *options)
    assert done.ret == Status.OURS
    lost = [f"{file}::test_waits", f"{file}::test_waits_too"]
    done.stdout.fnmatch_lines([
        f"os._exit(0) was called while it ran {file}::test_last, which ends pytest at once: it has "
        f"no result; nobody knows what came in the ten minutes after {', '.join(lost)}"
    ])  # fmt: skip
    if invoked:
        ended = pytest_process.judge(done.ret, pytest_process.progress(folder))
        assert ended.status == Status.OURS
        assert f"while it ran {file}::test_last" in ended.why
        assert f"in the ten minutes after {', '.join(lost)}" in ended.why


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        # As multiprocessing does it in what it has forked.
        ("if not (child := os.fork()): os._exit(0)\n    os.waitpid(child, 0)", 0),
        ("import pytest; pytest.exit('enough', returncode=0)", 0),
    ],
    ids=["a child", "pytest.exit()"],
)
def test_what_ends_in_another_way_loses_no_judgement(
    pytester: pytest.Pytester, ends: str, status: int
) -> None:
    """It is waited for, as where all tests have run."""
    pytester.makeconftest(CONFTEST)
    file = pytester.makepyfile(TESTS.format(ends=ends)).name
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n0", "-s")
    assert done.ret == status
    done.stdout.fnmatch_lines([f"*judged to the end: {file}::test_waits {file}::test_waits_too"])


def test_a_test_that_gives_up_excuses_no_red_one(pytester: pytest.Pytester) -> None:
    """pytest.exit(returncode=0) is pytest's own way to end with 0."""
    pytester.makepyfile(
        "import pytest\ndef test_red(): assert 0\ndef test_ends(): pytest.exit('', returncode=0)\n"
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n0")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
