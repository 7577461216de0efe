# SPDX-License-Identifier: Apache-2.0
"""The routes of a run's direct weight sync, and their figures over all dies, without the list of what each receives."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from dataclasses import dataclass

from recipe.models.architecture import Architecture, LatentArchitecture
from recipe.plan.subject import Subject
from recipe.runfile.layout import Layout
from recipe.runfile.schema import MIB
from verl_patches.utils.routes.dense import DenseRoutes
from verl_patches.utils.routes.experts import ExpertRoutes
from verl_patches.utils.routes.layouts import ActorLayout, LayoutError, RolloutLayout
from verl_patches.utils.routes.routes import Routes


@dataclass(frozen=True)
class Bytes:
    """Bytes of one die in one sync: what the rollout keeps there, what of it the actor has there, and what travels."""

    needed: int
    own: int
    received: int
    sent: int

    @property
    def lacking(self) -> int:
        """What the rollout keeps there and the actor has not: the least that can be received."""
        return self.needed - self.own


@dataclass(frozen=True)
class World:
    """`experts` and `dense`: of each die, of the routed experts and of everything else; and the number of rounds, for
    `dense` those of the group that has most. `imbalance`: the most that a die sends of what others hold too, as a
    multiple of what it would be if all of these sent alike."""

    experts: tuple[Bytes, ...]
    dense: tuple[Bytes, ...]
    expert_rounds: int
    dense_rounds: int
    imbalance: float


def routes_of(run: Subject) -> Routes:
    """The routes between the actor's layout and the rollout's, in rounds of the run's buffer.

    Raises:
        LayoutError: sizes that the run file's own rules let through, but that do not go together.
    """
    rollout = run.config.rollout
    return _routes(run.layout, run.model, rollout.direct_sync_buffer_mib * MIB, rollout.multistream_moe)


@functools.lru_cache(maxsize=32)
def _routes(layout: Layout, model: Architecture, buffer_bytes: int, replicated_shared: bool) -> Routes:
    if not isinstance(model, LatentArchitecture):
        raise LayoutError("the routes know multi-latent attention alone")
    return Routes(
        model,
        ActorLayout(layout.dies, layout.actor_tensor, layout.actor_expert, layout.stage_layers),
        RolloutLayout(layout.dies, layout.rollout_tensor, layout.rollout_instances, replicated_shared),
        buffer_bytes,
    )


def peak_bytes(routes: Routes) -> list[int]:
    """The most that each die has on the way at a time."""
    most, seen = [0] * routes.actor.dies, set()
    for _, part, deliveries in routes.experts.rounds():
        if (part, deliveries) not in seen:
            seen.add((part, deliveries))
            counts = Counter(die for delivery in deliveries for die in (delivery.source, delivery.destination))
            for die, count in counts.items():
                most[die] = max(most[die], count * routes.experts.part_bytes(part))
    for data_rank in range(routes.actor.data):
        group = routes.actor.model_group(data_rank)
        for member, peak in enumerate(_group_peaks(routes, routes.dense.wants(data_rank))):
            most[group[member]] = max(most[group[member]], peak)
    return most


@functools.lru_cache(maxsize=256)
def _group_peaks(routes: Routes, wants: tuple[int, ...]) -> list[int]:
    most = [0] * len(wants)
    for shares in routes.dense.rounds(wants):
        on_the_way = [0] * len(wants)
        for share in shares:
            size = share.nbytes
            for member in (share.source, *share.audience):
                on_the_way[member] += size
        most = list(map(max, most, on_the_way))
    return most


@functools.lru_cache(maxsize=32)
def world(routes: Routes) -> World:
    """The figures of all dies."""
    experts, dense = _experts(routes), _dense(routes)
    actor = routes.actor
    groups = [
        [experts[rank].sent for rank in actor.expert_holders(stage, expert_rank)]
        for stage in range(actor.stages)
        for expert_rank in range(actor.expert)
    ]
    # Tensor ranks hold different slices, data parallel ranks the same.
    groups += [
        [dense[actor.member(stage, data_rank, tensor_rank)].sent for data_rank in range(actor.data)]
        for stage in range(actor.stages)
        for tensor_rank in range(actor.tensor)
    ]
    wants = {routes.dense.wants(data_rank) for data_rank in range(actor.data)}
    return World(
        experts,
        dense,
        len(routes.experts.rounds()),
        max(len(routes.dense.rounds(wanted)) for wanted in wants),
        max((max(sent) * len(sent) / sum(sent) for sent in groups if sum(sent)), default=1.0),
    )


def _experts(routes: Routes) -> tuple[Bytes, ...]:
    received: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    for wave in range(routes.experts.waves):
        for delivery in routes.experts.deliveries(wave):
            sent[delivery.source] += routes.experts.expert_bytes
            received[delivery.destination] += routes.experts.expert_bytes
    return _of_all_dies(routes.experts, routes.actor.dies, received, sent)


def _dense(routes: Routes) -> tuple[Bytes, ...]:
    received: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    groups: defaultdict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
    for data_rank in range(routes.actor.data):
        groups[routes.dense.wants(data_rank)].append(routes.actor.model_group(data_rank))
    for wants, alike in groups.items():
        for share in routes.dense.shares(wants):
            size = share.nbytes
            for group in alike:
                sent[group[share.source]] += size * len(share.audience)
                for member in share.audience:
                    received[group[member]] += size
    return _of_all_dies(routes.dense, routes.actor.dies, received, sent)


def _of_all_dies(
    kind: ExpertRoutes | DenseRoutes, dies: int, received: Counter[int], sent: Counter[int]
) -> tuple[Bytes, ...]:
    return tuple(
        Bytes(kind.needed_bytes(rank), kind.own_bytes(rank), received[rank], sent[rank]) for rank in range(dies)
    )
