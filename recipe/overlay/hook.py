# SPDX-License-Identifier: Apache-2.0
"""The mirror rule at work: hook the upstream module of every mirror file on disk that declares patches.

A mirror is a Python file with `@patch` declarations, or a `.patch` file that `sync` has applied to the source.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from recipe.overlay import declare, engine, source_patch
from recipe.overlay.drift import PinnedText
from recipe.overlay.errors import OverlayError, PatchFailed
from recipe.overlay.finish import after_execution, executing, when_executed
from recipe.overlay.target import mirrored, module_name
from recipe.own_packages import REPOSITORY, patch_packages

_DECLARES = re.compile(r"^\s*@patch\(", re.MULTILINE)
_log = logging.getLogger("recipe.overlay")
_lock = threading.Lock()
_hooked: dict[tuple[str, str], Mirror] = {}


@dataclass(frozen=True)
class Mirror:
    """A file of ours that declares patches, its module name, and the upstream module it stands beside."""

    file: Path
    name: str
    upstream: str


def discover(root: Path = REPOSITORY) -> Iterator[Mirror]:
    """Every mirror under the `*_patches` packages of `root` that declares a patch, parents before their modules."""
    for package in patch_packages(root):
        for file in sorted(package.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path)):
            if _DECLARES.search(file.read_text(encoding="utf-8")):
                yield _mirror(file, root)


def _mirror(file: Path, root: Path) -> Mirror:
    name = module_name(file, root)
    upstream = mirrored(name)
    assert upstream is not None
    return Mirror(file, name, upstream)


def install(root: Path | None = None, pinned_text: PinnedText | None = None) -> None:
    """Hook the upstream of every mirror under `root` (default: this repository); idempotent, imports nothing heavy.

    Upstream modules that have executed already are patched at once, those that are executing as soon as they have.
    `root` must be on the import path.  With `pinned_text` a patch that does not fit says how its target has changed.
    Raises the OverlayError of a patch that cannot be applied at once.
    """
    if pinned_text is not None:
        engine.compare_with(pinned_text)
    root = root or REPOSITORY
    for mirror in [*discover(root), *(_mirror(file, root) for file in source_patch.files(root))]:
        main = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None)
        if main == mirror.upstream:
            raise PatchFailed(
                f"{mirror.file} patches {main}, which this process runs as __main__ and so never imports; start it "
                f"by importing it: python -c 'import {main} as m; m.main()'"
            )
        with _lock:
            place = (mirror.upstream, mirror.file.suffix)
            known = _hooked.get(place)
            if known is not None and known.file != mirror.file:
                raise PatchFailed(f"{known.file} and {mirror.file} both mirror {mirror.upstream}; make them one")
            if known is not None:
                continue
            _hooked[place] = mirror
        lay_over = _check_applied if mirror.file.suffix == ".patch" else _lay_over
        try:
            when_executed(mirror.upstream, functools.partial(lay_over, mirror))
        except BaseException:
            with _lock:
                _hooked.pop(place, None)
            raise


def _lay_over(mirror: Mirror, module: ModuleType) -> None:
    """Import the mirror of a module that has just executed and apply what it declares."""
    try:
        ours = importlib.import_module(mirror.name)
    except OverlayError as error:
        _fail(mirror, error)
        raise
    except Exception as error:
        message = f"{mirror.file}: importing it after {mirror.upstream} raised {type(error).__name__}: {error}"
        _fail(mirror, PatchFailed(message))
        raise PatchFailed(message) from error
    if executing(ours):
        # The mirror was imported first and has just imported its upstream: its declarations are not complete yet.
        after_execution(ours, lambda _: _apply_all(mirror, module))
    else:
        _apply_all(mirror, module)


def _check_applied(mirror: Mirror, module: ModuleType) -> None:
    """See that the module that has just executed is the one with the source patch in it."""
    try:
        patch = source_patch.read(mirror.file, mirror.name)
        declare.register(patch)
        engine.apply_to(patch, module)
    except BaseException as error:
        _fail(mirror, error)
        raise


def _apply_all(mirror: Mirror, module: ModuleType) -> None:
    patches = declare.declared(mirror.name)
    try:
        file = getattr(sys.modules.get(mirror.name), "__file__", None)
        if file is None or Path(file).resolve() != mirror.file.resolve():
            raise PatchFailed(f"{mirror.name} was imported from {file}, not from {mirror.file}; check PYTHONPATH")
        for patch in patches:
            engine.apply_to(patch, module)
        with _lock:
            packages = {upstream.partition(".")[0] for upstream, _ in _hooked}
        engine.check_copies(patches, packages, module)
    except BaseException as error:
        _fail(mirror, error)
        raise


def _fail(mirror: Mirror, error: BaseException) -> None:
    """Leave nothing half done: the next import of the upstream starts afresh, and fails again if nothing changed."""
    _log.error("%s", error)
    engine.forget(declare.declared(mirror.name))
    declare.forget(mirror.name)
    sys.modules.pop(mirror.name, None)
