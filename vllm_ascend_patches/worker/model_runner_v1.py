# SPDX-License-Identifier: Apache-2.0
"""Graphs do not take weights for constants; engines agree over HCCL, count steps, sample by seeds, keep experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from vllm_ascend.worker import model_runner_v1

from recipe.overlay import patch
from verl_patches.routing_replay import replayed
from vllm_ascend_patches.expert_recorder import ExpertRecorder
from vllm_ascend_patches.worker.step_counts import count_step
from vllm_patches.dp_sync import all_reduce_on_device, asked_for
from vllm_patches.draws import by_request, draw


@patch(
    "vllm_ascend.worker.model_runner_v1:NPUModelRunner._get_torchair_lazy_compiled_model",
    why="the graph is compiled with frozen_parameter=True, which needs every weight to stay at its address; ours are "
    "freed after each generation and allocated again",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:9911907772fdb8e3ce09c6040ebd38bbb2691af65ef32143d6a80b85c805c07e",
    remove_when="vllm-ascend reads torchair_graph_config.enable_frozen_parameter (its pull request 2869) in the pin",
)
def _get_torchair_lazy_compiled_model(original: Callable[..., Any], self: Any, batch_size: int) -> Any:
    # NPU-ADAPTATION: frozen_parameter is what torchair_graph_config.enable_frozen_parameter says, by default off
    options = (self.vllm_config.additional_config or {}).get("torchair_graph_config", {})
    frozen = bool(options.get("enable_frozen_parameter", False))
    real = model_runner_v1.torchair
    model_runner_v1.torchair = compiler_with(real, frozen)
    try:
        return original(self, batch_size)
    finally:
        model_runner_v1.torchair = real


@patch(
    "vllm_ascend.worker.model_runner_v1:NPUModelRunner._get_forward_metadata_across_dp",
    why="before every step the engines add up their token counts with Gloo, 10 to 14 ms in the reference run; and "
    "which graph a step runs in is not counted",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:cee498dc8e66281cdaa4823bd1625d8403a3928d73a0f518aafc70422bc5fa0e",
    remove_when="vllm-ascend reduces them over the device group in the pin, and counts steps by graph",
)
def _get_forward_metadata_across_dp(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    # NPU-ADAPTATION: over HCCL, unless rollout.dp_sync_on_device is false; the step is counted
    with _reductions_on_device() if asked_for() else nullcontext():
        result = original(self, *args, **kwargs)
    tokens, _, with_prefill, _ = result
    count_step(tokens if self.torchair_graph_enabled and not with_prefill else None)
    return result


@contextmanager
def _reductions_on_device() -> Iterator[None]:
    real = model_runner_v1.dist
    model_runner_v1.dist = SimpleNamespace(all_reduce=partial(_all_reduce, real), ReduceOp=real.ReduceOp)
    try:
        yield
    finally:
        model_runner_v1.dist = real


@patch(
    "vllm_ascend.worker.model_runner_v1:NPUModelRunner._update_states",
    why="a request's generator is rewound where a prompt goes in pieces, by an offset that not every NPU generator has",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:11b80dcbaa95726bda02c313a59a9dcb764eba6984b5e99aafd24f2be527367e",
    remove_when="vLLM's random numbers follow from seed and position",
    when=by_request,
)
def _update_states(original: Callable[..., None], self: Any, scheduler_output: Any) -> None:
    """As the original; a request with a seed has, in the place of its generator, the number for its next token."""
    original(self, scheduler_output)
    # NPU-ADAPTATION: a row gets its number anew for each token; none, if its prompt goes on in the next step
    batch = self.input_batch
    for row, request_id in enumerate(batch.req_ids):
        request = self.requests[request_id]
        if request.generator is None:
            continue
        scheduled = request.num_computed_tokens + scheduler_output.num_scheduled_tokens[request_id]
        if scheduled < request.num_tokens:
            batch.generators.pop(row, None)
        else:
            batch.generators[row] = draw(request.sampling_params.seed, len(request.output_token_ids))


@patch(
    "vllm_ascend.worker.model_runner_v1:NPUModelRunner.load_model",
    why="which experts the sampler chooses is thrown away, and where two are nearly tied the trainer's routers choose "
    "others: the sampled tokens' probabilities come apart",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:710f9501f9984ab4ea63a5493cb1aed91332253a9f348160657c8690755bdd21",
    remove_when="vllm-ascend returns the experts chosen for every token in the pin",
    when=replayed,
)
def load_model(original: Callable[..., None], self: Any) -> None:
    # NPU-ADAPTATION: the routers are hooked before a graph is compiled
    original(self)
    self.expert_recorder = ExpertRecorder(self.model, self.max_num_tokens, self.device)


@patch(
    "vllm_ascend.worker.model_runner_v1:NPUModelRunner.execute_model",
    why="only the model runner knows which request each row of a step belongs to",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:32181930c24a4d1faf30645d765e722c32cb3d23e8183080b21f55689dbe4954",
    remove_when="vllm-ascend returns the experts chosen for every token in the pin",
    when=replayed,
)
def execute_model(original: Callable[..., Any], self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
    # NPU-ADAPTATION: the experts chosen in the step are kept by request
    self.expert_recorder.begin_step()
    output = original(self, scheduler_output, *args, **kwargs)
    if scheduler_output.total_num_scheduled_tokens:
        batch, counts = self.input_batch, self.query_lens.tolist()
        self.expert_recorder.end_step(batch.req_ids, batch.num_computed_tokens_cpu[: len(counts)].tolist(), counts)
    return output


def _all_reduce(real: Any, tensor: torch.Tensor, op: Any = None, group: Any = None) -> None:
    """The two reductions of the original: one of host memory over the Gloo group, one that is on the device already."""
    op = real.ReduceOp.SUM if op is None else op
    if tensor.device.type == "cpu":
        all_reduce_on_device(tensor, op)
    else:
        real.all_reduce(tensor, op=op, group=group)


def compiler_with(torchair: Any, frozen: bool) -> Any:
    """`torchair`'s three names the model runner uses, with `frozen_parameter` set where a configuration is used."""

    def settled(config: Any) -> Any:
        config.experimental_config.frozen_parameter = frozen
        return config

    def get_npu_backend(*, compiler_config: Any, **kwargs: Any) -> Any:
        return torchair.get_npu_backend(compiler_config=settled(compiler_config), **kwargs)

    def cache_compile(function: Any, *, config: Any, **kwargs: Any) -> Any:
        return torchair.inference.cache_compile(function, config=settled(config), **kwargs)

    return SimpleNamespace(
        CompilerConfig=torchair.CompilerConfig,
        get_npu_backend=get_npu_backend,
        inference=SimpleNamespace(cache_compile=cache_compile),
    )
