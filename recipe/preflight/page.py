# SPDX-License-Identifier: Apache-2.0
"""The catalogue of checks, for the terminal and as docs/PREFLIGHT.md: `python -m recipe.preflight.page` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

from recipe.doctor.pains import PAINS
from recipe.preflight import every_check

PAGE = Path(__file__).resolve().parents[2] / "docs" / "PREFLIGHT.md"
SUBJECTS = {
    "C": "Run file",
    "L": "Layout",
    "T": "Training",
    "V": "Rollout (vLLM)",
    "M": "Memory",
    "W": "Weights",
    "D": "Data and reward",
    "P": "Packages and sources",
    "E": "Environment",
    "N": "Node",
    "R": "Ray",
}
_HEAD = """\
# Preflight

[中文版](zh/PREFLIGHT.md) (the introduction, and how to read the tables)

`python -m recipe preflight RUN.toml` finds what can be known to be wrong with a run before it takes a cluster. Every
check has an id that stays. A finding says what was found, what is expected, and what to type. This page is made from
the declarations in `recipe/preflight/` by `python -m recipe.preflight.page`; a test checks that it is current.

| where you are | options after `python -m recipe preflight RUN.toml` |
|---|---|
| a laptop, before anything is booked | `--no-cluster` |
| each node, before Ray is started (`scripts/launch.sh` does it) | `--node --no-cluster` |
| the head node, with Ray up on all nodes | none |

Exit code 0: nothing stands in the way; 2: an error was found. **error**: the run would fail or train wrongly.
**warning**: it runs, and hardly as meant. **not run**: the check could not tell, for what it looks at is not on this
machine; with `--node` a missing file is an error of its own. A check that breaks is not run either: its line, `could
not look: ...`, says what to report, the others go on, and nothing is refused for it. `--json` prints the same for
programs.

A check looks at one of: **static**, the run file alone; **files**, what the run reads, as far as it is on this machine;
**node**, this machine as one of the run's; **cluster**, the Ray at `[cluster] head`. Where one of the first two finds
an error, `show` prints that error and no command.
"""
_DOCTOR = """\
## X: What users of this stack keep reporting

`python -m recipe doctor` needs no run file, no torch and no package. It prints what is installed here, then what is
wrong, with those of the checks above that hold for any run, and these. It looks at this machine and at the log of the
latest run, if that run did not finish. It reads only: processes of former runs are named, never ended.

| id | what is checked | otherwise | what to do |
|---|---|---|---|
"""
_COLUMNS = "| id | needs | what is checked | otherwise | what to do |\n|---|---|---|---|---|\n"


def as_json() -> list[dict[str, str]]:
    """The declarations."""
    return [
        {"id": one.id, "title": one.title, "needs": one.needs, "why": one.why, "fix": one.fix} for one in every_check()
    ]


def listing() -> str:
    """One line for each check."""
    lines = [f"{one.id}  {one.needs:8}{one.title}" for one in every_check()]
    return "\n".join([*lines, f"{len(lines)} checks; docs/PREFLIGHT.md has the reasons"])


def text() -> str:
    """The page."""
    parts = [_HEAD]
    for letter, subject in SUBJECTS.items():
        rows = [
            f"| {one.id} | {one.needs} | {' | '.join(map(_cell, (one.title, one.why, one.fix)))} |\n"
            for one in every_check()
            if one.id[0] == letter
        ]
        if rows:
            parts.append(f"## {letter}: {subject}\n\n{_COLUMNS}{''.join(rows)}")
    pains = "".join(f"| {one.id} | {' | '.join(map(_cell, (one.title, one.why, one.fix)))} |\n" for one in PAINS)
    parts.append(_DOCTOR + pains)
    return "\n".join(parts)


def _cell(value: str) -> str:
    return value.replace("|", "\\|")


def main() -> int:
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
