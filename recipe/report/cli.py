# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe report RUN_DIR`: make the report of a run again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

COMMANDS = ("report",)
DETAILS = """\
A run makes its own report at its end. Here the three are written anew, from the metrics, events and answers in RUN_DIR.

example:
  python -m recipe report runs/sim        prints the place of report.html

exit code: 0 made; 2 RUN_DIR is not the directory of a run, or holds nothing to report
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `report` command."""
    text = "make summary.json, the plots and report.html of a run directory"
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser("report", help=text, description=text + ".", epilog=DETAILS, formatter_class=raw)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a run's directory, also of one that is running")
    parser.set_defaults(handler=_report)


def _report(options: argparse.Namespace) -> int:
    from recipe.report.make import make_report

    run_dir = options.run_dir
    if not (run_dir / "metrics.jsonl").is_file():
        print(f"error: {run_dir} holds no metrics.jsonl; give the directory of a run, runs/NAME", file=sys.stderr)
        return 2
    make_report(run_dir)
    print(run_dir / "report.html")
    return 0
