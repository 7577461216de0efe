# SPDX-License-Identifier: Apache-2.0
"""Records what the rollout's engine computes while it samples: forward hooks on the layers and routers of its model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.forward_context import get_forward_context

from recipe.mismatch.record import (
    CHOSEN,
    HIDDEN,
    LOGITS,
    ORIGIN,
    ORIGIN_KEY,
    POSITION,
    ROLLOUT,
    ROW,
    TOKEN,
    LayerOutputs,
    record_path,
    write_record,
)
from vllm_ascend_patches.expert_recorder import chosen_experts


def record_generation(generate: Callable[[Any], Any], rollout: Any, prompts: Any, directory: Path) -> Any:
    """`generate(prompts)` with a record of it in `directory`; each answer is marked with where it was sampled.

    Raises:
        RuntimeError: the engine computed tokens of which it cannot be told whose they are.
    """
    place_in_engine, rows = get_tensor_model_parallel_rank(), len(prompts.batch)
    # All ranks of an engine compute the same; its first one stands for it.
    rank = int(os.environ["RANK"]) - place_in_engine
    hooks = _EngineHooks(rollout)
    try:
        output = generate(prompts)
    finally:
        hooks.remove()
    origin = np.empty(rows, dtype=object)
    origin[:] = [f"{rank}:{row}" for row in range(rows)]
    output.non_tensor_batch[ORIGIN_KEY] = origin
    if place_in_engine == 0:
        write_record(record_path(directory, ROLLOUT, rank), hooks.tensors(rank, rows))
    return output


class _EngineHooks:
    """Forward hooks on one engine's model; the tokens of a pass are told by the model runner's batch."""

    def __init__(self, rollout: Any) -> None:
        worker = rollout.inference_engine.llm_engine.model_executor.driver_worker.worker
        self._runner, model = worker.model_runner, worker.model_runner.model
        self._outputs = LayerOutputs()
        self._requests: list[str] = []
        # Tokens of the present pass; 0 while the engine only keeps the others company.
        self._count = 0
        self._handles = [model.register_forward_pre_hook(self._begin_pass, with_kwargs=True)]
        decoder = model.model
        for number in range(decoder.start_layer, decoder.end_layer):
            layer = decoder.layers[number]
            self._handles.append(layer.register_forward_hook(self._behind_layer(number)))
            experts = getattr(layer.mlp, "experts", None)
            if experts is not None:
                bias = experts.e_score_correction_bias
                self._outputs.set_bias(number, bias, experts.global_num_experts)
                self._handles.append(layer.mlp.gate.register_forward_hook(self._behind_router(number, experts)))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def tensors(self, rank: int, rows: int) -> dict[str, torch.Tensor]:
        """The record of a generation of `rows` prompts; vLLM numbers requests in the order of the prompts."""
        numbers = torch.tensor([int(request) for request in self._requests])
        first = int(numbers.min()) if len(numbers) else 0
        if len(numbers) and int(numbers.max()) - first != rows - 1:
            raise RuntimeError(f"{rows} prompts became the requests {first} to {int(numbers.max())}")
        origin = torch.stack([torch.full((rows,), rank), torch.arange(rows)], dim=1)
        return {**self._outputs.tensors(), ROW: (numbers - first).to(torch.int32), ORIGIN: origin.to(torch.int32)}

    def _begin_pass(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if get_forward_context().attn_metadata is None:
            self._count = 0
            return
        lengths = self._runner.query_lens.tolist()
        self._count = sum(lengths)
        for request, length in zip(self._runner.input_batch.req_ids, lengths, strict=True):
            self._requests += [request] * length
        self._outputs.add(POSITION, kwargs["positions"][: self._count].to(torch.int32))
        self._outputs.add(TOKEN, kwargs["input_ids"][: self._count].to(torch.int32))

    def _behind_layer(self, number: int) -> Callable[..., None]:
        def note(layer: Any, args: Any, output: Any) -> None:
            if self._count:
                hidden, residual = (part[: self._count] for part in output)
                self._outputs.add(HIDDEN, hidden + residual, number)

        return note

    def _behind_router(self, number: int, experts: Any) -> Callable[..., None]:
        def note(gate: Any, args: Any, output: Any) -> None:
            if self._count:
                logits = output[0][: self._count]
                self._outputs.add(LOGITS, logits.float(), number)
                chosen = torch.zeros(logits.shape, dtype=torch.uint8, device=logits.device)
                self._outputs.add(CHOSEN, chosen.scatter_(1, chosen_experts(experts, logits).long(), 1), number)

        return note
