# SPDX-License-Identifier: Apache-2.0
"""verl's vLLM rollout on Ascend NPUs: same engine and same generation, other memory handling and engine arguments."""

# NPU-ADAPTATION: verl's rollout with memory handling and engine arguments for NPUs

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from verl import DataProto
from verl.utils import memory_utils
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.vllm_rollout import vllm_rollout_spmd
from verl.workers.rollout.vllm_rollout.vllm_rollout_spmd import vLLMRollout
from vllm.distributed import get_tensor_model_parallel_rank

from recipe.mismatch.switch import around_generation
from recipe.recorder import record
from verl_patches.cache_release import release_to_device
from verl_patches.compile_toggle import true_compile
from verl_patches.device_memory import MemoryLedger, record_memory
from verl_patches.routing_replay import COLUMN, Choices, asked_for, column_of
from verl_patches.utils.routes.actor_weights import ActorWeights
from verl_patches.utils.routes.transport import Transport
from verl_patches.workers.rollout.vllm_rollout.balance.rebalance import Moved, Rebalancer
from verl_patches.workers.rollout.vllm_rollout.balance.rebalance import asked_for as rebalance_asked_for
from verl_patches.workers.rollout.vllm_rollout.derived_weights import free_derived_weights, rebuild_derived_weights
from verl_patches.workers.rollout.vllm_rollout.dp_environment import data_parallel_environment
from verl_patches.workers.rollout.vllm_rollout.engine_args import has_experts, npu_engine_args
from verl_patches.workers.rollout.vllm_rollout.kv_cache import build_kv_cache, check_block_count, release_kv_cache
from verl_patches.workers.rollout.vllm_rollout.released_weights import (
    ReleasedWeights,
    check_coverage,
    check_no_poison,
    poison,
)
from verl_patches.workers.rollout.vllm_rollout.request_seeds import SEEDS, seeded
from vllm_ascend_patches.worker.step_counts import counting_steps

WEIGHTS, KV_CACHE = "weights", "kv_cache"


class NPURollout(vLLMRollout):
    """`rollout.name=vllm`, `rollout.mode=sync`.

    Between generations neither weights nor KV cache stay on the device: `release` frees the tensors themselves, as
    vLLM's sleep mode cannot on NPUs, and `resume` allocates them again. Weights come back uninitialised and are filled
    by `update_weights`, which verl calls before every generation; the first sync is proven complete element by element
    (everything is NaN before it), each later one parameter by parameter.
    """

    def __init__(self, config: RolloutConfig, model_config: HFModelConfig, device_mesh: Any) -> None:
        rollout_config: RolloutConfig = omega_conf_to_dataclass(config)
        # verl refuses a small token budget with chunked prefill, vLLM-Ascend refuses it without. The engine arguments
        # decide by the budget; verl's own check is given the answer that passes.
        accepted = replace(rollout_config, enable_chunked_prefill=False)
        self._ledger = MemoryLedger()
        # vLLM takes what the device has left.
        memory_utils.aggressive_empty_cache(max_retries=3)
        engine = partial(_npu_engine, has_experts(model_config.hf_config.to_dict()))
        with (
            self._ledger.counting(),
            data_parallel_environment(rollout_config.tensor_model_parallel_size),
            true_compile(),
            _engine_built_by(engine),
        ):
            super().__init__(accepted, model_config, device_mesh)
        self.config = rollout_config
        self._weights = ReleasedWeights(self._model)
        self._transport: Transport | None = None
        self._every_element_loaded = False
        self._kv_cache_present = True
        self._seeds: Any = None
        self._moved = Moved()
        check_block_count(self._engine.engine_core.engine_core)

    @property
    def _engine(self) -> Any:
        return self.inference_engine.llm_engine

    @property
    def _runner(self) -> Any:
        return self._engine.model_executor.driver_worker.worker.model_runner

    @property
    def _model(self) -> torch.nn.Module:
        return self._runner.model

    @property
    def expert_recorder(self) -> Any:
        """Where the choices of experts are kept by request, with `train.routing_replay = "rollout"`."""
        return self._runner.expert_recorder

    @property
    def device_bytes(self) -> int:
        """Bytes this rollout holds on the device now, by the allocator's counter over its own calls."""
        return self._ledger.held

    async def resume(self, tags: list[str]) -> None:
        """Allocate weights and/or KV cache on the device.

        Args:
            tags: any of "weights" and "kv_cache". What is there already is left as it is.
        """
        unknown = set(tags) - {WEIGHTS, KV_CACHE}
        if unknown:
            raise ValueError(f"unknown tags {sorted(unknown)}: expected {WEIGHTS!r} and {KV_CACHE!r}")
        if not self.config.free_cache_engine:
            return
        if WEIGHTS in tags and not self._weights.on_device:
            with self._ledger.counting():
                self._weights.onload()
            if not self._every_element_loaded:
                poison(self._model)
            self._record("weights_in")
        if KV_CACHE in tags and not self._kv_cache_present:
            # Graphs and HCCL allocate beside torch.
            release_to_device()
            # Graph mode compiles and captures here.
            with self._ledger.counting(), true_compile():
                build_kv_cache(self._engine)
            self._kv_cache_present = True
            self._record("kv_in")

    async def update_weights(self, weights: Generator[tuple[str, torch.Tensor], None, None], **kwargs: Any) -> None:
        """Fill the rollout's weights from `weights` (Hugging Face names) and rebuild what is derived from them.

        Raises:
            RuntimeError: a parameter of the rollout model was not loaded, or not in full.
        """
        with self._ledger.counting():
            if kwargs.get("peft_config") and kwargs.get("base_sync_done", False):
                await super().update_weights(weights, **kwargs)
            else:
                loaded = await self._load(weights, **kwargs)
                check_coverage(self._model, loaded)
                if not self._every_element_loaded:
                    check_no_poison(self._model)
                    self._every_element_loaded = True
                rebuild_derived_weights(self._model, self._engine.model_config.dtype)
        self._record("weights_synced")

    async def _load(self, weights: Any, **kwargs: Any) -> set[str]:
        """Bring the weights into the model; returns the names of the parameters that were loaded."""
        if isinstance(weights, ActorWeights):
            if self._transport is None:
                parallel = self._engine.vllm_config.parallel_config
                tensor, data = parallel.tensor_parallel_size, parallel.data_parallel_size
                self._transport = weights.transport(self._model, tensor, data)
            return weights.move(self._transport, self._model)
        with _names_loaded_into(self._model) as loaded:
            await super().update_weights(weights, **kwargs)
        return loaded

    def generate_sequences(self, prompts: DataProto, **kwargs: Any) -> DataProto:
        """As verl's. The first decode of a graph compiles, so PyTorch's own `torch.compile` is in place.

        The cyclic garbage collector rests while vLLM's step loop runs: its full passes walk the whole training state.
        """
        self._seeds = prompts.non_tensor_batch.pop(SEEDS, None)
        finished: list[Any] = []
        with (
            true_compile(),
            _collector_paused(),
            _method_replaced(self.inference_engine, "generate", partial(self._generate, finished)),
            counting_steps() as steps,
            self._experts_recorded(asked_for() and not prompts.meta_info.get("validate", False)) as recorded,
        ):
            output = around_generation(partial(super().generate_sequences, **kwargs), self, prompts)
            if recorded:
                output.non_tensor_batch[COLUMN] = column_of(self._choices_of(finished))
        record(
            "rollout_steps",
            graphs={str(size): n for size, n in sorted(steps.graphs.items())},
            others=steps.others,
            moved=self._moved.requests,
            prefilled_again=self._moved.tokens,
        )
        self._record("generated")
        return output

    @contextmanager
    def _experts_recorded(self, wanted: bool) -> Iterator[bool]:
        """Within the block this rank keeps the choices of experts, if wanted, and if it is the one to hand them on.

        That is an engine's first rank, whose batch verl takes; the others choose the same.
        """
        if not wanted or get_tensor_model_parallel_rank() != 0:
            yield False
            return
        self.expert_recorder.recording = True
        try:
            yield True
        finally:
            self.expert_recorder.recording = False
            self.expert_recorder.clear()

    def _choices_of(self, finished: list[Any]) -> Iterator[Choices]:
        """The choices of vLLM's finished requests, in their order: of all tokens but the last of each answer.

        Raises:
            RuntimeError: a token's are missing.
        """
        for request in finished:
            taken = self.expert_recorder.take(request.request_id)
            computed = len(request.prompt_token_ids) + len(request.outputs[0].token_ids) - 1
            if len(taken) != computed:
                raise RuntimeError(
                    f"request {request.request_id}: the experts of {len(taken)} tokens were recorded, and {computed} "
                    "tokens were computed"
                )
            yield taken

    async def release(self) -> None:
        """Free weights, derived weights and KV cache on the device (with `free_cache_engine`), and forget prefixes.

        Raises:
            RuntimeError: requests are unfinished.
        """
        self.inference_engine.reset_prefix_cache()
        if not self.config.free_cache_engine:
            return
        # Reference cycles that generation left may hold device memory. This is not counted, as other garbage goes too.
        gc.collect()
        with self._ledger.counting():
            if self._kv_cache_present:
                release_kv_cache(self._engine)
                self._kv_cache_present = False
            free_derived_weights(self._model)
            self._weights.release()
        self._record("released")

    def _generate(
        self, finished: list[Any], generate: Callable[..., Any], *, sampling_params: Any, **kwargs: Any
    ) -> Any:
        """Count the memory that the engine leaves on the device after a generation, but not that of verl's batch.

        Args:
            finished: takes the engine's finished requests, in the order of the prompts.
        """
        if self._seeds is not None:
            sampling_params = seeded(sampling_params, self._seeds)
        with self._ledger.counting(), self._balanced():
            outputs = generate(sampling_params=sampling_params, **kwargs)
        finished += outputs
        return outputs

    @contextmanager
    def _balanced(self) -> Iterator[None]:
        """Within the block unfinished requests change engines, if the run asks for it and there are several."""
        self._moved = Moved()
        if not rebalance_asked_for() or self._engine.vllm_config.parallel_config.data_parallel_size == 1:
            yield
            return
        recorder = getattr(self._runner, "expert_recorder", None)
        experts = recorder if recorder is not None and recorder.recording else None
        rebalancer = Rebalancer(self.inference_engine, self.config.response_length, experts)
        with (
            _method_replaced(self._engine, "has_unfinished_requests", rebalancer.has_unfinished_requests),
            _method_replaced(self.inference_engine, "_run_engine", rebalancer.run_engine),
        ):
            yield
        self._moved = rebalancer.moved

    def _record(self, phase: str) -> None:
        record_memory(phase, rollout_bytes=self._ledger.held)


class UnsupportedAsyncRollout:
    """`rollout.mode=async`: stops, because nothing of the NPU adaptation applies to verl's asynchronous rollout."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "rollout.mode=async is not supported on NPUs by this recipe: set actor_rollout_ref.rollout.mode=sync"
        )


def _npu_engine(spreads_experts: bool, stock_factory: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    return stock_factory(**npu_engine_args(kwargs, spreads_experts))


@contextmanager
def _engine_built_by(build: Callable[[Callable[..., Any], dict[str, Any]], Any]) -> Iterator[None]:
    """Within the block, verl's rollout module builds its engine by `build(LLM, keyword arguments)`."""
    stock = vllm_rollout_spmd.LLM
    vllm_rollout_spmd.LLM = lambda **kwargs: build(stock, kwargs)
    try:
        yield
    finally:
        vllm_rollout_spmd.LLM = stock


@contextmanager
def _names_loaded_into(model: Any) -> Iterator[set[str]]:
    """Collects what `model.load_weights` returns within the block; verl's rollout drops it."""
    names: set[str] = set()

    def load_and_note(load: Callable[[Any], set[str]], weights: Any) -> set[str]:
        loaded = load(weights)
        names.update(loaded or ())
        return loaded

    with _method_replaced(model, "load_weights", load_and_note):
        yield names


@contextmanager
def _method_replaced(owner: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Within the block `owner.name(...)` is `replacement(<the method>, ...)`; `owner` is one instance, not a class."""
    original, of_instance = getattr(owner, name), name in owner.__dict__
    owner.__dict__[name] = lambda *args, **kwargs: replacement(original, *args, **kwargs)
    try:
        yield
    finally:
        if of_instance:
            owner.__dict__[name] = original
        else:
            del owner.__dict__[name]


@contextmanager
def _collector_paused() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
