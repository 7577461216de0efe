# SPDX-License-Identifier: Apache-2.0
"""What the run that wrote last has left on this machine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recipe.checks.finding import CannotTell
from recipe.text import plain

_TAIL_BYTES = 4 * 2**20
_LONGEST_LINE = 200


@dataclass(frozen=True)
class LatestRun:
    """`runs`: the directory with what runs have left."""

    runs: Path

    @cached_property
    def directory(self) -> Path:
        """The directory of the run that wrote last. CannotTell where there is none."""
        logs = [log for log in self.runs.glob("*/logs/driver.log") if log.is_file()]
        if not logs:
            raise CannotTell(f"no run has left a log in {self.runs} yet")
        return max(logs, key=lambda log: log.stat().st_mtime).parents[1]

    @cached_property
    def failed_log(self) -> list[str]:
        """The last lines of the run's log; none if that run finished. CannotTell where there is no run."""
        try:
            result: Any = json.loads((self.directory / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            result = {}
        if isinstance(result, dict) and result.get("status") == "finished":
            return []
        with open(self.directory / "logs" / "driver.log", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return [plain(line) for line in file.read().decode("utf-8", "replace").splitlines()]

    def logged(self, pattern: str) -> str | None:
        """ "RUN: LINE" of the last line of the log that matches, unless that run finished. None where no run is."""
        try:
            lines = self.failed_log
        except CannotTell:
            return None
        wanted = re.compile(pattern)
        matching = (line.strip()[:_LONGEST_LINE] for line in reversed(lines) if wanted.search(line))
        return next((f"{self.directory.name}: {line}" for line in matching), None)
