# SPDX-License-Identifier: GPL-2.0-only
"""The plugin in another repository: its options, its ini file, where it keeps what."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config

pytest_plugins = ["pytester"]

OTHER = """
def pytest_addoption(parser):
    for name in ("profile", "config", "param", "keep", "machines", "results", "hangs"):
        parser.addoption(f"--{name}", default="theirs")
"""
FIXTURES = """
import pytest
@pytest.fixture
def machine(): return "theirs"
@pytest.fixture
def module(): return "theirs"
"""


def test_other_plugins_may_have_the_short_names(pytester: pytest.Pytester) -> None:
    """pytest would not start. And a test file may have fixtures of the same names as ours."""
    pytester.makepyfile(other=OTHER)
    pytester.makeconftest(FIXTURES)
    pytester.makepyfile(
        "def test_it(pytestconfig, machine, module):\n"
        "    assert machine == module == pytestconfig.getoption('--profile') == 'theirs'\n"
        "    assert pytestconfig.getoption('kernel_profile') == 'ours'\n"
    )
    pytester.syspathinsert()
    done = pytester.runpytest("-p", "no:cacheprovider", "-p", "other", "--kernel-profile=ours")
    done.assert_outcomes(passed=1)


def test_the_short_names_are_there_in_this_repository(pytester: pytest.Pytester) -> None:
    """From wherever in it pytest is started, as its tasks and its pages do."""
    pytester.makepyfile(
        "def test_it(pytestconfig):\n"
        "    assert pytestconfig.getoption('kernel_profile') == 'ours'\n"
    )
    test = pytester.path / "test_the_short_names_are_there_in_this_repository.py"
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(config.PROJECT / "docs")
        done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--profile=ours", str(test))
    done.assert_outcomes(passed=1)


INI = """
from harness import config
from harness.plugin import matrix_of, module_of
def test_it(pytestconfig):
    assert module_of(pytestconfig) == {module!r}
    assert list(matrix_of(pytestconfig).kernels) == {kernels!r}
    assert config.RESULTS == pytestconfig.rootpath / "results"
    assert config.BUILD == pytestconfig.rootpath / "build"
"""


def test_an_ini_file_says_which_module_and_kernels(pytester: pytest.Pytester) -> None:
    """From where the ini file is, wherever pytest is started. Results belong to it as well."""
    root = pytester.path
    pytester.makeini("[pytest]\nkernel_module = src\nkernel_matrix = own.toml\n")
    (root / "own.toml").write_text(
        'default = "mine"\n[kernels.mine]\nsuite = "trixie"\nflavour = "amd64"\n'
        '[guest]\nsuite = "trixie"\npackages = []\nmodules = []\n'
    )
    (root / "below").mkdir()
    (root / "below" / "test_it.py").write_text(
        INI.format(module=str(root / "src"), kernels=["mine"])
    )
    before = config.RESULTS, config.BUILD
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(root / "below")
        pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert before == (config.RESULTS, config.BUILD)


def test_an_option_comes_before_the_ini_file(pytester: pytest.Pytester) -> None:
    """And a package is no path."""
    pytester.makeini("[pytest]\nkernel_module = deb:acpi-call-dkms\n")
    kernels = list(config.load().kernels)
    pytester.makepyfile(INI.format(module="deb:acpi-call-dkms", kernels=kernels))
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1)
    pytester.makepyfile(INI.format(module="there", kernels=kernels))
    pytester.mkdir("there")
    pytester.runpytest("-p", "no:cacheprovider", "--module=there").assert_outcomes(passed=1)


def test_an_installed_package_has_its_own_copies(tmp_path: Path) -> None:
    """Where no checkout is around it, as below site-packages."""
    assert config._project(tmp_path / "harness") == tmp_path / "harness" / "bundle"
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm" / "kernels.toml").touch()
    assert config._project(tmp_path / "harness") == tmp_path


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--kernel=nonsense", "there is no kernel named 'nonsense'"),
        ("--kernel=trixi", "did you mean trixie"),
        ("--kernel=trixie,sid", "pytest takes one kernel"),
        ("--kernel=/nowhere/linux", "there is no folder /nowhere/linux"),
        ("--module=/nowhere", "there is no module /nowhere"),
    ],
)
@pytest.mark.parametrize("more", [[], ["-n1"]])
def test_a_kernel_or_module_that_is_none(
    pytester: pytest.Pytester, option: str, said: str, more: list[str]
) -> None:
    """It is bad input, in one sentence: no test is run, and the status is pytest's own for that."""
    pytester.makepyfile("def test_it():\n    print('ran')\n")
    done = pytester.runpytest("-p", "no:cacheprovider", "-s", option, *more)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*{said}*"])
    assert "Traceback" not in done.stderr.str()
    assert "ran" not in done.stdout.str()


def test_a_kernel_that_is_only_known_to_the_archive(pytester: pytest.Pytester) -> None:
    """A number may name one, and so may a package; a test that needs neither runs."""
    pytester.makepyfile("def test_it():\n    pass\n")
    done = pytester.runpytest(
        "-p", "no:cacheprovider", "--kernel=9.99", "--module=deb:acpi-call-dkms"
    )
    done.assert_outcomes(passed=1)
