# SPDX-License-Identifier: Apache-2.0
"""``python -m recipe data`` and ``scripts/json_to_parquet.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = "Convert a DeepScaleR-schema JSON list into train.parquet and test.parquet for verl."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, shared by both ways in."""
    parser.add_argument("--json_path", type=Path, required=True, help="JSON list of {problem, answer, solution}")
    parser.add_argument("--output_dir", type=Path, required=True, help="where train.parquet and test.parquet go")
    parser.add_argument("--train_data_ratio", type=float, default=0.9, help="part that goes to train (default 0.9)")
    parser.add_argument("--test_json_path", type=Path, help="take the test split from this file instead of splitting")
    parser.add_argument("--seed", type=int, default=42, help="seed of the shuffle before the split (default 42)")
    parser.add_argument("--template", default="r1_zero", help="a name in data/templates.toml (default r1_zero)")
    parser.add_argument("--data_source", default="deepscaler", help="value of the data_source column")


def run(args: argparse.Namespace) -> int:
    """Converts; returns the exit code (2 and one line on stderr when the input cannot be used)."""
    from recipe.data.parquet import convert
    from recipe.data.rows import DataError
    from recipe.data.templates import get_template

    try:
        summary = convert(
            args.json_path,
            args.output_dir,
            get_template(args.template),
            train_data_ratio=args.train_data_ratio,
            seed=args.seed,
            test_json_path=args.test_json_path,
            data_source=args.data_source,
        )
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    dropped = summary.dropped
    print(f"{summary.train_path}: {summary.train} rows")
    print(f"{summary.test_path}: {summary.test} rows")
    if dropped.total:
        print(
            f"left out: {dropped.empty_problem} without a problem, {dropped.empty_answer} without an answer, "
            f"{dropped.duplicate_problem} repeated problems"
        )
    return 0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the ``data`` command."""
    parser = subparsers.add_parser("data", help="JSON problems to Parquet", description=DESCRIPTION)
    add_arguments(parser)
    parser.set_defaults(handler=run)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of ``scripts/json_to_parquet.py``."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    add_arguments(parser)
    return run(parser.parse_args(argv))
