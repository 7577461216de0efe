# SPDX-License-Identifier: Apache-2.0
"""Hugging Face directory -> Megatron checkpoint: the command line, and the conversion as a function."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe.weights import legacy, legacy_options, torch_dist
from recipe.weights.errors import WeightsError
from recipe.weights.job import run_job
from recipe.weights.job_cli import Planned, add_job_arguments, run_tool

DESCRIPTION = "Convert a Hugging Face checkpoint (FP8 or BF16) into a Megatron one, without building the model."

EXAMPLES = """\
FP8 is cast on the way; OUT/huggingface has configuration and tokenizer, and is a run's [model] path.

examples:
  scripts/convert_hf_to_mcore.py --load-dir HF --save-dir OUT --dry-run              what it would write, and the disk
  scripts/convert_hf_to_mcore.py --load-dir HF --save-dir OUT --workers 8 --verify
  scripts/convert_hf_to_mcore.py --load-dir HF --save-dir OUT --format legacy --target-tensor-parallel-size 4 \\
      --target-pipeline-parallel-size 8 --target-expert-parallel-size 8              docs/WEIGHTS_LEGACY.md
"""


def convert(source: Path, output: Path, *, workers: int = 1, overwrite: bool = False) -> None:
    """Convert `source` to a torch_dist checkpoint at `output`. Raises WeightsError."""
    run_job(torch_dist.plan(source, output).job, workers=workers, overwrite=overwrite)


def add_directories(parser: argparse.ArgumentParser) -> None:
    """Where the weights come from and go to."""
    parser.add_argument(
        "--load-dir", type=Path, required=True, metavar="HF", help="Hugging Face checkpoint, FP8 or BF16"
    )
    parser.add_argument("--save-dir", type=Path, required=True, metavar="OUT", help="where the checkpoint goes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the conversion."""
    add_directories(parser)
    parser.add_argument(
        "--format",
        choices=("torch_dist", "legacy"),
        default="torch_dist",
        help="torch_dist: any layout of ranks loads it (verl 0.6.1); legacy: a file for each rank (MindSpeed-LLM)",
    )
    add_job_arguments(parser, EXAMPLES)
    legacy_options.add_arguments(parser)
    parser.set_defaults(handler=run)


def _plan(options: argparse.Namespace) -> Planned:
    if options.format == "legacy":
        return legacy.plan(options.load_dir, options.save_dir, legacy_options.from_arguments(options))
    if without_use := legacy_options.given(options):
        raise WeightsError(f"{', '.join(without_use)}: for --format legacy only; a torch_dist checkpoint has no layout")
    return torch_dist.plan(options.load_dir, options.save_dir)


def run(options: argparse.Namespace) -> int:
    """Convert, or print the plan, or verify; returns 0, or 2 with one line when it cannot be done."""
    return run_tool(options, lambda: _plan(options))


def main(arguments: list[str] | None = None) -> int:
    """The stand-alone command line of scripts/convert_hf_to_mcore.py."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    add_arguments(parser)
    return run(parser.parse_args(arguments))
