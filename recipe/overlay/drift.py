# SPDX-License-Identifier: Apache-2.0
"""Say how a target differs from the one that a patch was written for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recipe.overlay import source
from recipe.overlay.declaration import SOURCE, Declaration
from recipe.overlay.errors import MissingTarget

# Gives the pinned text of an upstream's module by its dotted name; None when it is not at hand.
PinnedText = Callable[[str], str | None]


def message(patch: Declaration, excerpt: source.Excerpt) -> str:
    """One line: which patch, both fingerprints, where the upstream's code is, and what to type."""
    wanted = " or ".join(patch.expected)
    if patch.kind == SOURCE:
        return (
            f"{patch.id} ({patch.where}): {patch.target} is not the patched source: expected {wanted}, "
            f"{excerpt.where} has {excerpt.fingerprint}; lay the source patches over upstream/ with: "
            "python -m recipe sync"
        )
    return (
        f"{patch.id} ({patch.where}): {patch.target} has changed: the patch was written for {wanted}, {excerpt.where} "
        f"has {excerpt.fingerprint}; see all three with: python -m recipe patches show {patch.id}"
    )


def difference(patch: Declaration, excerpt: source.Excerpt, pinned_text: PinnedText) -> str:
    """The unified diff from the target as pinned to the one in `excerpt`, each line after a newline.

    Empty when the pinned text is not at hand, when it has no such target, or when the excerpt is the pinned one.
    """
    submodule = patch.kind == "submodule"
    text = pinned_text(patch.target.submodule if submodule else patch.target.module)
    if text is None:
        return ""
    try:
        pinned = source.find_in(text.encode(), Path("pinned"), None if submodule else patch.target.qualname)
    except MissingTarget:
        return ""
    return diff(pinned, excerpt)


def diff(before: source.Excerpt, after: source.Excerpt) -> str:
    """The unified diff between two versions of a target, each line after a newline; empty when they are equal."""
    import difflib  # not at the top: workers load this module and, when all is well, never use it

    lines = difflib.unified_diff(
        before.source().splitlines(), after.source().splitlines(), before.where, after.where, lineterm=""
    )
    return "".join(f"\n{line}" for line in lines)
