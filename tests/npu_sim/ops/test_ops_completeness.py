# SPDX-License-Identifier: Apache-2.0
"""Every operator name in the pinned vLLM-Ascend's sources is simulated, or listed as not simulated and refused by
name.
"""

import importlib.util
import re
from pathlib import Path

import pytest
import torch_npu
from torch_npu.ops import ATB, NOT_SIMULATED, PUBLIC

CALL = re.compile(r"(?<!\w)torch_npu\.(atb\.)?(_?npu_\w+|scatter_update_?\w*)")

DEEPSEEK_UNQUANTISED = {
    # layer norms, activation, rope
    "npu_rms_norm",
    "npu_add_rms_norm",
    "npu_swiglu",
    "_npu_rotary_embedding",
    "npu_interleave_rope",
    # cache and attention: eager, graph mode, chunked prefill
    "_npu_reshape_and_cache",
    "npu_kv_rmsnorm_rope_cache",
    "_npu_paged_attention_mla",
    "npu_fused_infer_attention_score",
    "atb.npu_ring_mla",
    "atb.npu_paged_cache_load",
    "atb.npu_multi_head_latent_attention",
    # experts: EP 1 (AllGather), 2 to 15 (All2All), from 16 on (MC2)
    "npu_moe_gating_top_k",
    "npu_moe_gating_top_k_softmax",
    "npu_moe_init_routing",
    "npu_moe_compute_expert_tokens",
    "npu_grouped_matmul",
    "npu_moe_finalize_routing",
    "npu_moe_token_permute",
    "npu_moe_token_unpermute",
    "npu_moe_distribute_dispatch_v2",
    "npu_moe_distribute_combine_v2",
    # sampling, hints
    "npu_top_k_top_p",
    "npu_prefetch",
    "npu_format_cast",
}
DENSE = {
    "_npu_flash_attention",
    "_npu_flash_attention_qlens",
    "_npu_paged_attention",
    "_npu_paged_attention_splitfuse",
    "npu_apply_rotary_pos_emb",
}


def names_in_sources():
    found = importlib.util.find_spec("vllm_ascend")
    assert found is not None and found.origin is not None, "vllm_ascend is not on the path: run `python -m recipe sync`"
    names = set()
    for path in Path(found.origin).parent.rglob("*.py"):
        names |= {(atb or "") + name for atb, name in CALL.findall(path.read_text(encoding="utf-8"))}
    return names


def simulated():
    return set(PUBLIC) | {f"atb.{name}" for name in ATB}


def test_every_name_is_accounted_for():
    names = names_in_sources()
    assert names >= DEEPSEEK_UNQUANTISED  # the pattern finds what we know is there
    unknown = names - simulated() - NOT_SIMULATED
    assert not unknown, f"neither simulated nor listed in torch_npu.ops.NOT_SIMULATED: {sorted(unknown)}"


def test_the_paths_we_promise_are_simulated():
    assert simulated() >= DEEPSEEK_UNQUANTISED | DENSE


@pytest.mark.parametrize("name", sorted(NOT_SIMULATED))
def test_not_simulated_names_raise_by_name(name):
    assert name not in simulated()
    with pytest.raises(AttributeError, match=name):
        getattr(torch_npu, name)


def test_every_operator_says_what_it_does():
    assert all(function.__doc__ for function in [*PUBLIC.values(), *ATB.values()])
