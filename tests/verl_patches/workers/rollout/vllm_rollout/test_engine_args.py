# SPDX-License-Identifier: Apache-2.0
"""The derived engine arguments are ones that vLLM-Ascend's own checks accept, in every combination."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.config import SchedulerConfig
from vllm_ascend.ascend_config import AscendConfig, check_ascend_config, clear_ascend_config, init_ascend_config
from vllm_ascend.core.schedule_config import AscendSchedulerConfig
from vllm_ascend.worker.model_runner_v1 import NPUModelRunner

from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.show import as_json
from recipe.tiny.config import tiny_fields
from verl_patches.workers.rollout.vllm_rollout.engine_args import (
    GRAPH_ONLY_OPTIONS,
    SMALLEST_GRAPH,
    deep_merge,
    graph_sizes,
    has_experts,
    npu_engine_args,
)

REPO = Path(__file__).resolve().parents[5]


def stock(**changes: Any) -> dict[str, Any]:
    """What verl's rollout passes for the reference run: prompts of 1024, responses of 2048 tokens."""
    return {
        "model": "path",
        "enable_sleep_mode": True,
        "enforce_eager": True,
        "max_model_len": 3072,
        "max_num_batched_tokens": 8192,
        "max_num_seqs": 64,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
    } | changes


def accepted_by_vllm_ascend(args: dict[str, Any]) -> AscendSchedulerConfig:
    """Feed the arguments to the real checks of vLLM-Ascend and return its scheduler configuration."""
    model = SimpleNamespace(hf_config=SimpleNamespace(model_type="deepseek_v3"))
    config = SimpleNamespace(additional_config=args["additional_config"], model_config=model)
    clear_ascend_config()
    try:
        parsed: AscendConfig = init_ascend_config(config)
        check_ascend_config(config, args["enforce_eager"])
        scheduler = SchedulerConfig(
            max_num_batched_tokens=args["max_num_batched_tokens"],
            max_num_seqs=args["max_num_seqs"],
            max_model_len=args["max_model_len"],
            enable_chunked_prefill=args["enable_chunked_prefill"],
        )
        return AscendSchedulerConfig.initialize_from_config(scheduler, parsed.ascend_scheduler_config)
    finally:
        clear_ascend_config()


@given(
    budget=st.integers(64, 20000),
    longest=st.integers(64, 20000),
    eager=st.booleans(),
    graph=st.sampled_from([None, True, False]),
)
def test_every_combination_of_budget_length_and_graph_mode_can_start(
    budget: int, longest: int, eager: bool, graph: bool | None
) -> None:
    asked = {} if graph is None else {"additional_config": {"torchair_graph_config": {"enabled": graph}}}
    args = npu_engine_args(stock(max_num_batched_tokens=budget, max_model_len=longest, enforce_eager=eager, **asked))
    scheduler = accepted_by_vllm_ascend(args)
    assert scheduler.chunked_prefill_enabled == args["enable_chunked_prefill"] == (budget < longest)
    assert args["additional_config"]["torchair_graph_config"]["enabled"] is not args["enforce_eager"]
    assert args["enforce_eager"] == (eager if graph is None else not graph)


def test_the_eager_defaults() -> None:
    given_args = stock()
    args = npu_engine_args(given_args)
    assert args["enable_sleep_mode"] is False
    assert args["enable_expert_parallel"] is True
    assert args["additional_config"] == {
        "refresh": True,
        "ascend_scheduler_config": {"enabled": True, "enable_chunked_prefill": False},
        "torchair_graph_config": {"enabled": False},
    }
    assert given_args == stock(), "the caller's arguments stay as they are"
    assert args["model"] == "path"


@pytest.mark.parametrize(
    ("member", "spreads"),
    [("deepseek_v3", True), ("moonlight", True), ("qwen3_moe", True), *((name, False) for name in ("qwen3", "llama"))],
)
def test_experts_are_spread_where_there_are_some(member: str, spreads: bool) -> None:
    """vLLM refuses expert parallelism of a model without experts."""
    model = tiny_fields(member=member)
    assert has_experts(model) is spreads
    assert npu_engine_args(stock(), has_experts(model))["enable_expert_parallel"] is spreads
    asked = stock(enable_expert_parallel=not spreads)
    assert npu_engine_args(asked, has_experts(model))["enable_expert_parallel"] is not spreads


@given(sequences=st.integers(1, 600), tensor=st.sampled_from([1, 2, 4, 8]))
def test_graphs_halve_a_full_batch_and_are_kept_by_vllm_ascend(sequences: int, tensor: int) -> None:
    sizes = graph_sizes(sequences, tensor)
    assert sizes == sorted(set(sizes)) and all(size % tensor == 0 for size in sizes[:-1])
    assert sizes[-1] == sequences
    assert sizes[0] < 2 * SMALLEST_GRAPH + tensor
    assert all(2 * small + tensor >= large for small, large in pairwise(sizes))
    runner = SimpleNamespace(
        torchair_graph_batch_sizes=list(sizes),
        is_kv_consumer=False,
        max_num_reqs=sequences,
        decode_token_per_req=1,
        parallel_config=SimpleNamespace(tensor_parallel_size=tensor, enable_expert_parallel=True),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=1024),
    )
    NPUModelRunner.check_torchair_graph_batch_sizes(runner)
    assert runner.torchair_graph_batch_sizes == sorted({-(-size // tensor) * tensor for size in sizes})


def test_graph_mode_gets_graphs_and_unfrozen_weights() -> None:
    args = npu_engine_args(stock(enforce_eager=False))
    assert args["additional_config"]["torchair_graph_config"] == {
        "enabled": True,
        "graph_batch_sizes": [4, 8, 16, 32, 64],
        "enable_frozen_parameter": False,
        "enable_view_optimize": False,
    }


def test_what_the_user_gives_wins_key_by_key() -> None:
    asked = {"torchair_graph_config": {"graph_batch_sizes": [16, 64]}, "lmhead_tp_size": 8, "refresh": False}
    args = npu_engine_args(stock(enforce_eager=False, additional_config=asked, enable_expert_parallel=False))
    graph = args["additional_config"]["torchair_graph_config"]
    assert graph["graph_batch_sizes"] == [16, 64] and graph["enabled"] is True
    assert args["additional_config"]["lmhead_tp_size"] == 8
    assert args["enable_expert_parallel"] is False
    assert asked["torchair_graph_config"] == {"graph_batch_sizes": [16, 64]}


def test_batch_sizes_chosen_by_vllm_ascend_are_not_given_as_well() -> None:
    asked = {"torchair_graph_config": {"graph_batch_sizes_init": True}}
    args = npu_engine_args(stock(enforce_eager=False, additional_config=asked))
    assert "graph_batch_sizes" not in args["additional_config"]["torchair_graph_config"]
    accepted_by_vllm_ascend(args)


@pytest.mark.parametrize("option", GRAPH_ONLY_OPTIONS)
def test_a_graph_option_without_graph_mode_is_refused(option: str) -> None:
    value = [8] if option == "graph_batch_sizes" else True
    asked = {"torchair_graph_config": {option: value}}
    with pytest.raises(ValueError, match=rf"{option} is set, but graph mode is off"):
        npu_engine_args(stock(additional_config=asked))
    with pytest.raises(RuntimeError):  # so does vLLM-Ascend, after the workers have been built
        AscendConfig(SimpleNamespace(additional_config=asked))


@pytest.mark.parametrize("enabled", [0, 1, "true", None])
def test_graph_mode_is_a_boolean(enabled: object) -> None:
    with pytest.raises(ValueError, match="write true or false"):
        npu_engine_args(stock(additional_config={"torchair_graph_config": {"enabled": enabled}}))


def test_chunked_prefill_cannot_be_turned_off_below_the_longest_sequence() -> None:
    asked = {"ascend_scheduler_config": {"enable_chunked_prefill": False}}
    with pytest.raises(ValueError, match="max_num_batched_tokens is below max_model_len"):
        npu_engine_args(stock(max_num_batched_tokens=1024, additional_config=asked))


def test_the_nz_cache_layout_is_refused_with_chunked_prefill() -> None:
    asked = {"torchair_graph_config": {"enable_kv_nz": True}}
    with pytest.raises(ValueError, match="enable_kv_nz does not work with chunked prefill"):
        npu_engine_args(stock(enforce_eager=False, max_num_batched_tokens=1024, additional_config=asked))
    chunked = asked | {"ascend_scheduler_config": {"enable_chunked_prefill": True}}
    with pytest.raises(ValueError, match="enable_kv_nz does not work with chunked prefill"):
        npu_engine_args(stock(enforce_eager=False, additional_config=chunked))
    accepted_by_vllm_ascend(npu_engine_args(stock(enforce_eager=False, additional_config=asked)))


def test_the_nz_cache_layout_is_refused_with_prefix_caching() -> None:
    asked = {"torchair_graph_config": {"enable_kv_nz": True}}
    with pytest.raises(ValueError, match="enable_kv_nz does not work with prefix caching"):
        npu_engine_args(stock(enforce_eager=False, additional_config=asked, enable_prefix_caching=True))
    not_said = stock(enforce_eager=False, additional_config=asked)
    del not_said["enable_prefix_caching"]  # vLLM's own default is on
    with pytest.raises(ValueError, match="enable_kv_nz does not work with prefix caching"):
        npu_engine_args(not_said)


NESTED = st.recursive(
    st.integers() | st.booleans(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(st.sampled_from("abc"), NESTED, max_size=3)


@given(base=TREES, over=TREES)
def test_a_merge_has_everything_of_the_second_and_the_rest_of_the_first(base: Any, over: Any) -> None:
    merged = deep_merge(base, over)
    assert deep_merge(merged, over) == merged
    assert deep_merge(base, {}) == base and deep_merge({}, over) == over
    for key in base.keys() - over.keys():
        assert merged[key] == base[key]
    for key, value in over.items():
        if not isinstance(value, dict):
            assert merged[key] == value


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_run_file_gives_arguments_that_vllm_ascend_accepts(path: Path) -> None:
    shown = derive_run(load(path)).complete()
    args = as_json(shown)["vllm"]
    if shown.config.cluster.device == "cuda":
        assert args is None
        return
    scheduler = accepted_by_vllm_ascend(args)
    longest = shown.config.data.max_prompt_tokens + shown.config.data.max_response_tokens
    assert scheduler.chunked_prefill_enabled == (shown.config.rollout.max_batched_tokens < longest)
    assert args["enforce_eager"] is not shown.config.rollout.graph_mode
