# SPDX-License-Identifier: Apache-2.0
"""The packages that a run file's device pins, and those of them that a machine has otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from recipe.checks.facts.machine import Machine, canonical

# What every node must have in the same version.
COMPARED = ("ray", "torch", "torch-npu", "transformers", "tokenizers", "numpy", "tensordict", "omegaconf", "pyarrow")

_REQUIREMENT = re.compile(
    r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*==\s*([^\s;#]+)\s*(?:;\s*python_version\s*<\s*\"([0-9.]+)\")?"
)


def requirements(file: Path, python: tuple[int, ...]) -> dict[str, str]:
    """Package -> exact version, of the lines of a requirements file that matter to this Python."""
    pinned = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        match = _REQUIREMENT.match(line.strip())
        if match and not (match[3] and python[:2] >= tuple(map(int, match[3].split(".")))):
            pinned[canonical(match[1])] = match[2]
    return pinned


def differing(machine: Machine, pinned: dict[str, str]) -> Iterator[tuple[str, str | None, str]]:
    """(package, installed version or None, pinned version) where they differ; "+cpu" and such does not count."""
    for name, version in pinned.items():
        installed = machine.version(name)
        if installed is None or installed.split("+")[0] != version.split("+")[0]:
            yield name, installed, version
