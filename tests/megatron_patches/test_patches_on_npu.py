# SPDX-License-Identifier: Apache-2.0
"""Every patch of Megatron-core does its work on a simulated npu without Transformer Engine and MindSpeed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PATCHES = {
    "stand_ins_are_the_extension": "megatron_patches.core.extensions:transformer_engine",
    "version_is_the_stand_ins": "megatron_patches.core.utils:get_te_version",
    "nothing_in_fp8_is_no_error": "megatron_patches.core.fp8_utils:_quantize_param_shard_impl",
    "fused_functions_run_eagerly": "megatron_patches.core.jit:jit_fuser",
    "cuda_means_npu_after_the_groups_are_made": "megatron_patches.core.parallel_state:initialize_model_parallel",
    "rotary_embedding_does_not_loop_over_sequences": (
        "megatron_patches.core.models.common.embeddings.rope_utils:_apply_rotary_pos_emb_thd"
    ),
    "expert_bias_stays_float32": "megatron_patches.core.transformer.module:float16_module_init",
    "distributed_optimizer_takes_npu_parameters": (
        "megatron_patches.core.optimizer.distrib_optimizer:distributed_optimizer_init"
    ),
    "groups_of_parameters_are_loaded_by_what_they_are": (
        "megatron_patches.core.optimizer.distrib_optimizer:distributed_optimizer_load_state_dict"
    ),
    "states_have_the_same_names_with_one_optimizer_as_with_two": (
        "megatron_patches.core.optimizer.optimizer:sharded_state_dict"
    ),
    "a_rank_loads_what_the_first_one_has_for_another_optimizer": (
        "megatron_patches.core.optimizer.optimizer:load_state_dict"
    ),
    "clipping_takes_npu_gradients": "megatron_patches.core.optimizer.clip_grads:clip_grad_by_total_norm_fp32",
    "checkpoints_can_be_saved": ("megatron_patches.core.dist_checkpointing.strategies.filesystem_async:_write_item"),
}
# What works without a patch, and has to go on doing so.
UNPATCHED = {"random_state_is_set"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    out = tmp_path_factory.mktemp("checks") / "results.json"
    script = Path(__file__).with_name("npu_checks.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # It makes torch.compile return its argument, which would hide that Megatron-core calls it.
    environment.pop("TORCHDYNAMO_DISABLE", None)
    done = subprocess.run(
        [sys.executable, str(script), str(out)], env=environment, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        pytest.fail(done.stderr[-4000:], pytrace=False)
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    "check",
    [*(pytest.param(name, marks=pytest.mark.proves(patch)) for name, patch in PATCHES.items()), *sorted(UNPATCHED)],
)
def test_check(check: str, results: dict[str, str | None]) -> None:
    if results[check] is not None:
        pytest.fail(results[check], pytrace=False)


def test_every_check_is_tested(results: dict[str, str | None]) -> None:
    assert results.keys() == PATCHES.keys() | UNPATCHED
