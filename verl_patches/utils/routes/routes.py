# SPDX-License-Identifier: Apache-2.0
"""The routes of the weight sync: who sends which slice of which tensor to whom, from the actor to the rollout.

Pure arithmetic on two layouts and the sizes of a model. Every rank works out its own part, and each part follows from
what all ranks know, so that what one sends is what another expects. `fingerprint` and `ledger` show that before a byte
is sent: the first is the same on all ranks if they were given the same, the second adds up to 0 over all ranks if what
they worked out fits together.
"""

# NPU-ADAPTATION: a die is sent only the weights that it lacks: who sends what to whom

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from verl_patches.utils.routes.dense import DenseRoutes
from verl_patches.utils.routes.experts import ExpertRoutes
from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout, check_pair
from verl_patches.utils.routes.spans import Exchange, Span
from verl_patches.utils.routes.tensors import SIZE_NAMES, Model, Sizes, Tensor

BUFFER_BYTES = 512 * 2**20
_WORD = 2**64


@dataclass(frozen=True, slots=True)
class Round:
    """What one rank sends and receives at a time. `number` counts the rounds of all ranks."""

    number: int
    sends: tuple[Exchange, ...]
    receives: tuple[Exchange, ...]

    @property
    def buffer_bytes(self) -> int:
        """Bytes that are on the way at this rank; what goes to several ranks is in one buffer."""
        return sum(exchange.nbytes for exchange in (*self.sends, *self.receives))


@dataclass(frozen=True)
class RankPlan:
    """One rank's part.

    `own`: what it both trains and runs, and copies within itself; `padding`: parameters of the rollout whose rows from
    a number on are padding, which nobody sends.

    `experts` and `dense` have only the rounds in which this rank takes part. Those of the routed experts have numbers
    in the whole world, those of everything else in the rank's model parallel group.
    """

    rank: int
    own: tuple[Span, ...]
    padding: tuple[tuple[str, int], ...]
    experts: tuple[Round, ...]
    dense: tuple[Round, ...]
    fingerprint: str
    ledger: int

    @property
    def received_bytes(self) -> int:
        return sum(exchange.nbytes for round_ in self.all_rounds for exchange in round_.receives)

    @property
    def sent_bytes(self) -> int:
        return sum(exchange.nbytes * len(exchange.audience) for round_ in self.all_rounds for exchange in round_.sends)

    @property
    def all_rounds(self) -> tuple[Round, ...]:
        return (*self.experts, *self.dense)


class Routes:
    """The routes between two layouts of a model.

    Args:
        sizes: of the model.
        actor, rollout: the layouts.
        buffer_bytes: the most that a die sends and receives at a time.
        item_bytes: of a weight as it travels.

    Raises:
        LayoutError: sizes that do not go together, or a buffer that is too small for one row of a tensor.
    """

    def __init__(
        self,
        sizes: Sizes,
        actor: ActorLayout,
        rollout: RolloutLayout,
        buffer_bytes: int = BUFFER_BYTES,
        item_bytes: int = 2,
    ) -> None:
        check_pair(actor, rollout, sizes.experts)
        model = Model(sizes, item_bytes)
        model.check(actor, rollout)
        self.sizes, self.model, self.actor, self.rollout = sizes, model, actor, rollout
        self.buffer_bytes, self.item_bytes = buffer_bytes, item_bytes
        self.experts = ExpertRoutes(model, actor, rollout, buffer_bytes)
        self.dense = DenseRoutes(model, actor, rollout, buffer_bytes)
        given = (
            actor,
            rollout,
            buffer_bytes,
            item_bytes,
            [(name, getattr(sizes, name)) for name in SIZE_NAMES],
        )
        self.fingerprint = hashlib.sha256(repr(given).encode()).hexdigest()

    def of_rank(self, rank: int) -> RankPlan:
        """The part of one rank."""
        experts, dense = tuple(self._expert_rounds(rank)), tuple(self._dense_rounds(rank))
        own = (*self.experts.own(rank), *self.dense.own(rank))
        ledger = (_ledger("experts", rank, experts) + _ledger("dense", rank, dense)) % _WORD
        return RankPlan(rank, own, self.dense.padding(rank), experts, dense, self.fingerprint, ledger)

    def actor_shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The parameters that a rank's plan counts on in the actor, layers numbered as in the whole model."""
        local = self.actor.experts(self.actor.expert_rank(rank), self.sizes.experts)
        held: list[tuple[Tensor, str, int]] = [
            (tensor, tensor.actor.parameter, len(tensor.actor_range(self.actor, self.actor.tensor_rank(rank))))
            for tensor in self.dense.tensors(self.actor.stage(rank))
        ]
        for layer in self.experts.moe_layers(self.actor.stage(rank)):
            for number, expert in enumerate(local):
                tensors = self.model.expert_tensors(layer, expert)
                held += [(tensor, f"{tensor.actor.parameter}{number}", tensor.length) for tensor in tensors]
        return _fused(held, lambda tensor: tensor.actor.block)

    def rollout_shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The parameters that a rank's plan counts on in the rollout."""
        stages = range(self.actor.stages)
        kept = [
            (tensor, tensor.rollout.parameter, tensor.rollout_length(self.rollout))
            for stage in stages
            for tensor in self.dense.tensors(stage)
        ]
        shapes = _fused(kept, lambda tensor: tensor.rollout.block)
        local = self.rollout.experts(self.rollout.expert_rank(rank), self.sizes.experts)
        for layer in (layer for stage in stages for layer in self.experts.moe_layers(stage)):
            one = [(t, t.rollout.parameter, t.length) for t in self.model.expert_tensors(layer, local.start)]
            fused = _fused(one, lambda tensor: tensor.rollout.block)
            shapes |= {name: (len(local), *shape) for name, shape in fused.items()}
        return shapes

    def _expert_rounds(self, rank: int) -> Iterable[Round]:
        for number, (wave, part, deliveries) in enumerate(self.experts.rounds()):
            mine = [
                Exchange(delivery.source, (delivery.destination,), self.experts.spans(delivery, wave, part))
                for delivery in deliveries
                if rank in (delivery.source, delivery.destination)
            ]
            if mine:
                yield _round(number, rank, mine)

    def _dense_rounds(self, rank: int) -> Iterable[Round]:
        group = self.actor.model_group(data_rank := self.actor.data_rank(rank))
        member = group.index(rank)
        for number, shares in enumerate(self.dense.rounds(self.dense.wants(data_rank))):
            mine = [
                Exchange(group[share.source], tuple(group[other] for other in share.audience), share.spans)
                for share in shares
                if member == share.source or member in share.audience
            ]
            if mine:
                yield _round(number, rank, mine)


def _fused(held: Iterable[tuple[Tensor, str, int]], block: Callable[[Tensor], int]) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters from the tensors in them, each with the parameter's name and its length along the axis."""
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor, parameter, length in held:
        whole = (block(tensor) + 1) * length
        shapes[parameter] = (*tensor.shape[: tensor.axis], whole, *tensor.shape[tensor.axis + 1 :])
    return shapes


def _round(number: int, rank: int, exchanges: Iterable[Exchange]) -> Round:
    sends = tuple(exchange for exchange in exchanges if exchange.source == rank)
    return Round(number, sends, tuple(exchange for exchange in exchanges if exchange.source != rank))


def _ledger(kind: str, rank: int, rounds: Iterable[Round]) -> int:
    """What a rank sends less what it receives, as a sum of hashes."""
    total = 0
    for round_ in rounds:
        for exchange in round_.sends:
            total += sum(_entry(kind, round_.number, exchange, other) for other in exchange.audience)
        total -= sum(_entry(kind, round_.number, exchange, rank) for exchange in round_.receives)
    return total


def _entry(kind: str, number: int, exchange: Exchange, destination: int) -> int:
    spans = [(span.tensor.name, span.first, span.stop, span.tensor.item_bytes) for span in exchange.spans]
    text = repr((kind, number, exchange.source, destination, spans))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
