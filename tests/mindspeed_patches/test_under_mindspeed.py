# SPDX-License-Identifier: Apache-2.0
"""The real MindSpeed and our patches in one process, in the orders that occur; each check in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("mindspeed_checks.py")
SCALE = "mindspeed_patches.core.transformer.flash_attention.flash_attention.adaptor:dot_product_attention_forward_impl"
PLAIN = "mindspeed_patches.megatron_adaptor:repatch"
pytestmark = pytest.mark.mindspeed


def run(check: str, upstream: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(upstream)])}
    environment.pop("TORCHDYNAMO_DISABLE", None)  # it makes torch.compile return its argument
    done = subprocess.run(
        [sys.executable, str(SCRIPT), check], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    if done.returncode:
        pytest.fail(done.stderr[-4000:], pytrace=False)


@pytest.mark.parametrize(
    "check",
    [
        "torch_compile_is_real_for_the_rollout_only",
        "our_patches_outlive_every_repatch",
        "patches_for_machines_without_mindspeed_step_aside",
        pytest.param("the_softmax_scale_is_the_layers_after_every_repatch", marks=pytest.mark.proves(SCALE)),
        "an_overlay_that_comes_after_mindspeed_holds_from_the_next_repatch",
        "norms_are_fused_where_a_stage_has_none_but_those_before_projections",
        "the_published_runs_are_understood",
        pytest.param("what_mindspeed_is_told_can_be_saved_with_a_checkpoint", marks=pytest.mark.proves(PLAIN)),
    ],
)
def test_check(check: str, mindspeed_upstream: Path) -> None:
    run(check, mindspeed_upstream)
