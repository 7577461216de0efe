# SPDX-License-Identifier: Apache-2.0
"""docs/PREFLIGHT.md, made from the declarations of the checks: `python -m recipe.checks.page` writes it."""

from __future__ import annotations

import sys

from recipe.checks.catalogue import every_check
from recipe.checks.declaration import RUNS, SUBJECTS, Check
from recipe.own_packages import REPOSITORY

PAGE = REPOSITORY / "docs" / "PREFLIGHT.md"
_HEAD = """\
# Preflight

[中文版](zh/PREFLIGHT.md) (the introduction, and how to read the tables)

`python -m recipe preflight RUN.toml` finds what can be known to be wrong with a run before it takes a cluster. Every
check has an id that stays. A finding says what was found, what is expected, and what to type. This page is made from
the declarations in `recipe/checks/` by `python -m recipe.checks.page`; a test checks that it is current.

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
# Before the table of the checks that look at what runs have left.
_DOCTOR = """\
`python -m recipe doctor` needs no run file, no torch and no package. It prints what is installed here, then what is
wrong, with those of the checks above that hold for any run, and these. It looks at this machine and at the log of the
latest run, if that run did not finish. It reads only: processes of former runs are named, never ended.

"""


def text() -> str:
    """The page."""
    parts = [_HEAD]
    for letter, subject in SUBJECTS.items():
        checks = [check for check in every_check() if check.id[0] == letter]
        if checks:
            parts.append(f"## {letter}: {subject}\n\n{_section(checks)}")
    return "\n".join(parts)


def _section(checks: list[Check]) -> str:
    """The table of a subject's checks. Doctor's all need the same; preflight's have a column that says what."""
    if all(check.needs == RUNS for check in checks):
        return _DOCTOR + _table(
            ["id", "what is checked", "otherwise", "what to do"],
            [[check.id, check.title, check.why, check.fix] for check in checks],
        )
    return _table(
        ["id", "needs", "what is checked", "otherwise", "what to do"],
        [[check.id, check.needs, check.title, check.why, check.fix] for check in checks],
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: str) -> str:
    return value.replace("|", "\\|")


def main() -> int:
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
