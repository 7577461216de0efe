# SPDX-License-Identifier: Apache-2.0
"""The routed experts: each goes from a die that trained it to the dies that run it.

Every pipeline stage sends its n-th mixture-of-experts layer at the same time, in a wave. Which die sends to which is
the same in all waves of the same stages, but for the turns that dies with the same experts take. So one wave is
arranged, for all dies, and serves for all: that is a few thousand deliveries, however many layers the model has.
"""

# NPU-ADAPTATION: a die is sent only the weights that it lacks: the routed experts

from __future__ import annotations

import functools
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout
from verl_patches.utils.routes.spans import Span, common, nbytes, take, whole
from verl_patches.utils.routes.tensors import Model


@dataclass(frozen=True, slots=True)
class Delivery:
    """An expert of the wave's layer of a stage goes from one die to another."""

    stage: int
    expert: int
    source: int
    destination: int


class _Direction:
    """What the dies have sent in each round, or received.

    `full`: of a die, the rounds in which it has `limit` deliveries, as bits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count: Counter[tuple[int, int]] = Counter()
        self.full: defaultdict[int, int] = defaultdict(int)

    def add(self, die: int, number: int) -> None:
        self._count[die, number] += 1
        if self._count[die, number] == self._limit:
            self.full[die] |= 1 << number


class ExpertRoutes:
    """Who sends which expert to whom, and when; `buffer_bytes` bound what a die sends and receives at a time."""

    def __init__(self, model: Model, actor: ActorLayout, rollout: RolloutLayout, buffer_bytes: int) -> None:
        self._model, self._actor, self._rollout = model, actor, rollout
        self._layers = [
            tuple(layer for layer in actor.layers(stage) if layer >= model.sizes.dense_layers)
            for stage in range(actor.stages)
        ]
        # An expert that fills more than half of the buffer is cut, so that a die can send one and receive one.
        tensors = deque(whole(tensor) for tensor in model.expert_tensors(0, 0))
        self.expert_bytes = nbytes(tensors)
        portion = -(-self.expert_bytes // -(-self.expert_bytes // max(1, buffer_bytes // 2)))
        self._parts: list[list[tuple[int, int, int]]] = []
        numbers = {span.tensor.name: number for number, span in enumerate(tensors)}
        self._part_bytes = []
        while tensors:
            part = take(tensors, min(buffer_bytes // 2, portion))
            self._parts.append([(numbers[span.tensor.name], span.first, span.stop) for span in part])
            self._part_bytes.append(nbytes(part))
        self._at_once = buffer_bytes // 2 // max(self._part_bytes)
        self._wave, self._arranged = functools.cache(self._deal), functools.cache(self._arrange)

    @property
    def waves(self) -> int:
        return max(len(layers) for layers in self._layers)

    def moe_layers(self, stage: int) -> tuple[int, ...]:
        """The numbers of a stage's layers that have routed experts."""
        return self._layers[stage]

    def rounds(self) -> list[tuple[int, int, tuple[Delivery, ...]]]:
        """Every round of all dies: its wave, the part of each expert that travels, and the deliveries."""
        return [
            (wave, part, round_)
            for wave in range(self.waves)
            for part in range(len(self._parts))
            for round_ in self._arranged(*self._kind(wave))
        ]

    def part_bytes(self, part: int) -> int:
        """Bytes of what travels of an expert in a round."""
        return self._part_bytes[part]

    def deliveries(self, wave: int) -> tuple[Delivery, ...]:
        """Every delivery of a wave, in no order of time."""
        return self._wave(*self._kind(wave))

    def spans(self, delivery: Delivery, wave: int, part: int) -> tuple[Span, ...]:
        """What travels of a delivery's expert in a round."""
        tensors = self._model.expert_tensors(self._layers[delivery.stage][wave], delivery.expert)
        return tuple(Span(tensors[number], first, stop) for number, first, stop in self._parts[part])

    def own(self, rank: int) -> Iterator[Span]:
        """What a die both trains and runs, and copies within itself."""
        for layer in self._layers[self._actor.stage(rank)]:
            for expert in self._own_experts(rank):
                yield from map(whole, self._model.expert_tensors(layer, expert))

    def own_bytes(self, rank: int) -> int:
        """Bytes of what a die copies within itself."""
        return len(self._layers[self._actor.stage(rank)]) * len(self._own_experts(rank)) * self.expert_bytes

    def needed_bytes(self, rank: int) -> int:
        """Bytes of all experts that a die runs, as they travel."""
        experts = self._rollout.experts(self._rollout.expert_rank(rank), self._model.sizes.experts)
        return sum(map(len, self._layers)) * len(experts) * self.expert_bytes

    def _own_experts(self, rank: int) -> range:
        experts = self._model.sizes.experts
        held = self._actor.experts(self._actor.expert_rank(rank), experts)
        return common(held, self._rollout.experts(self._rollout.expert_rank(rank), experts))

    def _kind(self, wave: int) -> tuple[int, tuple[int, ...]]:
        """What a wave's deliveries depend on: whose turn it is, and the stages that have a layer for it."""
        stages = tuple(stage for stage, layers in enumerate(self._layers) if wave < len(layers))
        return wave % self._actor.expert_data, stages

    def _deal(self, turn: int, stages: tuple[int, ...]) -> tuple[Delivery, ...]:
        experts = self._model.sizes.experts
        dealt = []
        for stage in stages:
            for expert_rank in range(self._actor.expert):
                holders = self._actor.expert_holders(stage, expert_rank)
                wanted = [
                    (expert, die)
                    for expert in self._actor.experts(expert_rank, experts)
                    for die in self._rollout.expert_dies(expert, experts)
                    if die not in holders
                ]
                # Dealt on from where the wave before stopped, so that over all waves the holders send alike.
                for number, (expert, die) in enumerate(wanted, turn * len(wanted)):
                    dealt.append(Delivery(stage, expert, holders[number % len(holders)], die))
        return tuple(dealt)

    def _arrange(self, turn: int, stages: tuple[int, ...]) -> tuple[tuple[Delivery, ...], ...]:
        """The deliveries of a wave in rounds in which no die sends more than `_at_once` of them, nor receives more.

        The shorter of two arrangements: deliveries over equal distances one after the other, as these have no source
        and no destination in common; or the experts of a die in another order in each stage, so that the stages do not
        all send to one die at first.
        """
        dies, each = self._actor.dies, self._model.sizes.experts // self._actor.expert
        wave = self._wave(turn, stages)
        by_distance = sorted(wave, key=lambda d: ((d.destination - d.source) % dies, d.source, d.expert))
        by_turns = sorted(wave, key=lambda d: ((d.expert + d.stage) % each, d.destination, d.stage))
        return min(self._packed(by_distance), self._packed(by_turns), key=len)

    def _packed(self, deliveries: list[Delivery]) -> tuple[tuple[Delivery, ...], ...]:
        """Each delivery in the first round in which its source may send, and its destination receive, one more."""
        rounds: list[list[Delivery]] = []
        outgoing, incoming = _Direction(self._at_once), _Direction(self._at_once)
        for delivery in deliveries:
            free = ~(outgoing.full[delivery.source] | incoming.full[delivery.destination])
            number = (free & -free).bit_length() - 1
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(delivery)
            outgoing.add(delivery.source, number)
            incoming.add(delivery.destination, number)
        return tuple(map(tuple, rounds))
