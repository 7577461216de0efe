# SPDX-License-Identifier: Apache-2.0
"""The pinned text of an upstream module, from the cache, for whoever compares it with what was found."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from recipe.sources import archive, cache, git, swap
from recipe.sources.errors import SourcesError
from recipe.sources.pins import Pin
from recipe.upstreams import upstream_tree

REPOSITORY = Path(__file__).resolve().parents[2]
_UNREADABLE = (
    SourcesError, OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile, tarfile.TarError,
    zlib.error,
)  # fmt: skip


def module_text(module: str, repository: Path = REPOSITORY) -> str | None:
    """The unmodified text of an upstream's Python module, as the tree in `upstream/` was made from.

    module: dotted name, such as "verl.protocol". repository: holds `upstream/`; for this recipe itself RECIPE_UPSTREAM
    names another one. None without such a module, a synced tree, or the pinned archive in the cache; no network is
    used.
    """
    tree = upstream_tree(repository) if repository == REPOSITORY else repository / "upstream"
    manifest = swap.read_manifest(tree)
    base = module.replace(".", "/")
    for candidate in (f"{base}/__init__.py", f"{base}.py"):
        try:
            if manifest is not None and candidate in manifest["files"]:
                content = _content(manifest["upstreams"], candidate)
                return None if content is None else content.decode("utf-8")
        except _UNREADABLE:
            return None
    return None


def _content(upstreams: dict[str, dict[str, Any]], path: str) -> bytes | None:
    for name, fields in upstreams.items():
        if path.partition("/")[0] in fields["packages"]:
            pin = Pin(name, **fields)
            place = cache.cached(pin)
            if place is None:
                return None
            return git.read_file(pin, place, path) if pin.git else archive.read_file(place, pin, path)
    return None
