# SPDX-License-Identifier: Apache-2.0
"""vLLM engine arguments for the NPU, derived from those verl's rollout passes to `vllm.LLM`.

Several of them depend on one another, and both verl and vLLM-Ascend check them, differently. Deriving them in one
place keeps the combinations that can start the only ones that can be written down.
"""

# NPU-ADAPTATION: expert parallelism, the Ascend scheduler and graph mode; no sleep mode

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

GRAPH_KEY = "torchair_graph_config"
SCHEDULER_KEY = "ascend_scheduler_config"
# Where vLLM-Ascend's own list of sizes begins (`graph_batch_sizes_init`); each size is compiled, and run once a step.
SMALLEST_GRAPH = 4
# Options of vLLM-Ascend's graph mode that are errors unless graph mode is on.
GRAPH_ONLY_OPTIONS = (
    "graph_batch_sizes",
    "graph_batch_sizes_init",
    "use_cached_graph",
    "use_cached_kv_cache_bytes",
    "enable_multistream_mla",
    "enable_multistream_moe",
    "enable_kv_nz",
    "enable_super_kernel",
)
# Under which vLLM looks for experts (vllm/config.py, `_verify_with_expert_parallelism`); it refuses to spread none.
_EXPERTS = ("moe_num_experts", "num_experts", "n_routed_experts", "num_local_experts")


def has_experts(model: Mapping[str, Any]) -> bool:
    """Whether the model of this config.json has experts, which its engines can spread over their dies."""
    return any(model.get(name) for name in _EXPERTS)


def needs_chunked_prefill(max_num_batched_tokens: int, max_model_len: int) -> bool:
    """Whether a prompt may have to be prefilled in pieces: the token budget of one step is below the longest sequence.

    Without chunking vLLM-Ascend's scheduler refuses such a budget (and an older one silently dropped preempted
    requests that had outgrown it); with a sufficient budget chunking only costs.
    """
    return max_num_batched_tokens < max_model_len


def graph_sizes(sequences: int, tensor_parallel: int) -> list[int]:
    """Batch sizes to compile a graph for, ascending: `sequences`, and halves of it down to SMALLEST_GRAPH.

    The data-parallel engines of a decode step all run the smallest graph that holds the fullest of them; with one size
    the last long answers would be decoded at the price of a full batch. Halves are whole multiples of
    `tensor_parallel`; a full batch that is none is rounded up by vLLM-Ascend, which drops larger sizes than that.
    """
    sizes: set[int] = set()
    size = sequences
    while not sizes or size >= SMALLEST_GRAPH:
        sizes.add(min(-(-size // tensor_parallel) * tensor_parallel, sequences))
        size //= 2
    return sorted(sizes)


def deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A new dict with the values of `over` laid on `base`, dictionaries merged at every depth."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            merged[key] = deep_merge(known, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def npu_engine_args(stock: dict[str, Any], spreads_experts: bool = True) -> dict[str, Any]:
    """The keyword arguments for `vllm.LLM` on an NPU.

    Args:
        stock: what verl's rollout passes, `rollout.engine_kwargs.vllm` included; `max_model_len`,
            `max_num_batched_tokens` and `max_num_seqs` must be integers.
        spreads_experts: whether expert parallelism is on where `stock` does not say; not of a model without experts.

    Returns:
        A new dict: sleep mode off (its memory pool does not release on NPUs; our rollout frees tensors instead),
        chunked prefill as the token budget needs it, and `additional_config` for vLLM-Ascend: the Ascend scheduler, and
        graph mode when `enforce_eager` is false or when `additional_config.torchair_graph_config.enabled` says so. What
        the user gives under `additional_config` wins over the derived values, key by key.

    Raises:
        ValueError: a combination vLLM-Ascend would refuse or, worse, run wrongly.
    """
    args = dict(stock)
    additional_config = dict(args.get("additional_config") or {})
    graph = _graph_mode(additional_config, bool(args.get("enforce_eager", False)))
    chunked = needs_chunked_prefill(args["max_num_batched_tokens"], args["max_model_len"])

    derived: dict[str, Any] = {
        # The configuration is a process-wide singleton in vLLM-Ascend; `refresh` makes it read ours.
        "refresh": True,
        SCHEDULER_KEY: {"enabled": True, "enable_chunked_prefill": chunked},
        GRAPH_KEY: {"enabled": graph},
    }
    if graph:
        # Parameters get new addresses at every weight sync, so a graph must not treat them as constants. View
        # optimisation fuses a transpose that is wrong for one expert per rank.
        derived[GRAPH_KEY] |= {
            "graph_batch_sizes": graph_sizes(args["max_num_seqs"], args.get("tensor_parallel_size", 1)),
            "enable_frozen_parameter": False,
            "enable_view_optimize": False,
        }
        if additional_config.get(GRAPH_KEY, {}).get("graph_batch_sizes_init"):
            del derived[GRAPH_KEY]["graph_batch_sizes"]
    merged = deep_merge(derived, additional_config)
    _check(merged, graph, chunked, prefix_caching=args.get("enable_prefix_caching") is not False)

    args["additional_config"] = merged
    args["enable_sleep_mode"] = False
    args["enable_chunked_prefill"] = bool(merged[SCHEDULER_KEY]["enable_chunked_prefill"])
    args["enforce_eager"] = not graph
    args.setdefault("enable_expert_parallel", spreads_experts)
    return args


def _graph_mode(additional_config: dict[str, Any], enforce_eager: bool) -> bool:
    enabled = additional_config.get(GRAPH_KEY, {}).get("enabled", not enforce_eager)
    if not isinstance(enabled, bool):
        raise ValueError(
            f"additional_config.{GRAPH_KEY}.enabled is {enabled!r} ({type(enabled).__name__}); write true or false"
        )
    return enabled


def _check(config: dict[str, Any], graph: bool, chunked: bool, prefix_caching: bool) -> None:
    if not graph:
        for option in GRAPH_ONLY_OPTIONS:
            if config[GRAPH_KEY].get(option):
                raise ValueError(
                    f"additional_config.{GRAPH_KEY}.{option} is set, but graph mode is off: remove it, or set "
                    "rollout.enforce_eager=False"
                )
    if chunked and not config[SCHEDULER_KEY]["enable_chunked_prefill"]:
        raise ValueError(
            f"additional_config.{SCHEDULER_KEY}.enable_chunked_prefill is false, but max_num_batched_tokens is below "
            "max_model_len: raise rollout.max_num_batched_tokens, or remove the setting"
        )
    if not config[GRAPH_KEY].get("enable_kv_nz"):
        return
    if config[SCHEDULER_KEY]["enable_chunked_prefill"]:
        raise ValueError(
            f"additional_config.{GRAPH_KEY}.enable_kv_nz does not work with chunked prefill (mixed batches write the "
            "cache in another layout than graph decode reads): raise rollout.max_num_batched_tokens to the longest "
            "sequence, or turn enable_kv_nz off"
        )
    if prefix_caching:
        raise ValueError(
            f"additional_config.{GRAPH_KEY}.enable_kv_nz does not work with prefix caching (a prefill that continues a "
            "cached prefix reads the cache in another layout): set rollout.enable_prefix_caching=False, or turn "
            "enable_kv_nz off"
        )
