# SPDX-License-Identifier: Apache-2.0
"""On GPUs the overlay's changes for NPUs step aside, and what stays calls nothing of NPUs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.audit.declarations import collect

REPO = Path(__file__).resolve().parents[3]
PATCHES = collect()
# A run on GPUs keeps the weights on the device until the sync too.
ASKED_FOR_THERE = {"verl_patches.utils.megatron_utils:offload_megatron_model_to_cpu"}
FOR_NPUS = {
    "megatron_patches.core.extensions:transformer_engine",
    "megatron_patches.core.parallel_state:initialize_model_parallel",
    "verl_patches.utils.megatron_utils:per_tensor_generator",
    "verl_patches.workers.rollout.base:sync_rollout",
    "verl_patches.workers.rollout.base:async_rollout",
    "vllm_patches.config:has_unfinished_dp",
    "vllm_patches.v1.sample.ops.topk_topp_sampler:random_sample",
}


@pytest.fixture(scope="module")
def holds() -> dict[str, bool]:
    """By patch, whether its condition holds on GPUs."""
    upstream = os.environ.get("RECIPE_UPSTREAM", str(REPO / "upstream"))
    environment = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{upstream}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("on_gpus.py")), "configs/h20_128gpu_math_lighteval.toml"],
        cwd=REPO, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, bool] = json.loads(done.stdout)
    return found


def test_what_is_for_npus_steps_aside(holds: dict[str, bool]) -> None:
    assert set(holds) >= FOR_NPUS
    assert {patch for patch, kept in holds.items() if kept} == ASKED_FOR_THERE


def test_what_stays_calls_nothing_of_npus(holds: dict[str, bool]) -> None:
    stays = [
        patch for patch in PATCHES
        if patch.package not in ("vllm_ascend", "mindspeed") and holds.get(patch.id, True)
    ]  # fmt: skip
    assert {patch.package for patch in stays} == {"verl", "megatron", "vllm"}
    for file in {patch.file for patch in stays}:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in imported if name.partition(".")[0] in ("torch_npu", "vllm_ascend")], file
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.npu"), (file, node.lineno)
