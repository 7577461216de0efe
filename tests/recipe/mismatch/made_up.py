# SPDX-License-Identifier: Apache-2.0
"""Records of a step that never was: two engines that agree to the last bit but for what a test plants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from recipe.mismatch import record

LAYERS, DENSE, EXPERTS, CHOSEN, HIDDEN = 3, 1, 8, 4, 16
RANKS, ROWS, PROMPT, LONGEST = 2, 4, 3, 5
Place = tuple[int, int]  # a rank of the rollout and a row of its batch


@dataclass
class Step:
    """`flips`: (answer, layer, position) at which the actor takes the fifth expert for the fourth.

    `moved`: by how much the actor's log-probability of an answer's token, counted from 0, is off. `mended`: whether the
    replay brings it back.
    """

    seed: int = 0
    flips: list[tuple[Place, int, int]] = field(default_factory=list)
    moved: dict[tuple[Place, int], float] = field(default_factory=dict)
    mended: bool = True

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)
        self.answers = {}
        for rank in range(RANKS):
            for row in range(ROWS):
                sampled = 2 + (rank + row) % (LONGEST - 1)
                length = PROMPT + sampled
                self.answers[rank, row] = {
                    "tokens": torch.randint(1, 100, (length,), generator=draw),
                    "hidden": torch.randn(LAYERS, length, HIDDEN, generator=draw),
                    "logits": torch.randn(LAYERS, length, EXPERTS, generator=draw),
                    "log_probs": -torch.rand(sampled, generator=draw),
                }

    def write(self, directory: Path) -> Path:
        for rank in range(RANKS):
            record.write_record(record.record_path(directory, record.ROLLOUT, rank), self.rollout(rank))
            record.write_record(record.record_path(directory, record.ACTOR, rank), self.actor(rank))
        return directory

    def rollout(self, rank: int) -> dict[str, torch.Tensor]:
        """As vLLM computes: all prompts, then token by token; not what is sampled last."""
        mine = [(rank, row) for row in range(ROWS)]
        order = [(place, position) for place in mine for position in range(PROMPT)]
        order += [
            (place, position)
            for position in range(PROMPT, PROMPT + LONGEST)
            for place in mine
            if position < len(self.answers[place]["tokens"]) - 1
        ]
        return self._layers(order, [row for _, row in mine], mine, flipped=False)

    def actor(self, rank: int) -> dict[str, torch.Tensor]:
        """As Megatron computes: answer behind answer; of both ranks of the rollout, the last one first."""
        mine = sorted((place for place in self.answers if place[1] % RANKS == rank), reverse=True)
        order = [(place, position) for place in mine for position in range(len(self.answers[place]["tokens"]))]
        layers = self._layers(order, list(range(len(mine))), mine, flipped=True)
        lengths = torch.tensor([len(self.answers[place]["tokens"]) for place in mine])
        rollout = _padded([self.answers[place]["log_probs"] for place in mine], 0.0)
        moved = rollout.clone()
        for (place, token), difference in self.moved.items():
            if place in mine:
                moved[mine.index(place), token] += difference
        return layers | {
            record.TOKENS: _padded([self.answers[place]["tokens"] for place in mine], -1).to(torch.int32),
            record.LENGTH: lengths.to(torch.int32),
            record.PROMPT_LENGTH: torch.full((len(mine),), PROMPT, dtype=torch.int32),
            record.ROLLOUT_LOG_PROBS: rollout,
            record.ACTOR_LOG_PROBS: moved,
            record.REPLAYED_LOG_PROBS: (rollout if self.mended else moved).clone(),
            record.NOT_REPLAYED: torch.tensor(0),
        }

    def _layers(
        self, order: list[tuple[Place, int]], rows: list[int], mine: list[Place], flipped: bool
    ) -> dict[str, torch.Tensor]:
        outputs = record.LayerOutputs()
        row_of: Mapping[Place, int] = dict(zip(mine, rows, strict=True))
        outputs.add(record.ROW, torch.tensor([row_of[place] for place, _ in order], dtype=torch.int32))
        outputs.add(record.POSITION, torch.tensor([position for _, position in order], dtype=torch.int32))
        tokens = [int(self.answers[place]["tokens"][position]) for place, position in order]
        outputs.add(record.TOKEN, torch.tensor(tokens, dtype=torch.int32))
        for layer in range(LAYERS):
            hidden = torch.stack([self.answers[place]["hidden"][layer, position] for place, position in order])
            outputs.add(record.HIDDEN, hidden, layer)
            if layer < DENSE:
                continue
            logits = torch.stack([self.answers[place]["logits"][layer, position] for place, position in order])
            ranked = logits.argsort(dim=1, descending=True)
            chosen = torch.zeros(logits.shape, dtype=torch.uint8).scatter(1, ranked[:, :CHOSEN], 1)
            for place, where, position in self.flips if flipped else ():
                if where == layer and (place, position) in order:
                    number = order.index((place, position))
                    last, next_one = ranked[number, CHOSEN - 1], ranked[number, CHOSEN]
                    chosen[number, last], chosen[number, next_one] = 0, 1
                    logits[number, [last, next_one]] = logits[number, [next_one, last]]
            outputs.set_bias(layer, None, EXPERTS)
            outputs.add(record.LOGITS, logits, layer)
            outputs.add(record.CHOSEN, chosen, layer)
        origin = torch.tensor(mine, dtype=torch.int32)
        return {**outputs.tensors(), record.ORIGIN: origin}


def _padded(rows: list[torch.Tensor], value: float) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
