# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/converter_hf_to_mcore.py: torch_dist, by the options that verl's script has."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recipe.weights import torch_dist
from recipe.weights.job_cli import Planned, add_job_arguments, run_tool

DESCRIPTION = "Convert a Hugging Face checkpoint (FP8 or BF16) into the Megatron one that verl loads."

EXAMPLES = """\
The same as convert_hf_to_mcore.py --load-dir HF --save-dir OUT (docs/WEIGHTS.md): no model is built, so that neither
ranks nor the memory for 671B are needed.

example:
  scripts/converter_hf_to_mcore.py --hf_model_path HF --output_path OUT --dry-run
"""
# Options of verl's script that change nothing here, and why.
WITHOUT_USE = {
    "pp_size": "any layout of ranks loads the checkpoint",
    "ep_size": "any layout of ranks loads the checkpoint",
    "use_cpu_initialization": "no model is initialised",
    "trust_remote_code": "no code of the model's directory is run",
}


def _plan(options: argparse.Namespace) -> Planned:
    planned = torch_dist.plan(options.hf_model_path, options.output_path)
    given = [name for name in WITHOUT_USE if getattr(options, name)]
    return replace(
        planned, remarks=(*planned.remarks, *(f"--{name} changes nothing: {WITHOUT_USE[name]}" for name in given))
    )


def main(arguments: list[str] | None = None) -> int:
    """Convert, or print the plan; returns the exit code."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    parser.add_argument("--hf_model_path", type=Path, required=True, metavar="HF", help="Hugging Face checkpoint")
    parser.add_argument("--output_path", type=Path, required=True, metavar="OUT", help="where the checkpoint goes")
    add_job_arguments(parser, EXAMPLES)
    parser.add_argument("--test", dest="verify", action="store_true", help="the same as --verify")
    without_use = parser.add_argument_group("without use here", "taken, and a line says why they change nothing")
    for name in ("pp_size", "ep_size"):
        without_use.add_argument(f"--{name}", type=int, metavar="N", help=WITHOUT_USE[name])
    for name in ("use_cpu_initialization", "trust_remote_code"):
        without_use.add_argument(f"--{name}", action="store_true", help=WITHOUT_USE[name])
    options = parser.parse_args(arguments)
    return run_tool(options, lambda: _plan(options))
