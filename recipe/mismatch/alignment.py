# SPDX-License-Identifier: Apache-2.0
"""The records of both engines on one grid: answers by positions, the same tokens at the same places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from recipe.mismatch import record
from recipe.mismatch.record import RecordError, layers_of, read_records

Record = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Engine:
    """What one engine computed, on the grid; NaN or False where it computed nothing.

    `computed` [answers, positions]. By layer: `hidden` [answers, positions, hidden size], the residual stream behind
    the layer; `scores` [answers, positions, experts], by which a router chose: sigmoid of its logits, plus bias;
    `chosen` of the same shape.
    """

    computed: torch.Tensor
    hidden: Mapping[int, torch.Tensor]
    scores: Mapping[int, torch.Tensor]
    chosen: Mapping[int, torch.Tensor]


@dataclass(frozen=True)
class Aligned:
    """One step of both engines.

    `origins`: (rank, row) of each answer in the rollout. `tokens` [answers, positions], -1 behind the end. `length` and
    `prompt_length` [answers]. Log-probabilities [answers, longest answer]. `not_replayed`: at how many positions and
    layers the actor did not take the rollout's experts when they were replayed.
    """

    origins: Sequence[tuple[int, int]]
    tokens: torch.Tensor
    length: torch.Tensor
    prompt_length: torch.Tensor
    rollout: Engine
    actor: Engine
    rollout_log_probs: torch.Tensor
    actor_log_probs: torch.Tensor
    replayed_log_probs: torch.Tensor
    not_replayed: int

    @property
    def sampled(self) -> torch.Tensor:
        """Which of the log-probabilities are those of sampled tokens, [answers, longest answer]."""
        columns = torch.arange(self.rollout_log_probs.shape[1])
        return columns[None] < (self.length - self.prompt_length)[:, None]

    @property
    def layers_with_experts(self) -> list[int]:
        return sorted(self.actor.chosen)


def align(directory: Path) -> Aligned:
    """Bring the records of one step together.

    Raises:
        RecordError: a record is missing, or is of another batch than the others.
    """
    rollouts, actors = read_records(directory, record.ROLLOUT), read_records(directory, record.ACTOR)
    origins = sorted({(int(rank), int(row)) for one in actors for rank, row in one[record.ORIGIN].tolist()})
    index = {origin: number for number, origin in enumerate(origins)}
    answers, positions = len(origins), max(one[record.TOKENS].shape[1] for one in actors)
    longest = max(one[record.ACTOR_LOG_PROBS].shape[1] for one in actors)
    tokens = torch.full((answers, positions), -1)
    per_answer = {name: torch.zeros(answers, dtype=torch.long) for name in (record.LENGTH, record.PROMPT_LENGTH)}
    log_probs = {
        name: torch.zeros(answers, longest, dtype=torch.float64)
        for name in (record.ROLLOUT_LOG_PROBS, record.ACTOR_LOG_PROBS, record.REPLAYED_LOG_PROBS)
    }
    for one in actors:
        rows = _numbers(one, index)
        tokens[rows, : one[record.TOKENS].shape[1]] = one[record.TOKENS].long()
        for name, target in (per_answer | log_probs).items():
            value = one[name].to(target.dtype)
            if target.dim() == 1:
                target[rows] = value
            else:
                target[rows, : value.shape[1]] = value
    rollout, actor = _on_grid(rollouts, index, tokens, directory), _on_grid(actors, index, tokens, directory)
    # The last token of an answer goes through the actor only: nothing is sampled behind it.
    needed = torch.arange(positions)[None] < (per_answer[record.LENGTH] - 1)[:, None]
    for name, engine in ((record.ROLLOUT, rollout), (record.ACTOR, actor)):
        if not engine.computed[needed].all():
            missing = int((needed & ~engine.computed).sum())
            raise RecordError(
                f"{directory}: the {name} has no record of {missing} tokens; record it again with --again"
            )
    return Aligned(
        origins=origins, tokens=tokens,
        length=per_answer[record.LENGTH], prompt_length=per_answer[record.PROMPT_LENGTH],
        rollout=rollout, actor=actor,
        rollout_log_probs=log_probs[record.ROLLOUT_LOG_PROBS], actor_log_probs=log_probs[record.ACTOR_LOG_PROBS],
        replayed_log_probs=log_probs[record.REPLAYED_LOG_PROBS],
        not_replayed=sum(int(one[record.NOT_REPLAYED]) for one in actors),
    )  # fmt: skip


def _numbers(one: Record, index: Mapping[tuple[int, int], int]) -> torch.Tensor:
    """The answers' numbers on the grid, by the rows of this process's batch; -1: the actor did not get that answer."""
    return torch.tensor([index.get((int(rank), int(row)), -1) for rank, row in one[record.ORIGIN].tolist()])


def _on_grid(
    records: Sequence[Record], index: Mapping[tuple[int, int], int], tokens: torch.Tensor, directory: Path
) -> Engine:
    computed = torch.zeros(tokens.shape, dtype=torch.bool)
    grids: dict[str, dict[int, torch.Tensor]] = {kind: {} for kind in record.PER_LAYER}
    for one in records:
        answer, position = _numbers(one, index)[one[record.ROW].long()], one[record.POSITION].long()
        kept = answer >= 0
        answer, position = answer[kept], position[kept]
        if not torch.equal(tokens[answer, position], one[record.TOKEN].long()[kept]):
            raise RecordError(f"{directory}: its records are of different answers; record it again with --again")
        computed[answer, position] = True
        for kind in (record.HIDDEN, record.LOGITS, record.CHOSEN):
            for layer in layers_of(one, kind):
                value = one[f"{kind}.{layer}"][kept].float()
                if layer not in grids[kind]:
                    grids[kind][layer] = torch.full((*tokens.shape, value.shape[1]), float("nan"))
                grids[kind][layer][answer, position] = value
        for layer in layers_of(one, record.BIAS):
            grids[record.BIAS][layer] = one[f"{record.BIAS}.{layer}"]
    return Engine(
        computed=computed,
        hidden=grids[record.HIDDEN],
        scores={
            layer: torch.sigmoid(logits) + grids[record.BIAS][layer] for layer, logits in grids[record.LOGITS].items()
        },
        chosen={layer: value == 1 for layer, value in grids[record.CHOSEN].items()},
    )
