# SPDX-License-Identifier: Apache-2.0
"""`[rollout]`: the sampling, by vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.typed_toml import CHANGES, FREE, key


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Sampling by vLLM. An engine is one tensor-parallel group; an instance is the engines that share their experts.

    `dp_sync_on_device` and `direct_sync` are of NPUs; on GPUs verl's own ways stay.
    """

    tensor_parallel: int = key(
        "dies of one engine", least=1, gives="rollout.tensor_model_parallel_size, VLLM_DP_SIZE", on_resume=FREE
    )
    instances: int = key(
        "instances; the experts of each are spread over all its dies",
        1,
        least=1,
        gives="VLLM_DP_SIZE",
        on_resume=FREE,
    )
    samples_per_prompt: int = key(
        "answers to each problem (GRPO's group)",
        least=1,
        gives="rollout.n, rollout.max_num_seqs",
        on_resume=CHANGES,
    )
    max_batched_tokens: int = key(
        "most tokens of one engine step; below the longest sequence, prompts go in pieces",
        unit="tokens",
        least=1,
        gives="rollout.max_num_batched_tokens",
        on_resume=FREE,
    )
    memory_share: float = key(
        "share of a die's memory for weights and KV cache",
        least=0.01,
        most=1,
        gives="rollout.gpu_memory_utilization",
        on_resume=FREE,
    )
    temperature: float = key("sampling temperature", 1.0, least=0.01, gives="rollout.temperature", on_resume=CHANGES)
    top_p: float = key(
        "nucleus sampling: probability mass", 1.0, least=0.01, most=1, gives="rollout.top_p", on_resume=CHANGES
    )
    top_k: int = key("sampling from the k likeliest tokens; 0: from all", 0, gives="rollout.top_k", on_resume=CHANGES)
    ignore_eos: bool = key(
        "every answer goes to max_response_tokens, to measure speed",
        False,
        gives="rollout.ignore_eos",
        on_resume=CHANGES,
    )
    validation_samples: int = key(
        "answers to each validation problem; the score is their mean",
        1,
        least=1,
        gives="rollout.val_kwargs.n",
        on_resume=CHANGES,
    )
    validation_temperature: float = key(
        "0: the likeliest token",
        1.0,
        least=0,
        gives="rollout.val_kwargs.temperature, rollout.val_kwargs.do_sample",
        on_resume=CHANGES,
    )
    validation_top_p: float = key(
        "as top_p", 1.0, least=0.01, most=1, gives="rollout.val_kwargs.top_p", on_resume=CHANGES
    )
    validation_top_k: int = key("as top_k", 0, gives="rollout.val_kwargs.top_k", on_resume=CHANGES)
    graph_mode: bool = key("decode with compiled graphs", False, gives="rollout.enforce_eager", on_resume=FREE)
    graph_sizes: list[int] | None = key(
        "sequences that a graph is compiled for; a decode step of an instance takes the smallest in which its fullest "
        "engine fits. Default: all its sequences, and halves of that down to 4",
        None,
        least=1,
        gives="torchair_graph_config.graph_batch_sizes",
        on_resume=FREE,
    )
    multistream_mla: bool = key(
        "graph mode computes parts of the attention on a second stream",
        False,
        gives="torchair_graph_config.enable_multistream_mla",
        on_resume=FREE,
    )
    multistream_moe: bool = key(
        "graph mode computes the shared experts on a second stream; each die then has them whole",
        False,
        gives="torchair_graph_config.enable_multistream_moe",
        on_resume=FREE,
    )
    kv_nz: bool = key(
        "graph mode keeps the KV cache in the NZ layout; prompts then never go in pieces",
        False,
        gives="torchair_graph_config.enable_kv_nz",
        on_resume=FREE,
    )
    spread_samples: bool = key(
        "the samples of a prompt go to different engines, as their lengths resemble each other",
        True,
        gives="RECIPE_SPREAD_SAMPLES",
        on_resume=FREE,
    )
    request_seeds: bool = key(
        "on NPUs, each answer is sampled with a seed from run.seed, step and row, wherever it is sampled; false: each "
        "engine has a generator",
        True,
        gives="RECIPE_REQUEST_SEEDS",
        on_resume=CHANGES,
    )
    rebalance: bool = key(
        "on NPUs, unfinished answers change engines when a smaller graph would then do for all; needs graph_mode and "
        "request_seeds",
        False,
        gives="RECIPE_REBALANCE",
        on_resume=FREE,
    )
    dp_sync_on_device: bool = key(
        "what the engines tell each other before every step is reduced by the dies; false: by the hosts, with Gloo",
        True,
        gives="RECIPE_DP_SYNC_ON_DEVICE",
        on_resume=FREE,
    )
    direct_sync: bool = key(
        "before a rollout, each die is sent only the weights that it lacks; false, and for models with grouped-query "
        "attention: verl brings it the whole model",
        True,
        gives="RECIPE_DIRECT_SYNC",
        on_resume=FREE,
    )
    direct_sync_buffer_mib: int = key(
        "the most that a die sends and receives at a time in a direct sync",
        512,
        unit="MiB",
        least=1,
        gives="RECIPE_DIRECT_SYNC_BUFFER_MIB",
        on_resume=FREE,
    )
