# SPDX-License-Identifier: Apache-2.0
"""The routes carried out on arrays of element numbers, for layouts of all kinds."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from recipe.plan.routes import peak_bytes, world
from tests.verl_patches.utils.routes.engines import (
    PADDING,
    Array,
    TinySizes,
    actor_parameters,
    model,
    rollout_parameters,
)
from verl_patches.utils.routes.layouts import ActorLayout, LayoutError, RolloutLayout
from verl_patches.utils.routes.routes import RankPlan, Round, Routes
from verl_patches.utils.routes.spans import Exchange, Slice, Span, actor_slice, rollout_slice


@dataclasses.dataclass(frozen=True)
class Case:
    """Two layouts of a model, and the bound on what a die has on the way."""

    sizes: TinySizes
    actor: ActorLayout
    rollout: RolloutLayout
    buffer_bytes: int = 4096

    def routes(self) -> Routes:
        return Routes(self.sizes, self.actor, self.rollout, self.buffer_bytes)


def divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    stage_layers = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    tensor, data = draw(st.sampled_from([1, 1, 2, 4])), draw(st.sampled_from([1, 2, 3, 4]))
    dies = len(stage_layers) * tensor * data
    assume(dies <= 16)
    expert = draw(st.sampled_from(divisors(tensor * data)))
    rollout_tensor = draw(st.sampled_from([size for size in (1, 2, 4) if dies % size == 0]))
    instances = draw(st.sampled_from(divisors(dies // rollout_tensor)))
    experts = expert * draw(st.integers(1, 4))
    assume(experts >= dies // instances)
    dense_layers = draw(st.integers(0, 2))
    assume(dense_layers < sum(stage_layers))
    sizes = TinySizes(
        layers=sum(stage_layers),
        dense_layers=dense_layers,
        experts=experts,
        shared_experts=draw(st.sampled_from([0, 1, 2])),
        q_lora_rank=draw(st.sampled_from([4, None])),
        vocabulary=draw(st.sampled_from([4, 60, 64, 100])),
    )
    return Case(
        sizes,
        ActorLayout(dies, tensor, expert, stage_layers),
        RolloutLayout(dies, rollout_tensor, instances, draw(st.booleans())),
        draw(st.integers(2000, 16000)),
    )


# Uneven stages, the expert parallel size from 2 to 8; two instances; two holders of each expert; tensor parallel both.
UNEVEN = Case(TinySizes(layers=6), ActorLayout(8, 1, 2, (1, 2, 2, 1)), RolloutLayout(8, 1, 1))
INSTANCES = Case(TinySizes(layers=4, dense_layers=0), ActorLayout(8, 1, 4, (1, 3)), RolloutLayout(8, 2, 2))
HOLDERS = Case(TinySizes(layers=5), ActorLayout(16, 2, 2, (3, 2)), RolloutLayout(16, 4, 2), 700)
REMAINDER = Case(TinySizes(layers=3, experts=10), ActorLayout(8, 4, 2, (3,)), RolloutLayout(8, 2, 2))


def place(parameters: dict[str, Array], where: Slice) -> Array:
    """The view of a slice, which must lie within its parameter."""
    whole = parameters[where.parameter]
    array = whole if where.entry is None else whole[where.entry]
    assert where.first >= 0 and where.first + where.length <= array.shape[where.axis], where
    return array[(slice(None),) * where.axis + (slice(where.first, where.first + where.length),)]


def exchanges(plan: RankPlan) -> Iterator[tuple[str, Round, Exchange, bool]]:
    """Kind, round and exchange, and whether the rank sends it."""
    for kind, rounds in (("experts", plan.experts), ("dense", plan.dense)):
        for round_ in rounds:
            yield from ((kind, round_, exchange, True) for exchange in round_.sends)
            yield from ((kind, round_, exchange, False) for exchange in round_.receives)


class Carried:
    """The plans of all ranks, each worked out on its own, carried out on arrays."""

    def __init__(self, case: Case) -> None:
        self.case, tensors = case, model(case.sizes)
        ranks = range(case.actor.dies)
        self.plans = [case.routes().of_rank(rank) for rank in ranks]
        self.held = [actor_parameters(tensors, case.sizes, case.actor, rank) for rank in ranks]
        self.needed = [rollout_parameters(tensors, case.sizes, case.rollout, rank) for rank in ranks]
        self.got = [
            {name: np.full_like(array, PADDING) for name, array in parameters.items()} for parameters in self.needed
        ]
        self.times = [{name: np.zeros_like(array) for name, array in parameters.items()} for parameters in self.needed]
        self.travelled: list[list[Array]] = [[] for _ in ranks]
        posted: dict[tuple[Any, ...], tuple[tuple[Span, ...], list[Array]]] = {}
        for plan in self.plans:
            for span in plan.own:
                self._arrive(plan.rank, span, self._taken(plan.rank, span))
            for kind, round_, exchange, sent in exchanges(plan):
                if not sent:
                    continue
                values = [self._taken(plan.rank, span) for span in exchange.spans]
                for destination in exchange.audience:
                    key = (kind, round_.number, plan.rank, destination, exchange.spans[0])
                    assert key not in posted
                    posted[key] = (exchange.spans, values)
        for plan in self.plans:
            for kind, round_, exchange, sent in exchanges(plan):
                if sent:
                    continue
                spans, values = posted.pop((kind, round_.number, exchange.source, plan.rank, exchange.spans[0]))
                assert spans == exchange.spans
                for span, value in zip(spans, values, strict=True):
                    self._arrive(plan.rank, span, value)
                    self.travelled[plan.rank].append(value.ravel())
        self.unclaimed = posted

    def _taken(self, rank: int, span: Span) -> Array:
        value = place(self.held[rank], actor_slice(span, self.case.actor, rank, self.case.sizes))
        assert value.size * span.tensor.item_bytes == span.nbytes
        return value

    def _arrive(self, rank: int, span: Span, value: Array) -> None:
        where = rollout_slice(span, self.case.rollout, rank, self.case.sizes)
        place(self.got[rank], where)[...] = value
        place(self.times[rank], where)[...] += 1


@settings(deadline=None, max_examples=40)
@example(UNEVEN)
@example(INSTANCES)
@example(HOLDERS)
@example(REMAINDER)
@given(cases())
def test_every_element_arrives_once_where_it_is_needed_and_nothing_else_travels(case: Case) -> None:
    carried = Carried(case)
    assert not carried.unclaimed, "what one rank sends, another expects"
    for rank in range(case.actor.dies):
        for name, needed in carried.needed[rank].items():
            assert (carried.got[rank][name] == needed).all(), (rank, name)
            assert (carried.times[rank][name] == (needed != PADDING)).all(), (rank, name)
        shapes = (case.routes().actor_shapes(rank), case.routes().rollout_shapes(rank))
        for parameters, counted_on in zip((carried.held[rank], carried.needed[rank]), shapes, strict=True):
            assert {name: array.shape for name, array in parameters.items()} == counted_on
        held = np.unique(np.concatenate([array.ravel() for array in carried.held[rank].values()]))
        travelled = np.concatenate([*carried.travelled[rank], np.empty(0, np.int64)])
        assert not np.isin(travelled, held).any(), "what a die holds itself does not travel"


@settings(deadline=None, max_examples=40)
@example(UNEVEN)
@example(HOLDERS)
@given(cases())
def test_no_die_has_more_on_the_way_than_the_buffer_holds(case: Case) -> None:
    routes = case.routes()
    for rank in range(case.actor.dies):
        plan = routes.of_rank(rank)
        assert all(round_.buffer_bytes <= case.buffer_bytes for round_ in plan.all_rounds)
        assert [round_.number for round_ in plan.experts] == sorted({round_.number for round_ in plan.experts})


@settings(deadline=None, max_examples=25)
@example(INSTANCES)
@example(HOLDERS)
@given(cases())
def test_the_ledgers_of_all_ranks_add_up_to_nothing_unless_one_disagrees(case: Case) -> None:
    plans = [case.routes().of_rank(rank) for rank in range(case.actor.dies)]
    assert sum(plan.ledger for plan in plans) % 2**64 == 0
    assert len({plan.fingerprint for plan in plans}) == 1
    other = dataclasses.replace(case, buffer_bytes=case.buffer_bytes + 100).routes().of_rank(0)
    assert other.fingerprint != plans[0].fingerprint
    if other.all_rounds != plans[0].all_rounds:
        assert (sum(plan.ledger for plan in plans[1:]) + other.ledger) % 2**64 != 0


@settings(deadline=None, max_examples=40)
@example(UNEVEN)
@example(INSTANCES)
@example(HOLDERS)
@given(cases())
def test_the_figures_of_the_world_are_those_of_its_ranks(case: Case) -> None:
    routes = case.routes()
    figures, travelled, peaks = world(routes), Counter[str](), peak_bytes(routes)
    for rank, (experts, dense) in enumerate(zip(figures.experts, figures.dense, strict=True)):
        plan = routes.of_rank(rank)
        assert experts.received + dense.received == plan.received_bytes
        assert experts.sent + dense.sent == plan.sent_bytes
        assert experts.own + dense.own == sum(span.nbytes for span in plan.own)
        for kind in (experts, dense):
            assert kind.received == kind.needed - kind.own, "the least that can be received"
        travelled["received"] += plan.received_bytes
        travelled["sent"] += plan.sent_bytes
        assert peaks[rank] == max((round_.buffer_bytes for round_ in plan.all_rounds), default=0)
        assert all(round_.number < figures.expert_rounds for round_ in plan.experts)
        assert all(round_.number < figures.dense_rounds for round_ in plan.dense)
    assert travelled["received"] == travelled["sent"]


def test_the_dies_that_hold_the_same_experts_take_turns() -> None:
    # Four holders of each expert, on one stage of six layers, and one instance: each expert goes to one die, which is
    # a holder itself for some.
    case = Case(TinySizes(layers=12, dense_layers=0), ActorLayout(8, 1, 2, (12,)), RolloutLayout(8, 1, 1))
    sent = [die.sent for die in world(case.routes()).experts]
    assert max(sent) <= 1.05 * sum(sent) / len(sent)


def test_a_wave_is_arranged_in_as_many_rounds_as_its_busiest_die_needs() -> None:
    """One expert at a time each way: 16 dies, four stages of four, four experts a die, each for one of all dies."""
    sizes = TinySizes(layers=4, dense_layers=0, experts=16)
    expert_bytes = 3 * sizes.moe_intermediate * sizes.hidden * 2
    case = Case(sizes, ActorLayout(16, 1, 4, (1, 1, 1, 1)), RolloutLayout(16, 1, 1), 2 * expert_bytes)
    deliveries = case.routes().experts.deliveries(0)
    busiest = max(
        max(Counter(delivery.source for delivery in deliveries).values()),
        max(Counter(delivery.destination for delivery in deliveries).values()),
    )
    assert world(dataclasses.replace(case, buffer_bytes=4096).routes()).expert_rounds < busiest
    assert len(case.routes().experts.rounds()) == busiest


def test_an_expert_larger_than_the_buffer_travels_in_parts() -> None:
    sizes = TinySizes(layers=2, dense_layers=0, hidden=64, moe_intermediate=32)
    expert_bytes = 3 * 64 * 32 * 2
    case = Case(sizes, ActorLayout(2, 1, 2, (2,)), RolloutLayout(2, 1, 2), expert_bytes)
    plan = case.routes().of_rank(0)
    assert max(round_.buffer_bytes for round_ in plan.experts) <= expert_bytes
    assert {exchange.nbytes for round_ in plan.experts for exchange in round_.sends} == {expert_bytes // 2}


def test_pipeline_peers_that_want_the_same_are_one_audience() -> None:
    """Stages of four dies, which are a multiple of the rollout's tensor parallel 2: every share is for all peers."""
    case = Case(TinySizes(layers=6), ActorLayout(12, 1, 4, (2, 2, 2)), RolloutLayout(12, 2, 3), 2**20)
    for rank in range(12):
        for round_ in case.routes().of_rank(rank).dense:
            for exchange in (*round_.sends, *round_.receives):
                members = sorted((exchange.source, *exchange.audience))
                assert members == [rank % 4, rank % 4 + 4, rank % 4 + 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actor": ActorLayout(8, 1, 2, (1, 1))}, "the stages have 2 layers together, the model 6"),
        ({"rollout": RolloutLayout(16, 1, 1)}, "laid out on 8 dies, the rollout on 16"),
        ({"sizes": TinySizes(layers=6, experts=7)}, "7 experts are not a multiple of the actor's expert parallel 2"),
        ({"sizes": TinySizes(layers=6, experts=4)}, "has 8 dies, more than the 4 experts"),
        ({"sizes": TinySizes(layers=6, heads=3), "rollout": RolloutLayout(8, 2, 1)}, "q_b_proj.weight: 9 along axis 0"),
        ({"buffer_bytes": 60}, "index of model.* raise the buffer"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        dataclasses.replace(UNEVEN, **change).routes().of_rank(0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ActorLayout(8, 3, 1, (1,)), "8 dies are not a multiple of 1 stages x tensor parallel 3"),
        (lambda: ActorLayout(8, 1, 1, (1, 0)), "every size must be 1 or more"),
        (lambda: RolloutLayout(8, 2, 3), "8 dies are not a multiple of 3 instances x tensor parallel 2"),
    ],
)
def test_layouts_that_do_not_divide_are_refused(build: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        build()


def test_the_coordinates_are_a_numbering_of_all_dies() -> None:
    for actor in (UNEVEN.actor, HOLDERS.actor, REMAINDER.actor):
        ranks = [rank for data in range(actor.data) for rank in actor.model_group(data)]
        assert sorted(ranks) == list(range(actor.dies))
        holders = [
            actor.expert_holders(*place) for place in itertools.product(range(actor.stages), range(actor.expert))
        ]
        assert sorted(itertools.chain(*holders)) == list(range(actor.dies))
