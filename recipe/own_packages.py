# SPDX-License-Identifier: Apache-2.0
"""Our packages, found in the repository's tree; with the standard library alone, as set-up runs before packages are
there."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PATCHES_SUFFIX = "_patches"


def patch_packages(root: Path = REPOSITORY) -> list[Path]:
    """The directories `<upstream>_patches` of `root`, sorted by name."""
    return sorted(folder for folder in root.glob(f"?*{PATCHES_SUFFIX}") if folder.is_dir())


def own_packages(root: Path = REPOSITORY) -> list[str]:
    """The names of all packages of ours: the tools, and the changes to each upstream."""
    return ["recipe", *(folder.name for folder in patch_packages(root))]
