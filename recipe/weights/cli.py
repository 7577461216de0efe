# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe weights`: Hugging Face weights into a Megatron checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from recipe.weights.errors import WeightsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the conversion."""
    parser.add_argument(
        "--load-dir", type=Path, required=True, metavar="HF", help="Hugging Face checkpoint, BF16 or FP32"
    )
    parser.add_argument("--save-dir", type=Path, required=True, metavar="OUT", help="Megatron torch_dist checkpoint")
    parser.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes that copy (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that stands at OUT")
    parser.set_defaults(handler=run)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `weights` command."""
    text = "convert a Hugging Face checkpoint into a Megatron one"
    add_arguments(subparsers.add_parser("weights", help=text, description=text))


def _progress(total: int) -> Callable[[int], None]:
    """Lines that say how far the copy is and how fast, at most one a second on a terminal or every ten otherwise."""
    start = time.monotonic()
    state = {"done": 0, "said": start}
    pause = 1.0 if sys.stderr.isatty() else 10.0

    def report(nbytes: int) -> None:
        state["done"] += nbytes
        now = time.monotonic()
        if now - state["said"] < pause and state["done"] < total:
            return
        state["said"] = now
        speed = state["done"] / max(now - start, 1e-3)
        left = (total - state["done"]) / speed
        print(
            f"{state['done'] / 1e9:.2f} of {total / 1e9:.2f} GB, {speed / 1e9:.2f} GB/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    return report


def run(options: argparse.Namespace) -> int:
    """Convert, or print the plan; returns 0, or 2 with one line when the input or the output cannot be used."""
    from recipe.weights import convert, torch_dist

    try:
        if options.workers < 1:
            raise WeightsError(f"--workers {options.workers}: at least one is needed")
        checkpoint, plan = convert.plan_conversion(options.load_dir)
        needed = torch_dist.bytes_needed(plan)
        torch_dist.check_output(options.load_dir, options.save_dir, options.overwrite)
        torch_dist.check_space(options.save_dir, needed)
        print(
            f"{options.load_dir}: {len(checkpoint.tensors)} tensors, {plan.nbytes} bytes -> {options.save_dir}: "
            f"{len(plan.shapes)} names, {plan.pieces} pieces in {len(plan.files)} files, {len(plan.extra_states)} "
            f"extra states, {needed} bytes of disk; {len(plan.dropped)} tensors left behind"
        )
        if not options.dry_run:
            torch_dist.write(plan, options.save_dir, options.workers, _progress(plan.nbytes))
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The stand-alone command line of scripts/convert_hf_to_mcore.py."""
    parser = argparse.ArgumentParser(description="Convert a Hugging Face checkpoint into a Megatron torch_dist one.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))
