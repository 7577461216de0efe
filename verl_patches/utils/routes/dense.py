# SPDX-License-Identifier: Apache-2.0
"""Everything but the routed experts: each die has its own stage's, and gets the others' from its pipeline peers.

The dies of a model parallel group (Megatron's: one data parallel rank, all stages and tensor ranks) hold one whole copy
together. So each group serves itself, and data parallel ranks send alike. What several dies of a group want alike is
one exchange: where the stage's dies are a multiple of both tensor parallel sizes, that is a whole pipeline group.
"""

# NPU-ADAPTATION: a die is sent only the weights that it lacks: everything but the experts

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator

from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout
from verl_patches.utils.routes.spans import Exchange, Span, common, nbytes, take
from verl_patches.utils.routes.tensors import Model, Tensor


class DenseRoutes:
    """Who sends what to whom within a group, and when; `buffer_bytes` bound what a die has on the way at a time.

    In its exchanges dies are numbered within the group.
    """

    def __init__(self, model: Model, actor: ActorLayout, rollout: RolloutLayout, buffer_bytes: int) -> None:
        self._model, self._actor, self._rollout, self._buffer_bytes = model, actor, rollout, buffer_bytes
        self._stages = [tuple(self._stage_tensors(stage)) for stage in range(actor.stages)]
        self.shares, self.rounds = functools.cache(self._shares), functools.cache(self._rounds)
        self._own, self._needed = functools.cache(self._own_spans), functools.cache(self._needed_by)

    def tensors(self, stage: int) -> tuple[Tensor, ...]:
        """All tensors of a pipeline stage but those of its routed experts."""
        return self._stages[stage]

    def wants(self, data_rank: int) -> tuple[int, ...]:
        """The tensor parallel ranks in the rollout of the dies of a group; they decide what goes where in it."""
        return tuple(self._rollout.tensor_rank(rank) for rank in self._actor.model_group(data_rank))

    def _shares(self, wants: tuple[int, ...]) -> tuple[Exchange, ...]:
        """All that is sent in a group; one share for each source and audience."""
        queues: dict[tuple[int, tuple[int, ...]], list[Span]] = {}
        sent = [0] * len(wants)
        for stage, tensors in enumerate(self._stages):
            for tensor in tensors:
                for span, holders, audience in self._cells(stage, tensor, wants):
                    source = min(holders, key=lambda member: sent[member])
                    sent[source] += span.nbytes * len(audience)
                    queues.setdefault((source, audience), []).append(span)
        return tuple(Exchange(*ends, tuple(spans)) for ends, spans in sorted(queues.items(), key=lambda item: item[0]))

    def _rounds(self, wants: tuple[int, ...]) -> tuple[tuple[Exchange, ...], ...]:
        """The shares in rounds. In each, every share that is not yet sent sends on, all of them equally many bytes up
        to one index of a tensor, as many as keep every die within the buffer."""
        pending = {(share.source, share.audience): deque(share.spans) for share in self.shares(wants)}
        rounds = []
        while pending:
            touching = [0] * len(wants)
            for source, audience in pending:
                for member in (source, *audience):
                    touching[member] += 1
            each = self._buffer_bytes // max(touching)
            rounds.append(tuple(Exchange(*ends, tuple(take(spans, each))) for ends, spans in pending.items()))
            pending = {ends: spans for ends, spans in pending.items() if spans}
        return tuple(rounds)

    def own(self, rank: int) -> Iterator[Span]:
        """What a die both trains and runs, and copies within itself."""
        yield from self._own(self._actor.stage(rank), self._actor.tensor_rank(rank), self._rollout.tensor_rank(rank))

    def own_bytes(self, rank: int) -> int:
        """Bytes of what a die copies within itself."""
        return nbytes(self.own(rank))

    def padding(self, rank: int) -> tuple[tuple[str, int], ...]:
        """Parameters of a rollout's rank that end in padding, and the row it begins at."""
        tensor_rank = self._rollout.tensor_rank(rank)
        return tuple(
            (tensor.rollout.parameter, len(tensor.rollout_range(self._rollout, tensor_rank)))
            for tensors in self._stages
            for tensor in tensors
            if tensor.padded
        )

    def needed_bytes(self, rank: int) -> int:
        """Bytes of all that a die of the rollout keeps beside its experts, as they travel."""
        return self._needed(self._rollout.tensor_rank(rank))

    def _own_spans(self, stage: int, actor_rank: int, rollout_rank: int) -> tuple[Span, ...]:
        spans = []
        for tensor in self._stages[stage]:
            held = tensor.actor_range(self._actor, actor_rank)
            both = common(held, tensor.rollout_range(self._rollout, rollout_rank))
            if both:
                spans.append(Span(tensor, both.start, both.stop))
        return tuple(spans)

    def _needed_by(self, rollout_rank: int) -> int:
        return sum(
            len(tensor.rollout_range(self._rollout, rollout_rank)) * tensor.index_bytes
            for tensors in self._stages
            for tensor in tensors
        )

    def _cells(
        self, stage: int, tensor: Tensor, wants: tuple[int, ...]
    ) -> Iterator[tuple[Span, range, tuple[int, ...]]]:
        """The pieces into which the cuts of both engines divide a tensor: each with the members of the group that hold
        it, and those that want it and do not."""
        ranks = self._actor.tensor
        of_stage = range(stage * ranks, (stage + 1) * ranks)
        seen = sorted(set(wants)) if tensor.rollout.split else [wants[0]]
        for tensor_rank in range(ranks if tensor.actor.split else 1):
            held = tensor.actor_range(self._actor, tensor_rank)
            holders = of_stage[tensor_rank : tensor_rank + 1] if tensor.actor.split else of_stage
            for want in seen:
                cell = common(held, tensor.rollout_range(self._rollout, want))
                audience = tuple(
                    member
                    for member, wanted in enumerate(wants)
                    if member not in holders and (wanted == want or not tensor.rollout.split)
                )
                if cell and audience:
                    yield Span(tensor, cell.start, cell.stop), holders, audience

    def _stage_tensors(self, stage: int) -> Iterator[Tensor]:
        if stage == 0:
            yield from self._model.first_tensors()
        for layer in self._actor.layers(stage):
            yield from self._model.layer_tensors(layer, self._rollout)
        if stage == self._actor.stages - 1:
            yield from self._model.last_tensors()
