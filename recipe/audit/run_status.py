# SPDX-License-Identifier: Apache-2.0
"""What was live where in a run, from the lines its processes left in `manifest.jsonl`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.overlay.errors import OverlayError


@dataclass(frozen=True)
class RunProcess:
    """One process of the run; `last` is the last line it wrote about each patch."""

    host: str
    pid: int
    role: str
    last: dict[str, dict[str, Any]]

    @property
    def group(self) -> str:
        """The role without the rank; processes of one group do the same work."""
        return self.role.partition(" rank=")[0]


@dataclass(frozen=True)
class RunStatus:
    processes: list[RunProcess]
    broken_lines: int

    def patches(self) -> list[str]:
        return sorted({patch for process in self.processes for patch in process.last})

    def groups(self) -> dict[str, int]:
        """Group -> number of processes."""
        return dict(Counter(process.group for process in self.processes))

    def where(self, patch: str) -> dict[str, dict[str, int]]:
        """Status -> group -> number of processes, for one patch."""
        counts: dict[str, dict[str, int]] = {}
        for process in self.processes:
            if patch in process.last:
                groups = counts.setdefault(process.last[patch]["status"], {})
                groups[process.group] = groups.get(process.group, 0) + 1
        return counts

    def problems(self) -> list[str]:
        """One line for each patch that failed, and for each difference between processes that should be alike.

        Ranks of one group must agree in every patch's status; all processes that applied a patch, in fingerprint and
        version.
        """
        lines = []
        for patch in self.patches():
            holders = [process for process in self.processes if patch in process.last]
            for process in holders:
                if process.last[patch]["status"] == "failed":
                    lines.append(f"{patch} failed in {process.role} (host {process.host}, pid {process.pid}): "
                                 f"{process.last[patch]['reason'].splitlines()[0]}")  # fmt: skip
            for field in ("fingerprint", "version"):
                entries = [process.last[patch] for process in holders]
                values = Counter(entry[field] for entry in entries if entry["status"] == "applied")
                if len(values) > 1:
                    lines.append(f"{patch}: {field} differs: " + ", ".join(f"{v} in {n}" for v, n in values.items()))
            for group in self.groups():
                ranked = [process for process in self.processes if process.group == group and process.role != group]
                statuses = Counter(process.last.get(patch, {}).get("status", "not there") for process in ranked)
                if len(statuses) > 1:
                    lines.append(f"{patch}: {group} processes differ: "
                                 + ", ".join(f"{status} in {count}" for status, count in statuses.items()))  # fmt: skip
        return lines


def read(run: Path) -> RunStatus:
    """Read `manifest.jsonl` of the run and of its other nodes.

    A line cut short by a killed process is counted, not an error.

    Raises OverlayError when the run has none.
    """
    file = run / "manifest.jsonl"
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
        for node_file in sorted(run.glob("nodes/*/manifest.jsonl")):
            text += "\n" + node_file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise OverlayError(f"{file} does not exist: expected the directory of a run, runs/<name>") from None
    processes: dict[tuple[str, int], RunProcess] = {}
    broken = 0
    for line in filter(None, text.splitlines()):
        try:
            entry = json.loads(line)
            key, patch = (entry["host"], entry["pid"]), entry["patch"]
            fields = {name: str(entry[name]) for name in ("status", "reason", "fingerprint", "version")}
            known = processes.get(key)
            # A process learns its role late, so its last line counts.
            processes[key] = RunProcess(*key, entry["role"], (known.last if known else {}) | {patch: fields})
        except (ValueError, KeyError, TypeError):
            broken += 1
    return RunStatus(list(processes.values()), broken)
