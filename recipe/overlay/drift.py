# SPDX-License-Identifier: Apache-2.0
"""Say how a target differs from the one that a patch was written for."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from recipe.overlay import source
from recipe.overlay.errors import MissingTarget
from recipe.overlay.target import Target


class Written(Protocol):
    """What a patch and the reading of its declaration have in common."""

    @property
    def id(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def target(self) -> Target: ...
    @property
    def kind(self) -> str: ...
    @property
    def fingerprints(self) -> tuple[str, ...]: ...


def message(patch: Written, found: source.Found) -> str:
    """One line: which patch, both fingerprints, where the upstream's code is, and what to type."""
    wanted = " or ".join(patch.fingerprints)
    if patch.kind == "source":
        return (
            f"{patch.id} ({patch.where}): {patch.target} is not the patched source: expected {wanted}, {found.where} "
            f"has {found.fingerprint}; lay the source patches over upstream/ with: python -m recipe sync"
        )
    return (
        f"{patch.id} ({patch.where}): {patch.target} has changed: the patch was written for {wanted}, {found.where} "
        f"has {found.fingerprint}; see all three with: python -m recipe patches show {patch.id}"
    )


def difference(target: Target, kind: str, found: source.Found) -> str:
    """The unified diff from the target as pinned to the one found, each line after a newline.

    Empty when the pinned source is not at hand (sync has never run here), when it has no such target, or when the
    file found is the pinned one.
    """
    # Only here, where a process stops anyway: the room that knows the pinned archives.
    try:
        from recipe.sources.pristine import module_text
    except ImportError:
        return ""
    text = module_text(target.submodule if kind == "submodule" else target.module)
    if text is None:
        return ""
    try:
        pinned = source.find_in(text.encode(), Path("pinned"), None if kind == "submodule" else target.qualname)
    except MissingTarget:
        return ""
    return diff(pinned, found)


def diff(one: source.Found, other: source.Found) -> str:
    """The unified diff between two finds of a target, each line after a newline; empty when they are equal."""
    import difflib  # not at the top: workers load this module and, when all is well, never use it

    lines = difflib.unified_diff(
        one.source().splitlines(), other.source().splitlines(), one.where, other.where, lineterm=""
    )
    return "".join(f"\n{line}" for line in lines)
