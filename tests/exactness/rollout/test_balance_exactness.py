# SPDX-License-Identifier: Apache-2.0
"""Requests that change real engines get the answers that they would have got, and engines take the steps of the replay.

Engines of vLLM-Ascend on simulated dies, in fp32, through verl's rollout with our patches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.rollout import DIFFERENCES
from benchmarks.rollout_real import PIECES, SIZES, WHOLE, RealEngines, asked_of, compared


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngines]:
    made = RealEngines(tmp_path_factory.mktemp("balance"))
    yield made
    made.close()


def require_equal(plain: dict[str, Any], moved: dict[str, Any], case: Any) -> None:
    assert moved["tokens"] == plain["tokens"], case
    require_whole(plain, moved, case)


def require_whole(plain: dict[str, Any], moved: dict[str, Any], case: Any) -> int:
    """Every answer is of its length, with equal log-probabilities where its tokens are; how many have others."""
    assert moved["beyond"] == plain["beyond"] == 0, case
    others = 0
    for tokens, expected, log_probs, near in zip(
        moved["tokens"], plain["tokens"], moved["log_probs"], plain["log_probs"], strict=True
    ):
        assert len(tokens) == len(expected) == len(log_probs), case
        if tokens == expected:
            assert log_probs == pytest.approx(near, abs=1e-5), case
        else:
            others += 1
    return others


PROOF = pytest.mark.proves("vllm_ascend_patches.attention.mla_v1:build")
CASES = [pytest.param(2, PIECES, marks=PROOF), (2, WHOLE), (4, PIECES)]


@pytest.mark.parametrize(("count", "budget"), CASES)
def test_real_engines_take_the_steps_of_the_replay_and_moved_requests_get_their_answers(
    engines: RealEngines, count: int, budget: int
) -> None:
    found = compared(engines, count, budget)
    assert found["steps"] > 200 and found["answers"] == 4 * count * SIZES[-1]
    assert [found[key] for key in DIFFERENCES] == [0, 0, 0, 0]
    assert found["moved_requests"] >= 4 and found["prefilled_again_tokens"] > 0, "hardly anything moved"


@pytest.mark.parametrize("count", [2, 4])
def test_requests_that_move_at_random_get_their_answers(engines: RealEngines, count: int) -> None:
    """Several times, and home again; greedily, and by their seeds."""
    require_equal_moves(engines, count, generations=3, least=20)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_thousand_hand_overs(engines: RealEngines, count: int) -> None:
    require_equal_moves(engines, count, generations=60, least=500)


def require_equal_moves(engines: RealEngines, count: int, generations: int, least: int) -> None:
    """Greedily all tokens are equal. What is sampled lies now and then on the edge of two tokens.

    A prefill rounds otherwise than a decode, by about a millionth, and by as much an edge moves.
    """
    asked = [asked_of(count, 100 + seed, greedy=seed % 3 != 0) for seed in range(generations)]
    found = engines.generate(
        [one | {"kind": kind} for one in asked for kind in ("plain", "random")], count, limit_s=2400
    )
    others = 0
    for rank in range(count):
        for number, one in enumerate(asked):
            plain, moved = found[rank][2 * number : 2 * number + 2]
            if one["greedy"]:
                require_equal(plain, moved, (number, rank))
            others += require_whole(plain, moved, (number, rank))
            assert moved["moves"] > 0
            came_home, strangers = moved["experts"]
            assert came_home > 0 and strangers == 0
    assert others <= generations * count * SIZES[-1] // 200
    assert sum(one["plans"] for one in found[0]) >= least


@pytest.mark.proves("vllm_ascend_patches.worker.model_runner_v1:_update_states")
def test_what_is_sampled_does_not_depend_on_engine_or_batch(engines: RealEngines) -> None:
    """The rows of two engines, dealt otherwise, and one of them with pieces of prompts where the other has none."""
    asked = asked_of(2, 7, greedy=False)
    shuffled = [(engine, row) for engine in range(2) for row in range(SIZES[-1])]
    random.Random(3).shuffle(shuffled)
    places = [shuffled[: SIZES[-1]], shuffled[SIZES[-1] :]]
    other = asked | {
        key: [[asked[key][engine][row] for engine, row in held] for held in places]
        for key in ("prompts", "lengths", "rows")
    }
    first = engines.generate([asked | {"kind": "plain"}, other | {"kind": "planned"}], 2)
    whole = engines.generate([asked | {"kind": "plain"}], 2, WHOLE)
    for engine in range(2):
        assert whole[engine][0]["tokens"] == first[engine][0]["tokens"]
        for place, (home, row) in enumerate(places[engine]):
            assert first[engine][1]["tokens"][place] == first[home][0]["tokens"][row]
    sampled = [tuple(tokens) for one in first for tokens in one[0]["tokens"]]
    again = engines.generate([asked | {"kind": "plain", "seed": 8}], 2)
    assert sampled != [tuple(tokens) for one in again for tokens in one[0]["tokens"]]


def test_tensor_parallel_ranks_move_the_same_when_devices_agree(engines: RealEngines) -> None:
    asked = [asked_of(2, 300 + seed, greedy=seed == 0) for seed in range(2)]
    found = engines.generate(
        [one | {"kind": kind} for one in asked for kind in ("plain", "random")], 2, tp=2, by_devices=True
    )
    for number in range(2):
        for rank in range(4):
            require_equal(found[rank][2 * number], found[rank][2 * number + 1], (number, rank))
            assert found[rank][2 * number + 1]["moves"] > 3
            assert found[rank][2 * number + 1]["tokens"] == found[rank - rank % 2][2 * number + 1]["tokens"]


PARTS = ["take", "give", "unpack", "take_output", "output_of"]


def test_a_rank_that_fails_stops_all_and_leaves_no_requests(engines: RealEngines) -> None:
    asked = asked_of(2, 11)
    fails = [{"fails": {"part": part, "rank": rank, "kill": False}} for part in PARTS for rank in range(2)]
    last = asked | {"kind": "random"}
    found = engines.generate([asked | {"kind": "plain"}, *(last | one for one in fails), last], 2)
    for rank in range(2):
        for one, report in zip(fails, found[rank][1:-1], strict=True):
            part, failed_here = one["fails"]["part"], one["fails"]["rank"] == rank
            assert (f"no {part} today" if failed_here else "on another rank") in report["failed"], one
            assert report["left"] == 0
        require_equal(found[rank][0], found[rank][-1], "after all that")


@pytest.mark.parametrize("part", ["take", "exchange", "give"])
def test_when_a_rank_dies_the_others_do_not_wait(engines: RealEngines, part: str) -> None:
    asked = asked_of(2, 11) | {"kind": "random", "fails": {"part": part, "rank": 1, "kill": True}}
    with pytest.raises(AssertionError, match=r"ranks \[0\] failed(.|\n)*onnection (closed|reset)"):
        engines.generate([asked], 2, limit_s=120)
