# SPDX-License-Identifier: Apache-2.0
"""Where the upstream sources are; with the standard library alone, as set-up asks for it before packages are there."""

from __future__ import annotations

import os
from pathlib import Path


def upstream_tree(repository: Path) -> Path:
    """The tree of the upstream sources: $RECIPE_UPSTREAM, else `upstream/` of the repository; an absolute path."""
    return Path(os.environ.get("RECIPE_UPSTREAM") or repository / "upstream").absolute()
