# SPDX-License-Identifier: Apache-2.0
"""Live objects: look a target up, see that it is what its source file says, and build what takes its place."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from recipe.overlay.declaration import Declaration
from recipe.overlay.errors import DriftError, MissingTarget, PatchFailed
from recipe.overlay.source import Excerpt
from recipe.overlay.target import Target

ABSENT: Any = object()


def owner_of(module: ModuleType, target: Target) -> tuple[Any, str]:
    """The module or class whose own attribute the target is, and that attribute's name."""
    owner: Any = module
    *scopes, name = target.qualname.split(".")
    for scope in scopes:
        inner = vars(owner).get(scope)
        if not isinstance(inner, type):
            raise MissingTarget(f"{target}: {scope} in {getattr(owner, '__name__', owner)} is not a class")
        owner = inner
    return owner, name


def raw_of(owner: Any, name: str) -> Any:
    """The attribute as it lies in the owner's own dictionary (descriptors not bound), or ABSENT."""
    return vars(owner).get(name, ABSENT)


def function_of(raw: Any) -> Any:
    """The function in a static or class method, a (cached) property or the like."""
    if isinstance(raw, (staticmethod, classmethod)):
        return raw.__func__
    if isinstance(raw, property):
        return raw.fget
    if isinstance(raw, functools.cached_property):
        return raw.func
    return raw


def check_original(patch: Declaration, raw: Any, excerpt: Excerpt) -> None:
    """The live object is a function, and the one in the file.

    Raises PatchFailed: it is something else; DriftError: somebody else replaced it before us.

    A wrapper that says what it wraps (`__wrapped__`) is followed.  When the target is decorated in the file, the
    decorator may lie anywhere, and it is part of the fingerprint: nothing to compare then.
    """
    live = function_of(raw)
    if isinstance(live, type) or not callable(live):
        raise PatchFailed(
            f"{patch.id} ({patch.where}): {patch.target} is {type(live).__name__}, which cannot be wrapped or "
            "replaced; patch a method of it, or the functions that use it"
        )
    if not excerpt.plain:
        return
    while hasattr(live, "__wrapped__"):
        live = live.__wrapped__
    home = getattr(live, "__module__", None) or "?"
    if home.partition(".")[0] in patch.over:
        return
    code = getattr(live, "__code__", None)
    if code is None:
        raise DriftError(f"{patch.id} ({patch.where}): {patch.target} is {live!r}, not the function of {excerpt.where}")
    loaded_from, file = code.co_filename, str(excerpt.file)
    same_file = loaded_from == file or os.path.realpath(loaded_from) == os.path.realpath(file)
    if not same_file or not any(first <= code.co_firstlineno <= last for first, last in excerpt.lines):
        raise DriftError(
            f"{patch.id} ({patch.where}): {patch.target} now comes from {code.co_filename}:{code.co_firstlineno}, not "
            f"from {excerpt.where}: somebody else replaced it; say over=({home.partition('.')[0]!r},) if that is meant"
        )


def wrapped(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls `ours(original, ...)` and looks like `original`: name, signature, attributes, coroutine."""
    if asyncio.iscoroutinefunction(original):

        @functools.wraps(original)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await ours(original, *args, **kwargs)
    else:

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return ours(original, *args, **kwargs)

    for name in ("cache_clear", "cache_info", "cache_parameters"):  # functools.lru_cache keeps them off __dict__
        if hasattr(original, name):
            setattr(wrapper, name, getattr(original, name))
    return wrapper


def _around(raw: Any, function: Any, name: str, owner: Any) -> Any:
    """`function` in the same kind of descriptor as `raw`."""
    if isinstance(raw, staticmethod):
        return staticmethod(function)
    if isinstance(raw, classmethod):
        return classmethod(function)
    if isinstance(raw, property):
        return property(function, raw.fset, raw.fdel, raw.__doc__)
    if isinstance(raw, functools.cached_property):
        cached: functools.cached_property[Any] = functools.cached_property(function)
        cached.__set_name__(owner, name)
        return cached
    return function


def replacement(patch: Declaration, raw: Any, owner: Any, name: str) -> Any:
    """What takes the place of `raw` for the kinds wrap and replace."""
    inner, ours = function_of(raw), patch.ours
    if asyncio.iscoroutinefunction(inner) and not asyncio.iscoroutinefunction(ours):
        raise PatchFailed(f"{patch.id} ({patch.where}): {patch.target} is a coroutine function; make ours one")
    if patch.kind == "wrap":
        return _around(raw, wrapped(inner, ours), name, owner)
    # Attributes of the original, such as those of verl's @register, are copied to its replacement.
    for mark, value in getattr(inner, "__dict__", {}).items():
        if mark != "__wrapped__":
            vars(ours).setdefault(mark, value)
    return _around(raw, ours, name, owner)
