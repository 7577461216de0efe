# SPDX-License-Identifier: Apache-2.0
"""``python -m recipe tiny-model`` and ``scripts/make_tiny_model.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

DESCRIPTION = "Make a tiny DeepSeek-V3 (1 M parameters) that half knows how to add, with tokenizer and problems."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, shared by both ways in."""
    parser.add_argument("--out", type=Path, required=True, help="the Hugging Face directory to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and demonstrations (default 0)")
    parser.add_argument("--warm-start-steps", type=int, help="supervised steps; 0 leaves the weights random")
    parser.add_argument("--threads", type=int, default=1, help="threads to train with; part of the result (default 1)")
    parser.add_argument("--problems", type=Path, help="also write train.json and validation.json to this directory")


def run(args: argparse.Namespace) -> int:
    """Builds what the arguments ask for; returns the exit code."""
    from recipe.tiny.build import TinyModel, build_model, write_problems

    settings = TinyModel(seed=args.seed, threads=args.threads)
    if args.warm_start_steps is not None:
        settings = replace(settings, warm_start=replace(settings.warm_start, steps=args.warm_start_steps))
    try:
        if args.problems is not None:
            for path in write_problems(settings, args.problems):
                print(f"problems: {path}", flush=True)
        build_model(settings, args.out, lambda line: print(line, flush=True))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the ``tiny-model`` command."""
    parser = subparsers.add_parser("tiny-model", help="make the tiny DeepSeek-V3", description=DESCRIPTION)
    add_arguments(parser)
    parser.set_defaults(handler=run)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of ``scripts/make_tiny_model.py``."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    add_arguments(parser)
    return run(parser.parse_args(argv))
