# SPDX-License-Identifier: Apache-2.0
"""C: the run file itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.launch.config import RunConfig, load
from recipe.launch.errors import ConfigError
from recipe.preflight.catalogue import Said, bad, check
from recipe.preflight.facts import Facts


@dataclass(frozen=True)
class Unreadable:
    """What there is instead of facts when a run file cannot be used."""

    reason: str


@check(
    "C001", "the run file can be read: TOML, known keys, right types, values within their limits", needs="static",
    why="a typing mistake must not become a default",
    fix="correct the line; docs/CONFIG.md has every key",
)  # fmt: skip
def _readable(facts: Facts | Unreadable) -> Iterator[Said]:
    if isinstance(facts, Unreadable):
        yield bad(facts.reason, "a run file like those in configs/")


def read(path: Path) -> RunConfig | Unreadable:
    """The run of a file, or why there is none."""
    try:
        return load(path)
    except ConfigError as error:
        return Unreadable(str(error))
