# SPDX-License-Identifier: GPL-2.0-only
"""Puts what is not Python into the package, so that it works without this checkout.

The rest is in pyproject.toml. vm/, module/ and the suites for other people's modules stand beside
harness/ here, where people find them. An installed package has them as harness/bundle/, which
harness/config.py looks for. With `pip install --editable` they are taken from where they are.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BUNDLE = ("vm", "module", "tests/__init__.py", "tests/vm/__init__.py", "tests/vm/calls.py",
          "tests/vm/calls.pl", "tests/vm/modinfo.py", "tests/vm/taken", "tests/vm/any",
          "tests/vm/contract")  # fmt: skip
NOT_BUNDLED = shutil.ignore_patterns("__pycache__", "*.o", "*.ko", "*.mod", "*.mod.c", "*.cmd")


class BuildWithBundle(build_py):
    """Copies the bundle beside the Python files."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in BUNDLE:
            source, target = Path(name), Path(self.build_lib, "harness", "bundle", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=NOT_BUNDLED, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)


setup(cmdclass={"build_py": BuildWithBundle})
