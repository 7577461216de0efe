# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/fp8_cast_bf16.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe.weights.cast import plan_cast
from recipe.weights.job_cli import add_job_arguments, run_tool

DESCRIPTION = "Cast a Hugging Face checkpoint from FP8 (e4m3, 128x128 scales) to bfloat16, without GPU and torch."

EXAMPLES = """\
Only for those who want BF16 files: convert_hf_to_mcore.py takes FP8 as it is.

examples:
  scripts/fp8_cast_bf16.py --input-fp8-hf-path IN --output-bf16-hf-path OUT --dry-run    files, bytes and the disk
  scripts/fp8_cast_bf16.py --input-fp8-hf-path IN --output-bf16-hf-path OUT --workers 8 --verify
"""


def main(arguments: list[str] | None = None) -> int:
    """Cast, or print the plan; returns the exit code."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    parser.add_argument("--input-fp8-hf-path", type=Path, required=True, metavar="IN", help="Hugging Face checkpoint")
    parser.add_argument("--output-bf16-hf-path", type=Path, required=True, metavar="OUT", help="directory to make")
    parser.add_argument("--keep-mtp", action="store_true", help="keep the multi-token-prediction layers")
    add_job_arguments(parser, EXAMPLES)
    options = parser.parse_args(arguments)
    source, output = options.input_fp8_hf_path, options.output_bf16_hf_path
    return run_tool(options, lambda: plan_cast(source, output, keep_mtp=options.keep_mtp))
