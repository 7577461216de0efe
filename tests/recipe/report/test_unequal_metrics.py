# SPDX-License-Identifier: Apache-2.0
"""Two runs are compared by what follows from their seeds, to the last digit, and not by times, speeds and memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.report.metrics import read_steps, unequal_metrics

MEASURED = (
    *("timing_s/step", "timing_s/generation_timing/max", "timing_per_token_ms/gen", "perf/throughput"),
    *("perf/time_per_step", "perf/mfu/actor", "perf/max_memory_allocated_gb", "perf/cpu_memory_used_gb"),
    "reward/lost_workers",
)
TRAINED = (
    *("actor/grad_norm", "actor/lr", "critic/score/mean", "training/epoch", "perf/total_num_tokens"),
    *("global_seqlen/mean", "response_length/max", "reward/correct", "val-core/sums/acc/mean@8", "rollout_corr/kl"),
)


def unequal(directory: Path, left: dict[int, dict[str, float]], right: dict[int, dict[str, float]]) -> list[str]:
    for name, steps in (("one", left), ("other", right)):
        lines = [json.dumps({"step": step, "data": data}) + "\n" for step, data in steps.items()]
        (directory / name).write_text("".join(lines), encoding="utf-8")
    return unequal_metrics(read_steps(directory / "one"), read_steps(directory / "other"))


@pytest.mark.parametrize("name", MEASURED)
def test_what_the_machine_did_may_differ(tmp_path: Path, name: str) -> None:
    assert unequal(tmp_path, {1: {name: 1.0}}, {1: {name: 2.0}}) == []


@pytest.mark.parametrize("name", TRAINED)
def test_the_last_digit_counts(tmp_path: Path, name: str) -> None:
    lines = unequal(tmp_path, {1: {name: 0.1}, 2: {name: 0.3}}, {1: {name: 0.1}, 2: {name: 0.1 + 0.2}})
    assert lines == [f"step 2: {name} is 0.3 and 0.30000000000000004"]


def test_a_step_or_a_metric_that_only_one_has_is_unequal(tmp_path: Path) -> None:
    lines = unequal(tmp_path, {1: {"a": 1.0, "b": 2.0}, 2: {}}, {1: {"a": 1.0}, 3: {}})
    assert lines == [
        "step 2: only one of them has it",
        "step 3: only one of them has it",
        "step 1: b is 2.0 and None",
    ]


def test_not_a_number_is_equal_to_itself(tmp_path: Path) -> None:
    assert unequal(tmp_path, {1: {"a": float("nan")}}, {1: {"a": float("nan")}}) == []
    assert unequal(tmp_path, {1: {"a": float("nan")}}, {1: {"a": 1.0}}) == ["step 1: a is nan and 1.0"]
