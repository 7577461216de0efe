# SPDX-License-Identifier: Apache-2.0
"""Apply declared patches to a module that has executed, read them back, and take them off again."""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import threading
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from recipe.overlay import drift, manifest, source
from recipe.overlay.declaration import SOURCE, Declaration
from recipe.overlay.declare import declared
from recipe.overlay.errors import DriftError, MissingTarget, OverlayError, PatchFailed
from recipe.overlay.finish import executing, when_executed
from recipe.overlay.live import ABSENT, check_original, owner_of, raw_of, replacement
from recipe.overlay.target import Target

Undo = Callable[[], None]


@dataclass
class _State:
    """The state of a patch in this process; `undo` holds the steps that take it off, last first."""

    status: str
    reason: str = ""
    fingerprint: str = ""
    original: Any = ABSENT
    ours: Any = ABSENT
    undo: list[Undo] = field(default_factory=list)


_lock = threading.RLock()
_states: dict[str, _State] = {}
# Kept from a revert for applying again: modules that imported a patched name, and submodules put in place in time.
_importers: dict[str, list[tuple[ModuleType, str]]] = {}
_in_time: set[str] = set()
_pinned_text: drift.PinnedText | None = None


def compare_with(pinned_text: drift.PinnedText) -> None:
    """From here on a patch that is refused because its target has changed says how that differs from `pinned_text`."""
    global _pinned_text
    _pinned_text = pinned_text


def status() -> list[dict[str, str]]:
    """{patch, target, kind, status, reason, fingerprint, upstream} of every declared patch.

    status: "declared" until its module is there, then "applied" or "skipped"; fingerprint: the one found.
    """
    idle = _State("declared")
    return [
        {
            "patch": patch.id,
            "target": str(patch.target),
            "kind": patch.kind,
            "status": (state := _states.get(patch.id, idle)).status,
            "reason": state.reason,
            "fingerprint": state.fingerprint,
            "upstream": patch.upstream,
        }
        for patch in declared()
    ]


def apply(*ids: str) -> None:
    """Apply the named patches (all when none is named) whose upstream module has executed; live ones stay as they are.

    Raises the OverlayError of the first that cannot be applied; what that call applied before it stays.
    """
    for patch in _selected(ids):
        module = sys.modules.get(patch.target.module)
        if module is not None and not executing(module):
            apply_to(patch, module)


def revert(*ids: str) -> None:
    """Take the named patches (all when none is named) off again, last first: the very same objects come back.

    They also come back in modules that imported the patched name meanwhile (`from x import y`).  A source patch stays:
    it is in the file (`python -m recipe sync --restore` takes it out).
    """
    chosen = {patch.id: patch for patch in _selected(ids)}
    for key in [key for key in reversed(_states) if key in chosen]:
        state = _states[key]
        while state.undo:
            state.undo.pop()()
        if state.status == "applied":
            _importers[key] = _give_back(chosen[key], state)
            del _states[key]


def _give_back(patch: Declaration, state: _State) -> list[tuple[ModuleType, str]]:
    """Put the original into every module that holds our object, except those that define it; returns where it was."""
    if state.ours is ABSENT or "." in patch.target.qualname or not isinstance(state.ours, FunctionType):
        return []
    home = patch.mirror.partition(".")[0]
    references = [
        (module, name)
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType) and module.__name__.partition(".")[0] != home
        for name, value in list(vars(module).items())
        if value is state.ours
    ]
    for module, name in references:
        setattr(module, name, state.original)
    return references


def forget(patches: Iterable[Declaration]) -> None:
    """Revert patches and drop what is known about them, after one of their mirror has failed."""
    patches = list(patches)
    live = [patch.id for patch in patches if patch.id in _states]
    if live:  # revert() without names would revert everybody's
        revert(*live)
    for patch in patches:
        _states.pop(patch.id, None)


def _selected(ids: tuple[str, ...]) -> list[Declaration]:
    known = {patch.id: patch for patch in declared()}
    unknown = [key for key in ids if key not in known]
    if unknown:
        raise MissingTarget(f"no patch named {', '.join(unknown)} is declared in this process")
    return [known[key] for key in ids] if ids else list(known.values())


def apply_to(patch: Declaration, module: ModuleType) -> None:
    """Apply one patch to its upstream module; once applied or skipped, later calls do nothing."""
    with _lock:
        if patch.id in _states:
            return
        _states[patch.id] = state = _State("applying")
    try:
        if patch.applies is not None and not patch.applies():
            state.status, state.reason = "skipped", patch.otherwise
            manifest.write(patch, "skipped", state.reason)
            return
        excerpt = _check_source(patch, module)
        state.fingerprint = excerpt.fingerprint
        if patch.kind == "submodule":
            _put_submodule(patch, module, state)
        elif patch.kind == "registry":
            _put_entry(patch, module, state)
        elif patch.kind != SOURCE:  # a source patch is in the file itself
            _put_attribute(patch, module, state, excerpt)
        state.status = "applied"
        manifest.write(patch, "applied", fingerprint=excerpt.fingerprint)
        for holder, name in _importers.pop(patch.id, ()):
            if raw_of(holder, name) is state.original:
                _put(patch, holder, name, state.ours, state.original, state)
        for alias in patch.aliases:
            when_executed(alias.module, functools.partial(_bind_alias, patch, alias, state))
    except BaseException as error:
        while state.undo:
            state.undo.pop()()
        _states.pop(patch.id, None)
        if isinstance(error, OverlayError):
            message = str(error)
        else:
            message = f"{patch.id} ({patch.where}) on {patch.target}: {type(error).__name__}: {error}"
        manifest.write(patch, "failed", message)
        if isinstance(error, OverlayError) or not isinstance(error, Exception):
            raise
        raise PatchFailed(message) from error


def _check_source(patch: Declaration, module: ModuleType) -> source.Excerpt:
    """Find the target in the file that `module` was loaded from and compare fingerprints."""
    name = patch.target.qualname
    if patch.kind == "submodule":
        file = source.module_file(name, [Path(entry) for entry in getattr(module, "__path__", ())])
        if file is None:
            raise MissingTarget(f"{patch.id} ({patch.where}): package {module.__name__} has no module {name}")
    else:
        loaded = getattr(module, "__file__", None)
        if loaded is None or not loaded.endswith(".py"):
            raise MissingTarget(f"{patch.id} ({patch.where}): module {module.__name__} has no source file to check")
        file = Path(loaded)
    try:
        excerpt = source.find(file, None if patch.kind == "submodule" else name)
    except MissingTarget as error:
        raise MissingTarget(f"{patch.id} ({patch.where}) targets {patch.target}, but {error}") from None
    if excerpt.fingerprint not in patch.expected:
        change = drift.difference(patch, excerpt, _pinned_text) if _pinned_text else ""
        raise DriftError(drift.message(patch, excerpt) + change)
    return excerpt


def _put_attribute(patch: Declaration, module: ModuleType, state: _State, excerpt: source.Excerpt) -> None:
    owner, name = owner_of(module, patch.target)
    original = raw_of(owner, name)
    if original is ABSENT:
        raise MissingTarget(
            f"{patch.id} ({patch.where}): {patch.target} is in {excerpt.where} but {owner.__name__} has no {name}: "
            "the branch that defines it did not run; say when= it does"
        )
    check_original(patch, original, excerpt)
    ours = replacement(patch, original, owner, name)
    state.original, state.ours = original, ours
    _put(patch, owner, name, ours, original, state)


def _put(patch: Declaration, owner: Any, name: str, ours: Any, original: Any, state: _State) -> None:
    def undo() -> None:
        if raw_of(owner, name) is not ours:
            raise PatchFailed(f"{patch.id}: {owner.__name__}.{name} was changed after us; revert that first")
        setattr(owner, name, original)

    setattr(owner, name, ours)
    if raw_of(owner, name) is not ours:
        setattr(owner, name, original)
        raise PatchFailed(f"{patch.id} ({patch.where}): {owner.__name__}.{name} did not keep what was put there")
    state.undo.append(undo)


def _put_entry(patch: Declaration, module: ModuleType, state: _State) -> None:
    owner, name = owner_of(module, patch.target)
    registry, key = raw_of(owner, name), patch.target.key
    if not isinstance(registry, MutableMapping):
        raise PatchFailed(f"{patch.id} ({patch.where}): {patch.target} is {type(registry).__name__}, not a mapping")
    original = registry.get(key, ABSENT)
    ours = patch.ours()

    def undo() -> None:
        if registry.get(key, ABSENT) is not ours:
            raise PatchFailed(f"{patch.id}: {patch.target} was changed after us; revert that first")
        if original is ABSENT:
            del registry[key]
        else:
            registry[key] = original

    registry[key] = ours
    state.undo.append(undo)
    if registry.get(key, ABSENT) is not ours:
        raise PatchFailed(f"{patch.id} ({patch.where}): {patch.target} did not keep what was put there")


def _put_submodule(patch: Declaration, package: ModuleType, state: _State) -> None:
    full, name = patch.target.submodule, patch.target.qualname
    if full in sys.modules or not (executing(package) or patch.id in _in_time):
        raise PatchFailed(
            f"{patch.id} ({patch.where}): {package.__name__} was imported before the overlay could put its own {name} "
            "into it, and others may have taken that; install the overlay earlier in this process"
        )
    _in_time.add(patch.id)
    ours = patch.ours()
    if not isinstance(ours, ModuleType):
        raise PatchFailed(f"{patch.id} ({patch.where}): expected a module, got {type(ours).__name__}")
    if ours.__spec__ is None:  # importlib.util.find_spec raises on a loaded module without one
        ours.__spec__ = importlib.machinery.ModuleSpec(full, None)
    before = raw_of(package, name)

    def undo() -> None:
        if sys.modules.get(full) is not ours:
            raise PatchFailed(f"{patch.id}: {full} was changed after us; revert that first")
        del sys.modules[full]
        if before is ABSENT:
            delattr(package, name)
        else:
            setattr(package, name, before)

    sys.modules[full] = ours
    setattr(package, name, ours)
    state.undo.append(undo)
    if sys.modules.get(full) is not ours or getattr(package, name) is not ours:
        raise PatchFailed(f"{patch.id} ({patch.where}): {full} did not keep what was put there")


def _bind_alias(patch: Declaration, alias: Target, state: _State, module: ModuleType) -> None:
    if state.status != "applied" or state.ours is ABSENT or _states.get(patch.id) is not state:
        return
    owner, name = owner_of(module, alias)
    copy = raw_of(owner, name)
    if copy is ABSENT:
        raise MissingTarget(f"{patch.id} ({patch.where}): alias {alias} does not exist")
    if copy is not state.original and copy is not state.ours:
        raise DriftError(f"{patch.id} ({patch.where}): alias {alias} is {copy!r}, not a copy of {patch.target}")
    _put(patch, owner, name, state.ours, state.original, state)


def check_copies(patches: Iterable[Declaration], packages: Iterable[str], module: ModuleType) -> None:
    """Raise when a loaded module of `packages` still holds the unpatched original of one of `patches` on `module`.

    That is how a patch silently does nothing for some callers: they imported the name before the patch was there.
    While `module` is in its own import, only modules that were imported by it can have done that.  They come after its
    package in `sys.modules`, whose order is that in which imports began or, once over, ended.
    """
    originals = {
        id(state.original): patch
        for patch in patches
        if (state := _states.get(patch.id)) is not None
        and state.status == "applied"
        and isinstance(state.original, FunctionType)
        and "." not in patch.target.qualname
    }
    if not originals:
        return
    roots = frozenset(packages)
    loaded = list(sys.modules)
    package = module.__name__.rpartition(".")[0]
    for name in loaded[loaded.index(package) :] if package and executing(module) else loaded:
        holder = sys.modules.get(name)
        if name.partition(".")[0] not in roots or not isinstance(holder, ModuleType):
            continue
        if originals.keys().isdisjoint(map(id, list(vars(holder).values()))):
            continue
        for attribute, value in list(vars(holder).items()):
            patch = originals.get(id(value))
            if patch is None or name.partition(".")[0] in patch.over:
                continue
            if not any(alias.module == name and alias.qualname == attribute for alias in patch.aliases):
                raise PatchFailed(
                    f"{patch.id} ({patch.where}): {name}:{attribute} holds a copy of {patch.target} that was imported "
                    f"before the patch; install the overlay earlier in this process, or add {f'{name}:{attribute}'!r} "
                    "to aliases="
                )
