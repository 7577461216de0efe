# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/convert_ckpt_deepseek3.py: the legacy format, by that script's own options."""

from __future__ import annotations

import argparse
from dataclasses import replace

from recipe.weights import legacy, legacy_options
from recipe.weights.convert import add_directories
from recipe.weights.errors import WeightsError
from recipe.weights.job_cli import Planned, add_job_arguments, run_tool

DESCRIPTION = "Convert a Hugging Face checkpoint (FP8 or BF16) into a file for each rank, for MindSpeed-LLM or -RL."

EXAMPLES = """\
The same as convert_hf_to_mcore.py --format legacy (docs/WEIGHTS_LEGACY.md). A run of this recipe loads what
convert_hf_to_mcore.py writes without it.

example:
  scripts/convert_ckpt_deepseek3.py --load-dir HF --save-dir OUT --target-tensor-parallel-size 4 \\
      --target-pipeline-parallel-size 8 --num-layer-list 7,7,8,8,8,8,8,7 --target-expert-parallel-size 8 \\
      --moe-grouped-gemm --moe-tp-extend-ep --num-layers 61 --first-k-dense-replace 3 --dry-run
"""
REMARK = "for MindSpeed-LLM or MindSpeed-RL; what a run of this recipe loads is made by convert_hf_to_mcore.py"
# Options of theirs that would make other files than are made here, and what is made.
NOT_MADE = {
    "num_layers_per_virtual_pipeline_stage": "stages in turns are not made; every rank's file has its layers in order",
    "noop_layers": "layers without work are not made; --num-layer-list deals the layers of the model to the stages",
    "num_nextn_predict_layers": "the layer for multi-token prediction is left out, as nothing here trains it; give 0",
    "qlora_nf4": "weights in 4 bits are not made; they are bfloat16",
}


def _add_others(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is not made here", "known, and refused for any value that asks for it")
    group.add_argument("--num-layers-per-virtual-pipeline-stage", type=int, metavar="N", help="stages in turns")
    group.add_argument("--noop-layers", metavar="N,N,...", help="layers without work")
    group.add_argument(
        "--num-nextn-predict-layers", type=int, default=0, metavar="N", help="layers for multi-token prediction (0)"
    )
    group.add_argument("--qlora-nf4", action="store_true", help="weights in 4 bits")


def _plan(options: argparse.Namespace) -> Planned:
    for name, reason in NOT_MADE.items():
        if getattr(options, name):
            raise WeightsError(f"--{name.replace('_', '-')}: {reason}")
    planned = legacy.plan(options.load_dir, options.save_dir, legacy_options.from_arguments(options))
    return replace(planned, remarks=(*planned.remarks, REMARK))


def main(arguments: list[str] | None = None) -> int:
    """Convert, or print the plan; returns the exit code."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    add_directories(parser)
    add_job_arguments(parser, EXAMPLES)
    legacy_options.add_arguments(parser)
    _add_others(parser)
    options = parser.parse_args(arguments)
    return run_tool(options, lambda: _plan(options))
