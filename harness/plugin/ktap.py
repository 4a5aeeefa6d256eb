# SPDX-License-Identifier: GPL-2.0-only
"""The fixture for programs in a guest that say themselves which tests they have run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.host.text import beginning
from harness.machines.guest import COMMAND_SECONDS, Guest
from harness.report import junit, ktap
from harness.report.ktap import KtapTest
from harness.testing import RunKtap

_SHOWN = 4000  # characters of what is said that an explanation shows


@pytest.fixture
def run_ktap(request: pytest.FixtureRequest, subtests: pytest.Subtests) -> RunKtap:
    """Run a command that prints KTAP or TAP; each of its tests is a subtest with its own name."""

    def run(
        guest: Guest, command: str, *, timeout: float = COMMAND_SECONDS, user: str = "root"
    ) -> tuple[KtapTest, ...]:
        __tracebackhide__ = True
        done = guest.run(command, timeout=timeout, user=user)
        found = ktap.read(done.stdout)
        short = [replace(test, said=beginning(test.said, _SHOWN)) for test in found.tests]
        request.node.user_properties.append((junit.KTAP, junit.ktap_value(short)))
        for test in found.tests:
            with subtests.test(msg=test.name):
                _end_as(test)
        problems = list(found.problems)
        if done.cut:
            problems.append("it printed more than is kept, so that tests may be missing")
        if not done.ok and not any(test.outcome == "failed" for test in found.tests):
            problems.append(f"it ended with status {done.status}, and no test has failed")
        if problems:
            said = beginning(f"{done.stderr}\n{done.stdout}".strip(), _SHOWN)
            pytest.fail(f"`{command}`: {'; '.join(problems)}\n{said}", pytrace=False)
        return found.tests

    return run


def _end_as(test: KtapTest) -> None:
    # Not hidden from tracebacks: pytest asks where a test was skipped.
    why = f": {test.why}" if test.why else ""
    if test.outcome == "skipped":
        pytest.skip(f"{test.name}{why}")
    if test.outcome == "xfailed":
        pytest.xfail(f"{test.name}{why}")
    if test.outcome == "failed":
        pytest.fail(beginning(f"{test.name} failed{why}\n{test.said}", _SHOWN), pytrace=False)
