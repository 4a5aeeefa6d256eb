# SPDX-License-Identifier: GPL-2.0-only
"""harness/report/page.py: what is on the page, and what can never be."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.report import page
from harness.report.coverage import File, Function
from harness.report.history import Past
from harness.report.result import Case, Cell, Excerpt, KernelResult, Step, left_out

PASSED = Case("test_a::test_opens", "contract", "passed", 0.4)
RED = Case("test_a::test_closes[1-2]", "contract", "failed", 1.5, "kernel: warning in f (f.c:3)")
SKIPPED = Case("test_b::test_waits", "module", "skipped", 0.0, "needs CONFIG_X")


def result(kernel: str, *tests: Case, status: int = 0) -> KernelResult:
    cells = {"boot": Cell(False, "ok"), "contract": Cell(bool(status), "2 ok")}
    return KernelResult(kernel, "6.1.0", "6.1-1", status, 1e9, 2.0, 8.0, cells, tests)


def past(number: int, *red: str, passed: tuple[str, ...] = ()) -> Past:
    return Past(f"r{number}", True, int(bool(red)), 1e9, 1.0, 2.0, ("m",), passed, red, 0)


class Parsed(HTMLParser):
    """The tags of a page with their attributes, the ids among them, and the text of the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.words.setdefault(self._open, []).append(data)

    def all(self, attribute: str) -> list[str]:
        return [value for _, has in self.tags if (value := has.get(attribute)) is not None]


def test_a_red_field_leads_to_what_was_found() -> None:
    """With the whole text, and the command that shows it again."""
    texts = {"trixie": {RED.name: "KERNEL WARNING\nf.c:3"}}
    made = page.html(
        [result("trixie", PASSED, RED, status=1), result("sid", PASSED, SKIPPED)], texts
    )
    parsed = Parsed(made)
    links = [link.removeprefix("#") for link in parsed.all("href")]
    assert set(links) <= set(parsed.all("id"))
    assert "KERNEL WARNING\nf.c:3" in parsed.words["pre"]
    again = "invoke test-vm --kernel trixie --filter 'test_closes[1-2]' --suite contract"
    assert again in parsed.words["code"]
    marks = [mark.strip() for mark in parsed.words["td"] if mark.strip() in ("✓", "–")]  # noqa: RUF001
    assert marks == ["✓", "✓", "–"]  # noqa: RUF001
    assert parsed.words["a"].count("✗") == 1


def test_what_is_to_be_seen_again_is_the_same_module() -> None:
    """Without that, a command tests the module of this repository, and may be green."""
    given = ("--module=/home/ada/my module", "--param=size=3")
    made = page.html([replace(result("trixie", RED, status=1), given=given)], {})
    options = "'--module=/home/ada/my module' --param=size=3"
    codes = [code for code in Parsed(made).words["code"] if code.strip()]
    assert codes == [
        options,
        f"invoke test-vm {options} --kernel trixie --filter 'test_closes[1-2]' --suite contract",
    ]


def test_of_this_projects_own_module_it_is_said_too() -> None:
    """Nobody has named it, and whoever reads the page may not know it."""
    made = page.html([result("trixie", PASSED)], {})
    assert "module/" in Parsed(made).words["code"]


def test_a_test_of_ones_own_is_run_again_by_its_file() -> None:
    """It may be beside the module, where pytest finds more than that."""
    own = replace(RED, suite="", file="notes tests/test_a.py")
    made = page.html([result("trixie", own, status=1)], {})
    *_, again = (code for code in Parsed(made).words["code"] if code.strip())
    assert again == "pytest 'notes tests/test_a.py' --kernel trixie -k 'test_closes[1-2]'"


def pieces(made: str, kind: str) -> list[list[str]]:
    """The pieces of each line of the timeline that are of one kind."""
    paths = re.findall(rf'<path class="{kind}" d="([^"]*)"/>', made)
    return [re.findall(r"M[^M]*", path) for path in paths]


def test_the_course_of_a_run_is_shown() -> None:
    """What took long, and below it the tests of each job, from the beginning to the end."""
    tests = (
        replace(PASSED, seconds=3.0, began=102.0, setup_s=1.0, job="gw0"),
        replace(RED, seconds=5.0, began=105.0, setup_s=0.5, job="gw1"),
    )
    steps = (Step("booting it once", 100.0, 2.0), Step("quick", 100.0, 0.1))
    made = page.html([replace(result("trixie", *tests, status=1), steps=steps)], {})
    labels = [text for text in map(str.strip, Parsed(made).words["span"]) if text]
    begin = labels.index("booting it once")
    assert labels[begin : begin + 6] == [
        "booting it once", "2.0 s",
        "job gw0", "3.0 s, setup 1.0 s",
        "job gw1", "5.0 s, setup 0.5 s",
    ]  # fmt: skip
    assert "quick" not in labels
    assert ["M0 0h200v10h-200z"] in pieces(made, "ready")  # of ten seconds in thousand units
    assert ["M200 0h100v10h-100z"] in pieces(made, "ready")
    assert ["M300 0h200v10h-200z"] in pieces(made, "tests")
    assert ["M550 0h450v10h-450z"] in pieces(made, "tests")
    assert pieces(made, "bad") == [[], ["M550 0h450v10h-450z"]]


def test_of_an_older_result_no_course_is_known() -> None:
    """How long it took as a whole is."""
    labels = Parsed(page.html([result("trixie", PASSED)], {})).words["span"]
    assert "2.0 s + 8.0 s" in labels
    assert "tests" not in labels


@pytest.mark.parametrize(
    "hostile",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'><svg/onload=alert(1)>",
     "</pre></details><script>", "{{ 7 * 7 }}", "javascript:alert(1)"],
)  # fmt: skip
def test_what_a_module_prints_is_text(hostile: str) -> None:
    """In every place that is filled in; and the page itself has no script at all."""
    source = Excerpt(hostile, 2, 1, (hostile, hostile, hostile))
    case = Case(f"test_{hostile}::test_{hostile}", "contract", "failed", 1.0, hostile, (source,))
    red = result(hostile, case, replace(SKIPPED, why=hostile), status=1)
    red = replace(red, release=hostile, cells={"boot": Cell(True, hostile, hostile)})
    runs = [past(1, hostile, case.name), past(2, passed=(hostile, case.name))]
    texts = {hostile: {case.name: hostile}}
    made = page.html([red], texts, about=hostile, past={hostile: runs})
    parsed = Parsed(made)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img", "iframe", "link", "object"})
    assert not [name for _, has in parsed.tags for name in has if name.startswith("on")]
    assert all(link.startswith("#") for link in parsed.all("href"))
    assert hostile in parsed.words["pre"]
    assert parsed.words["mark"][0] == f"> 2  {hostile}\n"
    assert "49" not in parsed.words.get("pre", [])


def test_the_source_that_is_to_blame_is_shown() -> None:
    """Each line with its number; the one in question stands out, also without colours."""
    source = Excerpt("sub/a.c", 10, 9, ("before();", "guilty();", "after();"))
    parsed = Parsed(page.html([result("trixie", replace(RED, excerpts=(source,)), status=1)], {}))
    assert "The module's source at sub/a.c:10:" in parsed.words["p"]
    shown = "".join(parsed.words["pre"][:1] + parsed.words["mark"])
    assert shown.rstrip("\n") == "   9  before();\n> 10  guilty();\n  11  after();"


def test_what_a_red_test_has_left_is_shown() -> None:
    """So that who has only the page can go on from there."""
    left = ("console: results/trixie/r/<b>/console.log", "to stand in this machine: invoke shell")
    made = page.html([result("trixie", replace(RED, left=left), status=1)], {})
    lines = [line for line in Parsed(made).words["li"] if line.strip()]
    assert lines == list(left)


def test_the_policy_lets_nothing_in_but_its_own_style() -> None:
    """No script, nothing from elsewhere, and the one style by its digest."""
    made = page.html([result("trixie", RED, status=1)], {})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made)
    style = re.search(r"<style>(.*?)</style>", made, re.DOTALL)
    assert policy
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].split("; ") == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert not re.search(r"style=|https?://", made)


def test_what_is_long_is_cut_and_says_so() -> None:
    """The whole is in the test's folder."""
    made = page.html([result("trixie", RED, status=1)], {"trixie": {RED.name: "x" * 100_000}})
    assert len(made) < 40_000
    assert "80000 more characters" in made


def test_no_results_are_a_page_too() -> None:
    """And it says how to get some."""
    made = page.html([], {})
    assert "invoke test-vm" in made
    assert "<table" not in made


def test_a_kernel_that_was_not_run_is_not_red() -> None:
    """Nothing is known of it."""
    made = page.html([left_out("sid", "7.2", "7.2-1", "no time left")], {})
    assert '<h1 class="green">0 passed, 0 failed, 1 skipped' in made
    assert "no time left" in made


def test_a_flaky_test_is_named_so() -> None:
    """With how often, where it is red and where the earlier runs are; and nothing of another."""
    runs = [past(1, passed=(RED.name,)), past(2, RED.name), past(3, RED.name)]
    results = [result("trixie", RED, status=1), result("sid", RED, status=1)]
    made = page.html(results, {}, past={"trixie": runs, "sid": []})
    assert made.count("red in 2 of 3 runs of the same module, kernel and harness") == 2
    parsed = Parsed(made)
    assert parsed.words["h3"][0] == "trixie"
    assert [has.get("class") for tag, has in parsed.tags if tag == "svg"].count("runs") == 1
    assert "3 runs: 1 green, 2 red; 3 to 3 s, the last one 3 s" in parsed.words["p"]


def test_no_earlier_runs_are_no_history() -> None:
    """As where results were brought from another machine."""
    assert "History" not in page.html([result("trixie", PASSED)], {}, past={"trixie": []})


def test_what_ran_is_shown_where_that_is_known() -> None:
    """A bar for each file, and the lines that nothing has reached; names are only text."""
    ran = File({3: 1, 5: 0, 6: 0, 7: 2, 9: 0}, {"late": Function(9, 0)})
    odd = "<b>.c"
    made = page.html([result("trixie", PASSED)], {}, coverage={"f.c": ran, odd: File({1: 1})})
    parsed = Parsed(made)
    assert "Not run: 5-6, 9. Never called: late." in parsed.words["p"]
    assert "2 of 5 lines" in parsed.words["span"]
    assert odd in parsed.words["span"]
    assert "coverage" in parsed.all("id")
    assert "coverage" not in Parsed(page.html([result("trixie", PASSED)], {})).all("id")


def test_a_large_page_is_small() -> None:
    """1,000 tests on twelve kernels, with all their earlier runs: below 5 MB."""
    tests = [
        replace(PASSED, name=f"test_{n // 50}::test_number_{n}", began=1e9 + n, setup_s=0.3,
                job=f"gw{n % 2}")
        for n in range(1000)
    ]  # fmt: skip
    results = [result(f"kernel{n}", *tests) for n in range(12)]
    names = tuple(one.name for one in tests)
    runs = [past(number, passed=names) for number in range(30)]
    made = page.html(results, {}, past={one.kernel: runs for one in results})
    assert len(made.encode()) < 5_000_000
