# SPDX-License-Identifier: Apache-2.0
"""Requests that change real engines get the answers that they would have got, and engines take the steps of the replay.

Engines of vLLM-Ascend on simulated dies, in fp32, through verl's rollout with our patches.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rollout_steps import Answer, Rules, Step, replay
from recipe.tiny.sizes import SMALLEST
from tests.ranks import Ranks
from verl_patches.workers.rollout.vllm_rollout.balance import plan

SIZES, PROMPT, LONGEST = (2, 4, 8), 12, 40
# A budget below the longest sequence: prompts go in pieces, beside what decodes. Above: whole, and before it.
PIECES, WHOLE = 24, 256
# Answers are short here: moves must pay sooner, and are looked for more often.
WEIGHT, PAUSE = 0.2, 3
Found = list[list[dict[str, Any]]]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Found]]:
    """Runs generations on so many engines; returns what each rank found of each."""
    from recipe.tiny.config import tiny_config
    from recipe.tiny.tokenizer import save_tokenizer

    directory = tmp_path_factory.mktemp("balance")
    tiny_config(SMALLEST, num_hidden_layers=2).save_pretrained(directory / "model")
    save_tokenizer(directory / "model")
    ranks = Ranks("benchmarks.rollout_die", log=directory / "log")

    def generate(
        generations: list[dict[str, Any]], count: int, budget: int = PIECES, tp: int = 1, limit_s: float = 240
    ) -> Found:
        job = {
            "tp": tp,
            "sizes": list(SIZES),
            "prompt": PROMPT,
            "longest": LONGEST,
            "budget": budget,
            "prefill_weight": WEIGHT,
            "pause": PAUSE,
            "model": str(directory / "model"),
            "reference": {"seed": 5, "sizes": SMALLEST, "layers": 2},
            "out": str(directory / "found"),
            "generations": generations,
        }
        environment = {
            "VLLM_DP_SIZE": str(count),
            "VLLM_USE_V1": "1",
            "RECIPE_REQUEST_SEEDS": "1",
            "RECIPE_DP_SYNC_ON_DEVICE": "0",
            "NPU_SIM_HBM": "256MiB",
        }
        ranks.run(job, directory / "rank", ranks=count * tp, limit_s=limit_s, **environment)
        return [json.loads(Path(f"{job['out']}.{rank}.json").read_text()) for rank in range(count * tp)]

    yield generate
    ranks.close()


def asked_of(count: int, seed: int, *, tail: bool = False, greedy: bool = True) -> dict[str, Any]:
    """Prompts and lengths for each engine: at random, or with few long ones, most of them on one engine."""
    drawn = random.Random(seed)
    lengths = []
    for engine in range(count):
        rows = [drawn.randrange(1, LONGEST + 1) for _ in range(SIZES[-1])]
        if tail:
            long = drawn.randrange(3, SIZES[-1] + 1) if engine == seed % count else drawn.randrange(0, 2)
            rows = [LONGEST - drawn.randrange(4) if row < long else drawn.randrange(1, 6) for row in range(SIZES[-1])]
            drawn.shuffle(rows)
        lengths.append(rows)
    prompts = [[[drawn.randrange(8, 200) for _ in range(drawn.randrange(1, PROMPT))] for _ in rows] for rows in lengths]
    rows = [list(range(SIZES[-1] * engine, SIZES[-1] * (engine + 1))) for engine in range(count)]
    return {"prompts": prompts, "lengths": lengths, "rows": rows, "seed": seed, "greedy": greedy}


def require_equal(plain: dict[str, Any], moved: dict[str, Any], case: Any) -> None:
    assert moved["tokens"] == plain["tokens"], case
    assert moved["beyond"] == plain["beyond"] == 0, case
    for one, other in zip(moved["log_probs"], plain["log_probs"], strict=True):
        assert one == pytest.approx(other, abs=1e-5), case


def replayed(asked: dict[str, Any], budget: int, *, balanced: bool) -> tuple[Any, list[Step]]:
    trace: list[Step] = []
    answers = [
        [
            Answer(((engine + 1) << 32) | row, len(prompt), length)
            for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]
        for engine, (prompts, lengths) in enumerate(zip(asked["prompts"], asked["lengths"], strict=True))
    ]
    rules = Rules(SIZES, budget, LONGEST, chunked=budget < PROMPT + LONGEST, balanced=balanced)
    return replay(answers, rules, trace), trace


CASES = [(2, PIECES), (2, WHOLE), (4, PIECES)]


@pytest.mark.parametrize(("count", "budget"), CASES)
def test_real_engines_take_the_steps_of_the_replay_and_moved_requests_get_their_answers(
    engines: Callable[..., Found], monkeypatch: pytest.MonkeyPatch, count: int, budget: int
) -> None:
    monkeypatch.setattr(plan, "PREFILL_WEIGHT", WEIGHT)
    monkeypatch.setattr(plan, "PAUSE_STEPS", PAUSE)
    asked = [asked_of(count, seed, tail=True) for seed in range(4)]
    found = engines([one | {"kind": kind} for one in asked for kind in ("plain", "planned")], count, budget)
    moved = 0
    for number, one in enumerate(asked):
        for kind, balanced in enumerate((False, True)):
            counts, trace = replayed(one, budget, balanced=balanced)
            for rank in range(count):
                assert found[rank][2 * number + kind]["trace"] == [step.graph for step in trace], (number, kind, rank)
            gave = [found[rank][2 * number + kind]["moved"] for rank in range(count)]
            assert [sum(column) for column in zip(*gave, strict=True)] == [counts.moved, counts.prefilled_again]
            moved += counts.moved
        for rank in range(count):
            require_equal(found[rank][2 * number], found[rank][2 * number + 1], (number, rank))
    assert moved >= 4, "hardly anything moved"


@pytest.mark.parametrize("count", [2, 4])
def test_requests_that_move_at_random_get_their_answers(engines: Callable[..., Found], count: int) -> None:
    """Several times, and home again; greedily, and by their seeds."""
    require_equal_moves(engines, count, generations=3, least=20)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_thousand_hand_overs(engines: Callable[..., Found], count: int) -> None:
    require_equal_moves(engines, count, generations=60, least=500)


def require_equal_moves(engines: Callable[..., Found], count: int, generations: int, least: int) -> None:
    asked = [asked_of(count, 100 + seed, greedy=seed % 3 != 0) for seed in range(generations)]
    found = engines([one | {"kind": kind} for one in asked for kind in ("plain", "random")], count, limit_s=1500)
    for rank in range(count):
        for number in range(generations):
            require_equal(found[rank][2 * number], found[rank][2 * number + 1], (number, rank))
            assert found[rank][2 * number + 1]["moves"] > 0
    assert sum(one["plans"] for one in found[0]) >= least


def test_what_is_sampled_does_not_depend_on_engine_or_batch(engines: Callable[..., Found]) -> None:
    """The rows of two engines, dealt otherwise, and one of them with pieces of prompts where the other has none."""
    asked = asked_of(2, 7, greedy=False)
    shuffled = [(engine, row) for engine in range(2) for row in range(SIZES[-1])]
    random.Random(3).shuffle(shuffled)
    places = [shuffled[: SIZES[-1]], shuffled[SIZES[-1] :]]
    other = asked | {
        key: [[asked[key][engine][row] for engine, row in held] for held in places]
        for key in ("prompts", "lengths", "rows")
    }
    first = engines([asked | {"kind": "plain"}, other | {"kind": "planned"}], 2)
    whole = engines([asked | {"kind": "plain"}], 2, WHOLE)
    for engine in range(2):
        assert whole[engine][0]["tokens"] == first[engine][0]["tokens"]
        for place, (home, row) in enumerate(places[engine]):
            assert first[engine][1]["tokens"][place] == first[home][0]["tokens"][row]
    sampled = [tuple(tokens) for one in first for tokens in one[0]["tokens"]]
    again = engines([asked | {"kind": "plain", "seed": 8}], 2)
    assert sampled != [tuple(tokens) for one in again for tokens in one[0]["tokens"]]


def test_tensor_parallel_ranks_move_the_same(engines: Callable[..., Found]) -> None:
    asked = [asked_of(2, 300 + seed, greedy=seed == 0) for seed in range(2)]
    found = engines([one | {"kind": kind} for one in asked for kind in ("plain", "random")], 2, tp=2)
    for number in range(2):
        for rank in range(4):
            require_equal(found[rank][2 * number], found[rank][2 * number + 1], (number, rank))
            assert found[rank][2 * number + 1]["moves"] > 3
            assert found[rank][2 * number + 1]["tokens"] == found[rank - rank % 2][2 * number + 1]["tokens"]


PARTS = ["take", "give", "unpack", "take_output", "output_of"]


def test_a_rank_that_fails_stops_all_and_leaves_no_requests(engines: Callable[..., Found]) -> None:
    asked = asked_of(2, 11)
    fails = [{"fails": {"part": part, "rank": rank, "kill": False}} for part in PARTS for rank in range(2)]
    last = asked | {"kind": "random"}
    found = engines([asked | {"kind": "plain"}, *(last | one for one in fails), last], 2)
    for rank in range(2):
        for one, report in zip(fails, found[rank][1:-1], strict=True):
            part, failed_here = one["fails"]["part"], one["fails"]["rank"] == rank
            assert (f"no {part} today" if failed_here else "on another rank") in report["failed"], one
            assert report["left"] == 0
        require_equal(found[rank][0], found[rank][-1], "after all that")


@pytest.mark.parametrize("part", ["take", "exchange", "give"])
def test_when_a_rank_dies_the_others_do_not_wait(engines: Callable[..., Found], part: str) -> None:
    asked = asked_of(2, 11) | {"kind": "random", "fails": {"part": part, "rank": 1, "kill": True}}
    with pytest.raises(AssertionError, match=r"ranks \[0\] failed(.|\n)*onnection (closed|reset)"):
        engines([asked], 2, limit_s=120)
