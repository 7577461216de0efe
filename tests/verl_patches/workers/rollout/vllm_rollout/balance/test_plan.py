# SPDX-License-Identifier: Apache-2.0
"""A plan lets every engine of the domain decode with a smaller graph, at the least cost, or moves nothing."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_patches.workers.rollout.vllm_rollout.balance import plan
from verl_patches.workers.rollout.vllm_rollout.balance.plan import (
    PAUSE_STEPS,
    PREFILL_WEIGHT,
    Move,
    Plan,
    Running,
    Watch,
    could_drop,
    expected_rest,
    graph_for,
    plan_moves,
)

SIZES = (2, 4, 8, 16)


@st.composite
def domains(draw: st.DrawFn) -> list[list[Running]]:
    """What the engines of a domain run; some nothing."""
    counts = draw(st.lists(st.integers(0, 16), min_size=2, max_size=12).filter(any))
    numbers = itertools.count()
    tokens, rests = st.integers(1, 500), st.integers(1, 5000)
    return [[Running(next(numbers), draw(tokens), draw(rests)) for _ in range(count)] for count in counts]


def after(engines: list[list[Running]], moves: tuple[Move, ...]) -> list[set[int]]:
    held = [{one.request for one in running} for running in engines]
    for move in moves:
        held[move.source].remove(move.request)
        held[move.target].add(move.request)
    return held


@settings(max_examples=400, deadline=None)
@given(domains())
def test_the_largest_graph_drops_or_nothing_moves(engines: list[list[Running]]) -> None:
    made = plan_moves(engines, SIZES)
    present = graph_for(max(map(len, engines)), SIZES)
    held = after(engines, made.moves)
    assert sorted(itertools.chain(*held)) == sorted(one.request for running in engines for one in running)
    assert max(Counter(move.request for move in made.moves).values(), default=1) == 1
    if not made.moves:
        assert made == Plan(present)
        return
    assert made.size < present
    assert made.size == graph_for(max(map(len, held)), SIZES)
    assert made.saved > PREFILL_WEIGHT * made.cost > 0
    for engine, running in enumerate(engines):
        if any(move.target == engine for move in made.moves):
            assert len(running) < made.size, "what is full receives"
            assert not any(move.source == engine for move in made.moves), "what receives gives away"


@settings(max_examples=60, deadline=None)
@given(domains(), st.randoms(use_true_random=False))
def test_order_within_a_table_does_not_matter(engines: list[list[Running]], random: object) -> None:
    made = plan_moves(engines, SIZES)
    for running in engines:
        random.shuffle(running)  # type: ignore[attr-defined]
    assert plan_moves(engines, SIZES) == made
    assert plan_moves(engines, SIZES).digest == made.digest


@st.composite
def small_domains(draw: st.DrawFn) -> list[list[Running]]:
    counts = draw(st.lists(st.integers(0, 4), min_size=2, max_size=3).filter(any))
    numbers, tokens = itertools.count(), st.integers(1, 9)
    return [[Running(next(numbers), draw(tokens), 1000) for _ in range(count)] for count in counts]


@settings(max_examples=60, deadline=None)
@given(small_domains())
def test_no_other_way_to_the_same_graph_moves_fewer_requests_or_tokens(engines: list[list[Running]]) -> None:
    """Against all ways of placing the requests."""
    made = plan_moves(engines, (1, 2, 4))
    if not made.moves:
        return
    requests = [(one, source) for source, running in enumerate(engines) for one in running]
    fewest, cheapest = len(requests), sum(one.tokens for one, _ in requests)
    for places in itertools.product(range(len(engines)), repeat=len(requests)):
        if max(Counter(places).values()) > made.size:
            continue
        moved = [one for (one, source), place in zip(requests, places, strict=True) if source != place]
        fewest = min(fewest, len(moved))
        cheapest = min(cheapest, sum(one.tokens for one in moved))
    assert len(made.moves) == fewest
    assert sum(move.tokens for move in made.moves) == cheapest


def test_the_shortest_leave_and_the_longest_of_them_gets_a_receiver_of_its_own() -> None:
    full = [Running(number, tokens, 1000) for number, tokens in enumerate([9, 1, 8, 3, 7, 2, 6])]
    made = plan_moves([full, [Running(7, 5, 1000)], []], (4, 8))
    assert made == Plan(4, (Move(1, 0, 1, 1), Move(3, 0, 2, 3), Move(5, 0, 1, 2)), made.saved, 3)
    assert made.saved == pytest.approx(4 * 1000 * (1 / 5 + 1 / 6 + 1 / 7))


def test_what_would_cost_more_than_it_saves_stays() -> None:
    """Three requests on one of two engines: the first ends after 10 steps, each of which costs two tokens more."""

    def crowded(tokens: int) -> list[list[Running]]:
        return [[Running(number, tokens, 30) for number in range(3)], []]

    assert plan_moves(crowded(19), (2, 4)).moves
    assert not plan_moves(crowded(20), (2, 4)).moves


def test_of_two_smaller_graphs_the_one_that_saves_more_is_taken() -> None:
    empty: list[list[Running]] = [[], [], []]
    eight = [Running(number, 1000, 10_000) for number in range(8)]
    assert plan_moves([eight, *empty], (2, 4, 8)).size == 2
    assert plan_moves([eight, *empty], (1, 2, 4, 8)).size == 2, "eight do not fit four graphs for one"
    # Down to 2, an engine receives 12,000 tokens; down to 4, half of that.
    dear = [Running(number, 6000, 800) for number in range(8)]
    assert plan_moves([dear, *empty, [], [], []], (2, 4, 8)).size == 8
    assert plan_moves([dear[:5], [], [], []], (2, 4, 8)).size == 8


@given(st.lists(st.integers(0, 16), min_size=1, max_size=8))
def test_a_domain_that_could_drop_is_one_for_which_all_fit(counts: list[int]) -> None:
    present = graph_for(max(counts), SIZES)
    smaller = [size for size in SIZES if size < present and sum(counts) <= size * len(counts)]
    assert could_drop(counts, SIZES) == bool(smaller)


def test_more_requests_than_the_largest_graph_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="17 requests of one engine, and the largest graph is for 16"):
        graph_for(17, SIZES)


def test_an_answer_is_expected_to_get_as_long_again_but_no_longer_than_it_may() -> None:
    assert [expected_rest(5, 100), expected_rest(90, 10), expected_rest(0, 0)] == [5, 10, 1]


def test_the_watch_asks_when_all_decode_and_rests_after_a_plan_that_does_not_pay() -> None:
    watch = Watch(SIZES)
    assert watch.asks(0, [5, 1], prefilling=0)
    assert not watch.asks(0, [5, 1], prefilling=1)
    assert not watch.asks(0, [5, 5], prefilling=0)
    watch.planned(0, Plan(8))
    assert [watch.asks(step, [5, 1], 0) for step in (0, PAUSE_STEPS - 1, PAUSE_STEPS)] == [False, False, True]
    assert watch.quiet_steps(10) == PAUSE_STEPS - 10
    watch.planned(40, Plan(4, (Move(0, 0, 1, 1),)))
    assert watch.asks(41, [5, 1], 0)


def test_it_needs_nothing_heavy() -> None:
    code = f"import sys, {plan.__name__}; assert not {{'torch', 'numpy', 'vllm', 'verl'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
