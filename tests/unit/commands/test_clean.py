# SPDX-License-Identifier: GPL-2.0-only
"""harness/commands/clean.py: what is removed, and what another run still uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.commands import clean
from harness.host.cache import MANIFEST, Cache

from .conftest import Calls


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache of this test's own."""
    with closing(Cache(tmp_path / "cache")) as made:
        yield made


def test_clean_removes_what_nobody_uses(cache: Cache, calls: Calls, tmp_path: Path) -> None:
    """Entries, remembered answers and build/ go; what another run uses stays whole."""
    user = Cache(cache.root)
    used = user.get("kind", "used", {}, lambda folder: (folder / "file").touch())
    free = cache.get("kind", "free", {}, lambda folder: (folder / "file").touch())
    cache.close()
    (cache.root / "kvm-of-this-boot").write_text("tcg why")
    with cache.workdir("index-sid") as known:
        (known / "kernels.json").write_text("[]")
    (tmp_path / "build").mkdir()
    (cache.root / "ccache").mkdir()
    clean.run(cache)
    assert (used.path / "file").exists()
    assert not free.path.exists()
    assert not (tmp_path / "build").exists()
    assert list(cache.root.glob("kvm-*")) == []
    assert not known.exists()
    assert not (cache.root / "ccache").exists()
    user.close()
    clean.run(cache)
    assert not used.path.exists()


def test_clean_removes_what_is_damaged_unless_it_is_used(cache: Cache, calls: Calls) -> None:
    """Nobody will ever use it again, except who has taken it before that."""
    user = Cache(cache.root)
    used = user.get("kind", "used", {}, lambda folder: (folder / "file").touch())
    free = cache.get("kind", "free", {}, lambda folder: (folder / "file").touch())
    cache.close()
    for entry in (used, free):
        (entry.path / MANIFEST).write_text("")
    clean.run(cache)
    assert used.path.exists()
    assert not free.path.exists()
    user.close()
