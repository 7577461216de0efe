# SPDX-License-Identifier: Apache-2.0
"""Records what the actor computes in its log-probability pass, and repeats the pass with the rollout's routes.

Hooks on Megatron-core's decoder layers and routers. In the second pass each router is given the experts that the
rollout chose for the same tokens, and weighs them by its own scores; its result is recorded and not used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from verl.utils.megatron_utils import unwrap_model

from megatron_patches.core.transformer.moe.replay import choosing
from recipe.mismatch.record import (
    ACTOR,
    ACTOR_LOG_PROBS,
    CHOSEN,
    HIDDEN,
    LENGTH,
    LOGITS,
    NOT_REPLAYED,
    ORIGIN,
    ORIGIN_KEY,
    POSITION,
    PROMPT_LENGTH,
    REPLAYED_LOG_PROBS,
    ROLLOUT,
    ROLLOUT_LOG_PROBS,
    ROW,
    TOKEN,
    TOKENS,
    LayerOutputs,
    layers_of,
    read_records,
    record_path,
    write_record,
)
from verl_patches.routing_replay import COLUMN


def record_log_prob(compute: Callable[[Any, Any], Any], worker: Any, data: Any, directory: Path) -> Any:
    """`compute(worker, data)` with a record of it in `directory`."""
    batch = _Batch(data)
    hooks = _ModelHooks(worker, batch)
    with hooks.recording():
        output = compute(worker, data)
    # With train.routing_replay the first pass has replayed them, and been counted.
    data.non_tensor_batch.pop(COLUMN, None)
    with hooks.replaying(_rollout_choices(directory, batch)):
        replayed = compute(worker, data)
    log_probs = {
        ROLLOUT_LOG_PROBS: data.batch["rollout_log_probs"],
        ACTOR_LOG_PROBS: output.batch["old_log_probs"],
        REPLAYED_LOG_PROBS: replayed.batch["old_log_probs"],
    }
    tensors = {
        **hooks.outputs.tensors(),
        **batch.tensors(),
        **{name: value.float().cpu() for name, value in log_probs.items()},
        NOT_REPLAYED: torch.tensor(hooks.not_replayed),
    }
    write_record(record_path(directory, ACTOR, worker.rank), tensors)
    return output


class _Batch:
    """The answers of one process: tokens without padding, in the order of the batch."""

    def __init__(self, data: Any) -> None:
        mask = data.batch["attention_mask"].bool().cpu()
        sequences = [row[kept] for row, kept in zip(data.batch["input_ids"].cpu(), mask, strict=True)]
        self.lengths = mask.sum(dim=1)
        self.tokens = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=-1).to(torch.int32)
        answer = data.batch["responses"].shape[1]
        self.prompt_length = mask[:, :-answer].sum(dim=1)
        origins = [text.split(":") for text in data.non_tensor_batch[ORIGIN_KEY]]
        self.origin = torch.tensor([[int(rank), int(row)] for rank, row in origins], dtype=torch.int32)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {
            TOKENS: self.tokens,
            LENGTH: self.lengths.to(torch.int32),
            PROMPT_LENGTH: self.prompt_length.to(torch.int32),
            ORIGIN: self.origin,
        }


# By layer: for each row of the batch, which experts each position chose, [positions, experts].
Choices = dict[int, list[torch.Tensor]]


def _rollout_choices(directory: Path, batch: _Batch) -> Choices:
    """The rollout's choice of experts for the tokens of this process; all zeros where it computed none."""
    records = {int(record[ORIGIN][0, 0]): record for record in read_records(directory, ROLLOUT)}
    choices: Choices = {}
    for layer in sorted({layer for record in records.values() for layer in layers_of(record, CHOSEN)}):
        rows = []
        for (rank, row), length in zip(batch.origin.tolist(), batch.lengths.tolist(), strict=True):
            record = records[rank]
            chosen, mine = record[f"{CHOSEN}.{layer}"], record[ROW] == row
            dense = torch.zeros(length, chosen.shape[1], dtype=torch.uint8)
            dense[record[POSITION][mine].long()] = chosen[mine]
            rows.append(dense)
        choices[layer] = rows
    return choices


class _ModelHooks:
    """Hooks on the stage of the actor's model that this process has."""

    def __init__(self, worker: Any, batch: _Batch) -> None:
        if len(worker.actor.actor_module) != 1 or parallel_state.get_context_parallel_world_size() != 1:
            raise RuntimeError("an actor with virtual pipeline stages or context parallelism cannot be recorded")
        self._model = unwrap_model(worker.actor.actor_module[0])
        self._layers = {layer.layer_number - 1: layer for layer in self._model.decoder.layers}
        self._routers = {
            number: layer.mlp.router for number, layer in self._layers.items() if hasattr(layer.mlp, "router")
        }
        self._batch = batch
        self.outputs = LayerOutputs()
        # At how many positions and layers a router did not take the experts that it was given.
        self.not_replayed = 0
        self._next_row = 0
        # Of the part of the present micro batch that this process has, in its packed order: the row of the batch, the
        # position, and whether it is a token or padding.
        self._rows = self._positions = self._is_token = torch.empty(0)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While the block runs, what layers and routers put out is kept."""
        handles = [self._model.register_forward_pre_hook(self._begin_recorded_pass, with_kwargs=True)]
        for number, layer in self._layers.items():
            handles.append(layer.register_forward_hook(self._behind_layer(number)))
        for number, router in self._routers.items():
            self.outputs.set_bias(number, router.expert_bias, router.num_experts)
            handles.append(router.register_forward_hook(self._behind_router(number)))
        with self._hooked(handles):
            yield

    @contextmanager
    def replaying(self, choices: Choices) -> Iterator[None]:
        """While the block runs, every router chooses as the rollout did."""
        handles = [self._model.register_forward_pre_hook(self._begin_pass, with_kwargs=True)]

        def choose(number: int, router: Any) -> Callable[..., Any]:
            def routing(logits: torch.Tensor) -> Any:
                wanted = self._packed(choices[number]).bool().to(logits.device)
                with choosing(router, wanted):
                    output = type(router).routing(router, logits)
                other = (output[1] != wanted).any(dim=-1)
                self.not_replayed += int((other & wanted.any(dim=-1)).sum())
                return output

            return routing

        for number, router in self._routers.items():
            router.routing = choose(number, router)
        try:
            with self._hooked(handles):
                yield
        finally:
            for router in self._routers.values():
                del router.routing

    @contextmanager
    def _hooked(self, handles: list[Any]) -> Iterator[None]:
        self._next_row = 0
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin_pass(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        starts = kwargs["packed_seq_params"].cu_seqlens_q.tolist()
        lengths = [end - start for start, end in itertools.pairwise(starts)]
        rows = torch.arange(self._next_row, self._next_row + len(lengths)).repeat_interleave(torch.tensor(lengths))
        positions = torch.cat([torch.arange(length) for length in lengths])
        self._next_row += len(lengths)
        parts = parallel_state.get_tensor_model_parallel_world_size() if self._model.config.sequence_parallel else 1
        part = parallel_state.get_tensor_model_parallel_rank() if parts > 1 else 0
        self._rows, self._positions = (packed.chunk(parts)[part] for packed in (rows, positions))
        self._is_token = self._positions < self._batch.lengths[self._rows]

    def _begin_recorded_pass(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self._begin_pass(model, args, kwargs)
        rows, positions = self._rows[self._is_token], self._positions[self._is_token]
        self.outputs.add(ROW, rows.to(torch.int32))
        self.outputs.add(POSITION, positions.to(torch.int32))
        self.outputs.add(TOKEN, self._batch.tokens[rows, positions])

    def _behind_layer(self, number: int) -> Callable[..., None]:
        def note(layer: Any, args: Any, output: Any) -> None:
            self.outputs.add(HIDDEN, self._tokens_of(output[0]), number)

        return note

    def _behind_router(self, number: int) -> Callable[..., None]:
        def note(router: Any, args: Any, output: Any) -> None:
            with torch.no_grad():
                self.outputs.add(LOGITS, self._tokens_of(router.gating(args[0])).float(), number)
            self.outputs.add(CHOSEN, self._tokens_of(output[1]).to(torch.uint8), number)

        return note

    def _tokens_of(self, output: torch.Tensor) -> torch.Tensor:
        """What a module put out, of tokens alone: [n, last axis]."""
        flat = output.detach().reshape(-1, output.shape[-1])
        return flat[self._is_token.to(flat.device)]

    def _packed(self, rows: list[torch.Tensor]) -> torch.Tensor:
        """The values of this process's part of the present micro batch, padding included, of values by row."""
        packed = torch.zeros(len(self._rows), rows[0].shape[1], dtype=rows[0].dtype)
        for row in self._rows.unique().tolist():
            mine = (self._rows == row) & self._is_token
            packed[mine] = rows[row][self._positions[mine]]
        return packed
