# SPDX-License-Identifier: Apache-2.0
"""Which packages of the repository are ours, as its tree has them. Asked for by what runs without any package, too."""

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
