# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe report RUN_DIR`: make the report of a run again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

COMMANDS = ("report",)
DETAILS = """\
A run makes its own report at its end. Here the three are written anew, from the metrics, events and answers in RUN_DIR.

examples:
  python -m recipe report runs/sim                        prints the place of report.html
  python -m recipe report runs/sim --picture sim.svg      score, reward and response length in one picture too

exit code: 0 made; 2 RUN_DIR is not the directory of a run or holds nothing to report, or FILE.svg cannot be written
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `report` command."""
    text = "make summary.json, the plots and report.html of a run directory"
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser("report", help=text, description=text + ".", epilog=DETAILS, formatter_class=raw)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a run's directory, also of one that is running")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="also draw the run's three main curves there")
    parser.set_defaults(handler=_report)


def _report(options: argparse.Namespace) -> int:
    from recipe.report.make import make_picture, make_report

    run_dir = options.run_dir
    if not (run_dir / "metrics.jsonl").is_file():
        print(f"error: {run_dir} holds no metrics.jsonl; give the directory of a run, runs/NAME", file=sys.stderr)
        return 2
    summary = make_report(run_dir)
    print(run_dir / "report.html")
    if options.picture is None:
        return 0
    try:
        drawn = make_picture(run_dir, summary, options.picture)
    except OSError as error:
        print(f"error: {options.picture} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    if not drawn:
        print(f"error: {run_dir} has no steps to draw in {options.picture}", file=sys.stderr)
        return 2
    print(options.picture)
    return 0
