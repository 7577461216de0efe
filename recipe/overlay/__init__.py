# SPDX-License-Identifier: Apache-2.0
"""Lay declared, fingerprinted, reversible changes over unmodified upstream packages at import time.

A change to `pkg/a/b.py` is declared in `pkg_patches/a/b.py` with `@patch`.  `install()` puts a post-import hook on
every upstream module that has such a mirror; right after the upstream module has executed, its mirror is imported
and what it declares is applied.  Standard library and wrapt only: importing this package imports nothing heavy.
"""

from recipe.overlay.declaration import Condition, Declaration
from recipe.overlay.declare import declared, patch
from recipe.overlay.engine import apply, revert, status
from recipe.overlay.errors import (
    BadDeclaration,
    ConflictError,
    DriftError,
    MissingTarget,
    OverlayError,
    PatchFailed,
)
from recipe.overlay.hook import install
from recipe.overlay.snapshot import Snapshot, compare, snapshot

__all__ = [
    "BadDeclaration",
    "Condition",
    "ConflictError",
    "Declaration",
    "DriftError",
    "MissingTarget",
    "OverlayError",
    "PatchFailed",
    "Snapshot",
    "apply",
    "compare",
    "declared",
    "install",
    "patch",
    "revert",
    "snapshot",
    "status",
]
