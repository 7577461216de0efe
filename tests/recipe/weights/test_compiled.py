# SPDX-License-Identifier: Apache-2.0
"""The kernels compile where nothing can be kept on disk: an installation and a home that are read-only."""

from __future__ import annotations

from typing import Any

import pytest
from numba.core import caching

from recipe.weights.compiled import compiled


def twice(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("writable", [True, False])
def test_compiles_with_and_without_a_cache(writable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not writable:

        def refuse(self: Any) -> None:
            raise OSError(30, "Read-only file system")

        for locator in ("InTreeCacheLocator", "UserWideCacheLocator"):
            monkeypatch.setattr(getattr(caching, locator), "ensure_cache_path", refuse)
    kernel = compiled("int64(int64)")(twice)
    assert kernel(21) == 42
    assert bool(kernel.stats.cache_path) == writable


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(Exception, match="nowhere"):
        compiled("int64(int64)")(lambda number: nowhere(number))  # noqa: F821
