# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe report RUN_DIR`: make the report of a run again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `report` command."""
    parser = subparsers.add_parser("report", help="make summary.json, the plots and report.html of a run directory")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
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
