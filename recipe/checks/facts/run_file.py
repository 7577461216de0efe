# SPDX-License-Identifier: Apache-2.0
"""A run file, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.checks.crash import account, asks_to_stop
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import RunConfig


@dataclass(frozen=True)
class Unreadable:
    """What there is instead of facts when a run file cannot be used."""

    reason: str


def read(path: Path, settings: Sequence[str] = ()) -> RunConfig | Unreadable:
    """The run of a file with `settings` of verl beside its own, or why there is none."""
    try:
        return load(path, settings)
    except ConfigError as error:
        return Unreadable(str(error))
    except BaseException as error:
        if asks_to_stop(error):
            raise
        return Unreadable(account(error))
