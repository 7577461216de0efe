# SPDX-License-Identifier: Apache-2.0
"""`@patch`: say what is changed, why, in which version of what, and when the change can go."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from recipe.overlay.declaration import Condition, Declaration, declared_at, fingerprints_of
from recipe.overlay.errors import BadDeclaration, ConflictError
from recipe.overlay.target import NO_KEY, parse_target

Function = TypeVar("Function", bound=Callable[..., Any])
_lock = threading.RLock()
_declared: dict[str, Declaration] = {}


def declared(mirror: str | None = None) -> list[Declaration]:
    """The patches declared so far in this process, in order; of one mirror module when it is named."""
    with _lock:
        return [patch for patch in _declared.values() if mirror is None or patch.mirror == mirror]


def forget(mirror: str) -> None:
    """Drop the declarations of a mirror whose import failed, so that the next import declares them anew."""
    with _lock:
        for patch in declared(mirror):
            del _declared[patch.id]


def register(new: Declaration) -> None:
    """Add a patch.  Raises ConflictError when another one has its name or its target."""
    with _lock:
        for old in _declared.values():
            if old.id == new.id and old.where != new.where:
                raise ConflictError(f"two patches are named {new.id}: {old.where} and {new.where}; rename one")
            if old.id != new.id and old.target == new.target:
                raise ConflictError(
                    f"two patches on one target, {new.target}: {old.id} ({old.where}) and {new.id} ({new.where}); "
                    "make them one"
                )
        _declared[new.id] = new


def patch(
    target: str,
    *,
    why: str,
    upstream: str,
    fingerprint: str | tuple[str, ...],
    remove_when: str,
    kind: str = "wrap",
    when: Condition | None = None,
    aliases: tuple[str, ...] = (),
    over: tuple[str, ...] = (),
    key: Hashable = NO_KEY,
) -> Callable[[Function], Function]:
    """Declare that the decorated function patches `target`; returns the function itself.

    target: `module:qualname` in the upstream module that this file mirrors; `module:NAME[key]` for a registry.
    why: what goes wrong without it.  upstream: PEP 508 requirement the patch was written for.
    fingerprint: of the target, from `python -m recipe patches fingerprint TARGET`; a tuple where the profiles pin
      different sources of it.
    remove_when: the condition under which the patch can be dropped.
    kind:
      wrap       called as `ours(original, *args, **kwargs)`; for methods self or cls comes after `original`;
                 static and class methods, properties (the getter), coroutine functions and attributes are kept
      replace    takes the place of the target, a function
      registry   called without arguments, returns the entry `NAME[key]`
      submodule  target `package:module`; called without arguments, returns the module that stands in for
                 `package.module`; it must come before that module is imported
    when: `Condition(function, otherwise="...")`; where the function is false the patch is left out, for that reason.
    aliases: `module:name` places that hold a copy of the target (`from x import y`); rebound as well.
    over: packages that may have replaced the target before us (for instance "mindspeed").
    key: the registry key when it is not a plain literal in the target.

    Raises BadDeclaration or ConflictError, and with them the import of the file fails.
    """
    frame = sys._getframe(1)
    mirror, file, line = frame.f_globals.get("__name__", "?"), Path(frame.f_code.co_filename), frame.f_lineno

    def declare(ours: Function) -> Function:
        with declared_at(f"{file}:{line}"):
            if not isinstance(ours, FunctionType):
                raise BadDeclaration(f"patch on {target}: decorate a function")
            if when is not None and not isinstance(when, Condition):
                raise BadDeclaration(f"patch on {target}: when={when!r}: expected Condition(function, otherwise='...')")
            declaration = Declaration(
                f"{mirror}:{ours.__name__}", mirror, parse_target(target, key), kind, why, upstream,
                fingerprints_of(fingerprint), remove_when, file, line, when.otherwise if when else "",
                tuple(map(parse_target, aliases)), tuple(over), ours=ours, applies=when.function if when else None,
            )  # fmt: skip
        register(declaration)
        return ours

    return declare
