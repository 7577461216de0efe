# SPDX-License-Identifier: Apache-2.0
"""The rollout's benchmark: its distributions are what it says, its steps follow the scheduler's rules by hand."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rollout
from benchmarks.rollout_steps import Answer, Rules, Step, replay

SMALL = ["--engines", "8", "--sequences", "16", "--samples", "16", "--sizes", "2", "4", "8", "16"]


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert rollout.main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_heavy_tail_of_the_full_size_takes_less_than_half_of_todays_padded_tokens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = measured(capsys)
    assert found["ratio"] <= 0.45
    assert found["ratio"] == found["padded_tokens_all"] / found["padded_tokens_today"]
    assert found["moved_requests"] > 0 and found["prefilled_again_tokens"] > 0
    assert found["lost_requests"] == found["duplicated_requests"] == 0
    modes = found["distributions"]["tail"]["modes"]
    assert modes["today"]["padded_tokens"] == 128 * 64 * sum(modes["today"]["decode_steps"].values())
    assert set(modes["today"]["decode_steps"]) == {"64"}
    # Each alone, on top of the graphs without which neither would save anything.
    for alone in ("spread", "balanced"):
        assert modes[alone]["padded_tokens"] < 0.75 * modes["sizes"]["padded_tokens"]
    assert modes["spread"]["moved_requests"] == 0


def test_without_correlation_spreading_saves_nothing_to_speak_of(capsys: pytest.CaptureFixture[str]) -> None:
    found = [measured(capsys, *SMALL, "--correlation", "0", "--seed", str(seed)) for seed in range(8)]
    shares = [
        one["distributions"]["tail"]["modes"]["spread"]["padded_tokens"]
        / one["distributions"]["tail"]["modes"]["sizes"]["padded_tokens"]
        for one in found
    ]
    assert statistics.mean(shares) == pytest.approx(1, abs=0.05)


def test_lengths_have_the_quantiles_means_and_correlation_that_are_asked_for() -> None:
    made = rollout.distributions(0.5)
    tail = made["tail"](2000, 16, 1)
    flat = sorted(length for row in tail.rows for length in row)
    assert flat[len(flat) // 2] == pytest.approx(4000, rel=0.05)
    assert flat[int(0.99 * len(flat))] == pytest.approx(32_000, rel=0.12)
    assert flat[-1] == tail.most == 32_768
    published = made["published"](2000, 16, 1)
    assert statistics.mean(length for row in published.rows for length in row) == pytest.approx(1385, rel=0.02)
    assert published.most == max(map(max, published.rows)) == 2048
    for correlation in (0, 0.5, 1):
        rows = rollout.log_normal(1000, 0.5, 1 << 30, correlation)(3000, 2, 2).rows
        logs = [[rollout.math.log(length) for length in column] for column in zip(*rows, strict=True)]
        assert statistics.correlation(*logs) == pytest.approx(correlation, abs=0.05)


def test_a_file_of_lengths(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "lengths"
    file.write_text("4 8\n2, 16\n")
    arguments = ["--engines", "2", "--sequences", "2", "--samples", "2", "--lengths", str(file)]
    row = measured(capsys, *arguments)["distributions"]["file"]
    # The first token of each comes with its prompt; then 15 steps of two engines with one graph for two.
    assert row["padded_tokens_today"] == 15 * 2 * 2
    file.write_text("4 8\n2\n")
    with pytest.raises(SystemExit, match="lengths:2: 1 lengths, and 2"):
        rollout.main(arguments)
    file.write_text("4 0\n")
    with pytest.raises(SystemExit, match="lengths:1: lengths are whole numbers"):
        rollout.main(arguments)


def test_pieces_of_prompts_go_beside_what_decodes() -> None:
    """A budget of 8: a prompt of 10 takes two steps, and what it leaves of the second one's budget goes to others."""
    trace: list[Step] = []
    answers = [Answer(0, 10, 3), Answer(1, 4, 2), Answer(2, 5, 1)]
    counts = replay([answers, [Answer(3, 2, 1)]], Rules((1, 4), budget=8, longest=9), trace)
    assert trace == [Step(0, (8, 2)), Step(0, (8, 1)), Step(0, (5, 1)), Step(1)]
    assert counts.finished == Counter(range(4))
    assert counts.mixed_padded == 2 * (8 + 8 + 5) and counts.padded_tokens == 2
    assert counts.idle == 3


def test_whole_prompts_go_before_anything_decodes_and_one_that_does_not_fit_is_passed_over() -> None:
    trace: list[Step] = []
    answers = [Answer(0, 6, 3), Answer(1, 4, 2), Answer(2, 2, 2)]
    replay([answers], Rules((1, 4), budget=8, longest=9, chunked=False), trace)
    assert trace == [Step(0, (8,)), Step(0, (4,)), Step(4), Step(1)]


def test_a_last_piece_of_one_token_runs_in_the_graph() -> None:
    trace: list[Step] = []
    replay([[Answer(0, 9, 2)], [Answer(1, 3, 5)]], Rules((1, 2), budget=8, longest=9), trace)
    assert trace == [Step(0, (8, 3)), Step(1), Step(1), Step(1), Step(1)]


def test_requests_that_move_bring_their_tokens_and_end_when_they_would_have() -> None:
    """Four long answers on one of four engines: three may leave, when what that saves is worth it."""
    trace: list[Step] = []
    long = [Answer(number, 4, 2000) for number in range(4)]
    rules = Rules((1, 4), budget=64, longest=2000, balanced=True)
    counts = replay([long, [Answer(4, 4, 1)], [], []], rules, trace)
    assert counts.moved == 3 and counts.finished == Counter(range(5))
    assert counts.prefilled_again == 3 * (4 + 33) and counts.mixed_steps == 2
    assert trace[:1] == [Step(0, (16, 4, 1, 1))]
    # One token after the prompts would save too little; the next look comes 32 steps later.
    assert trace[1:33] == [Step(4)] * 32
    assert trace[33] == Step(0, (1, 37, 37, 37))
    assert trace[34:] == [Step(1)] * (2000 - 34)
